"""Labelled clips from the Hugging Face hub, e.g. a copy of GTZAN: bytes and labels, decoded elsewhere."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from conceptcaps.errors import InputError, describe
from conceptcaps.tcav.gtzan import Clip

LABEL_COLUMNS = ("genre", "label", "labels", "class")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class HubClips:
    """A dataset's clips in its own order.

    Args:
        clips: name and label of each; a name is its file's, or its number where names repeat.
        rows: the `datasets.Dataset`, its audio not decoded.
        audio: the column that holds bytes, or the path of a local file.
    """

    clips: list[Clip]
    rows: Any
    audio: str


def is_hub_dataset(name: str) -> bool:
    """Whether `load_hub_clips` is for this: 'owner/name', or a local folder that holds such a dataset's Parquet."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        return any(folder.glob("*.parquet")) or any(folder.glob("data/*.parquet"))
    return bool(_HUB_ID.fullmatch(name))


def load_hub_clips(name: str) -> HubClips:
    """All clips of a dataset, every split of it together.

    Args:
        name: hub id, or local folder in the hub's layout.

    Raises:
        InputError: the hub cannot be reached, has no such dataset, or the dataset has no audio, no labels or clips
            without a label.
    """
    import datasets

    try:
        splits = datasets.load_dataset(str(Path(name).expanduser()) if Path(name).expanduser().is_dir() else name)
    except Exception as error:  # whatever the hub, the network or a foreign loading script raises
        raise InputError(
            f"tcav.clips {name!r}",
            f"is no local folder and cannot be loaded from the hub ({' '.join(describe(error).split())[:200]})",
            "Check the id and the network, or give a folder <genre>/*.wav",
        ) from error
    rows = datasets.concatenate_datasets(list(splits.values()))
    audio = next((c for c, f in rows.features.items() if isinstance(f, datasets.Audio)), None)
    label = next((c for c in LABEL_COLUMNS if c in rows.features), None)
    if audio is None or label is None:
        missing = "audio" if audio is None else f"label ({', '.join(LABEL_COLUMNS)})"
        raise InputError(
            f"tcav.clips {name!r}", f"has no {missing} column", f"It has {', '.join(rows.features)}: give another"
        )
    rows = rows.cast_column(audio, datasets.Audio(decode=False))
    labels = _labels(rows, label, name)
    return HubClips([Clip(n, k) for n, k in zip(_names(rows, audio), labels, strict=True)], rows, audio)


def _labels(rows: Any, column: str, name: str) -> list[str]:
    feature, values = rows.features[column], rows[column]
    unlabelled = [i for i, v in enumerate(values) if v is None or v == -1]
    if unlabelled:
        raise InputError(f"tcav.clips {name!r}", f"has no label in row {unlabelled[0]}", "Give a labelled dataset")
    return [feature.names[v] for v in values] if hasattr(feature, "names") else [str(v) for v in values]


def _names(rows: Any, audio: str) -> list[str]:
    """File names where each clip has one of its own, else row numbers."""
    if "file" in rows.features:
        paths = list(rows["file"])
    else:
        parts = rows.with_format("arrow").iter(batch_size=64)
        paths = [p for part in parts for p in pc.struct_field(part[audio], "path").to_pylist()]
    names = [Path(p).name if p else "" for p in paths]
    return names if all(names) and len(set(names)) == len(names) else [f"{i:06d}" for i in range(len(rows))]


def bytes_of(value: Mapping[str, Any] | None) -> bytes | None:
    """A clip's bytes, read from its path where the dataset holds none."""
    if not value:
        return None
    if value["bytes"] is None and value["path"] and Path(value["path"]).is_file():
        return Path(value["path"]).read_bytes()
    return value["bytes"]
