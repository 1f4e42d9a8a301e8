"""Storage that errs now and then: try again after a pause, but not where trying again cannot help."""

from __future__ import annotations

import errno
import logging
import random
import time
from collections.abc import Callable
from typing import TypeVar

from conceptcaps.errors import describe

logger = logging.getLogger(__name__)

ATTEMPTS = 6
PAUSE = 0.2
"""Seconds before the second attempt; each later pause is twice as long, give or take half: 6 s in all."""
_LASTING = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.ENOTDIR}

Answer = TypeVar("Answer")


def is_transient(error: OSError) -> bool:
    """Whether the same call may succeed later: a full or read-only disk, a missing file or right will not mend itself.

    Object stores put HTTP's words into an OSError without a number; only refusals are recognised there.
    """
    if isinstance(error, FileNotFoundError | FileExistsError | PermissionError | IsADirectoryError):
        return False
    if error.errno in _LASTING:
        return False
    text = str(error).lower()
    return not any(word in text for word in ("access denied", "forbidden", "no such bucket", "no space left"))


def with_retries(call: Callable[[], Answer], what: str, sleep: Callable[[float], None] = time.sleep) -> Answer:
    """`call()`, again where it raises an OSError that may pass.

    Args:
        what: what is being done, for the log.

    Raises:
        OSError: of the last attempt, or the first that is not transient.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return call()
        except OSError as error:
            if attempt == ATTEMPTS or not is_transient(error):
                raise
            pause = PAUSE * 2 ** (attempt - 1) * random.uniform(0.5, 1.5)
            logger.warning("%s: %s; attempt %d in %.1f s", what, describe(error, 120), attempt + 1, pause)
            sleep(pause)
    raise AssertionError("unreachable")
