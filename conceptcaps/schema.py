"""The row: column names, Arrow schemas of specs and shards, statuses and reasons."""

from __future__ import annotations

import pyarrow as pa

from conceptcaps.errors import InputError
from conceptcaps.vocabulary import CATEGORIES, aspects_column

ACCEPTED, REJECTED, FAILED = "accepted", "rejected", "failed"
STATUSES = (ACCEPTED, REJECTED, FAILED)
"""How a row ends. Rejected: made, and refused by a check. Failed: could not be made or checked."""

_TAGS = pa.list_(pa.string())
AUDIO = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
"""The Hugging Face Audio feature's storage type: an encoded file and its name."""

ASPECT_COLUMNS = ("aspect_list", *(aspects_column(c) for c in CATEGORIES))

_ASPECTS = [pa.field(name, _TAGS) for name in ASPECT_COLUMNS]
_IDENTITY = [pa.field("seed", pa.int64()), pa.field("pair_id", pa.string())]

SIGNAL = pa.struct([(name, pa.float32()) for name in ("silent", "clipped", "dc", "loudness", "flatness", "repetition")])
"""Measures of the waveform: see `audio.checks.Measures`."""

SPECS = pa.schema([pa.field("id", pa.string(), nullable=False), *_ASPECTS, *_IDENTITY])
"""What is to be made: id, tags, and the seed that every later random choice of the row derives from.

`pair_id` joins the two rows of a counterfactual pair; null elsewhere.
"""

CAPTION_CHECKS = [
    pa.field("caption_words", pa.int32()),
    pa.field("tag_coverage", pa.float32()),  # share of the tags that the caption says, in [0, 1]
    pa.field("contradicted", _TAGS),  # tags that it denies
    pa.field("caption_hash", pa.int64()),  # SimHash: near-duplicates differ in few bits
]
"""What the checks measured on a caption; null where there is none."""

SHARD = pa.schema(
    [
        # The published dataset's columns come first, with its names and types.
        pa.field("id", pa.string(), nullable=False),
        pa.field("caption", pa.string()),
        *_ASPECTS,
        pa.field("audio", AUDIO),
        *_IDENTITY,
        pa.field("sampling_rate", pa.int32()),  # Hz
        pa.field("duration", pa.float64()),  # seconds
        pa.field("clap_score", pa.float32()),  # cosine of caption and audio embeddings
        pa.field("clap_score_min", pa.float32()),  # the same of the clip's worst window
        pa.field("alignment_score", pa.float32()),  # what the threshold judged: clap_score, or less the run's means
        pa.field("status", pa.string(), nullable=False),
        pa.field("reason", pa.string()),  # stage.code or "stage.code: detail"; null for accepted rows
        pa.field("attempt", pa.int32(), nullable=False),  # 0 first; later attempts replace earlier ones
        pa.field("take", pa.int32()),  # which of audio.candidates was kept
        pa.field("signal", SIGNAL),
        pa.field("verified_aspects", _TAGS),  # tags that the audio carries; null where they were not verified
        pa.field("aspect_margins", pa.list_(pa.float32())),  # of each of aspect_list, standard deviations
        pa.field("audio_embedding", pa.list_(pa.float32())),  # of the clip that was kept, unit length
        *CAPTION_CHECKS,
    ]
)
"""What was made. Every spec ends as one row of the latest attempt, whatever its status."""


def reason(stage: str, code: str, detail: str = "") -> str:
    """A row's reason, e.g. 'alignment.below_threshold' or 'audio.error: ValueError: ...'."""
    return f"{stage}.{code}: {detail}" if detail else f"{stage}.{code}"


def reason_code(text: str | None) -> str:
    """The countable part of a reason: 'audio.error: ...' -> 'audio.error'; '' for null."""
    return (text or "").split(":", 1)[0]


def check(found: pa.Schema, wanted: pa.Schema, where: str) -> None:
    """Refuse a table that lacks columns of `wanted` or has them in another type.

    Raises:
        InputError: naming the file and every column at fault.
    """
    faults = []
    for field in wanted:
        at = found.get_field_index(field.name)
        if at < 0:
            faults.append(f"{field.name} is missing")
        elif found.field(at).type != field.type:
            faults.append(f"{field.name} is {found.field(at).type}, not {field.type}")
    if faults:
        raise InputError(where, "; ".join(faults), "Write it with this version, or remove it and run again")
