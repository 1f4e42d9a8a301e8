"""Where TCAV's clips come from: labelled folders, a rendered stand-in, the run's own rows; decoded by Ray Data."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import ray.data
import soundfile
from ray.data import Dataset
from ray.data.expressions import col

from conceptcaps import schema, shards, signal
from conceptcaps.audio.arrangement import arrange
from conceptcaps.audio.procedural import render
from conceptcaps.config import Config
from conceptcaps.errors import InputError, TooFewRows, describe
from conceptcaps.pipelines.source import read_blocks
from conceptcaps.rundir import RunDir
from conceptcaps.runtime import TASK_CPUS
from conceptcaps.seeding import derive
from conceptcaps.tcav.gtzan import GENRES, Clip, Split, assign, list_clips, stratified
from conceptcaps.tcav.hub import HubClips, bytes_of, is_hub_dataset, load_hub_clips
from conceptcaps.vocabulary import CATEGORIES, aspects_column

logger = logging.getLogger(__name__)

EMBEDDED_CLIPS_PER_GENRE, EMBEDDED_SECONDS = 30, 5.0
_HUB_BLOCK = 32
DECODED = pa.schema(
    [
        pa.field("id", pa.string()),
        pa.field("wave", pa.binary()),  # int16 samples, one channel
        pa.field("problem", pa.string()),
    ]
)


@dataclass(frozen=True)
class LabelledClips:
    """What the classifier learns and is tested on.

    Attributes:
        classes: the labels, sorted.
        label: id -> index into `classes`.
        split: id -> its part; ids that no part has are not listed.
        attempts: id -> attempt, for rows of the run; empty for files, whose id is their path.
        hub: where the clips are a dataset's; None elsewhere.
        left_out: facts about clips that are not used.
    """

    classes: tuple[str, ...]
    label: Mapping[str, int]
    split: Mapping[str, Split]
    attempts: Mapping[str, int]
    left_out: Mapping[str, Any]
    hub: HubClips | None = None

    def ids(self, *parts: Split) -> list[str]:
        """The clips of some parts, in order."""
        return [i for i, part in self.split.items() if part in parts]


@dataclass(frozen=True)
class ConceptRows:
    """The run's accepted rows, in order of id, without their audio.

    Attributes:
        ids: of the rows.
        tags: all tags of each.
        genres: the genre tags of each.
        pair_ids: the counterfactual pair of each, or None.
        attempts: id -> the attempt that counts.
        categories: tag -> category.
    """

    ids: list[str]
    tags: list[list[str]]
    genres: list[list[str]]
    pair_ids: list[str | None]
    attempts: dict[str, int]
    categories: dict[str, str]


def labelled_clips(config: Config, run: RunDir, rows: ConceptRows | None) -> LabelledClips:
    """The classifier's clips, as `tcav.clips` says; `rows` are needed where they are the run's own."""
    match config.tcav.clips:
        case None:
            assert rows is not None
            return _own_rows(config, rows)
        case "embedded":
            return _labelled(config, list_clips(render_folder(run, config.seed)))
        case name if is_hub_dataset(name):
            hub = load_hub_clips(name)
            return _labelled(config, hub.clips, hub)
        case folder:
            return _labelled(config, list_clips(folder))


def _labelled(config: Config, clips: Sequence[Clip], hub: HubClips | None = None) -> LabelledClips:
    section = config.tcav
    parts = assign(
        clips,
        seed=config.seed,
        validation=section.classifier.validation,
        test=section.classifier.test,
        filtered=section.split == "filtered",
        split_file=section.split_file,
    )
    classes = tuple(sorted({c.label for c in clips}))
    used = [(c, part) for c, part in zip(clips, parts, strict=True) if part is not None]
    return LabelledClips(
        classes,
        {c.path: classes.index(c.label) for c, _ in used},
        {c.path: part for c, part in used},
        {},
        {"not_in_split": len(clips) - len(used)},
        hub,
    )


def _own_rows(config: Config, rows: ConceptRows) -> LabelledClips:
    """Rows with exactly one of the most frequent genre tags. Counterfactual pairs share a genre and stay together."""
    section = config.tcav.classifier
    single = {i: g[0] for i, g in zip(rows.ids, rows.genres, strict=True) if len(g) == 1}
    frequent = [g for g, n in Counter(single.values()).most_common(section.max_classes) if n >= section.min_class_clips]
    if len(frequent) < 2:
        raise TooFewRows(
            "the run's rows",
            f"have {len(frequent)} genres with {section.min_class_clips} or more rows of that one genre only",
            "Give tcav.clips a labelled folder (or 'embedded'), or generate more rows",
        )
    classes = tuple(sorted(frequent))
    label = {i: classes.index(g) for i, g in single.items() if g in classes}
    group = {i: pair or i for i, pair in zip(rows.ids, rows.pair_ids, strict=True)}
    groups = {group[i]: classes[k] for i, k in label.items()}
    parts = stratified(list(groups), list(groups.values()), config.seed, section.validation, section.test)
    part_of = dict(zip(groups, parts, strict=True))
    split = {i: part for i in label if (part := part_of[group[i]]) is not None}
    left = {"no_single_frequent_genre": len(rows.ids) - len(label)}
    return LabelledClips(classes, label, split, {i: rows.attempts[i] for i in label}, left)


def render_folder(run: RunDir, seed: int, per_genre: int = EMBEDDED_CLIPS_PER_GENRE) -> Path:
    """A folder of GTZAN's shape, ten genres of rendered clips, made once beside the run's other TCAV files.

    Raises:
        InputError: the run is not on a local disk.
    """
    if not run.is_local:
        raise InputError("tcav.clips", "is 'embedded' on a remote run directory", "Give a local run, or a folder")
    wanted = [
        {"genre": genre, "number": number, "seed": derive(seed, "genre", genre, number)}
        for number in range(per_genre)
        for genre in GENRES
        if not run.exists(*_rendered(genre, number))
    ]
    if wanted:
        rows = ray.data.from_items(wanted, override_num_blocks=min(len(wanted), 2 * len(GENRES)))
        rows.map(partial(_render_file, location=run.root), num_cpus=1).materialize()
    return Path(run.path("tcav", "clips", "genres_original"))


def _rendered(genre: str, number: int) -> tuple[str, ...]:
    return "tcav", "clips", "genres_original", genre, f"{genre}-{number:05d}.wav"


def _render_file(row: dict[str, Any], location: str) -> dict[str, Any]:
    wave = render_genre(row["genre"], row["seed"], EMBEDDED_SECONDS)
    RunDir(location).write_bytes(wave, *_rendered(row["genre"], row["number"]))
    return row


def render_genre(genre: str, seed: int, seconds: float, rate: int = 22_050) -> bytes:
    """A .wav of one genre by the procedural engine, at GTZAN's rate."""
    tag = {"hiphop": "hip hop"}.get(genre, genre)
    return signal.encode(render(arrange([tag], seed), seconds, rate, seed), rate, "wav")


