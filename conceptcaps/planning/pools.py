"""The pools of the streaming plan as a flow line: how long rows take through them, and which sizes balance them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from conceptcaps.config import Config
from conceptcaps.planning.rates import STAGES, Rates
from conceptcaps.runtime import RESERVED_CPUS


@dataclass(frozen=True)
class Pool:
    """Workers of one stage, each holding one model."""

    key: str
    workers: int
    cpus: float
    """Logical CPUs per worker."""
    gpus: float
    """GPUs per worker."""
    task_rows: int
    """Rows that a worker takes at a time: a block, or as many blocks as fill its batch."""
    seconds: float
    """Seconds of one worker per row."""
    startup: float = 0.0
    """Seconds until a worker takes its first row."""

    @property
    def task_seconds(self) -> float:
        return self.task_rows * self.seconds

    @property
    def seconds_per_row(self) -> float:
        """Of the whole pool: the largest one is the bottleneck."""
        return self.seconds / self.workers


def pools_of(config: Config, rates: Rates) -> list[Pool]:
    """The pools of a run, at the size to which they may grow."""
    return [_pool(name, config, rates) for name in STAGES]


def _pool(name: str, config: Config, rates: Rates) -> Pool:
    resources = getattr(config, name).resources
    shared = config.captions.vllm.tensor_parallel_size if name == "captions" and config.captions.engine == "vllm" else 1
    block = config.ray.rows_per_block
    return Pool(
        key=f"{name}.resources",
        workers=resources.max_workers or resources.workers,
        cpus=resources.num_cpus,
        gpus=resources.num_gpus * shared,
        task_rows=block * math.ceil(resources.batch_size / block),
        seconds=rates.stages[name].seconds * (1 if name == "captions" else config.audio.candidates),
        startup=rates.stages[name].startup,
    )


def makespan(pools: Sequence[Pool], rows: int) -> float:
    """Seconds until the last of `rows` leaves the last pool, all pools starting together and working side by side.

    A pool ends its first task at `first` and then `workers` tasks every `task_seconds`; whichever pool ends latest,
    with what its last task still has to go through, sets the time. Exact for tasks of equal length that need not wait
    for room downstream.
    """
    if rows <= 0:
        return 0.0
    first, longest = 0.0, 0.0
    for i, pool in enumerate(pools):
        first = max(first, pool.startup) + min(pool.task_rows, rows) * pool.seconds
        for waves, last_rows in _ends(pool, rows):
            behind = sum(min(p.task_rows, last_rows) * p.seconds for p in pools[i + 1 :])
            shorter = (min(pool.task_rows, rows) - last_rows) * pool.seconds
            longest = max(longest, first + (waves - 1) * pool.task_seconds - shorter + behind)
    return longest


def _ends(pool: Pool, rows: int) -> list[tuple[int, int]]:
    """The tasks that may end last, the last full one and the one with the rest: (wave it is in, rows it has)."""
    full, rest = divmod(rows, pool.task_rows)
    ends = [(math.ceil(full / pool.workers), pool.task_rows)] if full else []
    return [*ends, (math.ceil((full + 1) / pool.workers), rest)] if rest else ends


def bottleneck(pools: Sequence[Pool]) -> Pool:
    """The pool that all others wait for."""
    return max(pools, key=lambda pool: pool.seconds_per_row)


def balance(pools: Sequence[Pool], cpus: float, gpus: float) -> list[Pool]:
    """The sizes with the fastest bottleneck that fit in a cluster: start from one each, and grow the slowest pool.

    Growing anything but the slowest cannot help, so no other sizes are faster; workers that would only wait are left
    out. Pools that do not even fit with one worker each are returned so.
    """
    sizes = [replace(pool, workers=1) for pool in pools]
    while True:
        slowest = sizes.index(bottleneck(sizes))
        grown = replace(sizes[slowest], workers=sizes[slowest].workers + 1)
        trial = [*sizes[:slowest], grown, *sizes[slowest + 1 :]]
        if not grown.cpus + grown.gpus or not grown.seconds or not fits(trial, cpus, gpus):
            break
        sizes = trial
    pace = bottleneck(sizes).seconds_per_row
    return [replace(p, workers=max(1, math.ceil(p.seconds / pace - 1e-9))) if pace else p for p in sizes]


def fits(pools: Sequence[Pool], cpus: float, gpus: float) -> bool:
    """Whether all workers can stand at the same time, with room left for reading and writing."""
    return total_cpus(pools) + RESERVED_CPUS <= cpus + 1e-6 and total_gpus(pools) <= gpus + 1e-6


def total_cpus(pools: Sequence[Pool]) -> float:
    return sum(pool.workers * pool.cpus for pool in pools)


def total_gpus(pools: Sequence[Pool]) -> float:
    return sum(pool.workers * pool.gpus for pool in pools)
