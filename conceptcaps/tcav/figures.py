"""Figures of a TCAV run: heat map with cells that are not `used` crossed out, bars with intervals, layer curves."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pandas as pd

_MOST_CONCEPTS, _MOST_CURVES = 40, 12


def heat_map(effects: pd.DataFrame, layer: str) -> bytes:
    """PNG: effects of tags (rows) on classes (columns), in logit standard deviations; crosses: not `used`."""
    own = effects[effects["layer"] == layer]
    order = own.groupby("concept")["effect_sd"].apply(lambda e: e.abs().max()).sort_values(ascending=False)
    concepts, classes = order.index[:_MOST_CONCEPTS], own["class"].unique()
    table = own.pivot(index="concept", columns="class", values="effect_sd").loc[concepts, classes]
    verdict = own.pivot(index="concept", columns="class", values="verdict").loc[concepts, classes]
    figure, axes = _figure(2 + 0.6 * len(classes), 1.5 + 0.25 * len(concepts))
    limit = max(float(np.nanmax(np.abs(table.to_numpy()), initial=0)), 1e-9)
    image = axes.imshow(table, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto")
    for i, j in np.argwhere((verdict != "used").to_numpy()):
        axes.text(j, i, "×", ha="center", va="center", fontsize=7, color="0.4")
    axes.set_xticks(range(len(classes)), classes, rotation=60, ha="right")
    axes.set_yticks(range(len(concepts)), concepts)
    axes.set_title(f"Effect on the logit, {layer}; × not shown to be used")
    figure.colorbar(image, ax=axes, label="logit standard deviations")
    return _png(figure)


def bars(effects: pd.DataFrame, layer: str, bound: float, num: int = 20) -> bytes:
    """PNG: the largest effects with 95% intervals; the band is what counts as negligible."""
    own = effects[effects["layer"] == layer].dropna(subset=["effect_sd"])
    top = own.reindex(own["effect_sd"].abs().sort_values(ascending=False).index)[:num][::-1]
    figure, axes = _figure(6, 1 + 0.25 * max(len(top), 1))
    errors = [top["effect_sd"] - top["low"], top["high"] - top["effect_sd"]]
    colours = np.where(top["verdict"] == "used", "tab:blue", "0.7")
    axes.barh(range(len(top)), top["effect_sd"], xerr=errors, color=colours)
    axes.axvspan(-bound, bound, color="0.9", zorder=0)
    axes.set_yticks(range(len(top)), [f"{c} → {k}" for c, k in zip(top["concept"], top["class"], strict=True)])
    axes.set_xlabel("effect on the logit, standard deviations")
    return _png(figure)


def layer_curves(scores: pd.DataFrame) -> bytes:
    """PNG: held-out accuracy from layer to layer, with intervals, of the concepts that some layer separates best."""
    layers = list(dict.fromkeys(scores["layer"]))
    own = scores.drop_duplicates(["layer", "concept"])
    best = own.groupby("concept")["cav_accuracy"].max().sort_values(ascending=False, kind="stable").index[:_MOST_CURVES]
    figure, axes = _figure(8, 4)
    for concept in best:
        rows = own[own["concept"] == concept].set_index("layer").reindex(layers)
        axes.plot(layers, rows["cav_accuracy"], marker="o", label=concept)
        axes.fill_between(layers, rows["accuracy_low"], rows["accuracy_high"], alpha=0.1)
    axes.axhline(0.5, color="0.5", linewidth=0.8)
    axes.set_ylabel("held-out accuracy")
    axes.tick_params(axis="x", rotation=30)
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    return _png(figure)


def _figure(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure((width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots()


def _png(figure: Any) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=120)
    return file.getvalue()
