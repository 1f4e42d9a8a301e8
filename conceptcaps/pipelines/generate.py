"""specs -> captions -> audio -> alignment -> shards: one streaming Ray Data plan, resumed row by row.

All pools run at the same time on their own resources, and blocks flow between them under Ray's back-pressure, so
memory stays bounded however many rows there are. A block that was written is never made again: Ray Data's checkpoint
holds the ids of its rows, and the next start reads only the others.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from ray.data import DataContext, Dataset
from ray.data.checkpoint import CheckpointConfig

from conceptcaps import schema, shards
from conceptcaps.alignment.tags import TagReference
from conceptcaps.alignment.threshold import Threshold, calibrate, null_scores
from conceptcaps.config import Config
from conceptcaps.pipelines.caption_retries import (
    near_duplicates,
    reject_near_duplicates,
    wants_captions,
    without_bad_captions,
)
from conceptcaps.pipelines.captions import build_caption_processor, caption_demand
from conceptcaps.pipelines.source import read_blocks
from conceptcaps.pipelines.specs import read_vocabulary
from conceptcaps.pipelines.steps import CAPTIONED, Align, Caption, Embed, Engines, Synthesise
from conceptcaps.provenance import resolved_models
from conceptcaps.rundir import RunDir, code_version
from conceptcaps.runtime import TASK_CPUS, Demand, check_capacity, pool_arguments

logger = logging.getLogger(__name__)

ENGINES = Engines()
CALIBRATION = ("alignment", "calibration.json")


def run_generate(config: Config, run: RunDir, engines: Engines = ENGINES) -> dict[str, Any]:
    """Make every spec of the run into a shard row; returns counts and rates for the manifest."""
    started = time.monotonic()
    check_capacity(demands(config))
    threshold = find_threshold(config, run, engines)
    tags = tag_reference(config, run, engines)
    for attempt in range(config.audio.rounds):
        if attempt and not _write_rejected(run, attempt, config.captions.checks.near_duplicates):
            break
        _make(config, run, engines, attempt, threshold, tags)
    reject_near_duplicates(run, config.captions.checks.near_duplicates, config.audio.rounds)
    counts = shards.count(run).to_dict()
    seconds = round(time.monotonic() - started, 1)
    return {"counts": counts, "threshold": threshold.value, "seconds": seconds, "models": resolved_models(config)}


def demands(config: Config) -> list[Demand]:
    """What the pools of this plan take together."""
    return [
        *caption_demand(config),
        Demand("audio.resources", config.audio.resources),
        Demand("alignment.resources", config.alignment.resources),
    ]


def _make(
    config: Config, run: RunDir, engines: Engines, attempt: int, threshold: Threshold, tags: TagReference | None
) -> None:
    """One attempt: the rows of `specs` (attempt 0) or of `retries/attempt-k`, whichever are not written yet."""
    name = shards.attempt_folder(attempt)
    source = ("specs",) if attempt == 0 else ("retries", name)
    with _checkpointed(run, name):
        rows = _begun(read_blocks(run, *source, rows_per_block=config.ray.rows_per_block), attempt)
        captioned = caption(rows, config, engines) if wants_captions(run, source) else rows
        scored = align(synthesise(captioned, config, engines), config, engines, threshold, tags)
        scored.write_parquet(
            run.path(shards.FOLDER, name),
            filesystem=run.fs,
            ray_remote_args={"num_cpus": TASK_CPUS},
            schema=schema.SHARD.with_metadata({b"conceptcaps": code_version().encode()}),
        )


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


def caption(rows: Dataset, config: Config, engines: Engines) -> Dataset:
    """Adds `caption`, by the served LLM or by an engine inside the workers."""
    if config.captions.engine == "vllm":
        return build_caption_processor(config)(rows)
    return rows.map_batches(
        Caption,
        fn_constructor_args=(config.captions, engines),
        batch_format="pyarrow",
        **pool_arguments(config.captions.resources),
    )


def synthesise(rows: Dataset, config: Config, engines: Engines) -> Dataset:
    """Adds `takes`, `sampling_rate` and `duration`."""
    return rows.map_batches(
        Synthesise,
        fn_constructor_args=(config.audio, engines),
        batch_format="pyarrow",
        **pool_arguments(config.audio.resources),
    )


def align(
    rows: Dataset, config: Config, engines: Engines, threshold: Threshold, tags: TagReference | None = None
) -> Dataset:
    """Scores the takes and ends every row: the columns of a shard."""
    return rows.map_batches(
        Align,
        fn_constructor_args=(config.alignment, engines, config.audio, threshold, tags),
        batch_format="pyarrow",
        **pool_arguments(config.alignment.resources),
    )


def find_threshold(config: Config, run: RunDir, engines: Engines) -> Threshold:
    """The score from which a clip is accepted: as configured, or calibrated once and kept in the run."""
    settings = config.alignment.threshold
    if settings.method != "null_quantile":
        return Threshold(settings.method, settings.value if settings.method == "absolute" else -1.0)
    return Threshold("null_quantile", calibration(config, run, engines)["threshold"])


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
    made = synthesise(caption(_begun(specs, attempt=0), config, engines), config, engines).map_batches(
        Embed,
        fn_constructor_args=(config.alignment, engines),
        batch_format="pyarrow",
        **pool_arguments(config.alignment.resources),
    )
    found = sorted(made.take_all(), key=lambda row: row["id"])
    audio = np.array([row["audio_embedding"] for row in found], dtype=np.float32)
    text = np.array([row["text_embedding"] for row in found], dtype=np.float32)
    null = null_scores(audio, text, [row["caption"] for row in found])
    return {
        "method": "null_quantile",
        "quantile": settings.quantile,
        "threshold": calibrate(null, settings.quantile),
        "num_rows": len(found),
        "null_scores": null.tolist(),
        "matched_scores": (audio * text).sum(1).tolist(),
        "audio_mean": audio.mean(0).tolist(),
    }


def _write_rejected(run: RunDir, attempt: int, distance: int | None) -> int:
    """Write the rows that the last attempt rejected as the input of the next; returns how many there are.

    Rows of a counterfactual pair stay rejected: made again with another seed, they would be no pair.

    Args:
        distance: of captions that are near-duplicates, which are refused too.
    """
    name = shards.attempt_folder(attempt)
    if run.exists("retries", name, "rows.parquet"):
        return pq.read_metadata(run.path("retries", name, "rows.parquet"), filesystem=run.fs).num_rows
    again = (pc.field("status") == schema.REJECTED) & pc.field("pair_id").is_null()
    tables = [table.filter(again) for table in shards.latest(run, CAPTIONED.names)]
    tables.append(near_duplicates(run, distance).select(CAPTIONED.names))
    rejected = (
        without_bad_captions(pa.concat_tables(tables, promote_options="default"))
        .drop_columns(["status", "reason"])
        .sort_by("id")
    )
    if len(rejected):
        sink = pa.BufferOutputStream()
        pq.write_table(rejected, sink)
        run.write_bytes(sink.getvalue().to_pybytes(), "retries", name, "rows.parquet")
    return len(rejected)


@contextmanager
def _checkpointed(run: RunDir, name: str) -> Iterator[None]:
    """Ray Data's row checkpoint for the plans built and executed inside."""
    context = DataContext.get_current()
    before = context.checkpoint_config
    folder = run.path("checkpoints", name)
    run.fs.create_dir(folder, recursive=True)
    context.checkpoint_config = CheckpointConfig(
        id_column="id", checkpoint_path=folder, override_filesystem=run.fs, delete_checkpoint_on_success=False
    )
    try:
        yield
    finally:
        context.checkpoint_config = before
