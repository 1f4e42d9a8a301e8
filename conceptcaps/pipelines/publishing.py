"""The end of the streaming plan: publish blocks, and follow what is published from the driver."""

from __future__ import annotations

import logging
import time
from collections import Counter, defaultdict
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
from ray.data import DataContext, Dataset
from ray.data._internal.execution.execution_callback import ExecutionCallback
from ray.data._internal.execution.operators.base_physical_operator import InternalQueueOperatorMixin
from ray.data._internal.execution.operators.input_data_buffer import InputDataBuffer

from conceptcaps import schema, shards
from conceptcaps.errors import InputError
from conceptcaps.pipelines.drain import STATE, Drained
from conceptcaps.pipelines.steps import STAGES, Synthesise
from conceptcaps.pipelines.telemetry import rows_total
from conceptcaps.rundir import RunDir, code_version
from conceptcaps.runtime import TASK_CPUS

logger = logging.getLogger(__name__)

_LEAST_ROWS = 50  # before a share of failed rows means anything
_LOG_EVERY = 30.0  # seconds

PUBLISHED = pa.schema(
    [
        pa.field("status", pa.string()),
        pa.field("reason", pa.string()),  # its code
        pa.field("rows", pa.int64()),
        *(
            pa.field(f"{stage}_{what}", pa.float64())
            for stage in STAGES
            for what in ("rows", "seconds", "startup", "starts")
        ),
    ]
)
"""What a write task tells the driver of its block, a row per (status, reason)."""


def published(decided: Dataset, run: RunDir, attempt: int) -> Dataset:
    """Writes each block as one shard; what comes out is `PUBLISHED`."""
    write = partial(_publish, run=run, attempt=attempt, code=code_version())
    return decided.map_batches(write, batch_format="pyarrow", batch_size=None, num_cpus=TASK_CPUS)


def _publish(table: pa.Table, run: RunDir, attempt: int, code: str) -> pa.Table:
    if not len(table):
        return PUBLISHED.empty_table()
    rows = table.select(schema.SHARD.names).cast(schema.SHARD)
    shards.publish(run, rows.replace_schema_metadata({b"conceptcaps": code.encode()}), attempt)
    columns: dict[str, Any] = {
        "status": table["status"],
        "reason": pa.array([schema.reason_code(reason) for reason in table["reason"].to_pylist()]),
        "rows": pa.array([1] * len(table), pa.int64()),
    }
    for stage in STAGES:
        seconds, startup = table[f"{stage}_seconds"], table[f"{stage}_startup"]
        columns |= {f"{stage}_rows": pc.is_valid(seconds).cast(pa.int64()), f"{stage}_seconds": seconds}
        columns |= {f"{stage}_startup": startup, f"{stage}_starts": pc.is_valid(startup).cast(pa.int64())}
    summed = pa.table(columns).group_by(["status", "reason"]).aggregate([(n, "sum") for n in PUBLISHED.names[2:]])
    named = summed.rename_columns([name.removesuffix("_sum") for name in summed.column_names])
    return named.select(PUBLISHED.names).cast(PUBLISHED)


