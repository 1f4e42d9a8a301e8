"""How fast each stage is: read from the manifest of a run that was measured, or stated by the user."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml

from conceptcaps import schema, shards
from conceptcaps.config import Config
from conceptcaps.errors import InputError
from conceptcaps.rundir import CONFIG, Manifest, RunDir

STAGES = ("captions", "audio", "alignment")
"""The pools of the streaming plan, in the order in which rows meet them; also their config sections."""
_SHARDS_SAMPLED = 8


@dataclass(frozen=True)
class Rate:
    """The speed of one worker of a stage."""

    seconds: float
    """Seconds of one worker per caption (captions) or per take of audio (audio, alignment)."""
    startup: float = 0.0
    """Seconds from the start of a worker until its model takes rows."""


@dataclass(frozen=True)
class Rates:
    """What a plan needs to know of the stages and of the rows that they make."""

    stages: Mapping[str, Rate]
    """By stage, for all of `STAGES`."""
    rejected: float | None = None
    """Fraction of the rows of one attempt that the alignment refuses, in [0, 1); None: not known."""
    clip_bytes: float | None = None
    """Encoded bytes of one take of `audio.duration` seconds; None: not known."""
    row_bytes: float = 2048.0
    """Bytes of a row in memory without its audio."""
    plan_startup: float = 0.0
    """Seconds that Ray takes to start the workers of one streaming plan, before they load their models."""
    source: str = "stated"
    """Where the figures are from, for the plan's notes."""


def stated_rates(values: Iterable[str], base: Rates | None = None) -> Rates:
    """Rates as a user types them: 'audio=0.24' or 'audio=0.24+60', in seconds per row and to start up.

    'rejected=0.1', 'clip_bytes=900000' and 'plan_startup=20' are taken as well. What is not stated is kept from `base`.

    Raises:
        InputError: a value that cannot be read, or a stage without a rate.
    """
    stages = dict(base.stages) if base else {}
    others: dict[str, float] = {}
    for value in values:
        name, _, text = value.partition("=")
        if name in STAGES:
            stages[name] = Rate(*_numbers(value, text, most=2))
        elif name in ("rejected", "clip_bytes", "row_bytes", "plan_startup"):
            others[name] = _numbers(value, text, most=1)[0]
        else:
            raise _misread(value)
    if not 0 <= others.get("rejected", 0.0) < 1:
        raise InputError(f"--rate rejected={others['rejected']:g}", "is no fraction", "Give a number from 0 up to 1")
    _require_all(stages, "--rate")
    known = replace(base, stages=stages) if base else Rates(stages)
    return replace(known, **others)  # type: ignore[arg-type]


def _numbers(value: str, text: str, most: int) -> list[float]:
    try:
        found = [float(part) for part in text.split("+")]
    except ValueError:
        raise _misread(value) from None
    if len(found) > most or any(not 0 <= number < float("inf") for number in found):
        raise _misread(value)
    return found


def _misread(value: str) -> InputError:
    return InputError(
        f"--rate {value}",
        "cannot be read",
        f"Write STAGE=SECONDS or STAGE=SECONDS+STARTUP with a stage of {', '.join(STAGES)}, "
        "or rejected=FRACTION, clip_bytes=BYTES, plan_startup=SECONDS",
    )


def _require_all(stages: Mapping[str, Rate], where: str) -> None:
    missing = [name for name in STAGES if name not in stages]
    if missing:
        raise InputError(
            where, f"says nothing of the speed of {', '.join(missing)}", f"State it: --rate {missing[0]}=SECONDS"
        )


def measured_rates(run: RunDir) -> Rates:
    """Rates of a finished run: seconds from its manifest, bytes and acceptance from its shards.

    The manifest's record of stage `generate` holds `rates`: for each stage `{"rows": calls answered, "busy_seconds":
    worker-seconds spent on them, "startup_seconds": of one worker}`, and for `plan` the start-up of Ray's own.

    Raises:
        InputError: the run has no such record, or no shards.
    """
    record = Manifest(run).stage("generate").get("rates", {})
    candidates = _candidates(run)
    stages = {
        name: Rate(
            facts["busy_seconds"] / facts["rows"] / (1 if name == "captions" else candidates),
            facts.get("startup_seconds", 0.0),
        )
        for name, facts in record.items()
        if name in STAGES and facts.get("rows")
    }
    _require_all(stages, f"the manifest of {run}")
    return Rates(
        stages,
        _rejected(run),
        _clip_bytes(run),
        plan_startup=record.get("plan", {}).get("startup_seconds", 0.0),
        source=f"measured in {run}",
    )


def _candidates(run: RunDir) -> int:
    return int(yaml.safe_load(run.read_bytes(CONFIG)).get("audio", {}).get("candidates", 1))


def _rejected(run: RunDir) -> float | None:
    """The rejected fraction of the first attempt: later ones see only the rows that are hard."""
    statuses: list[str] = []
    for path in run.files(shards.FOLDER, shards.attempt_folder(0), suffix=".parquet"):
        table = pq.read_table(path, columns=["status"], filesystem=run.fs, partitioning=None)
        statuses += table["status"].to_pylist()
    return statuses.count(schema.REJECTED) / len(statuses) if statuses else None


def _clip_bytes(run: RunDir) -> float | None:
    """Mean size of the clips in the first shards."""
    total = num = 0
    for path in run.files(shards.FOLDER, suffix=".parquet")[:_SHARDS_SAMPLED]:
        with pq.ParquetFile(path, filesystem=run.fs) as file:
            for batch in file.iter_batches(32, columns=["audio"]):
                sizes = pc.binary_length(pc.struct_field(batch["audio"], "bytes")).drop_null()
                total, num = total + (pc.sum(sizes).as_py() or 0), num + len(sizes)
    return total / num if num else None


def clip_bound(config: Config) -> float:
    """Most bytes that a take can need: 16-bit PCM at 32 kHz, the rate of both synthesisers."""
    channels = 2 if config.audio.engine != "procedural" and "stereo" in config.audio.musicgen.model else 1
    return config.audio.duration * 32_000 * 2 * channels
