"""The page's audio section: what was measured, and in one line what was not."""

from __future__ import annotations

from conceptcaps.report.audio import quality

CONCEPT = {"rows": 20, "accepted": 10, "acceptance": 0.5, "mean_score": 0.2, "verified": 0.7, "clips": None}
DISTANCE = {"clips": 64, "fad": 1.5, "kad": 0.02, "kad_low": 0.01, "kad_high": 0.03, "fad_floor": 1.2, "kad_floor": 0.0}
SIGNAL = {"loudness": {"p5": -20.0, "median": -15.0, "p95": -10.0}}


def test_a_run_without_measures_says_so():
    assert quality(None, []).missing == "The audio was not measured (stage quality)."


def test_distances_and_concepts_are_shown():
    results = {"distance": DISTANCE, "reference": "real/", "verified_tags": 0.8, "signal": SIGNAL}
    rows = [CONCEPT | {"tag": "rock", "fad": 2.0, "kad": 0.1}, CONCEPT | {"tag": "jazz", "fad": None, "kad": None}]
    section = quality(results, rows)
    assert "64 clips on each side" in section.lead
    assert "80.0%" in section.lead
    assert section.tables[0].rows[0] == ("loudness", "-20", "-15", "-10", "LUFS")
    assert {row[0] for row in section.tables[1].rows} == {"rock", "jazz"}
    assert len(section.pictures) == 1


def test_no_reference_and_rare_concepts():
    results = {"distance": None, "reference": None, "verified_tags": None, "signal": {}}
    section = quality(results, [CONCEPT | {"tag": "rock", "rows": 2, "verified": None, "fad": None, "kad": None}])
    assert "no reference was given" in section.lead
    assert section.pictures == section.tables == []
