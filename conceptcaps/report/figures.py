"""Figures from arrays: Matplotlib figures that a notebook shows and the page inlines as SVG."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

INK = "#0b0c0d"
"""Text and axes. The page replaces it with the reader's own text colour."""
COLOURS = ("#3b82c4", "#e07b39", "#2a9d6f", "#b5569a", "#8a7f2a", "#7d6bc9", "#c8505f", "#4f9aa8")
_STYLE: Any = {
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "svg.fonttype": "none",
    "text.parse_math": False,  # a tag may hold a dollar sign
}


def _figure(width: float, height: float, columns: int = 1, **options: Any) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(1, columns, **options)


def to_svg(figure: Figure, name: str) -> str:
    """The figure as an `<svg>` element in the page's text colour; `name` keeps its ids apart from other figures."""
    with mpl.rc_context(_STYLE | {"svg.hashsalt": name, "svg.id": f"figure-{name}"}):
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    return text[text.index("<svg") :].replace(INK, "currentColor")


@mpl.rc_context(_STYLE)
def tag_shares(names: Sequence[str], shares: Mapping[str, np.ndarray], label: str = "rows with the tag, %") -> Figure:
    """Share of rows with each tag, one dot per population.

    Args:
        names: tags, the most frequent first.
        shares: population -> float (num_tags,) in [0, 1].
        label: of the axis of shares.
    """
    figure, axes = _figure(7.2, 0.19 * len(names) + 0.9)
    at = np.arange(len(names))[::-1]
    values = np.stack(list(shares.values()))
    axes.hlines(at, values.min(0) * 100, values.max(0) * 100, color=INK, alpha=0.25, linewidth=1.5)
    for (name, share), colour in zip(shares.items(), COLOURS, strict=False):
        axes.plot(np.asarray(share) * 100, at, "o", color=colour, markersize=4.5, label=name)
    axes.set_yticks(at, names)
    axes.set_ylim(-1, len(names))
    axes.set_xlim(left=0)
    axes.set_xlabel(label)
    axes.grid(axis="x", color=INK, alpha=0.12, linewidth=0.5)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=len(axes.get_legend_handles_labels()[1]))
    return figure


@mpl.rc_context(_STYLE)
def set_sizes(sizes: Mapping[str, Mapping[int, int]]) -> Figure:
    """How many tags a row has, one bar per population."""
    figure, axes = _figure(7.2, 2.4)
    seen = {size for counts in sizes.values() for size in counts} or {0}
    span = np.arange(min(seen), max(seen) + 1)
    width = 0.8 / max(1, len(sizes))
    for k, ((label, counts), colour) in enumerate(zip(sizes.items(), COLOURS, strict=False)):
        total = max(1, sum(counts.values()))
        heights = [100 * counts.get(int(size), 0) / total for size in span]
        axes.bar(span + (k + 0.5) * width - 0.4, heights, width, color=colour, label=label)
    axes.set_xticks(span)
    axes.set_xlabel("tags of a row")
    axes.set_ylabel("rows, %")
    axes.legend()
    return figure


@mpl.rc_context(_STYLE)
def heat_maps(names: Sequence[str], matrices: Mapping[str, np.ndarray], label: str) -> Figure:
    """Square matrices over the same tags side by side, zero in the middle of the colours."""
    figure, axes = _figure(4.6 * len(matrices) + 1.6, 4.9, len(matrices), squeeze=False, sharey=True)
    shown = [np.where(np.eye(len(m), dtype=bool), np.nan, m) for m in matrices.values()]
    size = float(np.clip(180 / len(names), 5.5, 8.5))  # points, so that neighbours do not touch
    most = float(np.nanmax(np.abs(np.concatenate(shown)))) if len(names) > 1 and np.isfinite(shown).any() else 1.0
    for axis, (title, _), matrix in zip(axes[0], matrices.items(), shown, strict=True):
        image = axis.imshow(matrix, cmap="RdBu_r", vmin=-most, vmax=most, interpolation="nearest")
        axis.set_title(title)
        axis.set_xticks(range(len(names)), names, rotation=90, fontsize=size)
        axis.set_yticks(range(len(names)), names, fontsize=size)
        axis.tick_params(length=0)
    figure.colorbar(image, ax=list(axes[0]), label=label, shrink=0.8)
    return figure


