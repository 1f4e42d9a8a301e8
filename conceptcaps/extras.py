"""Optional packages: one message for a missing one, with the command that mends it."""

from __future__ import annotations

import importlib
from types import ModuleType

from conceptcaps.errors import InputError


def require(module: str, extra: str) -> ModuleType:
    """Import `module`, or say which extra of this package brings it.

    Raises:
        InputError: the module, or one that it needs, is not installed.
    """
    return import_or_mend(module, f"Install it with: pip install 'conceptcaps[{extra}]'")


def import_or_mend(module: str, mend: str) -> ModuleType:
    """Import `module`, or say how to get it.

    Raises:
        InputError: the module, or one that it needs, is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(f"package {module!r}", f"cannot be imported ({error})", mend) from error
