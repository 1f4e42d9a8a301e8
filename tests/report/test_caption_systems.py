from __future__ import annotations

from conceptcaps.report.captions import caption_systems

EVALUATION = {
    "rows": 24,
    "values": {"base": {"coverage": 0.25, "bleu": None}, "human": {"coverage": 1.0}},
    "missing": {"base": {"bleu": "no sacrebleu"}, "human": {}},
    "absent": {"fine_tuned": "no adapter"},
    "judge": {
        name: {"mean": 3.0, "unparsable_share": 0.5, "agreement": None, "kappa": None} for name in ("base", "human")
    },
}


def test_systems_stand_in_columns_and_what_is_missing_says_why():
    section = caption_systems(EVALUATION)
    metrics, notes = section.tables
    assert metrics.head == ("metric", "base", "human")
    assert list(metrics.rows)[:3] == [("coverage", "0.25", "1"), ("bleu", "-", "-"), ("judge: mean", "3", "3")]
    assert list(notes.rows) == [("fine_tuned", "no adapter"), ("bleu", "no sacrebleu")]


def test_a_run_that_measured_none_says_so():
    assert "captions-eval" in caption_systems(None).missing
