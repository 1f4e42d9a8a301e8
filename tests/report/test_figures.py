"""Figures: text in the page's colour, data's text escaped, nothing outside referred to."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from conceptcaps.report import figures

NAMES = ["rock & roll", "<b>sad</b>", "$100 beat"]
SQUARE = np.array([[1, 0.5, -0.2], [0.5, 1, np.nan], [-0.2, np.nan, 1]])
MADE = {
    "tag_shares": lambda: figures.tag_shares(NAMES, {"source": np.array([0.5, 0.2, 0.1]), "made": np.array([0.4] * 3)}),
    "set_sizes": lambda: figures.set_sizes({"source": {3: 2, 4: 1}, "made": {}}),
    "heat_maps": lambda: figures.heat_maps(NAMES, {"source": SQUARE, "made": SQUARE}, "phi"),
    "scatter": lambda: figures.scatter(np.eye(3)[:, :2], NAMES, (0.6, 0.3)),
    "histograms": lambda: figures.histograms({"accepted": [0.1, 0.4], "rejected": []}, "score", threshold=0.2),
    "one_value": lambda: figures.histograms({"accepted": [3, 3, 3]}, "words"),
    "no_values": lambda: figures.histograms({}, "score"),
    "lines": lambda: figures.lines(np.arange(3), {"rows": np.arange(3)}, "minutes", "rows"),
    "marked_heat_map": lambda: figures.marked_heat_map(NAMES, ["a", "b", "c"], SQUARE, SQUARE > 0.3, "effect"),
    "interval_bars": lambda: figures.interval_bars(NAMES, *np.ones((3, 3)), np.array([True, False, True]), "effect"),
}


@pytest.mark.parametrize("name", MADE)
def test_a_figure_is_one_well_formed_svg_that_needs_nothing_else(name):
    svg = figures.to_svg(MADE[name](), name)
    root = ElementTree.fromstring(svg)
    assert root.tag.endswith("svg")
    links = re.findall(r'href="([^"]*)"', svg)
    assert all(link.startswith(("#", "data:")) for link in links)
    assert figures.INK not in svg
    assert "currentColor" in svg


def test_text_of_data_is_escaped_and_shown_as_it_is():
    svg = figures.to_svg(MADE["tag_shares"](), "x")
    text = "".join(ElementTree.fromstring(svg).itertext())
    assert "<b>sad</b>" in text
    assert "$100 beat" in text
    assert "<b>" not in svg


def test_ids_of_two_figures_differ():
    first, second = (set(re.findall(r' id="([^"]+)"', figures.to_svg(MADE["lines"](), name))) for name in ("a", "b"))
    clips = {i for i in first if re.fullmatch(r"p[0-9a-f]{10,}", i)}
    assert clips
    assert not clips & second
