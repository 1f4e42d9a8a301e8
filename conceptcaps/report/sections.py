"""The page's sections: each says what it shows in one sentence, or in one line why it has nothing to show."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from conceptcaps import schema
from conceptcaps.report import figures
from conceptcaps.report.gather import Gathered, TagStatistics
from conceptcaps.report.tcav import Cells

_MOST_CONCEPTS = 40  # of the heat map
_MOST_SCALARS = 80  # of a JSON artefact shown as a table


@dataclass(frozen=True)
class Picture:
    """An inline figure and what it shows, in words."""

    svg: str
    caption: str


@dataclass(frozen=True)
class Table:
    caption: str
    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


@dataclass(frozen=True)
class Bar:
    """One line of the counts: a label, a number, its share of the whole in [0, 1], a style."""

    label: str
    number: int
    share: float
    kind: str
    indent: bool = False


@dataclass(frozen=True)
class Section:
    """One section of the page; `missing` is the line that stands where there is nothing to show."""

    name: str
    title: str
    lead: str = ""
    pictures: list[Picture] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)
    missing: str = ""


def pipeline(gathered: Gathered, num_specs: int) -> Section:
    counts = gathered.counts
    whole = max(num_specs, counts.rows, 1)
    bars = [Bar("rows asked for", num_specs, num_specs / whole, "all")]
    for status in schema.STATUSES:
        number = counts.statuses.get(status, 0)
        bars.append(Bar(status, number, number / whole, status))
        reasons = gathered.reasons[status].most_common()
        bars += [Bar(code, times, times / whole, status, indent=True) for code, times in reasons]
    waiting = max(0, num_specs - counts.rows)
    if waiting:
        bars.append(Bar("not made yet", waiting, waiting / whole, "all"))
    accepted = counts.statuses.get(schema.ACCEPTED, 0)
    lead = f"{accepted:,} of {whole:,} rows were accepted ({accepted / whole:.1%}): {hours(gathered.seconds)} of audio."
    return Section("pipeline", "Pipeline and counts", lead, bars=bars)


def hours(seconds: float) -> str:
    """A duration in words, e.g. '2.4 hours'."""
    if seconds < 120:
        return f"{seconds:.1f} seconds"
    return f"{seconds / 60:.1f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"


def tags(made: TagStatistics, source: TagStatistics | None, num_tags: int) -> Section:
    populations = {"made": made} if source is None else {"source": source, "made": made}
    shown = _most_frequent(source or made, num_tags)
    shares = {name: statistics.shares[shown] for name, statistics in populations.items()}
    names = [made.vocabulary.tags[i] for i in shown]
    used = int((made.counts > 0).sum())
    lead = f"{used} of {len(made.vocabulary)} tags occur in accepted rows."
    if source is None:
        lead += " No source rows to compare with: the taxonomy stage left none in this run."
    else:
        gap = float(np.abs(made.shares - source.shares).mean())
        lead += f" Their shares differ from the source's by {gap:.1%} of rows on average."
    return Section(
        "tags",
        "Tags",
        lead,
        [
            Picture(figures.to_svg(figures.tag_shares(names, shares), "tags"), f"The {len(names)} most frequent tags."),
            Picture(
                figures.to_svg(figures.set_sizes({n: s.sizes for n, s in populations.items()}), "sizes"),
                "How many tags a row has.",
            ),
        ],
    )


def co_occurrence(made: TagStatistics, source: TagStatistics | None, num_tags: int) -> Section:
    populations = {"made": made} if source is None else {"source": source, "made": made}
    shown = _most_frequent(source or made, min(num_tags, 40))
    names = [made.vocabulary.tags[i] for i in shown]
    matrices = {name: statistics.phi()[np.ix_(shown, shown)] for name, statistics in populations.items()}
    figure = figures.heat_maps(names, matrices, "phi coefficient")
    lead = "Which tags come together (red) and which avoid each other (blue)."
    if source is not None:
        lead += f" Off the diagonal, made and source correlate at {_agreement(made, source):.2f}."
    return Section(
        "together",
        "Co-occurrence",
        lead,
        [Picture(figures.to_svg(figure, "together"), f"Phi of each two of the {len(names)} most frequent tags.")],
    )


def _most_frequent(statistics: TagStatistics, num_tags: int) -> np.ndarray:
    order = np.argsort(-statistics.counts, kind="stable")
    return order[: min(num_tags, int((statistics.counts > 0).sum()) or 1)]


def _agreement(made: TagStatistics, source: TagStatistics) -> float:
    upper = np.triu_indices(len(made.vocabulary), 1)
    a, b = made.phi()[upper], source.phi()[upper]
    both = np.isfinite(a) & np.isfinite(b)
    return float(np.corrcoef(a[both], b[both])[0, 1]) if both.sum() > 2 else float("nan")


def comparison(rows: Sequence[Mapping[str, Any]]) -> Section:
    """One line per metric and sampler, real rows against real rows beside it."""
    title = "Sampled tag sets against real ones"
    if not rows:
        return Section("comparison", title, missing="No comparison in this run (comparison/figures.parquet).")
    head = ("metric", "sampler", "value", "interval", "real against real", "verdict")
    lines = [
        (
            str(row["metric"]),
            str(row["sampler"]),
            number(row["value"]),
            f"{number(row['low'])} to {number(row['high'])}",
            number(row["floor"]),
            str(row["verdict"]),
        )
        for row in sorted(rows, key=lambda row: (row["metric"], row["sampler"]))
    ]
    lead = "Every metric beside the same between two halves of the real rows, the noise floor."
    return Section("comparison", title, lead, tables=[Table("Metrics", head, lines)])


@dataclass(frozen=True)
class Latents:
    """Real rows on the first two principal components of their latents, or of their tags."""

    points: np.ndarray
    """float (num_rows, 2)."""
    labels: list[str]
    explained: tuple[float, float]
    active: int
    """Dimensions whose variance over the rows is above 0.01."""
    dims: int
    is_latent: bool = True


def latent_space(latents: Latents | None, metrics: Any) -> Section:
    title = "Latent space"
    if latents is None:
        return Section("latent", title, missing="No fitted model of tag sets in this run (vae/model.safetensors).")
    figure = figures.scatter(latents.points, latents.labels, latents.explained)
    lead = (
        f"{latents.active} of {latents.dims} latent dimensions are active (variance of the posterior mean above 0.01)."
        if latents.is_latent
        else "The fitted model has no latent space; the rows are projected by their tags."
    )
    pictures = [Picture(figures.to_svg(figure, "latent"), "Source rows, coloured by their first genre.")]
    return Section("latent", title, lead, pictures, [json_table("Fit", metrics)] if metrics else [])


def captions(gathered: Gathered) -> Section:
    words = gathered.caption_words
    if not words:
        return Section("captions", "Captions", missing="No accepted row has a caption.")
    low, middle, high = np.percentile(words, [5, 50, 95])
    lead = (
        f"Half of the captions have at most {middle:.0f} words, nine in ten between {low:.0f} and {high:.0f}. "
        f"{gathered.tags_said:.1%} of the tags stand word for word in the caption."
    )
    facts = [(f"distinct-{n}", f"{value:.3f}") for n, value in gathered.distinct.items()]
    return Section(
        "captions",
        "Captions",
        lead,
        [
            Picture(
                figures.to_svg(figures.histograms({"accepted": words}, "words of a caption"), "words"),
                "Length of accepted captions.",
            )
        ],
        [Table("Different n-grams per n-gram, first 20,000 captions", ("measure", "value"), facts)],
    )


def alignment(gathered: Gathered, calibration: Mapping[str, Any] | None, threshold: float | None) -> Section:
    values: dict[str, Sequence[float]] = {}
    if calibration:
        values["mismatched pairs"] = calibration.get("null_scores", [])
        values["matched pairs"] = calibration.get("matched_scores", [])
        threshold = calibration.get("threshold", threshold)
    values |= {status: gathered.scores[status] for status in (schema.ACCEPTED, schema.REJECTED)}
    if not any(len(v) for v in values.values()):
        return Section("alignment", "Alignment", missing="No row carries an alignment score.")
    means = ", ".join(f"{name} {np.mean(v):.3f}" for name, v in values.items() if len(v))
    centred = ", the run's mean embeddings taken off" if calibration and calibration.get("centred") else ""
    lead = f"Mean cosine of caption and audio{centred}: {means}."
    if calibration is None:
        lead += " The threshold was not calibrated: no mismatched pairs in this run."
    figure = figures.histograms(values, "cosine similarity of caption and audio", threshold)
    return Section(
        "alignment",
        "Alignment of caption and audio",
        lead,
        [Picture(figures.to_svg(figure, "alignment"), "Scores of mismatched and matched pairs, and of the rows.")],
    )


def artefact(name: str, title: str, lead: str, value: Any, missing: str) -> Section:
    """A JSON artefact as a table of its numbers, or the line that says it is not there."""
    if not value:
        return Section(name, title, missing=missing)
    return Section(name, title, lead, tables=[json_table(title, value)])


def json_table(caption: str, value: Any) -> Table:
    """Every scalar of a JSON tree by its path."""
    rows = list(_scalars(value))
    if len(rows) > _MOST_SCALARS:
        caption += f" (the first {_MOST_SCALARS} of {len(rows)} values)"
    return Table(caption, ("value", ""), rows[:_MOST_SCALARS])


def _scalars(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, child in value.items():
            yield from _scalars(child, f"{path} / {key}" if path else str(key))
    elif isinstance(value, list):
        if all(isinstance(item, int | float) for item in value):
            if len(value) <= 4:
                yield path, ", ".join(map(number, value))
        else:
            for i, child in enumerate(value):
                yield from _scalars(child, f"{path} / {i}" if path else str(i))
    elif value is not None:
        yield path, number(value)


def number(value: Any) -> str:
    """A value for reading: four figures, thousands separated."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def concepts(cells: Cells | None, left_out: str = "") -> Section:
    """The effects of concepts on classes; `left_out` is why the stage was, where it was."""
    title = "What a classifier has learned (TCAV)"
    if left_out:
        return Section("tcav", title, missing=f"This stage was left out: {left_out}")
    if cells is None or not len(cells.concepts):
        return Section("tcav", title, missing="No concept effects in this run (tcav/effects.parquet).")
    shown = cells.first(_MOST_CONCEPTS)
    measure = "effect on the logit, standard deviations"
    heat = figures.marked_heat_map(shown.concepts, shown.targets, shown.values, ~shown.significant, measure)
    strongest = cells.strongest(20)
    names = [f"{cells.concepts[i]} \u2192 {cells.targets[j]}" for i, j in strongest]
    pick = tuple(np.array(strongest, dtype=int).reshape(-1, 2).T)
    bars = figures.interval_bars(
        names, cells.values[pick], cells.low[pick], cells.high[pick], cells.significant[pick], measure
    )
    lead = (
        f"{int(cells.significant.sum())} of {int(np.isfinite(cells.values).sum())} effects of a concept on a class, at "
        f"layer {cells.layer}, are shown to be used."
    )
    return Section(
        "tcav",
        title,
        lead,
        [
            Picture(
                figures.to_svg(heat, "tcav"), "Effect of each concept on each class; a cross: not shown to be used."
            ),
            Picture(
                figures.to_svg(bars, "tcav-bars"),
                "The largest effects with their intervals; pale: not shown to be used.",
            ),
        ],
    )


