"""A run directory with shards as the pipeline writes them, made in a moment: tiny audio, seeded tags and captions."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from conceptcaps import schema, seeding, signal
from conceptcaps.rundir import Manifest, RunDir
from conceptcaps.vocabulary import Vocabulary

RATE = 8000
VOCABULARY = Vocabulary.from_mapping(
    {
        "genre": ["rock", "jazz", "techno", "folk"],
        "mood": ["happy", "sad", "calm"],
        "instrument": ["electric guitar", "piano", "flute", "drums"],
        "tempo": ["slow tempo", "fast tempo"],
    }
)
_FILLER = [
    "warm",
    "bright",
    "hazy",
    "crisp",
    "gentle",
    "rolling",
    "distant",
    "shimmering",
    "raw",
    "lush",
    "tender",
    "driving",
    "sparse",
    "echoing",
]


def tags_of(index: int, seed: int = 0) -> list[str]:
    """Tags with a confounder: electric guitar mostly comes with rock."""
    rng = seeding.generator(seed, "tags", index)
    genre = VOCABULARY.tags_by_category["genre"][rng.integers(4)]
    tags = {genre, str(rng.choice(VOCABULARY.tags_by_category["mood"]))}
    tags.add(str(rng.choice(VOCABULARY.tags_by_category["tempo"])))
    guitar = 0.9 if genre == "rock" else 0.15
    tags |= {t for t in VOCABULARY.tags_by_category["instrument"] if rng.random() < (guitar if "guitar" in t else 0.3)}
    return VOCABULARY.columns(tags)["aspect_list"]


def caption_of(tags: list[str], seed: int) -> str:
    words = seeding.generator(seed, "caption").choice(_FILLER, 12)
    return f"A {' '.join(words[:6])} piece with {', '.join(tags)}, {' '.join(words[6:])}."


def rows(num_rows: int, *, seed: int = 0, attempt: int = 0, audio: bool = True, rejected: float = 0.2) -> list[dict]:
    """Shard rows; every fifth or so is rejected, every fortieth failed."""
    made = []
    for index in range(num_rows):
        row_id, row_seed = seeding.row_identity(seed, index)
        rng = seeding.generator(row_seed, "outcome", attempt)
        tags = tags_of(index, seed)
        row = {"id": row_id, "seed": row_seed, "attempt": attempt, "take": 0, **VOCABULARY.columns(tags)}
        row |= {"caption": caption_of(tags, row_seed), "sampling_rate": RATE, "duration": 0.25}
        if rng.random() < 0.025:
            row |= {"status": schema.FAILED, "reason": "audio.error: ValueError: <b>no</b> sound"}
        elif rng.random() < rejected:
            row |= {"status": schema.REJECTED, "reason": "alignment.below_threshold"} | _scores(0.1 * rng.random())
        else:
            row |= {"status": schema.ACCEPTED} | _scores(0.3 + 0.4 * rng.random())
            row["audio"] = {"bytes": _clip(index) if audio else b"", "path": f"{row_id}.flac"}
        made.append(row)
    return made


def _scores(score: float) -> dict[str, float]:
    return {"clap_score": score, "clap_score_min": score, "alignment_score": score}


def _clip(index: int) -> bytes:
    tone = 0.3 * np.sin(2 * np.pi * (220 + index % 50 * 10) * np.arange(RATE // 4) / RATE)
    return signal.encode(tone[None].astype(np.float32), RATE)


def write_shards(run: RunDir, made: list[dict], *, attempt: int = 0, per_file: int = 16) -> list[str]:
    """Write rows as shard files; their paths."""
    paths = []
    run.fs.create_dir(run.path("shards", f"attempt-{attempt}"), recursive=True)
    for number, at in enumerate(range(0, len(made), per_file)):
        paths.append(run.path("shards", f"attempt-{attempt}", f"part_{number:06d}.parquet"))
        pq.write_table(pa.Table.from_pylist(made[at : at + per_file], schema=schema.SHARD), paths[-1])
    return paths


def write_run(location, num_rows: int = 120, *, seed: int = 0, audio: bool = True, finish: bool = True) -> RunDir:
    """A run whose `generate` stage is finished."""
    run = RunDir(location)
    made = rows(num_rows, seed=seed, audio=audio)
    write_shards(run, made)
    run.fs.create_dir(run.path("specs"), recursive=True)
    specs = [{name: row[name] for name in schema.SPECS.names if name in row} for row in made]
    pq.write_table(pa.Table.from_pylist(specs, schema=schema.SPECS), run.path("specs", "specs.parquet"))
    run.write_bytes(VOCABULARY.to_json().encode(), "taxonomy", "concepts_to_tags.json")
    manifest = Manifest(run)
    manifest.begin("generate", {"seed": seed})
    if finish:
        statuses = [row["status"] for row in made]
        counts = {"rows": len(made), **{s: statuses.count(s) for s in schema.STATUSES}}
        manifest.finish("generate", counts=counts, seconds=12.5)
    return run
