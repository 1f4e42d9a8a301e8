"""The streaming plan as a discrete-event simulation: what the closed formula of a plan is checked against.

Nothing is averaged here: every task waits for its rows, for a worker and for room downstream, and task times may
vary. A pool stops handing on when the next one has as much waiting as Ray Data lets it have.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from conceptcaps.planning.pools import Pool

TASKS_IN_FLIGHT = 2
"""Tasks that Ray Data hands to an actor at a time: the one it does and the next."""


@dataclass(frozen=True)
class Trace:
    """What happened."""

    seconds: float
    busy: tuple[float, ...]
    """By pool: worker-seconds spent on rows."""
    peak_rows: tuple[int, ...]
    """By pool: most rows that waited for it or were in its workers at once."""


@dataclass
class _Line:
    """A pool with what waits for it."""

    pool: Pool
    waiting: int = 0
    """Rows."""
    working: int = 0
    """Rows in workers."""
    idle: int = 0
    busy: float = 0.0
    peak: int = 0
    left: int = 0
    """Rows that have not entered a worker yet."""
    done: list[int] = field(default_factory=list)
    """Rows of tasks that are finished and wait for room downstream, each still holding its worker."""

    @property
    def room(self) -> int:
        return self.pool.workers * TASKS_IN_FLIGHT * self.pool.task_rows - self.waiting - self.working

    def next_task(self) -> int:
        """Rows of the task that can begin now; 0 if none."""
        ready = self.waiting >= self.pool.task_rows or (0 < self.waiting == self.left)
        return min(self.waiting, self.pool.task_rows) if self.idle and ready else 0


def simulate(pools: Sequence[Pool], rows: int, block_rows: int, spread: float = 0.0, seed: int = 0) -> Trace:
    """Send rows through the pools, block by block.

    Args:
        rows: how many.
        block_rows: rows of a block as it is read.
        spread: standard deviation of the logarithm of task times; the mean stays what the pool says.
        seed: of the task times.
    """
    return _Simulation(pools, rows, block_rows, spread, seed).run()


class _Simulation:
    def __init__(self, pools: Sequence[Pool], rows: int, block_rows: int, spread: float, seed: int):
        self.lines = [_Line(pool, left=rows) for pool in pools]
        self.unread, self.block_rows = rows, block_rows
        self.spread, self.rng = spread, np.random.default_rng(seed)
        self.events: list[tuple[float, int, int, int]] = []  # when, order, pool, rows (0: its workers are up)
        self.order = 0

    def run(self) -> Trace:
        for i, line in enumerate(self.lines):
            self._at(line.pool.startup, i, 0)
        now = 0.0
        self._settle(now)
        while self.events:
            now, _, i, rows = heapq.heappop(self.events)
            line = self.lines[i]
            if rows:
                line.done.append(rows)
            else:
                line.idle = line.pool.workers
            self._settle(now)
        return Trace(now, tuple(line.busy for line in self.lines), tuple(line.peak for line in self.lines))

    def _at(self, when: float, pool: int, rows: int) -> None:
        heapq.heappush(self.events, (when, self.order, pool, rows))
        self.order += 1

    def _settle(self, now: float) -> None:
        """Everything that can move at this moment, from the end of the line backwards."""
        moved = True
        while moved:
            moved = False
            for i in reversed(range(len(self.lines))):
                moved |= self._hand_on(i)
                moved |= self._begin(i, now)
            moved |= self._read()

    def _read(self) -> bool:
        rows = min(self.block_rows, self.unread)
        if not rows or self.lines[0].room < rows:
            return False
        self.unread -= rows
        self._arrive(self.lines[0], rows)
        return True

    def _arrive(self, line: _Line, rows: int) -> None:
        line.waiting += rows
        line.peak = max(line.peak, line.waiting + line.working)

    def _hand_on(self, i: int) -> bool:
        line, last, moved = self.lines[i], i == len(self.lines) - 1, False
        while line.done and (last or self.lines[i + 1].room >= line.done[0] or not self._holds(i + 1)):
            rows = line.done.pop(0)
            line.idle, line.working, moved = line.idle + 1, line.working - rows, True
            if not last:
                self._arrive(self.lines[i + 1], rows)
        return moved

    def _holds(self, i: int) -> int:
        return self.lines[i].waiting + self.lines[i].working

    def _begin(self, i: int, now: float) -> bool:
        line, moved = self.lines[i], False
        while rows := line.next_task():
            seconds = rows * line.pool.seconds * self._factor()
            line.waiting, line.left = line.waiting - rows, line.left - rows
            line.working, line.idle, line.busy = line.working + rows, line.idle - 1, line.busy + seconds
            self._at(now + seconds, i, rows)
            moved = True
        return moved

    def _factor(self) -> float:
        if not self.spread:
            return 1.0
        return math.exp(self.rng.normal(-(self.spread**2) / 2, self.spread))
