"""Seeds, vocabulary, schema and signals: what every stage stands on."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest

from conceptcaps import extras, schema, seeding, signal
from conceptcaps.errors import InputError, describe
from conceptcaps.vocabulary import Vocabulary

TAXONOMY = {"tempo": ["slow"], "genre": ["rock", "jazz"], "mood": ["sad"], "instrument": ["piano"]}


def test_row_identity_depends_on_run_seed_and_index_only():
    ids = [seeding.row_identity(7, i) for i in range(1000)]
    assert ids == [seeding.row_identity(7, i) for i in range(1000)]
    assert len({seed for _, seed in ids}) == 1000
    assert [i for i, _ in ids] == sorted(i for i, _ in ids)
    assert all(0 <= seed < 2**63 for _, seed in ids)
    assert seeding.row_identity(8, 0) != ids[0]
    assert list(seeding.row_identities(7, 400, 600)) == ids[400:600]
    assert ids[5][1] == seeding.derive(7, "row", 5)


def test_derived_generators_are_independent_and_leave_global_state_alone():
    np.random.seed(0)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    a, b = seeding.generator(1, "drums").random(4), seeding.generator(1, "bass").random(4)
    assert not np.allclose(a, b)
    assert np.array_equal(a, seeding.generator(1, "drums").random(4))
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002


def test_vocabulary_encodes_and_decodes_in_published_column_order():
    vocabulary = Vocabulary.from_mapping(TAXONOMY)
    assert vocabulary.tags == ("rock", "jazz", "sad", "piano", "slow")
    matrix = vocabulary.encode([["slow", "rock", "unknown"], []])
    assert matrix.tolist() == [[1, 0, 0, 0, 1], [0, 0, 0, 0, 0]]
    assert vocabulary.decode(matrix) == [["rock", "slow"], []]
    assert vocabulary.num_categories(matrix).tolist() == [2, 0]
    assert vocabulary.columns(["slow", "jazz"]) == {
        "aspect_list": ["jazz", "slow"],
        "genre_aspects": ["jazz"],
        "mood_aspects": [],
        "instrument_aspects": [],
        "tempo_aspects": ["slow"],
    }
    assert Vocabulary.from_json(vocabulary.to_json()) == vocabulary


@pytest.mark.parametrize(
    ("mapping", "problem"),
    [
        (TAXONOMY | {"mood": ["slow"]}, "'slow'.*in 'tempo' and in 'mood'"),
        (TAXONOMY | {"mood": ["sad", "sad"]}, "twice in 'mood'"),
        (TAXONOMY | {"moods": []}, "unknown categories"),
        ({"genre": "rock"}, "not a list of strings"),
        ({"genre": []}, "holds no tags"),
        ([], "not a JSON object"),
        ({"genre": [" rock"]}, "white space"),
    ],
)
def test_bad_taxonomies_are_named(mapping, problem):
    with pytest.raises(InputError, match=problem):
        Vocabulary.from_json(json.dumps(mapping), "mine.json")


def test_schema_check_names_every_fault():
    found = pa.schema([("id", pa.string()), ("caption", pa.int64())])
    with pytest.raises(InputError, match=r"shard-3.*caption is int64, not string; aspect_list is missing"):
        schema.check(found, schema.SHARD, "shard-3.parquet")
    schema.check(schema.SHARD, schema.SHARD, "itself")


def test_published_columns_come_first():
    names = ["id", "caption", "aspect_list", "genre_aspects", "mood_aspects", "instrument_aspects", "tempo_aspects"]
    assert schema.SHARD.names[:8] == [*names, "audio"]


@pytest.mark.parametrize("audio_format", ["flac", "wav", "mp3", "ogg"])
@pytest.mark.parametrize("channels", [1, 2])
def test_audio_survives_encoding(audio_format, channels):
    t = np.arange(32000, dtype=np.float32) / 32000
    tone = 0.5 * np.sin(2 * np.pi * 440 * t, dtype=np.float32)
    waveform = np.stack([tone] * channels)
    decoded, rate = signal.decode(signal.encode(waveform, 32000, audio_format))
    assert rate == 32000
    assert decoded.shape[0] == channels
    assert abs(decoded.shape[1] - 32000) <= 2400  # lossy codecs pad
    if audio_format in {"flac", "wav"}:
        np.testing.assert_allclose(decoded, waveform, atol=1 / 32768)
    else:
        assert np.abs(np.fft.rfft(decoded[0])).argmax() == pytest.approx(440 * decoded.shape[1] / 32000, abs=2)


@pytest.mark.parametrize(
    "waveform", [np.full((1, 8), np.nan), np.full((1, 8), 1.5), np.zeros((1, 0)), np.zeros(8)], ids=str
)
def test_audio_that_is_none_is_refused(waveform):
    with pytest.raises(ValueError, match="waveform"):
        signal.encode(waveform.astype(np.float32), 8000)


def test_resampling_keeps_pitch_and_length():
    t = np.arange(16000, dtype=np.float32) / 16000
    tone = np.sin(2 * np.pi * 1000 * t, dtype=np.float32)[None]
    up = signal.resample(tone, 16000, 48000)
    assert up.shape == (1, 48000)
    assert up.dtype == np.float32
    assert np.abs(np.fft.rfft(up[0])).argmax() == 1000
    assert signal.resample(tone, 16000, 16000) is tone


def test_missing_extra_names_the_command():
    with pytest.raises(InputError, match=r"pip install 'conceptcaps\[nothing\]'"):
        extras.require("no_such_module_anywhere", "nothing")


def test_describe_is_one_bounded_line():
    assert describe(ValueError("a\nb")) == "ValueError: a b"
    assert len(describe(ValueError("x" * 999))) == 300