@mpl.rc_context(_STYLE)
def scatter(points: np.ndarray, labels: Sequence[str], explained: Sequence[float]) -> Figure:
    """Rows in two dimensions, coloured by label.

    Args:
        points: float (num_rows, 2).
        labels: one per row; the most frequent seven get a colour, the rest are grey.
        explained: share of variance of each axis.
    """
    figure, axes = _figure(6.4, 4.4)
    values, counts = np.unique(labels, return_counts=True)
    common = [str(v) for v in values[np.argsort(-counts, kind="stable")][: len(COLOURS) - 1]]
    own = np.asarray(labels)
    rest = ~np.isin(own, common)
    axes.plot(*points[rest].T, ".", color="#8c8c8c", alpha=0.35, markersize=4, label="others" if rest.any() else None)
    for label, colour in zip(common, COLOURS, strict=False):
        axes.plot(*points[own == label].T, ".", color=colour, alpha=0.75, markersize=5, label=label)
    axes.set_xlabel(f"first principal component ({explained[0]:.0%} of variance)")
    axes.set_ylabel(f"second ({explained[1]:.0%})")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), markerscale=1.8)
    return figure


@mpl.rc_context(_STYLE)
def histograms(
    values: Mapping[str, Sequence[float]], xlabel: str, threshold: float | None = None, bins: int = 40
) -> Figure:
    """Densities over a common range, with a line where a threshold is."""
    figure, axes = _figure(7.2, 2.9)
    filled = {label: np.asarray(v, float) for label, v in values.items() if len(v)}
    if filled:
        everything = np.concatenate(list(filled.values()))
        edges = _edges(everything, bins)
        for (label, numbers), colour in zip(filled.items(), COLOURS, strict=False):
            weights = np.full(len(numbers), 100 / len(numbers))
            style = {"color": colour, "label": f"{label} ({len(numbers):,})"}
            axes.hist(numbers, edges, weights=weights, histtype="stepfilled", alpha=0.18, color=colour)
            axes.hist(numbers, edges, weights=weights, histtype="step", linewidth=1.4, **style)
    if threshold is not None:
        axes.axvline(threshold, color=INK, linewidth=1.2, linestyle="--", label=f"threshold {threshold:.3f}")
    axes.set_xlabel(xlabel)
    axes.set_ylabel("%")
    if filled or threshold is not None:
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def _edges(values: np.ndarray, bins: int) -> np.ndarray:
    """Bin borders over the range of the values; around whole numbers where there are few of them."""
    low, high = float(values.min()), float(values.max())
    if high - low <= bins and (values == np.round(values)).all():
        return np.arange(low - 0.5, high + 1)
    return np.linspace(low, max(high, low + 1e-6), bins + 1)


@mpl.rc_context(_STYLE)
def lines(x: np.ndarray, series: Mapping[str, np.ndarray], xlabel: str, ylabel: str) -> Figure:
    """One line per series over a common x."""
    figure, axes = _figure(7.2, 2.6)
    for (label, values), colour in zip(series.items(), COLOURS, strict=False):
        axes.plot(x, values, color=colour, linewidth=1.5, label=label)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.grid(color=INK, alpha=0.12, linewidth=0.5)
    if len(series) > 1:
        axes.legend()
    return figure


@mpl.rc_context(_STYLE)
def marked_heat_map(
    rows: Sequence[str], columns: Sequence[str], values: np.ndarray, marked: np.ndarray, label: str
) -> Figure:
    """A matrix whose insignificant cells carry a cross.

    Args:
        values: float (num_rows, num_columns), nan where there is none.
        marked: bool of the same shape: cells to cross out.
    """
    figure, axes = _figure(0.42 * len(columns) + 3.6, 0.24 * len(rows) + 1.6)
    most = float(np.nanmax(np.abs(values))) if np.isfinite(values).any() else 1.0
    image = axes.imshow(values, cmap="RdBu_r", vmin=-most, vmax=most, aspect="auto", interpolation="nearest")
    y, x = np.nonzero(marked & np.isfinite(values))
    axes.plot(x, y, "x", color="#555555", markersize=5, markeredgewidth=0.9)
    axes.set_xticks(range(len(columns)), columns, rotation=90)
    axes.set_yticks(range(len(rows)), rows)
    axes.tick_params(length=0)
    figure.colorbar(image, ax=axes, label=label)
    return figure


@mpl.rc_context(_STYLE)
def interval_bars(
    names: Sequence[str], values: np.ndarray, low: np.ndarray, high: np.ndarray, strong: np.ndarray, xlabel: str
) -> Figure:
    """Horizontal bars with intervals; bars that are not strong are pale."""
    figure, axes = _figure(7.2, 0.24 * len(names) + 0.9)
    at = np.arange(len(names))[::-1]
    colours = [COLOURS[0] if s else "#9aa3ab" for s in strong]
    axes.barh(at, values, color=colours, height=0.65)
    axes.hlines(at, low, high, color=INK, linewidth=1.2)
    axes.axvline(0, color=INK, linewidth=0.6)
    axes.set_yticks(at, names)
    axes.set_ylim(-1, len(names))
    axes.set_xlabel(xlabel)
    axes.grid(axis="x", color=INK, alpha=0.12, linewidth=0.5)
    return figure
