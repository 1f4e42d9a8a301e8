"""Labelled folders of clips, GTZAN's among them, and splits that keep an artist on one side.

GTZAN (Tzanetakis and Cook 2002) repeats recordings and artists and has mislabelled and distorted files (Sturm 2013), so
that accuracy on a random split is inflated. The filtered split leaves the faulty files out and no artist crosses it.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Literal

import numpy as np

from conceptcaps.errors import InputError
from conceptcaps.seeding import derive

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
GENRES = ("blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock")
AUDIO_SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".au", ".aif", ".aiff")
FILTERED_SPLIT = "gtzan_filtered_split.csv"
_GTZAN_NAME = re.compile(rf"({'|'.join(GENRES)})\.(\d{{5}})$")


@dataclass(frozen=True)
class Clip:
    """One labelled file: its path, and its label, the name of its folder."""

    path: str
    label: str


def list_clips(folder: str | Path) -> list[Clip]:
    """The audio files of `<folder>/<label>/` (or of `<folder>/genres_original/<label>/`), sorted.

    Raises:
        InputError: no such folder, no labels, or a label without audio.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise InputError(str(folder), "is no folder", "Give a folder that holds one folder of audio per genre")
    root = next((root / name for name in ("genres_original", "genres") if (root / name).is_dir()), root)
    labels = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    if len(labels) < 2:
        raise InputError(str(root), f"has {len(labels)} genre folders", "Give at least two, each with audio files")
    clips = {p: sorted(f for f in p.iterdir() if f.suffix.lower() in AUDIO_SUFFIXES) for p in labels}
    empty = [p.name for p, files in clips.items() if not files]
    if empty:
        raise InputError(
            str(root / empty[0]), f"has no audio (classes without any: {', '.join(empty)})", "Add clips or remove it"
        )
    return [Clip(str(f), p.name) for p, files in clips.items() for f in files]


@lru_cache(maxsize=1)
def filtered_split() -> Mapping[str, Split]:
    """GTZAN file name such as 'blues.00029' -> its part of the fault-filtered split of Kereliuk, Sturm and Larsen
    (2015): 443 clips to train, 197 to validate, 290 to test; the other 70 are left out."""
    text = resources.files("conceptcaps.assets").joinpath(FILTERED_SPLIT).read_text(encoding="utf-8")
    table: dict[str, Split] = {}
    for row in csv.DictReader(io.StringIO(text)):
        for number in range(int(row["first"]), int(row["last"]) + 1):
            table[f"{row['genre']}.{number:05d}"] = row["split"]  # type: ignore[assignment]
    return table


def assign(
    clips: Sequence[Clip],
    *,
    seed: int,
    validation: float,
    test: float,
    filtered: bool = True,
    split_file: str | Path | None = None,
) -> list[Split | None]:
    """Which part each clip belongs to; None for clips that the filtered split leaves out.

    Args:
        clips: as listed.
        seed: of the random split.
        validation: fraction for early stopping, where no list says.
        test: fraction for testing, where no list says.
        filtered: use GTZAN's filtered split where the files have GTZAN's names.
        split_file: a CSV with columns `file` (name, with or without folder and suffix) and `split`.

    Raises:
        InputError: a split file that does not fit, or a class without clips in a part.
    """
    if split_file is not None:
        parts = _from_table([c.path for c in clips], _read_split_file(split_file))
    elif filtered and all(_GTZAN_NAME.search(Path(c.path).stem) for c in clips):
        parts = _from_table([c.path for c in clips], filtered_split())
    else:
        parts = stratified([c.path for c in clips], [c.label for c in clips], seed, validation, test)
    _check(clips, parts, str(split_file or "the split"))
    return parts


def stratified(
    names: Sequence[str], labels: Sequence[str], seed: int, validation: float, test: float
) -> list[Split | None]:
    """A random split with the same fractions in every class, at least one clip of each in each part.

    A clip's place depends on its name and the seed, not on the order of the clips.
    """
    parts: list[Split | None] = ["train"] * len(names)
    for label in dict.fromkeys(labels):
        own = [i for i, found in enumerate(labels) if found == label]
        own.sort(key=lambda i: derive(seed, "split", names[i]))
        num_test = max(1, round(test * len(own)))
        num_validation = max(1, round(validation * len(own)))
        for place, i in enumerate(own[: num_test + num_validation]):
            parts[i] = "test" if place < num_test else "validation"
    return parts


def _from_table(paths: Sequence[str], table: Mapping[str, Split]) -> list[Split | None]:
    return [table.get(Path(p).stem) or table.get(Path(p).name) for p in paths]


def _read_split_file(path: str | Path) -> dict[str, Split]:
    try:
        rows = list(csv.DictReader(io.StringIO(Path(path).read_text(encoding="utf-8"))))
    except OSError as error:
        raise InputError(
            str(path), f"cannot be read ({error.strerror})", "Give a CSV with columns file,split"
        ) from error
    table: dict[str, Split] = {}
    for number, row in enumerate(rows, start=2):
        name, part = (row.get("file") or "").strip(), (row.get("split") or "").strip()
        if not name or part not in SPLITS:
            raise InputError(f"{path}, line {number}", f"says {part!r} for {name!r}", f"Use one of {', '.join(SPLITS)}")
        table[Path(name).stem if Path(name).suffix in AUDIO_SUFFIXES else Path(name).name] = SPLITS[SPLITS.index(part)]
    return table


def _check(clips: Sequence[Clip], parts: Sequence[Split | None], where: str) -> None:
    for label in dict.fromkeys(c.label for c in clips):
        have = {p for c, p in zip(clips, parts, strict=True) if c.label == label}
        missing = [s for s in SPLITS if s not in have]
        if missing:
            raise InputError(
                where,
                f"gives class {label!r} no clip for {missing[0]}",
                "Add clips, or split with tcav.split=random or a tcav.split_file",
            )


def confusion(labels: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """int64 (num_classes, num_classes): rows are labels, columns predictions."""
    table = np.zeros((num_classes, num_classes), dtype=np.int64)
    np.add.at(table, (labels, predicted), 1)
    return table
