"""What the page shows, read from a run's artefacts in one stream; no audio but that of the examples."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from conceptcaps import schema, seeding, shards
from conceptcaps.rundir import RunDir
from conceptcaps.vocabulary import Vocabulary

_READ = (
    "status",
    "reason",
    "clap_score",
    "alignment_score",
    "caption",
    "aspect_list",
    "duration",
    "attempt",
    "pair_id",
)
_SHARE_ACCEPTED = 0.8  # of the listed examples, where there are others
_CAPTIONS_COUNTED = 20_000  # distinct n-grams grow with the number of captions: one fixed number for every run

Row = dict[str, Any]


@dataclass
class TagStatistics:
    """Tags of many rows: how often each, how often together, how many per row."""

    vocabulary: Vocabulary
    rows: int = 0
    sizes: Counter[int] = field(default_factory=Counter)
    together: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    """float64 (num_tags, num_tags): rows with both tags; the diagonal counts each tag."""

    def __post_init__(self) -> None:
        if not self.together.size:
            self.together = np.zeros((len(self.vocabulary),) * 2)

    def add(self, tag_sets: Sequence[Sequence[str]]) -> None:
        matrix = self.vocabulary.encode(tag_sets).astype(np.float32)
        self.rows += len(matrix)
        self.sizes.update(matrix.sum(1).astype(int).tolist())
        self.together += matrix.T @ matrix

    @property
    def counts(self) -> np.ndarray:
        """float64 (num_tags,)."""
        return np.diag(self.together)

    @property
    def shares(self) -> np.ndarray:
        """float64 (num_tags,): fraction of rows with each tag."""
        return self.counts / max(1, self.rows)

    def phi(self) -> np.ndarray:
        """float64 (num_tags, num_tags): Pearson correlation of tags; nan where one is never or always set."""
        p = self.shares
        deviation = np.sqrt(p * (1 - p))
        with np.errstate(divide="ignore", invalid="ignore"):
            return (self.together / max(1, self.rows) - np.outer(p, p)) / np.outer(deviation, deviation)


@dataclass
class Gathered:
    """The rows of a run, counted."""

    counts: shards.Counts
    reasons: dict[str, Counter[str]]
    """status -> the codes of its rows' reasons."""
    tags: TagStatistics
    """Of the accepted rows."""
    scores: dict[str, list[float]]
    """status -> alignment scores."""
    caption_words: list[int]
    seconds: float
    """Of accepted audio."""
    distinct: dict[int, float]
    """n -> different n-grams per n-gram in the first captions."""
    tags_said: float
    """Share of accepted rows' tags that stand word for word in the caption."""
    examples: list[Row]
    """In a seeded random order, accepted rows first."""


def vocabulary_of(run: RunDir) -> Vocabulary:
    """The run's vocabulary, or where there is none the tags of its shards."""
    if run.exists("taxonomy", "concepts_to_tags.json"):
        return Vocabulary.from_json(run.read_bytes("taxonomy", "concepts_to_tags.json"))
    found: dict[str, set[str]] = {}
    for table in shards.latest(run, schema.ASPECT_COLUMNS[1:]):
        for name in schema.ASPECT_COLUMNS[1:]:
            tags = table[name].combine_chunks().flatten().unique().to_pylist()
            found.setdefault(name.removesuffix("_aspects"), set()).update(tags)
    return Vocabulary.from_mapping({category: sorted(tags) for category, tags in found.items()}, run.uri("shards"))


def gather(run: RunDir, vocabulary: Vocabulary, num_examples: int) -> Gathered:
    """Read every shard's small columns once."""
    counts, tags = shards.Counts(), TagStatistics(vocabulary)
    reasons: dict[str, Counter[str]] = {status: Counter() for status in schema.STATUSES}
    scores: dict[str, list[float]] = {status: [] for status in schema.STATUSES}
    words: list[int] = []
    grams: dict[int, Counter[tuple[str, ...]]] = {1: Counter(), 2: Counter()}
    seconds, said, sayable = 0.0, 0, 0
    keep = {True: _Sample(num_examples), False: _Sample(num_examples)}
    for table in shards.latest(run, list(_READ)):
        rows = table.to_pylist()
        accepted = [row for row in rows if row["status"] == schema.ACCEPTED]
        counts.statuses.update(row["status"] for row in rows)
        tags.add([row["aspect_list"] or () for row in accepted])
        seconds += sum(row["duration"] or 0.0 for row in accepted)
        for row in rows:
            if row["reason"]:
                reasons[row["status"]][schema.reason_code(row["reason"])] += 1
            if row["alignment_score"] is not None:
                scores[row["status"]].append(row["alignment_score"])
            keep[row["status"] == schema.ACCEPTED].offer(row)
        for row in accepted:
            tokens = (row["caption"] or "").lower().split()
            words.append(len(tokens))
            if len(words) <= _CAPTIONS_COUNTED:
                for n, counter in grams.items():
                    counter.update(zip(*(tokens[k:] for k in range(n)), strict=False))
            text = (row["caption"] or "").lower()
            said += sum(tag.lower() in text for tag in row["aspect_list"] or ())
            sayable += len(row["aspect_list"] or ())
    return Gathered(
        counts=counts,
        reasons=reasons,
        tags=tags,
        scores=scores,
        caption_words=words,
        seconds=seconds,
        distinct={n: len(counter) / max(1, counter.total()) for n, counter in grams.items()},
        tags_said=said / max(1, sayable),
        examples=_mix(keep[True].rows(), keep[False].rows(), num_examples),
    )