def throughput(series: tuple[np.ndarray, np.ndarray] | None, stages: Mapping[str, Any]) -> Section:
    times = [
        (name, str(facts.get("state", "")), f"{facts['seconds']:,.1f} s" if "seconds" in facts else "")
        for name, facts in stages.items()
    ]
    tables = [Table("Stages", ("stage", "state", "time"), times)] if times else []
    if series is None:
        return Section("throughput", "Throughput", "Fewer than two shard files: no curve.", tables=tables)
    minutes, rows = series
    lead = f"{rows[-1]:,} rows in {minutes[-1]:.1f} minutes between the first shard and the last."
    figure = figures.lines(minutes, {"rows": rows}, "minutes since the first shard", "rows written")
    return Section(
        "throughput",
        "Throughput",
        lead,
        [Picture(figures.to_svg(figure, "throughput"), "Rows written over time.")],
        tables,
    )


def provenance(manifest: Mapping[str, Any], seed: int, models: Sequence[Mapping[str, str]]) -> Section:
    facts = [("code", str(manifest.get("code", ""))), ("python", str(manifest.get("python", ""))), ("seed", str(seed))]
    facts += [(name, version) for name, version in manifest.get("packages", {}).items()]
    made_by = [(m["role"], m["engine"], m["model"], m["revision"] or "not pinned") for m in models]
    return Section(
        "provenance",
        "Made with",
        tables=[
            Table("Models", ("role", "engine", "model", "revision"), made_by),
            Table("Versions", ("", ""), facts),
        ],
    )
