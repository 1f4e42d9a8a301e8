"""SIGTERM: stop feeding, let the rows under way end and be written within a grace period, then leave with exit code 0.

A preempted node, `ray job stop`, Slurm and Kubernetes all send SIGTERM some seconds before SIGKILL. Outside the
streaming plan the signal ends the job at once: the stages before and after it are short, and written whole.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Drained(Exception):  # noqa: N818
    """Not an error: the job was asked to stop and has; what is written is whole, and the next start makes the rest."""


class _State:
    """Whether this process was asked to stop, and until when rows under way may take."""

    def __init__(self) -> None:
        self.grace = 0.0
        self.plans = 0
        self.asked: float | None = None
        self._lock = threading.Lock()

    def ask(self, grace: float | None = None) -> None:
        with self._lock:
            if self.asked is None:
                self.asked = time.monotonic()
            if grace is not None:
                self.grace = grace

    @property
    def is_over(self) -> bool:
        return self.asked is not None and time.monotonic() - self.asked > self.grace


STATE = _State()


@contextmanager
def draining_on_sigterm(grace: float) -> Iterator[None]:
    """Inside, SIGTERM drains. Only the main thread of a process can catch signals; elsewhere nothing changes.

    Raises:
        Drained: on SIGTERM, once the rows under way are written or the grace period is over.
    """
    STATE.grace, STATE.asked = grace, None
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(_: int, __: FrameType | None) -> None:
        STATE.ask()
        if not STATE.plans:
            raise Drained("asked to stop")

    before = signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        STATE.asked = None


def stop_at_once() -> None:
    """Drain without grace: what is under way can no longer be written."""
    STATE.ask(grace=0.0)
