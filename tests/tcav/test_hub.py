"""Hub datasets from a local folder in the hub's layout: what `load_dataset` reads, without a network."""

from __future__ import annotations

from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conceptcaps import signal
from conceptcaps.errors import InputError
from conceptcaps.tcav.hub import bytes_of, is_hub_dataset, load_hub_clips

RATE = 8_000
FEATURES = datasets.Features(
    {"audio": datasets.Audio(decode=False), "genre": datasets.ClassLabel(names=["blues", "jazz"])}
)


def write(folder: Path, rows: list[dict], features: datasets.Features = FEATURES) -> Path:
    (folder / "data").mkdir(parents=True)
    table = pa.Table.from_pylist(rows, schema=features.arrow_schema)
    pq.write_table(table, folder / "data" / "train-00000-of-00001.parquet")
    return folder


def row(name: str | None, genre: str, payload: bytes | None = None) -> dict:
    wave = signal.encode(np.zeros((1, RATE), np.float32), RATE, "wav")
    label = FEATURES["genre"].str2int(genre)
    return {"audio": {"bytes": payload or wave, "path": name}, "genre": label}


def test_clips_have_their_files_names_labels_and_bytes(tmp_path: Path) -> None:
    rows = [row("blues.00000.wav", "blues"), row("jazz.00054.wav", "jazz", b"RIFF broken")]
    folder = write(tmp_path / "gtzan", rows)
    assert is_hub_dataset(str(folder))
    found = load_hub_clips(str(folder))
    assert [(c.path, c.label) for c in found.clips] == [("blues.00000.wav", "blues"), ("jazz.00054.wav", "jazz")]
    assert [bytes_of(found.rows[i][found.audio]) for i in (0, 1)] == [rows[0]["audio"]["bytes"], b"RIFF broken"]


def test_clips_without_names_of_their_own_are_numbered(tmp_path: Path) -> None:
    folder = write(tmp_path / "a", [row("audio.wav", "blues"), row("audio.wav", "jazz")])
    assert [c.path for c in load_hub_clips(str(folder)).clips] == ["000000", "000001"]


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    silent = datasets.Features({"genre": datasets.Value("string")})
    with pytest.raises(InputError, match=r"no audio column.*genre"):
        load_hub_clips(str(write(tmp_path / "silent", [{"genre": "jazz"}], silent)))
    unlabelled = datasets.Features({"audio": datasets.Audio(decode=False)})
    with pytest.raises(InputError, match=r"no label \(genre, .*audio"):
        load_hub_clips(str(write(tmp_path / "bare", [{"audio": row("a.wav", "jazz")["audio"]}], unlabelled)))


def test_hub_that_cannot_be_reached_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(name: str) -> None:
        raise ConnectionError(f"Couldn't reach {name!r} on the Hub")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    assert is_hub_dataset("owner/gtzan")
    with pytest.raises(InputError, match=r"'owner/gtzan'.*cannot be loaded from the hub.*reach.*Check the id"):
        load_hub_clips("owner/gtzan")


def test_folders_of_genres_are_no_hub_dataset(tmp_path: Path) -> None:
    assert not is_hub_dataset(str(tmp_path))
    assert not is_hub_dataset("gtzan")
    assert not is_hub_dataset("/nowhere/at/all")
