"""Figures of a comparison: each function takes arrays or figures and returns a matplotlib figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Plot

from conceptcaps.comparison.compare import Figure
from conceptcaps.comparison.measures import CATEGORY_PAIRS, Reference
from conceptcaps.metrics import tags as metrics
from conceptcaps.vocabulary import CATEGORIES, Vocabulary


def all_plots(reference: Reference, made: Mapping[str, np.ndarray], figures: Sequence[Figure]) -> dict[str, Plot]:
    """Every plot of a comparison, by the name of its file."""
    held = reference.held
    overall = [f for f in figures if f.metric not in _pair_names()]
    return {
        "overview": overview(overall),
        "marginals": scatter(
            metrics.marginals(held), {n: metrics.marginals(m) for n, m in made.items()}, "share of rows with a tag"
        ),
        "sizes": sizes(held, made),
        "cooccurrence": scatter(
            _pairs(metrics.cooccurrence(held)),
            {n: _pairs(metrics.cooccurrence(m)) for n, m in made.items()},
            "share of rows with a pair",
        ),
        "pmi": _pmi(held, made),
        "category_pairs": category_pairs(figures),
        "nearest_jaccard": nearest(reference, made),
    }


def _pair_names() -> list[str]:
    return [f"cooccurrence_pearson_{CATEGORIES[i]}_{CATEGORIES[j]}" for i, j in CATEGORY_PAIRS]


def _pairs(square: np.ndarray) -> np.ndarray:
    return square[np.triu_indices(len(square), 1)]


def _pmi(held: np.ndarray, made: Mapping[str, np.ndarray]) -> Plot:
    mask = metrics.supported_pairs(held, 5)
    return scatter(metrics.pmi(held)[mask], {n: metrics.pmi(m)[mask] for n, m in made.items()}, "PMI, nats", log=False)


def _panels(count: int, width: float = 3.2, height: float = 3.2) -> tuple[Plot, list[Axes]]:
    columns = min(max(count, 1), 4)
    rows = -(-max(count, 1) // columns)
    plot = Plot(figsize=(width * columns, height * rows), layout="constrained")
    axes = list(np.ravel(plot.subplots(rows, columns, squeeze=False)))
    for unused in axes[count:]:
        unused.set_axis_off()
    return plot, axes[:count]


def overview(figures: Sequence[Figure]) -> Plot:
    """A panel per metric: each sampler's value and interval, and the noise floor as a band."""
    names = list(dict.fromkeys(f.metric for f in figures))
    plot, axes = _panels(len(names), height=2.4)
    for axis, name in zip(axes, names, strict=True):
        chosen = [f for f in figures if f.metric == name]
        for i, figure in enumerate(chosen):
            axis.plot([figure.low, figure.high], [i, i], color="tab:blue")
            axis.plot(figure.value, i, "o", color="tab:blue", markersize=4)
        axis.axvspan(chosen[0].floor_low, chosen[0].floor_high, color="0.85", zorder=0)
        axis.axvline(chosen[0].floor, color="0.5", linewidth=1)
        axis.set_yticks(range(len(chosen)), [f.sampler for f in chosen], fontsize=6)
        axis.set_title(name, fontsize=8)
        axis.tick_params(axis="x", labelsize=6)
    return plot


def scatter(real: np.ndarray, made: Mapping[str, np.ndarray], label: str, log: bool = True) -> Plot:
    """A panel per sampler: its values against the held-out rows' values, float (n,) each."""
    plot, axes = _panels(len(made))
    for axis, (name, values) in zip(axes, made.items(), strict=True):
        axis.plot(real, values, ".", markersize=2, alpha=0.4)
        lowest, highest = min(real.min(), values.min()), max(real.max(), values.max())
        axis.plot([lowest, highest], [lowest, highest], color="0.5", linewidth=0.8)
        if log:
            axis.set_xscale("symlog", linthresh=1e-3)
            axis.set_yscale("symlog", linthresh=1e-3)
        axis.set_title(name, fontsize=8)
        axis.set_xlabel(f"held-out: {label}", fontsize=7)
    return plot


def sizes(held: np.ndarray, made: Mapping[str, np.ndarray]) -> Plot:
    """Distribution of tags per row, held-out rows and every sampler."""
    plot, (axis,) = _panels(1, 6, 4)
    for name, rows in {"held-out rows": held, **made}.items():
        share = np.bincount(rows.sum(1)) / len(rows)
        axis.plot(share, marker=".", label=name, linewidth=2 if name == "held-out rows" else 1)
    axis.set_xlabel("tags per row")
    axis.set_ylabel("share of rows")
    axis.legend(fontsize=7)
    return plot


def category_pairs(figures: Sequence[Figure]) -> Plot:
    """Co-occurrence correlation by pair of categories: a row per sampler."""
    names = _pair_names()
    samplers = list(dict.fromkeys(f.sampler for f in figures))
    values = {(f.sampler, f.metric): f.value for f in figures}
    grid = np.array([[values.get((s, n), np.nan) for n in names] for s in samplers])
    plot, (axis,) = _panels(1, 8, 1 + 0.5 * len(samplers))
    image = axis.imshow(grid, vmin=0, vmax=1, aspect="auto", cmap="viridis")
    labels = [n.removeprefix("cooccurrence_pearson_").replace("_", "\n") for n in names]
    axis.set_xticks(range(len(names)), labels, fontsize=6)
    axis.set_yticks(range(len(samplers)), samplers, fontsize=7)
    plot.colorbar(image, ax=axis, label="Pearson")
    return plot


def nearest(reference: Reference, made: Mapping[str, np.ndarray]) -> Plot:
    """Distribution of the Jaccard similarity to the nearest training row: memorising moves it to the right."""
    plot, (axis,) = _panels(1, 6, 4)
    bins = np.linspace(0, 1, 21).tolist()
    for name, rows in {"held-out rows": reference.held, **made}.items():
        similarity = metrics.nearest_jaccard(rows[:2000], reference.train)
        axis.hist(similarity, bins, density=True, histtype="step", label=name)
    axis.set_xlabel("Jaccard similarity to the nearest training row")
    axis.legend(fontsize=7)
    return plot


def latent_maps(points: Mapping[str, np.ndarray], genres: np.ndarray, vocabulary: Vocabulary, most: int = 8) -> Plot:
    """A panel per model: latents on a plane, float (num_rows, 2), coloured by their commonest genres.

    Args:
        points: by the model's name.
        genres: int (num_rows,), vocabulary columns, -1 for none.
        vocabulary: of the columns.
        most: genres that have a colour.
    """
    plot, axes = _panels(len(points), 5, 4)
    names, counts = np.unique(genres[genres >= 0], return_counts=True)
    for axis, (title, places) in zip(axes, points.items(), strict=True):
        axis.plot(places[:, 0], places[:, 1], ".", color="0.85", markersize=3)
        for genre in names[np.argsort(-counts)][:most]:
            chosen = genres == genre
            axis.plot(places[chosen, 0], places[chosen, 1], ".", markersize=4, label=vocabulary.tags[genre])
        axis.set_title(title, fontsize=8)
        axis.set_axis_off()
    axes[-1].legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    return plot
