"""Shards to the finished dataset: index the rows, place them, write every config in one pass each for text and audio.

Two Ray Data jobs. The first reads ids, tags and captions and returns some hundred bytes a row; the driver groups and
splits on those alone. The second reads each shard once more for the text configs and once for the audio ones, and each
task writes its share of every config and split.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray.data

from conceptcaps.config import Config
from conceptcaps.dataset.card import hub_features, write_card
from conceptcaps.dataset.concept_sets import write_concept_sets
from conceptcaps.dataset.index import Rows, bad_files, latest_accepted, read_index
from conceptcaps.dataset.layout import FOLDER, ROWS, STATISTICS, parts
from conceptcaps.dataset.plan import Chunk, Placement, chunks, place
from conceptcaps.dataset.splits import SPLITS
from conceptcaps.dataset.verify import relative
from conceptcaps.dataset.write import write_chunk
from conceptcaps.errors import InputError
from conceptcaps.rundir import RunDir
from conceptcaps.shards import FOLDER as SHARDS

logger = logging.getLogger(__name__)

_PARTIAL = "dataset.partial"
_FILES_PER_TASK = 64


def run_dataset(config: Config, run: RunDir) -> dict[str, Any]:
    """Write `dataset/` of a run in the Hugging Face layout; returns counts for the manifest.

    Raises:
        InputError: no shards, no accepted rows, a shard that cannot be read (unless `dataset.skip_bad`), a foreign
            file in the output folder, or a split that cannot be made.
    """
    paths = run.files(SHARDS, suffix=".parquet")
    if not paths:
        raise InputError(run.uri(SHARDS), "holds no Parquet files", "Run `conceptcaps generate` first")
    refuse_foreign_files(run)
    index, bad = _index(config, run, paths)
    settings = _split_settings(config)
    placement = place(Rows.of(latest_accepted(index)), config.dataset, _previous(run, settings))
    del index
    for lacking in placement.unstratified:
        logger.warning("%s", lacking)
    folder = _PARTIAL if run.is_local else FOLDER
    run.delete(folder)
    written, gone = _write(config, run, folder, placement, paths)
    bad |= gone
    statistics = placement.statistics() | settings | _facts(config, written, bad)
    statistics["concept_sets"] = write_concept_sets(config.dataset.concept_sets, config.seed, run, folder, placement)
    _write_rows(run, folder, placement)
    write_card(config, run, folder, statistics)
    run.write_json(statistics, folder, STATISTICS)
    if folder != FOLDER:
        run.delete(FOLDER)
        run.fs.move(run.path(folder), run.path(FOLDER))
    counts = {"rows": statistics["rows"], **statistics["splits"]}
    return {"counts": counts, "groups": statistics["groups"], "bad_shards": sorted(bad)}


def refuse_foreign_files(run: RunDir) -> None:
    """Refuse to overwrite files in the output folder that this stage did not write."""
    found = {relative(run, path).split("/", 1)[1] for path in run.files(FOLDER)}
    if not found:
        return
    known = set()
    if STATISTICS in found:
        known = {STATISTICS, ROWS, "README.md", *run.read_json(FOLDER, STATISTICS)["files"]}
    foreign = sorted(name for name in found - known if not name.startswith("concept_sets/"))
    if foreign:
        raise InputError(
            run.uri(FOLDER),
            f"holds {len(foreign)} files that this stage did not write, such as {foreign[0]}",
            "Move them away, or give a new --run-dir",
        )


def _index(config: Config, run: RunDir, paths: list[str]) -> tuple[pa.Table, dict[str, str]]:
    """The index of all shards, and the shards that cannot be read with why."""
    location, seed, verified = run.location, config.seed, config.dataset.verified
    tasks = [pa.table({"file": list(range(len(paths)))[at : at + _FILES_PER_TASK]}) for at in _steps(len(paths))]
    shared: Any = ray.put(paths)

    def read(files: pa.Table) -> pa.Table:
        return read_index(RunDir(location), files["file"].to_pylist(), ray.get(shared), seed, verified)

    index = pa.concat_tables(_run(tasks, read))
    bad = {relative(run, paths[file]): fault for file, fault in bad_files(index)}
    _refuse_bad(config, bad)
    return index.filter(pa.compute.is_null(index["error"])), bad


def _steps(num_files: int) -> range:
    return range(0, num_files, _FILES_PER_TASK)


def _run(tasks: list[pa.Table], function: Callable[[pa.Table], pa.Table]) -> list[pa.Table]:
    """One Ray Data task per table."""
    made = ray.data.from_arrow(tasks).map_batches(function, batch_size=None, batch_format="pyarrow")
    return list(made.iter_batches(batch_size=None, batch_format="pyarrow"))


def _write(
    config: Config, run: RunDir, folder: str, placement: Placement, paths: list[str]
) -> tuple[dict[str, dict[str, int]], dict[str, str]]:
    """Write all data files; what each holds, and the shards that could not be read to the end."""
    sizes = [info.size for info in run.fs.get_file_info(paths)]
    written: dict[str, dict[str, int]] = {}
    bad: dict[str, str] = {}
    for audio in (False, True):
        for row in _write_kind(config, run, folder, chunks(placement, config.dataset, sizes, audio), paths, audio):
            if row["error"]:
                bad[relative(run, row["file"])] = row["error"]
            else:
                written[row["file"]] = {"rows": row["rows"], "bytes": row["bytes"]}
    _refuse_bad(config, bad)
    return written, bad


def _write_kind(
    config: Config, run: RunDir, folder: str, plan: list[Chunk], paths: list[str], audio: bool
) -> list[dict[str, Any]]:
    """Write the text configs or the audio ones, a task per chunk."""
    location, settings = run.location, config.dataset
    metadata = hub_features(settings, audio).arrow_schema.metadata
    shared: Any = ray.put(paths)
    references = [ray.put(chunk) for chunk in plan]

    def write(table: pa.Table) -> pa.Table:
        mine = [ray.get(references[i]) for i in table["chunk"].to_pylist()]
        target, names = RunDir(location), ray.get(shared)
        return pa.concat_tables([write_chunk(target, folder, c, names, settings, metadata, audio) for c in mine])

    return pa.concat_tables(_run([pa.table({"chunk": [i]}) for i in range(len(plan))], write)).to_pylist()


def _refuse_bad(config: Config, bad: dict[str, str]) -> None:
    for file, fault in bad.items():
        logger.warning("shard %s cannot be read: %s", file, fault)
    if bad and not config.dataset.skip_bad:
        file, fault = next(iter(bad.items()))
        more = f"; so are {len(bad) - 1} more" if len(bad) > 1 else ""
        raise InputError(file, f"cannot be read ({fault}){more}", "Make it again, or go on without it: --skip-bad")


def _split_settings(config: Config) -> dict[str, Any]:
    """What a row's split depends on, besides the rows."""
    keys = ("train", "validation", "test", "group", "near_duplicate", "min_concept_rows")
    return {"seed": config.seed, "split": {key: getattr(config.dataset, key) for key in keys}}


