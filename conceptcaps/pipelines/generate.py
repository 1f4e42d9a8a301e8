"""specs -> captions -> audio -> alignment -> shards: one streaming Ray Data plan, resumed row by row.

All pools run at the same time on their own resources, and blocks flow between them under Ray's back-pressure, so
memory stays bounded however many rows there are. A shard is published whole or not at all, and the shards themselves
say which rows are done: the next start reads only the others. (Ray Data's own checkpoint would keep the same ids a
second time, in a file per block, and filter rows in actors that need a CPU of their own.)
"""

from __future__ import annotations

import logging
import time
import uuid
from collections import Counter
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from ray.data import Dataset

from conceptcaps import schema, shards
from conceptcaps.alignment.tags import TagReference
from conceptcaps.alignment.threshold import Means, Threshold, calibrate
from conceptcaps.config import Config
from conceptcaps.errors import InputError
from conceptcaps.pipelines import attempts
from conceptcaps.pipelines.artefacts import read_vocabulary
from conceptcaps.pipelines.caption_retries import reject_near_duplicates
from conceptcaps.pipelines.captions import build_caption_processor, caption_demand
from conceptcaps.pipelines.guard import Watch
from conceptcaps.pipelines.lead import keep_lead_short
from conceptcaps.pipelines.publishing import Tally, follow, let_plans_drain, published
from conceptcaps.pipelines.source import missing, read, read_blocks
from conceptcaps.pipelines.steps import CAPTIONED, Align, Caption, Embed, Engines, Synthesise
from conceptcaps.provenance import resolved_models
from conceptcaps.rundir import MANIFEST, Manifest, RunDir
from conceptcaps.runtime import TASK_CPUS, Demand, check_capacity, pool_arguments

logger = logging.getLogger(__name__)

ENGINES = Engines()
_CALIBRATING = -1  # for the markers of suspects: rows tried now are tried again
CALIBRATION = ("alignment", "calibration.json")


def run_generate(config: Config, run: RunDir, engines: Engines = ENGINES) -> dict[str, Any]:
    """Make every spec of the run into a shard row; returns counts and rates for the manifest.

    Raises:
        InputError: a cluster too small, more failed rows than the config allows, another job in the run directory.
        Drained: the job was asked to stop; what is written is whole.
    """
    started = time.monotonic()
    check_capacity(demands(config), autoscaling=config.ray.autoscaling)
    threshold = find_threshold(config, run, engines)
    tags = tag_reference(config, run, engines)
    tally = Tally(_run_id(run), shards.count_specs(run), config.ray.max_failed_fraction)
    plan = partial(_make, config, run, engines, threshold, tags, tally)
    plan(0)
    for attempt in attempts.planned(config, run):
        plan(attempt)
    reject_near_duplicates(run, config.captions.checks.near_duplicates, config.audio.rounds)
    facts = {"counts": shards.count(run).to_dict(), "threshold": threshold.value, "models": resolved_models(config)}
    facts["seconds"] = round(time.monotonic() - started, 1)
    return facts | ({"rates": rates} if (rates := tally.rates()) else {})


def _run_id(run: RunDir) -> str:
    return Manifest(run).data["run_id"] if run.exists(MANIFEST) else ""


def demands(config: Config) -> list[Demand]:
    """What the pools of this plan take together."""
    return [
        *caption_demand(config),
        Demand("audio.resources", config.audio.resources),
        Demand("alignment.resources", config.alignment.resources),
    ]


def _make(
    config: Config,
    run: RunDir,
    engines: Engines,
    threshold: Threshold,
    tags: TagReference | None,
    tally: Tally,
    attempt: int,
) -> None:
    """One attempt: the rows of `specs` (attempt 0) or of `retries/attempt-k`, whichever are not published yet."""
    done = shards.ids(run, attempt)
    if dropped := shards.mend(run, attempt, done):
        logger.warning("%d rows stood in two shards of attempt %d; one of each is dropped", dropped, attempt)
    left = missing(run, *attempts.source(attempt), done=done, rows_per_block=config.ray.rows_per_block)
    logger.info("attempt %d: %d rows are done, %d blocks are left", attempt, len(done), len(left))
    if not left:
        return
    let_plans_drain()
    keep_lead_short()
    watch = Watch(run, tally.run_id, attempt, run.token or uuid.uuid4().hex, config.ray.max_worker_deaths)
    rows = _begun(read(run, left), attempt)
    captioned = caption(rows, config, engines, watch) if attempts.wants_captions(run, attempt) else rows
    scored = align(synthesise(captioned, config, engines, watch), config, engines, threshold, tags, watch)
    follow(published(scored, run, attempt), tally)
    watch.forget()


def _begun(rows: Dataset, attempt: int) -> Dataset:
    """Specs as the first step expects them."""
    return rows.map_batches(
        partial(_begin, attempt=attempt), batch_format="pyarrow", batch_size=None, num_cpus=TASK_CPUS
    )


