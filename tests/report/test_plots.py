"""plots: every call on a run with all artefacts, and a clear message where one is absent."""

import pytest
from matplotlib.figure import Figure
from synthetic import write_run

from conceptcaps import plots
from conceptcaps.errors import InputError
from conceptcaps.rundir import RunDir


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("plots") / "run", 60)


@pytest.mark.parametrize("name", ["tags", "set_sizes", "co_occurrence", "caption_lengths", "scores", "speed"])
def test_figures(run, name):
    assert isinstance(getattr(plots, name)(run), Figure)


def test_tables(run):
    assert len(plots.taxonomy(run)) == 13
    assert set(plots.outcomes(run)["status"]) == {"accepted", "rejected", "failed"}
    assert len(plots.examples(run, 5)) == 5
    assert plots.caption_facts(run)["tags said"].item() == 1
    assert plots.stages(run)["stage"].tolist() == ["generate"]


def test_clips_are_heard_and_seen(run):
    [(row, mono, rate)] = plots.clips(run, 1)
    assert (row["status"], rate, len(mono)) == ("accepted", 8000, 2000)
    assert isinstance(plots.spectrogram(mono, rate, row["caption"]), Figure)


@pytest.mark.parametrize(("name", "stage"), [("latents", "vae"), ("concept_effects", "tcav")])
def test_what_is_absent_is_said(run, name, stage):
    with pytest.raises(InputError, match=f"Run `conceptcaps {stage}` first"):
        getattr(plots, name)(run)


def test_a_run_that_is_none(tmp_path):
    with pytest.raises(InputError, match="is no run directory"):
        plots.open_run(str(tmp_path / "nothing"))


def test_a_run_without_rows(tmp_path):
    run = RunDir(tmp_path)
    run.write_bytes(b'{"genre": ["rock"]}', "taxonomy", "concepts_to_tags.json")
    with pytest.raises(InputError, match="neither source rows nor shards"):
        plots.tags(run)
