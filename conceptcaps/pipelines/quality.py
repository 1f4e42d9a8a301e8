"""Measures of the audio that was made, from what scoring left in the shards: no second pass over any clip."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray.data

from conceptcaps import schema, seeding, shards, signal
from conceptcaps.alignment.windows import pooled
from conceptcaps.config import Config
from conceptcaps.config.alignment import AlignmentConfig
from conceptcaps.errors import InputError, describe
from conceptcaps.metrics.distances import distance
from conceptcaps.pipelines.artefacts import write_table
from conceptcaps.pipelines.steps import Engines
from conceptcaps.rundir import RunDir
from conceptcaps.runtime import Demand, check_capacity, pool_arguments

logger = logging.getLogger(__name__)

RESULTS, CONCEPTS, REFERENCE = (
    ("quality", "results.json"),
    ("quality", "concepts.parquet"),
    ("quality", "reference.parquet"),
)
AUDIO_SUFFIXES = frozenset({".wav", ".flac", ".mp3", ".ogg"})
_EMBEDDED = pa.schema(
    [pa.field("path", pa.string()), pa.field("embedding", pa.list_(pa.float32())), pa.field("problem", pa.string())]
)


@dataclass
class Concept:
    """How the rows of one tag fared."""

    rows: int = 0
    accepted: int = 0
    verified: int = 0
    score: float = 0.0  # sum
    scored: int = 0


@dataclass
class Tally:
    """The run's rows, counted by tag, and a seeded sample of accepted clips' embeddings."""

    size: int
    concepts: dict[str, Concept] = field(default_factory=dict)
    was_verified: bool = False
    signal: dict[str, list[float]] = field(default_factory=dict)
    sample: list[tuple[int, tuple[str, ...], np.ndarray]] = field(default_factory=list)

    def add(self, row: dict[str, Any]) -> None:
        """Count one row of the shards."""
        accepted, verified = row["status"] == schema.ACCEPTED, set(row["verified_aspects"] or ())
        self.was_verified |= row["verified_aspects"] is not None
        for tag in row["aspect_list"] or ():
            concept = self.concepts.setdefault(tag, Concept())
            concept.rows += 1
            concept.accepted += accepted
            concept.verified += accepted and tag in verified
            if row["alignment_score"] is not None:
                concept.score, concept.scored = concept.score + row["alignment_score"], concept.scored + 1
        for name, value in (row["signal"] or {}).items() if accepted else ():
            self.signal.setdefault(name, []).append(value)
        if accepted and row["audio_embedding"]:
            key = seeding.derive(0, "quality", row["id"])
            self.sample.append((key, tuple(row["aspect_list"]), np.array(row["audio_embedding"], np.float32)))
            if len(self.sample) >= 2 * self.size:
                self.trim()

    def trim(self) -> None:
        """Keep the `size` rows whose keys come first, whatever the order of files."""
        self.sample = sorted(self.sample, key=lambda entry: entry[0])[: self.size]


def run_quality(config: Config, run: RunDir) -> dict[str, Any]:
    """Write `quality/results.json` and `quality/concepts.parquet`; returns facts for the manifest.

    Raises:
        InputError: no shards, or a reference that holds no audio.
    """
    if not run.files(shards.FOLDER, suffix=".parquet"):
        raise InputError(run.uri(shards.FOLDER), "holds no Parquet files", "Run `conceptcaps generate` first")
    tally = Tally(config.quality.max_clips)
    columns = ["status", "aspect_list", "alignment_score", "signal", "verified_aspects", "audio_embedding"]
    for table in shards.latest(run, columns):
        for row in table.to_pylist():
            tally.add(row)
    tally.trim()
    reference = reference_embeddings(config, run) if config.quality.reference else None
    concepts = concept_rows(tally, reference, config)
    write_table(pa.Table.from_pylist(concepts), run, *CONCEPTS)
    results = {
        "rows_by_concept": len(concepts),
        "verified_tags": _verified_share(tally),
        "signal": {name: _quantiles(values) for name, values in tally.signal.items()},
        "distance": _distance(np.array([e for _, _, e in tally.sample]), reference, config),
        "reference": config.quality.reference,
    }
    run.write_json(results, *RESULTS)
    return {"concepts": len(concepts), "verified_tags": results["verified_tags"], "distance": results["distance"]}


def concept_rows(tally: Tally, reference: np.ndarray | None, config: Config) -> list[dict[str, Any]]:
    """One row per tag: how many rows were made and accepted, their scores, and their distance to the reference."""
    found = []
    for tag, concept in sorted(tally.concepts.items()):
        own = np.array([e for _, tags, e in tally.sample if tag in tags])
        enough = len(own) >= config.quality.min_concept_clips
        apart = _distance(own, reference, config) if enough else None
        found.append(
            {
                "tag": tag,
                "rows": concept.rows,
                "accepted": concept.accepted,
                "acceptance": concept.accepted / concept.rows,
                "mean_score": concept.score / concept.scored if concept.scored else None,
                "verified": concept.verified / concept.accepted if tally.was_verified and concept.accepted else None,
                "clips": apart["clips"] if apart else None,
                "fad": apart["fad"] if apart else None,
                "kad": apart["kad"] if apart else None,
            }
        )
    return found


def reference_embeddings(config: Config, run: RunDir) -> np.ndarray:
    """float32 (num_clips, dim) of the reference's clips by the run's own aligner, computed once.

    Raises:
        InputError: a folder without audio that can be read.
    """
    if not run.exists(*REFERENCE):
        found = _embed_reference(config)
        bad = [row for row in found if row["problem"]]
        for row in bad:
            logger.warning("reference clip %s is left out: %s", row["path"], row["problem"])
        if len(found) - len(bad) < 4:
            where = f"key 'quality.reference', {config.quality.reference}"
            raise InputError(where, f"has {len(found) - len(bad)} clips that can be read", "Give at least four")
        write_table(pa.Table.from_pylist(found, schema=_EMBEDDED), run, *REFERENCE)
    table = pq.read_table(run.path(*REFERENCE), filesystem=run.fs, columns=["embedding"])
    return np.array(table["embedding"].drop_null().to_pylist(), np.float32)


def _embed_reference(config: Config) -> list[dict[str, Any]]:
    folder = Path(str(config.quality.reference)).expanduser()
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in AUDIO_SUFFIXES) if folder.is_dir() else []
    if not paths:
        raise InputError(f"key 'quality.reference', {folder}", "holds no audio files", "Give a folder of wav or flac")
    chosen = sorted(paths, key=lambda p: seeding.derive(config.seed, "reference", p.name))[
        : config.quality.max_reference
    ]
    check_capacity([Demand("alignment.resources", config.alignment.resources)])
    rows = ray.data.from_arrow(pa.table({"path": [str(p) for p in sorted(chosen)]})).map_batches(
        EmbedFiles,
        fn_constructor_args=(config.alignment, Engines(), config.audio.duration),
        batch_format="pyarrow",
        **pool_arguments(config.alignment.resources),
    )
    return sorted(rows.take_all(), key=lambda row: row["path"])


class EmbedFiles:
    """Audio files to embeddings; a file that cannot be read has its problem instead.

    Args:
        config: section `alignment`.
        engines: makes the aligner.
        seconds: how much of each file counts: as much as a clip of the run has.
    """

    def __init__(self, config: AlignmentConfig, engines: Engines, seconds: float):
        self.engine, self.seconds = engines.aligner(config), seconds

    def __call__(self, table: pa.Table) -> pa.Table:
        return pa.Table.from_pylist([self._one(path) for path in table["path"].to_pylist()], schema=_EMBEDDED)

    def _one(self, path: str) -> dict[str, Any]:
        try:
            waveform, rate = signal.decode(Path(path).read_bytes())
            cut = waveform[:, : max(1, round(self.seconds * rate))]
            embedding = pooled(self.engine.embed_windows([cut], rate))[0]
            return {"path": path, "embedding": embedding.tolist(), "problem": None}
        except (OSError, RuntimeError, ValueError) as error:
            return {"path": path, "embedding": None, "problem": describe(error)}


def _distance(made: np.ndarray, reference: np.ndarray | None, config: Config) -> dict[str, Any] | None:
    if reference is None or min(len(made), len(reference)) < 4:
        return None
    seed = seeding.derive(config.seed, "quality")
    return asdict(distance(made, reference, bootstraps=config.quality.bootstraps, seed=seed))


def _verified_share(tally: Tally) -> float | None:
    """Share of the tags of accepted rows that their audio carries."""
    accepted = sum(concept.accepted for concept in tally.concepts.values())
    if not tally.was_verified or not accepted:
        return None
    return sum(concept.verified for concept in tally.concepts.values()) / accepted


def _quantiles(values: Iterable[float]) -> dict[str, float]:
    low, middle, high = np.quantile(np.array(list(values), float), [0.05, 0.5, 0.95])
    return {"p5": float(low), "median": float(middle), "p95": float(high)}
