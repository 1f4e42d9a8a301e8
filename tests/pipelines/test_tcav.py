"""The TCAV stage on a small run: rendered clips of ten genres to learn, accepted rows of the run as concepts."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conceptcaps import schema, signal
from conceptcaps.audio.arrangement import arrange
from conceptcaps.audio.procedural import render
from conceptcaps.config import Config, load
from conceptcaps.errors import InputError, TooFewRows
from conceptcaps.rundir import RunDir
from conceptcaps.seeding import row_identity
from conceptcaps.tcav.gtzan import GENRES, SPLITS
from conceptcaps.vocabulary import Vocabulary

VOCABULARY = Vocabulary.from_mapping(
    {
        "genre": ["rock", "jazz"],
        "mood": ["happy", "sad"],
        "instrument": ["piano", "drums", "bass"],
        "tempo": ["slow tempo", "fast tempo"],
    }
)
RATE = 16_000


def config_of(run_dir: Path, *overrides: str) -> Config:
    return load(
        None,
        [
            f"run_dir={run_dir}",
            "ray.rows_per_block=30",
            "tcav.resources.num_cpus=0.4",
            "tcav.min_positives=12",
            "tcav.runs=4",
            "tcav.disjoint_sets=3",
            "tcav.disjoint_size=5",
            f"tcav.classifier.sampling_rate={RATE}",
            "tcav.classifier.duration=2.0",
            "tcav.classifier.width=6",
            "tcav.classifier.num_mels=32",
            "tcav.classifier.bottleneck_dim=32",
            *overrides,
        ],
    )


def write_rows(run: RunDir, num_rows: int, seconds: float = 2.0) -> None:
    """Accepted rows with coin-drawn tags and rendered audio, one rejected row, and one whose audio is no audio."""
    rng = np.random.default_rng(0)
    rows = []
    for index in range(num_rows):
        row_id, seed = row_identity(0, index)
        tags = [VOCABULARY.tags[index % 2], *(t for t in VOCABULARY.tags[2:7] if rng.random() < 0.5)]
        tags.append(VOCABULARY.tags[7 + int(rng.random() < 0.5)])
        wave = signal.encode(render(arrange(tags, seed), seconds, RATE, seed), RATE, "flac")
        rows.append(
            VOCABULARY.columns(tags)
            | {"id": row_id, "seed": seed, "attempt": 0, "status": schema.ACCEPTED}
            | {"audio": {"bytes": b"no audio" if index == 5 else wave, "path": f"{row_id}.flac"}}
        )
    rows[3]["status"] = schema.REJECTED
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema.SHARD), sink)
    run.write_bytes(sink.getvalue().to_pybytes(), "shards", "attempt-0", "part-0.parquet")


def write_genres(folder: Path, per_genre: int) -> None:
    """A folder of GTZAN's shape with one file that is no audio."""
    for genre in GENRES:
        (folder / "genres_original" / genre).mkdir(parents=True)
        for number in range(per_genre):
            seed = hash((GENRES.index(genre), number)) % 2**31
            wave = render(arrange(["hip hop" if genre == "hiphop" else genre], seed), 2.0, RATE, seed)
            file = folder / "genres_original" / genre / f"{genre}-{number:02d}.wav"
            file.write_bytes(signal.encode(wave, RATE, "wav"))
    (folder / "genres_original" / "jazz" / "jazz-00.wav").write_bytes(b"RIFF broken")


@pytest.fixture(scope="module")
def finished(cluster, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunDir, dict]:
    from conceptcaps.pipelines.tcav import run_tcav

    root = tmp_path_factory.mktemp("tcav")
    write_genres(root / "gtzan", per_genre=6)
    run = RunDir(root / "run")
    write_rows(run, 80)
    facts = run_tcav(config_of(root / "run", f"tcav.clips={root / 'gtzan'}", "tcav.classifier.epochs=2"), run)
    return run, facts


def table(run: RunDir, name: str) -> pd.DataFrame:
    return pd.read_parquet(io.BytesIO(run.read_bytes("tcav", name)))


def test_unreadable_clips_are_named_and_skipped(finished) -> None:
    run, facts = finished
    bad = run.read_json("tcav", "results.json")["clips"]["unreadable"]
    assert sorted(bad) == sorted(facts["unreadable"])
    assert any(name.endswith("jazz-00.wav") for name in bad)
    assert row_identity(0, 5)[0] in bad


def test_results_hold_accuracy_tags_layers_and_reach(finished) -> None:
    run, _ = finished
    results = run.read_json("tcav", "results.json")
    assert 0 <= results["classifier"]["interval"][0] <= results["classifier"]["accuracy"]
    assert np.sum(results["classifier"]["confusion"]) == results["classifier"]["held_out_clips"]
    assert results["concept_clips"] == {"analysed": 78, "trained_on": 0}
    assert set(results["reach_seconds"]) == set(results["layers"])
    assert any("block1" in line for line in results["warnings"])
    assert set(results["tags"]["clips_in_both_sets"].values()) == {0}


def test_tables_have_every_layer_class_and_concept(finished) -> None:
    run, _ = finished
    effects, scores = table(run, "effects.parquet"), table(run, "scores.parquet")
    assert set(effects["layer"]) == {"block1", "block2", "block3", "block4", "block5", "pooled", "bottleneck", "logits"}
    assert set(effects["class"]) == set(GENRES)
    assert set(effects["concept"]) == set(VOCABULARY.tags[2:])
    assert len(effects) == 8 * 10 * 7
    assert set(effects["verdict"]) <= {"used", "negligible", "undetermined"}
    # Under a linear head the bottleneck says what the logits say.
    own = effects.set_index(["layer", "class", "concept"])["effect_sd"]
    np.testing.assert_allclose(own["bottleneck"], own["logits"], atol=2e-3)
    assert scores.loc[~scores["separable"], "tcav_score"].isna().all()
    assert scores.loc[scores["separable"], "tcav_score"].between(0, 1).all()