def concept_rows(run: RunDir) -> ConceptRows:
    """The run's accepted rows.

    Raises:
        InputError: none was accepted.
    """
    found: list[dict[str, Any]] = []
    columns = ["status", "attempt", "pair_id", "aspect_list", *(aspects_column(c) for c in CATEGORIES)]
    for table in shards.latest(run, columns):
        found += [row for row in table.to_pylist() if row["status"] == schema.ACCEPTED]
    if not found:
        raise InputError(run.uri(shards.FOLDER), "holds no accepted row", "Run the generate stage first")
    found.sort(key=lambda row: row["id"])
    return ConceptRows(
        [row["id"] for row in found],
        [row["aspect_list"] or [] for row in found],
        [row[aspects_column("genre")] or [] for row in found],
        [row["pair_id"] for row in found],
        {row["id"]: row["attempt"] for row in found},
        {tag: c for row in found for c in CATEGORIES for tag in row[aspects_column(c)] or []},
    )


def decoded_clips(run: RunDir, config: Config, clips: LabelledClips) -> Dataset:
    """The labelled clips as `DECODED`, wherever they come from."""
    if clips.attempts:
        return decoded_rows(run, config, clips.attempts)
    if clips.hub is not None:
        return decoded_hub(config, clips.hub, frozenset(clips.split))
    return decoded_files(config, list(clips.split))


def decoded_rows(run: RunDir, config: Config, attempts: Mapping[str, int]) -> Dataset:
    """Rows of the run as `DECODED`: the ones named, each at the attempt given."""
    rows = read_blocks(run, shards.FOLDER, rows_per_block=config.ray.rows_per_block)
    return rows.map_batches(
        partial(_decode_rows, attempts=dict(attempts), rate=config.tcav.classifier.sampling_rate),
        batch_format="pyarrow",
        batch_size=None,
        num_cpus=TASK_CPUS,
    )


