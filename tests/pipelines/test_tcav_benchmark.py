"""The ground truth's job, small: rendered clips, one network, our methods and one more."""

from __future__ import annotations

import dataclasses

import numpy as np
from tcav_methods import always
from typer.testing import CliRunner

from conceptcaps.tcav.ground_truth import ATTRIBUTES, JOINT


def test_each_attribute_changes_the_arrangement_and_nothing_else() -> None:
    from conceptcaps.pipelines.tcav_corpus import arrangement_of

    none = np.zeros(len(ATTRIBUTES), bool)
    before = dataclasses.asdict(arrangement_of(none, seed=3))
    changed = []
    for j in range(len(ATTRIBUTES)):
        after = dataclasses.asdict(arrangement_of(np.arange(len(ATTRIBUTES)) == j, seed=3))
        changed.append([name for name in before if after[name] != before[name]])
    assert all(len(names) == 1 for names in changed), changed


def test_benchmark_renders_trains_and_compares(cluster) -> None:
    from conceptcaps.pipelines.tcav_benchmark import run_benchmark, table_of

    found = run_benchmark(
        repeats=1, num_train=64, num_clips=144, num_pairs=6, corpora=["phi = 0.5"],
        architectures=["1-D convolutions"], further=always,
    )  # fmt: skip
    assert [n["architecture"] for n in found["networks"]] == ["1-D convolutions"]
    rates = found["detection"]["phi = 0.5"]
    cells = sum(rates[JOINT][f"{kind}_cells"] for kind in ("used", "ignored", "unjudged"))
    assert cells == 3 * len(ATTRIBUTES)
    assert rates["always"]["recall_of_used"] == 1
    header, lines = table_of(found)
    assert all(len(line) == len(header) for line in lines)
    assert ["always", "100.0%", "100.0%"] in lines


def test_command_names_what_it_does() -> None:
    from conceptcaps.cli import app

    said = CliRunner().invoke(app, ["tcav-benchmark", "--help"]).output
    assert "truly" in said or "really uses" in said
    assert "--quick" in said