def _previous(run: RunDir, settings: dict[str, Any]) -> pa.Table | None:
    """Rows and splits of this run's last dataset, where it was made with the same settings."""
    if not (run.exists(FOLDER, STATISTICS) and run.exists(FOLDER, ROWS)):
        return None
    before = run.read_json(FOLDER, STATISTICS)
    if any(before.get(key) != value for key, value in settings.items()):
        return None
    return pq.read_table(run.path(FOLDER, ROWS), columns=["id", "split"], filesystem=run.fs, partitioning=None)


def _write_rows(run: RunDir, folder: str, placement: Placement) -> None:
    table = placement.table().select(["id", "split", "subset", "group"])
    with run.fs.open_output_stream(run.path(folder, ROWS)) as file:
        pq.write_table(table, file, compression="zstd")


def _facts(config: Config, written: dict[str, dict[str, int]], bad: dict[str, str]) -> dict[str, Any]:
    configs: dict[str, Any] = {}
    for part in parts(config.dataset):
        configs[part.name] = {}
        for split in SPLITS:
            own = [facts for name, facts in written.items() if name.startswith(f"{part.name}/{split}-")]
            configs[part.name][split] = {key: sum(facts[key] for facts in own) for key in ("rows", "bytes")}
    files = {name: facts["rows"] for name, facts in sorted(written.items())}
    return {"configs": configs, "files": files, "bad_shards": bad}