def decoded_files(config: Config, paths: Sequence[str]) -> Dataset:
    """Files as `DECODED`; the id of a file is its path."""
    blocks = max(1, min(len(paths) // 16, 64))
    return (
        ray.data.from_arrow(pa.table({"id": pa.array(paths, pa.string())}))
        .repartition(blocks)
        .map_batches(
            partial(_decode_files, rate=config.tcav.classifier.sampling_rate),
            batch_format="pyarrow",
            batch_size=None,
            num_cpus=TASK_CPUS,
        )
    )


def decoded_hub(config: Config, hub: HubClips, wanted: Collection[str]) -> Dataset:
    """Clips of a hub dataset as `DECODED`: the ones named, by the names that `hub` gives them."""
    kept = [i for i, clip in enumerate(hub.clips) if clip.path in wanted]
    arrow = hub.rows.select_columns([hub.audio]).with_format("arrow")
    tables = []
    for start in range(0, len(kept), _HUB_BLOCK):
        part = kept[start : start + _HUB_BLOCK]
        audio = arrow[part][hub.audio].combine_chunks()
        tables.append(pa.table({"id": [hub.clips[i].path for i in part], "audio": audio}))
    return ray.data.from_arrow(tables).map_batches(
        partial(_decode_hub, rate=config.tcav.classifier.sampling_rate),
        batch_format="pyarrow",
        batch_size=None,
        num_cpus=TASK_CPUS,
    )


def _decode_hub(table: pa.Table, rate: int) -> pa.Table:
    return _decode(table["id"].to_pylist(), [bytes_of(audio) for audio in table["audio"].to_pylist()], rate)


def _decode_rows(table: pa.Table, attempts: dict[str, int], rate: int) -> pa.Table:
    ids, tried = table["id"].to_pylist(), table["attempt"].to_pylist()
    kept = table.filter(pa.array([attempts.get(i) == a for i, a in zip(ids, tried, strict=True)], pa.bool_()))
    payloads = [audio["bytes"] if audio else None for audio in kept["audio"].to_pylist()]
    return _decode(kept["id"].to_pylist(), payloads, rate)


def _decode_files(table: pa.Table, rate: int) -> pa.Table:
    paths = table["id"].to_pylist()
    fs = pafs.LocalFileSystem()
    payloads = []
    for path in paths:
        with fs.open_input_file(path) as file:
            payloads.append(file.read())
    return _decode(paths, payloads, rate)


def _decode(ids: list[str], payloads: list[bytes | None], rate: int) -> pa.Table:
    rows = [_decode_one(name, payload, rate) for name, payload in zip(ids, payloads, strict=True)]
    return pa.Table.from_pylist(rows, schema=DECODED)


def _decode_one(name: str, payload: bytes | None, rate: int) -> dict[str, Any]:
    """A clip as 16-bit samples at the classifier's rate, or what is wrong with it."""
    try:
        if not payload:
            raise ValueError("has no audio")
        wave, found = signal.decode(payload)
        mono = signal.downmix(signal.resample(wave, found, rate))
        if not mono.size or not np.isfinite(mono).all():
            raise ValueError("has no samples, or some that are not finite")
    except (ValueError, RuntimeError, OSError, soundfile.SoundFileError) as error:
        return {"id": name, "wave": None, "problem": describe(error)}
    samples = np.clip(np.round(mono * 32767), -32768, 32767).astype(np.int16)
    return {"id": name, "wave": samples.tobytes(), "problem": None}


def without_unreadable(rows: Dataset) -> tuple[Dataset, dict[str, str]]:
    """The decoded clips, held in the object store, and id -> problem of those that cannot be read."""
    held = rows.materialize()
    problem = col("problem")
    unread = held.filter(expr=problem.is_not_null(), num_cpus=TASK_CPUS)
    bad = unread.select_columns(["id", "problem"]).take_all()
    for row in bad:
        logger.warning("%s is skipped: %s", row["id"], row["problem"])
    good = held
    if bad:
        good = held.filter(expr=problem.is_null(), num_cpus=TASK_CPUS).drop_columns(["problem"]).materialize()
    return good, {row["id"]: row["problem"] for row in bad}