def _begin(table: pa.Table, attempt: int) -> pa.Table:
    """A spec as the first step expects it: not ended, on its way through this attempt."""
    fresh = {"attempt", "status", "reason"}
    columns: dict[str, Any] = {
        f.name: table[f.name] if f.name in table.column_names and f.name not in fresh else pa.nulls(len(table), f.type)
        for f in CAPTIONED
    }
    columns["attempt"] = pa.array([attempt] * len(table), pa.int32())
    return pa.table(columns, schema=CAPTIONED)


def caption(rows: Dataset, config: Config, engines: Engines, watch: Watch | None = None) -> Dataset:
    """Adds `caption`, by the served LLM or by an engine inside the workers."""
    if config.captions.engine == "vllm":
        return build_caption_processor(config, watch)(rows)
    return rows.map_batches(
        Caption,
        fn_constructor_args=(config.captions, engines, watch),
        batch_format="pyarrow",
        **pool_arguments(config.captions.resources),
    )


def synthesise(rows: Dataset, config: Config, engines: Engines, watch: Watch | None = None) -> Dataset:
    """Adds `takes`, `sampling_rate` and `duration`."""
    return rows.map_batches(
        Synthesise,
        fn_constructor_args=(config.audio, engines, watch),
        batch_format="pyarrow",
        **pool_arguments(config.audio.resources),
    )


def align(
    rows: Dataset,
    config: Config,
    engines: Engines,
    threshold: Threshold,
    tags: TagReference | None = None,
    watch: Watch | None = None,
) -> Dataset:
    """Checks and scores the takes and ends every row: the columns of a shard, and what the row took."""
    return rows.map_batches(
        Align,
        fn_constructor_args=(config.alignment, engines, config.audio, threshold, tags, watch),
        batch_format="pyarrow",
        **pool_arguments(config.alignment.resources),
    )


def find_threshold(config: Config, run: RunDir, engines: Engines) -> Threshold:
    """The score from which a clip is accepted: as configured, or calibrated once and kept in the run."""
    settings = config.alignment.threshold
    if settings.method != "null_quantile":
        return Threshold(settings.method, settings.value if settings.method == "absolute" else -1.0)
    kept = calibration(config, run, engines)
    means = Means(tuple(kept["audio_mean"]), tuple(kept["text_mean"])) if kept.get("centred") else None
    return Threshold("null_quantile", kept["threshold"], means)


def tag_reference(config: Config, run: RunDir, engines: Engines) -> TagReference | None:
    """What the tags of this run's rows are verified against; None where they are not."""
    if not config.alignment.verify_tags:
        return None
    mean = calibration(config, run, engines)["audio_mean"]
    return TagReference(read_vocabulary(run), tuple(mean))


def calibration(config: Config, run: RunDir, engines: Engines) -> dict[str, Any]:
    """Scores and the mean clip of the run's first rows, made once and kept in the run."""
    if not run.exists(*CALIBRATION):
        run.write_json(_calibrate(config, run, engines), *CALIBRATION)
    return run.read_json(*CALIBRATION)


def _calibrate(config: Config, run: RunDir, engines: Engines) -> dict[str, Any]:
    """Scores of mismatched pairs among the run's first rows, made by the run's own engines."""
    settings = config.alignment.threshold
    logger.info("calibrating the threshold on %d rows", settings.num_calibration)
    specs = read_blocks(run, "specs", rows_per_block=config.ray.rows_per_block, limit=settings.num_calibration)
    watch = Watch(run, _run_id(run), _CALIBRATING, run.token or uuid.uuid4().hex, config.ray.max_worker_deaths)
    captioned = caption(_begun(specs, attempt=0), config, engines, watch)
    made = synthesise(captioned, config, engines, watch).map_batches(
        Embed,
        fn_constructor_args=(config.alignment, engines, watch),
        batch_format="pyarrow",
        **pool_arguments(config.alignment.resources),
    )
    rows = sorted(made.take_all(), key=lambda row: row["id"])
    watch.forget()
    found = [row for row in rows if row["audio_embedding"] is not None]
    ended = Counter(schema.reason_code(row["reason"]) for row in rows if row["audio_embedding"] is None)
    why = ", ".join(f"{count} {name}" for name, count in ended.most_common())
    if not found:
        problem = f"has no row left: all of the first {len(rows)} ended ({why})"
        mend = "See the log, and try the engines on a few rows"
        raise InputError("calibration of the alignment threshold", problem, mend)
    if ended:
        logger.warning("of %d rows to calibrate on, these ended before they were scored: %s", len(rows), why)
    audio = np.array([row["audio_embedding"] for row in found], dtype=np.float32)
    text = np.array([row["text_embedding"] for row in found], dtype=np.float32)
    calibrated = calibrate(audio, text, [r["caption"] for r in found], settings.quantile, centre=settings.centre)
    means, centred = Means.of(audio, text), calibrated.threshold.means is not None
    if settings.centre and not centred:
        logger.warning("%d rows are too few or too alike: their mean embeddings are not taken off", len(found))
    return {
        "method": "null_quantile",
        "quantile": settings.quantile,
        "threshold": calibrated.threshold.value,
        "num_rows": len(found),
        "centred": centred,
        "null_scores": calibrated.null_scores.tolist(),
        "matched_scores": calibrated.matched_scores.tolist(),
        "audio_mean": means.audio,
        "text_mean": means.text,
    }