def test_published_layout_and_figures_are_written(finished) -> None:
    run, _ = finished
    published = run.read_json("tcav", "tcav_genre_classification_results.json")
    assert set(published) <= {"mood", "instrument", "tempo"}
    for name in ("effects.png", "largest.png", "layers.png"):
        assert run.read_bytes("tcav", "figures", name).startswith(b"\x89PNG")


def test_activations_are_kept_as_parquet(finished) -> None:
    run, _ = finished
    files = run.files("tcav", "activations", "concept", suffix=".parquet")
    found = pa.concat_tables([pq.read_table(f, partitioning=None) for f in files])
    assert found.num_rows == 78
    assert {"id", "logits", "activation.block1", "gradient.bottleneck"} <= set(found.column_names)


def test_second_start_keeps_the_classifier(finished, tmp_path: Path) -> None:
    from conceptcaps.pipelines.tcav import fit_classifier
    from conceptcaps.pipelines.tcav_clips import concept_rows, labelled_clips

    run, _ = finished
    weights = run.read_bytes("tcav", "classifier.pt")
    folder = Path(run.path()).parent / "gtzan"
    config = config_of(Path(run.path()), f"tcav.clips={folder}", "tcav.classifier.epochs=2")
    fit_classifier(config, run, labelled_clips(config, run, concept_rows(run)))
    assert run.read_bytes("tcav", "classifier.pt") == weights


def test_stage_left_out_leaves_no_classifier_for_other_settings(
    finished, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from conceptcaps.pipelines import tcav

    def too_few(*_: object) -> None:
        raise TooFewRows("the clips", "are few", "Make more")

    source = Path(finished[0].path())
    shutil.copytree(source, tmp_path / "run")
    monkeypatch.setattr(tcav, "analyse", too_few)
    config = config_of(tmp_path / "run", f"tcav.clips={source.parent / 'gtzan'}", "tcav.classifier.epochs=2")
    with pytest.raises(TooFewRows):
        tcav.run_tcav(config, RunDir(tmp_path / "run"))
    assert not RunDir(tmp_path / "run").exists("tcav", "classifier.pt")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("tcav.layers=[block9]", r"'block9'.*Layers:.*block1"),
        ("tcav.concepts=[sad, banjo]", r"'banjo' has 0, each needs 12"),
        ("tcav.clips=owner/nowhere", r"'owner/nowhere'.*cannot be loaded from the hub"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_fitted(
    finished, override: str, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import datasets

    from conceptcaps.pipelines import tcav

    def unreachable(name: str) -> None:
        raise ConnectionError("no network")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    monkeypatch.setattr(tcav, "fit_classifier", lambda *_: pytest.fail("fitted"))
    run, _ = finished
    folder = Path(run.path()).parent / "gtzan"
    with pytest.raises(InputError, match=said):
        tcav.run_tcav(config_of(Path(run.path()), f"tcav.clips={folder}", override), run)


def test_hub_clips_are_decoded_and_split_by_name(cluster, tmp_path: Path) -> None:
    import datasets

    from conceptcaps.pipelines.tcav_clips import decoded_clips, labelled_clips, without_unreadable

    wave = signal.encode(np.zeros((1, RATE), np.float32), RATE, "wav")
    features = datasets.Features({"audio": datasets.Audio(decode=False), "genre": datasets.Value("string")})
    rows = [
        {"audio": {"bytes": wave, "path": f"{genre}.{number:05d}.wav"}, "genre": genre}
        for genre in ("blues", "jazz")
        for number in range(100)
    ]
    rows[29]["audio"]["bytes"] = b"RIFF broken"
    (tmp_path / "hub").mkdir()
    table = pa.Table.from_pylist(rows, schema=features.arrow_schema)
    pq.write_table(table, tmp_path / "hub" / "train-00000-of-00001.parquet")
    run, config = RunDir(tmp_path / "run"), config_of(tmp_path / "run", f"tcav.clips={tmp_path / 'hub'}")
    clips = labelled_clips(config, run, None)
    assert clips.classes == ("blues", "jazz")
    assert clips.left_out["not_in_split"] == 200 - len(clips.split) > 0  # GTZAN's names: its filtered split
    for part in SPLITS:
        assert clips.ids(part)
    good, bad = without_unreadable(decoded_clips(run, config, clips))
    assert set(bad) == {"blues.00029.wav"} & set(clips.split)
    assert {row["id"] for row in good.take_all()} == set(clips.split) - set(bad)


def test_own_rows_are_labelled_by_their_single_genre(tmp_path: Path) -> None:
    from conceptcaps.pipelines.tcav_clips import concept_rows, labelled_clips

    run = RunDir(tmp_path)
    write_rows(run, 40, seconds=0.2)
    rows = concept_rows(run)
    clips = labelled_clips(config_of(tmp_path), run, rows)
    assert clips.classes == ("jazz", "rock")
    assert len(clips.ids("train", "validation", "test")) == 39
    assert all(clips.attempts[i] == 0 for i in clips.split)
    with pytest.raises(InputError, match="1 genres with 20 or more"):
        labelled_clips(config_of(tmp_path, "tcav.classifier.min_class_clips=20"), run, rows)


def test_json_is_standard(finished) -> None:
    run, _ = finished
    json.loads(run.read_bytes("tcav", "results.json"), parse_constant=lambda name: pytest.fail(name))
