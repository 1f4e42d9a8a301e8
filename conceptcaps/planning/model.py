"""The plan of a run: phases of the flow line added up, and what they cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from conceptcaps.config import Config
from conceptcaps.errors import InputError
from conceptcaps.planning.pools import Pool, balance, bottleneck, fits, makespan, pools_of, total_cpus, total_gpus
from conceptcaps.planning.rates import Rates, clip_bound
from conceptcaps.planning.simulation import TASKS_IN_FLIGHT
from conceptcaps.runtime import RESERVED_CPUS

HOUR = 3600.0


@dataclass(frozen=True)
class Prices:
    """What a cluster costs, in any one currency. What is not known is 0 and left out of the sum."""

    gpu_hour: float = 0.0
    cpu_hour: float = 0.0
    storage_gb_month: float = 0.0
    """Of the run directory, for one month; 1 GB is 1e9 bytes."""
    accelerators: Mapping[str, float] = field(default_factory=dict)
    """Per hour of one GPU, by `accelerator_type`; others cost `gpu_hour`."""

    def of_gpu(self, accelerator_type: str | None) -> float:
        return self.accelerators.get(accelerator_type or "", self.gpu_hour)


@dataclass(frozen=True)
class PoolPlan:
    """One pool of the plan."""

    key: str
    workers: int
    balanced_workers: int
    """The size that balances the pools on the same cluster."""
    seconds_per_row: float
    """Of one worker."""
    busy: float
    """Fraction of its time that the pool works, in [0, 1]; the rest it waits for other pools."""


@dataclass(frozen=True)
class Plan:
    """What a run of `rows` rows takes. Times are of stage `generate`, which is nearly all of a large run."""

    rows: int
    clips: int
    """Takes rendered, over all candidates and rounds."""
    accepted: int
    """Rows expected to be accepted."""
    wall_seconds: float
    gpu_hours: float
    """Held: paid for while the job runs."""
    busy_gpu_hours: float
    """Spent on rows."""
    cpu_hours: float
    storage_bytes: float
    """Shards and the dataset made of them."""
    object_store_bytes: float
    """Most that blocks under way can take, over the cluster."""
    money: float
    bottleneck: str
    """Key of the pool that the others wait for."""
    pools: tuple[PoolPlan, ...]
    balanced_wall_seconds: float
    """Wall time with the balanced sizes."""
    notes: tuple[str, ...]
    """What was assumed, and where the rates are from."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> list[tuple[str, str]]:
        """The plan for people: (what, how much), one line each."""
        sizes = ", ".join(f"{p.key} {p.workers} (busy {p.busy:.0%})" for p in self.pools)
        balanced = ", ".join(f"{p.key} {p.balanced_workers}" for p in self.pools)
        return [
            ("rows", f"{self.rows}, {self.accepted} of them accepted, {self.clips} clips made"),
            ("wall time", f"{self.wall_seconds / HOUR:.2f} h"),
            ("GPU hours", f"{self.gpu_hours:.1f}, {self.busy_gpu_hours:.1f} of them at work"),
            ("CPU hours", f"{self.cpu_hours:.1f}"),
            ("storage", f"{self.storage_bytes / 1e9:.1f} GB"),
            ("object store", f"{self.object_store_bytes / 2**30:.1f} GiB over the cluster"),
            ("money", f"{self.money:.2f}"),
            ("pools", sizes),
            ("bottleneck", self.bottleneck),
            ("balanced", f"{balanced}: {self.balanced_wall_seconds / HOUR:.2f} h"),
            *(("note", note) for note in self.notes),
        ]


@dataclass(frozen=True)
class _Phase:
    """Part of a run during which the same pools stand."""

    rows: int
    with_captions: bool

    def pools(self, pools: Sequence[Pool]) -> Sequence[Pool]:
        return pools if self.with_captions else pools[1:]


def plan(
    config: Config,
    num_samples: int | None = None,
    *,
    rates: Rates,
    prices: Prices | None = None,
    cluster: tuple[float, float] | None = None,
) -> Plan:
    """What `num_samples` rows will take with this config, at these rates and prices.

    Args:
        num_samples: rows to make; None: `specs.num_samples`.
        cluster: its CPUs and GPUs; None: just what the pools of the config need.

    Raises:
        InputError: no rows, or a cluster in which the pools cannot all stand.
    """
    rows = config.specs.num_samples if num_samples is None else num_samples
    if rows < 1:
        raise InputError("--num-samples", f"is {rows}", "Give at least one row")
    prices = prices or Prices()
    pools = pools_of(config, rates)
    cpus, gpus = cluster or (total_cpus(pools) + RESERVED_CPUS, total_gpus(pools))
    if not fits(pools, cpus, gpus):
        raise InputError(
            "the cluster",
            f"has {cpus:g} CPUs and {gpus:g} GPUs, and the pools need {total_cpus(pools) + RESERVED_CPUS:g} "
            f"and {total_gpus(pools):g}",
            "Lower max_workers or workers in the config, or plan for a larger cluster",
        )
    phases = _phases(config, rows, rates.rejected or 0.0)
    balanced = balance(pools, cpus, gpus)
    starting = len(phases) * rates.plan_startup
    wall, work = starting + _wall(phases, pools), _work(phases, pools)
    storage = _storage(config, rows, phases, rates)
    return Plan(
        rows=rows,
        clips=sum(phase.rows for phase in phases) * config.audio.candidates,
        accepted=_accepted(config, rows, rates),
        wall_seconds=wall,
        gpu_hours=wall * gpus / HOUR,
        busy_gpu_hours=sum(work[p.key] * p.gpus for p in pools) / HOUR,
        cpu_hours=wall * cpus / HOUR,
        storage_bytes=storage,
        object_store_bytes=_object_store(config, pools, rates),
        money=_money(config, pools, wall, cpus, gpus, storage, prices),
        bottleneck=_slowest(pools, work).key,
        pools=tuple(
            PoolPlan(p.key, p.workers, b.workers, p.seconds, work[p.key] / (p.workers * wall) if wall else 0.0)
            for p, b in zip(pools, balanced, strict=True)
        ),
        balanced_wall_seconds=starting + _wall(phases, balanced),
        notes=_notes(config, rates, prices),
    )


