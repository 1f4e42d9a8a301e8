from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from conceptcaps.errors import InputError
from conceptcaps.tcav.gtzan import GENRES, Clip, assign, confusion, filtered_split, list_clips, stratified

FRACTIONS = {"seed": 0, "validation": 0.2, "test": 0.2}


def folder_of(tmp_path: Path, names: dict[str, int], pattern: str = "{}-{}.wav") -> Path:
    for label, count in names.items():
        (tmp_path / "genres_original" / label).mkdir(parents=True)
        for i in range(count):
            (tmp_path / "genres_original" / label / pattern.format(label, i)).write_bytes(b"")
    return tmp_path


def test_filtered_split_has_the_published_sizes_and_no_clip_twice() -> None:
    split = filtered_split()
    assert Counter(split.values()) == {"train": 443, "validation": 197, "test": 290}
    assert {name.split(".")[0] for name in split} == set(GENRES)
    assert split["blues.00000"] == "validation"
    assert split["blues.00029"] == "train"


def test_gtzan_names_get_the_filtered_split_and_faulty_files_are_left_out() -> None:
    clips = [Clip(f"{g}/{g}.{i:05d}.wav", g) for g in GENRES for i in range(100)]
    parts = assign(clips, **FRACTIONS)
    assert Counter(parts) == {"train": 443, "validation": 197, "test": 290, None: 70}
    random = assign(clips, **FRACTIONS, filtered=False)
    assert Counter(random) == {"train": 600, "validation": 200, "test": 200}


def test_any_labelled_folder_is_listed_and_split_within_each_class(tmp_path: Path) -> None:
    clips = list_clips(folder_of(tmp_path, {"ambient": 10, "techno": 20}))
    parts = assign(clips, **FRACTIONS)
    found = Counter((c.label, p) for c, p in zip(clips, parts, strict=True))
    assert found[("ambient", "test")] == 2
    assert found[("techno", "validation")] == 4


def test_a_clips_part_does_not_depend_on_the_order_of_the_others() -> None:
    names = [f"clip{i}" for i in range(40)]
    one = dict(zip(names, stratified(names, ["a"] * 40, 3, 0.2, 0.2), strict=True))
    other = dict(zip(names[::-1], stratified(names[::-1], ["a"] * 40, 3, 0.2, 0.2), strict=True))
    assert one == other
    assert one != dict(zip(names, stratified(names, ["a"] * 40, 4, 0.2, 0.2), strict=True))


def test_split_file_says_which_clip_is_for_what(tmp_path: Path) -> None:
    clips = list_clips(folder_of(tmp_path, {"a": 3, "b": 3}))
    table = tmp_path / "split.csv"
    lines = [f"{x}-{i}.wav,{part}" for x in "ab" for i, part in enumerate(("train", "validation", "test"))]
    table.write_text("\n".join(["file,split", *lines]))
    assert assign(clips, **FRACTIONS, split_file=table) == ["train", "validation", "test"] * 2
    table.write_text("file,split\na-0.wav,tset\n")
    with pytest.raises(InputError, match=r"line 2.*'tset'"):
        assign(clips, **FRACTIONS, split_file=table)


def test_class_without_audio_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"empty.*has no audio"):
        list_clips(folder_of(tmp_path, {"full": 3, "empty": 0}))
    with pytest.raises(InputError, match="is no folder"):
        list_clips(tmp_path / "nowhere")


def test_class_too_small_for_three_parts_is_named(tmp_path: Path) -> None:
    clips = list_clips(folder_of(tmp_path, {"full": 10, "tiny": 2}))
    with pytest.raises(InputError, match=r"class 'tiny' no clip for train"):
        assign(clips, **FRACTIONS)


def test_confusion_counts_labels_by_row() -> None:
    table = confusion(np.array([0, 0, 1]), np.array([0, 1, 1]), 2)
    assert table.tolist() == [[1, 1], [0, 1]]
