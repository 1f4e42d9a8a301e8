"""The one error that bad input raises, and what becomes of a row that cannot be finished."""

from __future__ import annotations

import re


class InputError(ValueError):
    """Bad input from a user: says where it is, what is wrong and how to mend it.

    The command line prints it in one piece and exits with code 2. Our own mistakes are assertions, never this.

    Args:
        where: the file, row, key or resource at fault, as the user knows it.
        problem: what is wrong with it, in a clause.
        mend: what to do about it, in a clause.
    """

    def __init__(self, where: str, problem: str, mend: str):
        super().__init__(where, problem, mend)
        self.where, self.problem, self.mend = where, problem, mend

    def __str__(self) -> str:
        return f"{self.where}: {self.problem}. {self.mend}"


class TooFewRows(InputError):  # noqa: N818
    """A run that is too small for an analysis, though nothing is wrong with it."""


def describe(error: BaseException, limit: int = 300) -> str:
    """One line about an exception, short enough for a row's `reason` column."""
    text = " ".join(str(error).split())
    text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return text if len(text) <= limit else text[: limit - 3] + "..."


def input_error_in(error: BaseException) -> InputError | None:
    """The InputError behind an exception that crossed a process border, where only its text may be left."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, InputError):
            return seen
        seen = getattr(seen, "cause", None) or seen.__cause__
    if storage := re.search(
        r"OSError: .*(No space left on device|Read-only file system|Permission denied).*", str(error)
    ):
        return InputError("storage", f"cannot be written ({storage[1]})", "Free space, then run again to go on")
    found = re.search(r"conceptcaps\.errors\.InputError: (.+)", str(error))
    if not found:
        return None
    where, _, rest = found[1].partition(": ")
    problem, _, mend = rest.partition(". ")
    return InputError(where, problem, mend)