class _Sample:
    """The rows whose ids come first in a seeded order: the same whatever the order of files."""

    def __init__(self, size: int):
        self.size = size
        self.heap: list[tuple[int, str, Row]] = []

    def offer(self, row: Row) -> None:
        entry = (-seeding.derive(0, "example", row["id"]), row["id"], row)
        if len(self.heap) < self.size:
            heapq.heappush(self.heap, entry)
        elif self.size and entry > self.heap[0]:
            heapq.heapreplace(self.heap, entry)

    def rows(self) -> list[Row]:
        return [row for _, _, row in sorted(self.heap, reverse=True)]


def _mix(accepted: list[Row], others: list[Row], size: int) -> list[Row]:
    num_accepted = max(int(size * _SHARE_ACCEPTED), size - len(others))
    first = accepted[:num_accepted]
    return first + others[: size - len(first)]


def attach_audio(run: RunDir, examples: Sequence[Row]) -> Iterator[tuple[Row, bytes]]:
    """The examples that have audio in the shards, with its bytes; adds `shard`, the file each row is in."""
    wanted = {(row["id"], row["attempt"]): row for row in examples}
    for path in run.files(shards.FOLDER, suffix=".parquet"):
        with pq.ParquetFile(path, filesystem=run.fs) as file:
            at = 0
            for batch in file.iter_batches(256, columns=["id", "attempt"]):
                keys = list(zip(batch["id"].to_pylist(), batch["attempt"].to_pylist(), strict=True))
                hits = {at + i: wanted[key] for i, key in enumerate(keys) if key in wanted}
                for position, row in hits.items():
                    row["shard"] = path.removeprefix(run.root).lstrip("/")
                    data = _audio_at(file, position)
                    if data:
                        yield row, data
                at += len(batch)


def _audio_at(file: pq.ParquetFile, position: int) -> bytes | None:
    """The audio bytes of one row; reads the row group that it is in, a few rows at a time."""
    group = 0
    while position >= file.metadata.row_group(group).num_rows:
        position -= file.metadata.row_group(group).num_rows
        group += 1
    for batch in file.iter_batches(32, row_groups=[group], columns=["audio"]):
        if position < len(batch):
            audio = batch["audio"][position].as_py()
            return audio["bytes"] if audio else None
        position -= len(batch)
    return None


def source_tags(run: RunDir, vocabulary: Vocabulary) -> TagStatistics | None:
    """Tags of the real rows that the taxonomy stage kept; None where it has not run."""
    paths = run.files("taxonomy", "rows", suffix=".parquet")
    if not paths:
        return None
    found = TagStatistics(vocabulary)
    for path in paths:
        table = pq.read_table(path, columns=["aspect_list"], filesystem=run.fs, partitioning=None)
        found.add([tags or () for tags in table["aspect_list"].to_pylist()])
    return found


def throughput(run: RunDir) -> tuple[np.ndarray, np.ndarray] | None:
    """Minutes since the first shard and rows written by then, from the files' times; None for fewer than two files."""
    paths = run.files(shards.FOLDER, suffix=".parquet")
    infos = sorted(run.fs.get_file_info(paths), key=lambda info: info.mtime_ns or 0) if len(paths) > 1 else []
    if not infos:
        return None
    rows = np.cumsum([pq.read_metadata(info.path, filesystem=run.fs).num_rows for info in infos])
    times = np.array([info.mtime_ns or 0 for info in infos])
    return (times - times[0]) / 60e9, rows


def read_optional(run: RunDir, *parts: str) -> Any:
    """A JSON artefact, or None where its stage has not written it."""
    return run.read_json(*parts) if run.exists(*parts) else None


def read_table(run: RunDir, *parts: str) -> list[Row]:
    """The rows of a Parquet artefact; none where its stage has not written it."""
    if not run.exists(*parts):
        return []
    return pq.read_table(run.path(*parts), filesystem=run.fs, partitioning=None).to_pylist()


def has_shards(run: RunDir) -> bool:
    return bool(run.files(shards.FOLDER, suffix=".parquet"))
