"""Storage that errs: what may pass is tried again, what will not is raised at once."""

from __future__ import annotations

import errno

import pytest

from conceptcaps.retrying import ATTEMPTS, is_transient, with_retries


def failing(times: int, error: OSError):
    calls = []

    def call():
        calls.append(1)
        if len(calls) <= times:
            raise error
        return len(calls)

    return call, calls


def test_what_passes_is_waited_for_longer_each_time():
    pauses: list[float] = []
    call, _ = failing(3, OSError("AWS Error SLOW_DOWN"))
    assert with_retries(call, "reading", pauses.append) == 4
    assert len(pauses) == 3
    assert pauses[0] < pauses[2]


def test_it_ends():
    call, calls = failing(100, ConnectionError("reset by peer"))
    with pytest.raises(ConnectionError):
        with_retries(call, "reading", lambda _: None)
    assert len(calls) == ATTEMPTS


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError("x"),
        PermissionError("x"),
        OSError(errno.ENOSPC, "No space left on device"),
        OSError("AWS Error ACCESS_DENIED during PutObject: Access Denied"),
    ],
)
def test_what_will_not_mend_itself_is_raised_at_once(error):
    call, calls = failing(100, error)
    with pytest.raises(OSError):
        with_retries(call, "reading", lambda _: None)
    assert len(calls) == 1
    assert not is_transient(error)