@dataclass
class Tally:
    """What a job has published since it started."""

    run_id: str
    wanted: int
    """Rows of the run; an attempt may have fewer left."""
    max_failed_fraction: float
    statuses: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    times: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    started: float = field(default_factory=time.monotonic)
    plan_startups: list[float] = field(default_factory=list)
    """Of each plan: seconds until its first block was there, less what the stages took for it."""
    _plan_begun: float | None = None
    _logged: float = field(default_factory=time.monotonic)

    @property
    def rows(self) -> int:
        return sum(self.statuses.values())

    def begin_plan(self) -> None:
        self._plan_begun = time.monotonic()

    def add(self, table: pa.Table) -> None:
        """Count what a write task has published.

        Raises:
            InputError: more rows have failed than the config allows, with the reasons.
        """
        if self._plan_begun is not None and len(table):
            took = sum(pc.sum(table[f"{s}_{what}"]).as_py() or 0.0 for s in STAGES for what in ("seconds", "startup"))
            self.plan_startups.append(max(0.0, time.monotonic() - self._plan_begun - took))
            self._plan_begun = None
        for row in table.to_pylist():
            rows = row["rows"]
            self.statuses[row["status"]] += rows
            if row["reason"]:
                self.reasons[row["reason"]] += rows
            rows_total(row["status"]).inc(rows)
            for name in PUBLISHED.names[3:]:
                self.times[name] += row[name] or 0.0
        self._refuse_too_many_failed()
        self._log()

    def _refuse_too_many_failed(self) -> None:
        failed = self.statuses[schema.FAILED]
        if self.rows < _LEAST_ROWS or failed <= self.max_failed_fraction * self.rows:
            return
        reasons = ", ".join(f"{number} {code}" for code, number in self.reasons.most_common(5))
        raise InputError(
            "stage 'generate'",
            f"was stopped: {failed} of {self.rows} rows failed, more than ray.max_failed_fraction ({reasons})",
            "Mend what the reasons name and run again; then `conceptcaps retry RUN --status failed`",
        )

    def _log(self) -> None:
        at = time.monotonic()
        if at - self._logged >= _LOG_EVERY:
            self._logged = at
            logger.info("%s", self.line(), extra={"run_id": self.run_id})

    def line(self) -> str:
        """Progress for people."""
        pace = self.rows / max(time.monotonic() - self.started, 1e-9)
        accepted = self.statuses[schema.ACCEPTED] / max(self.rows, 1)
        counts = ", ".join(f"{self.statuses[s]} {s}" for s in schema.STATUSES)
        return (
            f"{self.rows} of {self.wanted} rows made by this start ({counts}; {accepted:.0%} good), {pace:.2f} rows/s"
        )

    def rates(self) -> dict[str, dict[str, float]]:
        """For the manifest: what the stages took, as `planning.rates.measured_rates` reads it."""
        found = {}
        for stage in STAGES:
            if rows := self.times[f"{stage}_rows"]:
                starts = self.times[f"{stage}_starts"]
                startup = self.times[f"{stage}_startup"] / starts if starts else 0.0
                busy = self.times[f"{stage}_seconds"]
                found[stage] = {"rows": int(rows), "busy_seconds": round(busy, 4), "startup_seconds": round(startup, 4)}
        if found and self.plan_startups:
            found["plan"] = {"startup_seconds": round(float(np.mean(self.plan_startups)), 4)}
        return found


def follow(published: Dataset, tally: Tally) -> None:
    """Run the plan to its end, counting what it publishes.

    Raises:
        Drained: on SIGTERM, once rows under way are written.
        InputError: more rows have failed than the config allows; bad input that a worker met.
    """
    with _plan_that_drains(), closing(_tables(published)) as tables:
        tally.begin_plan()
        try:
            for table in tables:
                tally.add(table)
        except Drained:
            logger.warning("the grace period is over; rows under way are left for the next start")


def _tables(published: Dataset) -> Generator[pa.Table, None, None]:
    for bundle in published.iter_internal_ref_bundles():
        for entry in bundle.blocks:
            yield ray.get(entry.ref)


@contextmanager
def _plan_that_drains() -> Iterator[None]:
    """Around the execution of one streaming plan.

    Raises:
        Drained: the plan was stopped by SIGTERM.
    """
    STATE.plans += 1
    try:
        yield
    finally:
        STATE.plans -= 1
    if STATE.asked is not None:
        raise Drained("asked to stop")


def let_plans_drain() -> None:
    """Plans built from here on can be drained: a plan keeps the context that it was built in."""
    context = DataContext.get_current()
    if _StopFeeding not in context.custom_execution_callback_classes:
        context.custom_execution_callback_classes = [*context.custom_execution_callback_classes, _StopFeeding]


class _StopFeeding(ExecutionCallback):
    """When the job is asked to stop: ends the plan's source, empties the queues before its slow steps, so that just
    the batches in their workers go on; and ends the plan when the grace period is over."""

    def __init__(self) -> None:
        self._said = False

    def on_execution_step(self, executor: Any) -> None:
        if STATE.asked is None:
            return
        if STATE.is_over:
            raise Drained("the grace period is over")
        if not self._said:
            self._said = True
            logger.warning("asked to stop: batches under way have %.0f s", STATE.grace)
        for operator, state in executor._topology.items():
            if isinstance(operator, InputDataBuffer):
                continue
            if all(isinstance(source, InputDataBuffer) for source in operator.input_dependencies):
                operator.mark_execution_finished()
            for queue in state.input_queues:
                queue.clear()
            if isinstance(operator, InternalQueueOperatorMixin):
                operator.clear_internal_input_queue()
            if Synthesise.__name__ in operator.name:  # what comes after it is quick, and worth what audio costs
                break