def _phases(config: Config, rows: int, rejected: float) -> list[_Phase]:
    """Calibration, the first pass and the rounds for rejected rows come one after the other."""
    threshold = config.alignment.threshold
    phases = [_Phase(rows, with_captions=True)]
    if threshold.method == "null_quantile":
        phases.insert(0, _Phase(min(threshold.num_calibration, rows), with_captions=True))
    if threshold.method != "none":
        again = (round(rows * rejected**attempt) for attempt in range(1, config.audio.rounds))
        phases += [_Phase(some, with_captions=False) for some in again if some]
    return phases


def _wall(phases: Sequence[_Phase], pools: Sequence[Pool]) -> float:
    return sum(makespan(phase.pools(pools), phase.rows) for phase in phases)


def _work(phases: Sequence[_Phase], pools: Sequence[Pool]) -> dict[str, float]:
    """Worker-seconds on rows, by pool."""
    work = dict.fromkeys((pool.key for pool in pools), 0.0)
    for phase in phases:
        for pool in phase.pools(pools):
            work[pool.key] += phase.rows * pool.seconds
    return work


def _slowest(pools: Sequence[Pool], work: Mapping[str, float]) -> Pool:
    return max(pools, key=lambda pool: work[pool.key] / pool.workers) if any(work.values()) else bottleneck(pools)


def _accepted(config: Config, rows: int, rates: Rates) -> int:
    if config.alignment.threshold.method == "none" or not rates.rejected:
        return rows
    return round(rows * (1 - rates.rejected**config.audio.rounds))


def _storage(config: Config, rows: int, phases: Sequence[_Phase], rates: Rates) -> float:
    """Bytes of the shards and of the dataset: audio of accepted rows twice, of rejected ones where it is kept."""
    clip = rates.clip_bytes or clip_bound(config)
    accepted = _accepted(config, rows, rates)
    made = _rows_written(phases, rows)
    kept = made if config.audio.keep_rejected_audio else accepted
    return kept * clip + made * rates.row_bytes + accepted * (clip + rates.row_bytes)


def _rows_written(phases: Sequence[_Phase], rows: int) -> int:
    """Shard rows of all attempts; calibration writes none."""
    return rows + sum(phase.rows for phase in phases if not phase.with_captions)


def _object_store(config: Config, pools: Sequence[Pool], rates: Rates) -> float:
    """Blocks that wait for a worker or are in one, and what it hands on; audio enters with the second pool's output."""
    clip = (rates.clip_bytes or clip_bound(config)) * config.audio.candidates
    captions, audio, alignment = pools
    bare = sum(p.workers * p.task_rows * TASKS_IN_FLIGHT for p in (captions, audio)) * rates.row_bytes
    takes = (audio.workers + alignment.workers * (TASKS_IN_FLIGHT + 1)) * max(audio.task_rows, alignment.task_rows)
    return bare + takes * (clip + rates.row_bytes)


def _money(
    config: Config, pools: Sequence[Pool], wall: float, cpus: float, gpus: float, storage: float, prices: Prices
) -> float:
    """GPUs by type where a pool names one, the cluster's others at the general price, CPUs and a month's storage."""
    hourly, named = cpus * prices.cpu_hour, 0.0
    for pool in pools:
        label = getattr(config, pool.key.split(".")[0]).resources.accelerator_type
        hourly += pool.workers * pool.gpus * prices.of_gpu(label)
        named += pool.workers * pool.gpus
    hourly += (gpus - named) * prices.gpu_hour
    return wall / HOUR * hourly + storage / 1e9 * prices.storage_gb_month


def _notes(config: Config, rates: Rates, prices: Prices) -> tuple[str, ...]:
    notes = [f"rates: {rates.source}"]
    if rates.rejected is None and config.alignment.threshold.method != "none":
        notes.append("the fraction of rejected rows is not known: none are assumed to be")
    if rates.clip_bytes is None:
        notes.append("the size of a clip is not known: storage and object store are upper bounds (16-bit PCM)")
    if prices == Prices():
        notes.append("no prices are given: money is 0")
    grows = [n for n in ("captions", "audio", "alignment") if getattr(config, n).resources.max_workers]
    if grows:
        notes.append(f"pools that grow are planned at their largest: {', '.join(grows)}")
    return tuple(notes)
