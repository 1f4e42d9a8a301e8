"""Rows that kill their worker: found by narrowing down, given up by id, at no cost to healthy workers.

Ray restarts a dead worker and gives it the same rows again, without end and without a word about the reason. So a
worker that was restarted becomes careful: it leaves a marker (a file in the run directory that names the rows) while
it calls its engine, and takes it away afterwards. A marker whose writer is dead names suspects. These are tried in
pieces of about the square root of their number and then one by one; a row that kills its worker alone
`max_deaths` times is failed without being tried again. A worker that was never restarted writes nothing.
"""

from __future__ import annotations

import logging
import math
import posixpath
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import ray

from conceptcaps.errors import describe
from conceptcaps.rundir import RunDir
from conceptcaps.schema import FAILED, reason

logger = logging.getLogger(__name__)

FOLDER = "begun"
Row = dict[str, Any]


@dataclass(frozen=True)
class Watch:
    """What a worker needs to know of the job to guard its rows; travels to the workers."""

    run: RunDir
    run_id: str
    attempt: int
    session: str
    """Of this start of the job: markers of earlier ones are of the dead."""
    max_deaths: int

    def folder(self, stage: str) -> tuple[str, ...]:
        return (FOLDER, f"attempt-{self.attempt}", stage)

    def forget(self) -> None:
        """Remove the markers of an attempt that is finished."""
        self.run.delete(FOLDER, f"attempt-{self.attempt}")


@dataclass
class Guard:
    """A worker's care for its rows."""

    watch: Watch
    stage: str
    groups: dict[str, frozenset[str]] = field(default_factory=dict)
    """Suspect -> the rows that it was last tried with when the worker died."""
    deaths: Counter[str] = field(default_factory=Counter)
    """Deaths of workers that held this row alone."""
    careful: bool = False
    _actor: str = ""

    @classmethod
    def of(cls, watch: Watch | None, stage: str) -> Guard | None:
        """The guard of the worker that this is called in: one look into the run directory."""
        if watch is None:
            return None
        context = ray.get_runtime_context()
        guard = cls(watch, stage, _actor=context.get_actor_id() or "")
        guard.careful = bool(guard._actor) and bool(context.was_current_actor_reconstructed)
        guard.look()
        return guard

    def look(self) -> None:
        """Read the markers of the dead: those of earlier starts, and this worker's own from its earlier lives."""
        for path in self.watch.run.files(*self.watch.folder(self.stage)):
            session, actor, _ = posixpath.basename(path).split(".", 2)
            earlier = session != self.watch.session
            if not earlier and actor != self._actor:
                continue  # of a worker that lives
            tried = frozenset(self.watch.run.read_json(path.removeprefix(self.watch.run.root + "/")))
            for row_id in tried:
                if len(self.groups.get(row_id, tried)) >= len(tried):
                    self.groups[row_id] = tried
            if len(tried) == 1 and not earlier:  # whoever ended the whole job need not be the row
                self.deaths.update(tried)
        self.careful = self.careful or bool(self.groups)

    def give_up(self, rows: Sequence[Row]) -> list[Row]:
        """End the rows that have killed their worker too often; the others."""
        for row in rows:
            if died := self._died(row):
                logger.error(
                    "row %s is given up: it killed its worker in %s %d times", row["id"], self.stage, died,
                    extra={"row_id": row["id"], "run_id": self.watch.run_id},
                )  # fmt: skip
                row["status"] = FAILED
                row["reason"] = reason(self.stage, "worker_died", f"{died} times with this row alone")
        return [row for row in rows if not self._died(row)]

    def _died(self, row: Row) -> int:
        died = self.deaths[row["id"]]
        return died if died >= self.watch.max_deaths else 0

    def pieces(self, rows: Sequence[Row]) -> list[list[Row]]:
        """The rows as they should be tried: suspects in smaller pieces than last time, all others together."""
        healthy = [row for row in rows if row["id"] not in self.groups]
        together: dict[frozenset[str], list[Row]] = {}
        for row in rows:
            if row["id"] in self.groups:
                together.setdefault(self.groups[row["id"]], []).append(row)
        parts = [healthy] if healthy else []
        for tried, suspects in together.items():
            size = 1 if len(tried) <= 9 else math.isqrt(len(tried) - 1) + 1
            parts += [suspects[i : i + size] for i in range(0, len(suspects), size)]
        return parts

    @contextmanager
    def trying(self, rows: Sequence[Row]) -> Iterator[None]:
        """Around the engine's call on one piece."""
        marker = self.begin(rows)
        try:
            yield
        finally:
            self.end(rows, marker)

    def begin(self, rows: Sequence[Row]) -> tuple[str, ...] | None:
        """Leave a marker, if this worker is careful; where it is."""
        if not self.careful:
            return None
        name = f"{self.watch.session}.{self._actor}.{uuid.uuid4().hex}.json"
        marker = (*self.watch.folder(self.stage), name)
        self.watch.run.write_json([row["id"] for row in rows], *marker)
        return marker

    def end(self, rows: Sequence[Row], marker: tuple[str, ...] | None) -> None:
        """The worker has lived through these rows."""
        if marker is None:
            return
        for row in rows:
            self.groups.pop(row["id"], None)
        try:
            self.watch.run.delete(*marker)
        except OSError as error:
            logger.warning("marker %s stays: %s", marker[-1], describe(error))
