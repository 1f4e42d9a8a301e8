"""The page's section on the audio: what passed, concept by concept, and how far it is from a reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from conceptcaps.report import figures
from conceptcaps.report.sections import Picture, Section, Table, number

_MOST_CONCEPTS = 40
_FEWEST_ROWS = 5
_UNITS = {
    "silent": "of the clip",
    "clipped": "of the samples",
    "dc": "of full scale",
    "loudness": "LUFS",
    "flatness": "0 to 1",
    "repetition": "0 to 1",
}


def quality(results: Mapping[str, Any] | None, concepts: Sequence[Mapping[str, Any]]) -> Section:
    """From `quality/results.json` and the rows of `quality/concepts.parquet`."""
    title = "Audio quality"
    if not results:
        return Section("audio", title, missing="The audio was not measured (stage quality).")
    lead = [_distances(results)]
    if results["verified_tags"] is not None:
        lead.append(
            f"The audio carries {results['verified_tags']:.1%} of the accepted rows' tags, by zero-shot scores."
        )
    tables = [_signal(results["signal"])] if results["signal"] else []
    counted = [row for row in concepts if row["rows"] >= _FEWEST_ROWS]
    pictures = []
    if counted:
        shown = sorted(counted, key=lambda row: row["acceptance"])[:_MOST_CONCEPTS]
        pictures.append(_acceptance(shown))
        tables.append(_concepts(shown))
    return Section("audio", title, " ".join(lead), pictures, tables)


def _distances(results: Mapping[str, Any]) -> str:
    found = results["distance"]
    if not found:
        why = "no reference was given" if not results["reference"] else "there are too few clips"
        return f"No Frechet or kernel audio distance: {why}."
    text = (
        f"Against {results['reference']}, {found['clips']} clips on each side: Frechet audio distance "
        f"{number(found['fad'])}, kernel audio distance {number(found['kad'])} "
        f"(95% interval {number(found['kad_low'])} to {number(found['kad_high'])})."
    )
    if found["kad_floor"] is not None:
        text += (
            f" Two halves of the reference are {number(found['fad_floor'])} and {number(found['kad_floor'])} apart; "
            "the former is biased upwards by its smaller size."
        )
    return text


def _signal(measures: Mapping[str, Mapping[str, float]]) -> Table:
    lines = [
        (name, number(m["p5"]), number(m["median"]), number(m["p95"]), _UNITS.get(name, ""))
        for name, m in measures.items()
    ]
    return Table("The accepted clips' signals", ("measure", "5%", "median", "95%", "unit"), lines)


def _acceptance(shown: Sequence[Mapping[str, Any]]) -> Picture:
    shares = {"accepted": np.array([row["acceptance"] for row in shown])}
    if all(row["verified"] is not None for row in shown):
        shares["verified"] = np.array([row["verified"] for row in shown])
    figure = figures.tag_shares([row["tag"] for row in shown], shares, "of the rows with the tag, %")
    what = "accepted, and of these the share whose audio carries the tag" if "verified" in shares else "accepted"
    caption = (
        f"Share of each concept's rows {what}; the {len(shown)} least accepted concepts, so that a filter that deletes "
        "a concept is seen."
    )
    return Picture(figures.to_svg(figure, "acceptance"), caption)


def _concepts(shown: Sequence[Mapping[str, Any]]) -> Table:
    def cell(value: Any, form: str = "") -> str:
        return "" if value is None else format(value, form) if form else number(value)

    lines = [
        (
            row["tag"],
            number(row["rows"]),
            cell(row["acceptance"], ".0%"),
            cell(row["verified"], ".0%"),
            cell(row["mean_score"], ".3f"),
            cell(row["fad"]),
            cell(row["kad"]),
        )
        for row in shown
    ]
    head = ("concept", "rows", "accepted", "verified", "mean score", "FAD", "KAD")
    return Table("By concept, least accepted first", head, lines)
