"""The comparison's figures: floors, intervals and verdicts order samplers as they should."""

import numpy as np
import pytest

from conceptcaps.comparison import plots
from conceptcaps.comparison.compare import Estimate, Settings, baselines, compare, floors, tag_table, verdict
from conceptcaps.comparison.measures import DIRECTIONS, Reference
from conceptcaps.contradictions import Contradictions
from conceptcaps.vocabulary import Vocabulary

VOCABULARY = Vocabulary.from_mapping(
    {
        "genre": ["rock", "jazz"],
        "mood": ["happy", "sad"],
        "instrument": ["piano", "violin"],
        "tempo": ["slow tempo", "fast tempo"],
    }
)
SETTINGS = Settings(num_bootstrap=20)


def real_rows(count: int, seed: int) -> np.ndarray:
    """One tag of each pair, the second of a pair tied to the first of the last."""
    rng = np.random.default_rng(seed)
    first = rng.random((count, 4)) < 0.5
    first[:, 1] = first[:, 0] ^ (rng.random(count) < 0.1)
    rows = np.zeros((count, 8), np.uint8)
    rows[:, ::2], rows[:, 1::2] = first, ~first
    return rows


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference(VOCABULARY, real_rows(300, 0), real_rows(150, 1), Contradictions.for_vocabulary(VOCABULARY))


@pytest.fixture(scope="module")
def figures(reference):
    floor = floors(reference, SETTINGS, 0)
    samplers = {"same": real_rows(300, 2), **baselines(reference.train, 300, 0)}
    return {
        name: {f.metric: f for f in compare(reference, rows, name, floor, SETTINGS, 0)}
        for name, rows in samplers.items()
    }


def test_every_metric_has_an_interval_around_its_value(figures):
    for by_metric in figures.values():
        assert set(by_metric) == set(DIRECTIONS)
        for f in by_metric.values():
            if np.isfinite(f.value):
                assert f.low <= f.value + 1e-9
                assert f.value <= f.high + 1e-9


def test_more_real_rows_are_at_the_floor(figures):
    apart = [m for m, f in figures["same"].items() if f.verdict == "apart"]
    assert len(apart) <= 2


def test_independent_tags_are_found_out(figures):
    for metric in ("auc_trees", "pmi_pearson", "contradictions", "mmd", "cooccurrence_pearson"):
        assert figures["independent"][metric].verdict == "apart", metric


def test_copies_are_not_novel(figures):
    assert figures["resampled"]["novel_share"].value == 0
    assert figures["resampled"]["nearest_jaccard"].value == 1


def test_uniform_keeps_sizes(reference, figures):
    assert figures["uniform"]["size_wasserstein"].value == 0


@pytest.mark.parametrize(
    ("value", "better", "expected"),
    [
        (0.1, "lower", "at floor"),
        (0.25, "lower", "near floor"),
        (0.5, "lower", "apart"),
        (0.3, "higher", "at floor"),
        (-0.5, "higher", "apart"),
        (0.1, "floor", "near floor"),
        (float("nan"), "lower", "undefined"),
    ],
)
def test_verdicts(value, better, expected):
    assert verdict(Estimate(value, value - 0.1, value + 0.1), Estimate(0.15, 0.05, 0.2), better) == expected


def test_tag_table_flags_a_tag_that_differs(reference):
    rows = real_rows(300, 3)
    rows[:, 0] = 1
    table = {t["tag"]: t for t in tag_table(reference, rows, "made")}
    assert table["rock"]["q_value"] < 1e-6
    assert table["sad"]["q_value"] > 0.01


def test_plots_are_drawn(reference, figures):
    made = baselines(reference.train, 100, 0)
    flat = [f for name in made for f in figures[name].values()]
    found = plots.all_plots(reference, made, flat)
    assert len(found) == 7
    assert all(plot.axes for plot in found.values())
    assert len(plots.latent_maps(dict.fromkeys("ab", np.zeros((3, 2))), np.array([0, 1, -1]), VOCABULARY).axes) == 2
