"""One bad row must cost one row: call an engine on a batch, and row by row where the batch raises."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from conceptcaps.engines import Batch
from conceptcaps.errors import InputError, describe
from conceptcaps.schema import FAILED, reason

logger = logging.getLogger(__name__)

Row = dict[str, Any]
Answer = TypeVar("Answer")


def to_batch(rows: Iterable[Row]) -> Batch:
    """Rows to the columns that an engine takes."""
    rows = list(rows)
    return {name: [row.get(name) for row in rows] for name in rows[0]} if rows else {}


def pending(rows: Iterable[Row]) -> list[Row]:
    """The rows that are still on their way: those no earlier step has ended."""
    return [row for row in rows if row.get("status") is None]


def fail(row: Row, stage: str, error: BaseException, run_id: str = "") -> None:
    """End a row as failed, with the error in its reason."""
    ids = {"row_id": row.get("id"), "run_id": run_id}
    logger.warning("row %s failed in %s: %s", row.get("id"), stage, describe(error), extra=ids)
    row["status"], row["reason"] = FAILED, reason(stage, "error", describe(error))


def answers(
    call: Callable[[list[Row]], list[Answer]], rows: list[Row], stage: str, run_id: str = ""
) -> list[tuple[Row, Answer]]:
    """Each row with the engine's answer; a row whose own call raises is ended as failed and left out.

    A wrong number of answers is the engine's mistake and is raised. So is an InputError: the configuration is at
    fault, and every other row would fail alike.
    """
    if not rows:
        return []
    try:
        found = call(rows)
    except InputError:
        raise
    except Exception as error:
        _leave_if_dead(error, stage)
        if len(rows) == 1:
            fail(rows[0], stage, error, run_id)
            return []
        logger.warning("%s: a batch of %d raised (%s), trying its rows one by one", stage, len(rows), describe(error))
        return [pair for row in rows for pair in answers(call, [row], stage, run_id)]
    assert len(found) == len(rows), f"{stage} gave {len(found)} answers to {len(rows)} rows"
    return list(zip(rows, found, strict=True))


def _leave_if_dead(error: Exception, stage: str) -> None:
    """End the process whose GPU has failed for good: every later row would fail in it, and none in a fresh one.

    Ray restarts the worker; the guard counts how often a row was there.
    """
    if type(error).__name__ != "AcceleratorError":
        return
    from conceptcaps.devices import is_out_of_memory  # torch, which such an error has loaded

    if not is_out_of_memory(error):
        logger.critical("%s: the GPU is lost to this process (%s)", stage, describe(error))
        os._exit(1)
