"""`conceptcaps captions-eval`: whoever can write captions, side by side on held-out tag sets.

Results: captions/evaluation.json (values, what is missing and why, who was asked what) and captions/evaluation.md.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from conceptcaps import schema, shards
from conceptcaps.captions import systems
from conceptcaps.captions.asking import Answer, Question
from conceptcaps.captions.evaluate import Measured, measure
from conceptcaps.captions.grammar import GrammarCaptioner
from conceptcaps.captions.judging import Rubric, judge_questions, read_grades, summarise
from conceptcaps.captions.lora import read_pairs, row_tags, split_pairs
from conceptcaps.captions.prompts import PromptTemplate
from conceptcaps.captions.vllm import model_source
from conceptcaps.config import Config
from conceptcaps.pipelines.captions import ADAPTER, find_adapter, find_synonyms
from conceptcaps.pipelines.isolation import to_batch
from conceptcaps.pipelines.lora import annotated_rows
from conceptcaps.rundir import RunDir, code_version
from conceptcaps.seeding import derive, generator
from conceptcaps.vocabulary import Vocabulary

logger = logging.getLogger(__name__)

RESULTS, TABLE = ("captions", "evaluation.json"), ("captions", "evaluation.md")
Ask = Callable[[Config, str | None, Sequence[Question]], list[Answer]]
Row = dict[str, Any]


def run_captions_eval(config: Config, run: RunDir, ask: Ask | None = None) -> dict[str, Any]:
    """Caption the held-out rows by every system that the run has, and measure them all; returns what is written.

    The held-out rows are those that stage `lora` holds out: the same pairs, fraction and seed.

    Args:
        config: of the run.
        run: its directory; holds annotated rows, or `lora.data` names some.
        ask: who answers for the language models; None for vLLM.

    Raises:
        InputError: no pairs to measure on, or a model, prompt or rubric that cannot be used.
    """
    asking = ask or _ask_vllm
    rows = held_out_rows(config, run)
    captions, absent = written(config, run, rows, asking)
    vocabulary = vocabulary_of(run, rows)
    measured: dict[str, Measured] = {}
    tags = {name: [row_tags(row) for row in rows] for name in captions}
    own = run_rows(run, config.evaluation.num_rows)
    if own:
        captions[systems.RUN] = [row["caption"] for row in own]
        tags[systems.RUN] = [row["aspect_list"] for row in own]
    else:
        absent[systems.RUN] = "the run has no captions yet"
    human = captions[systems.HUMAN]
    for name in (name for name in systems.SYSTEMS if name in captions):
        references = None if name in (systems.HUMAN, systems.RUN) else human
        measured[name] = measure(
            captions[name],
            tags[name],
            references,
            vocabulary,
            config.evaluation,
            config.captions.checks,
            find_synonyms(config),
            config.seed,
        )
    result: dict[str, Any] = {
        "rows": len(rows),
        "seed": config.seed,
        "code": code_version(),
        "model": model_source(config.captions.vllm) if config.captions.engine == "vllm" else None,
        "values": {name: found.values for name, found in measured.items()},
        "missing": {name: found.missing for name, found in measured.items()},
        "absent": absent,
        "judge": judged(config, captions, tags, asking),
    }
    run.write_json(result, *RESULTS)
    run.write_bytes(table_of(result).encode(), *TABLE)
    run.write_json({name: captions[name] for name in captions}, "captions", "evaluated.json")
    return result


def _ask_vllm(config: Config, adapter: str | None, questions: Sequence[Question]) -> list[Answer]:
    from conceptcaps.pipelines.questions import ask_vllm

    return ask_vllm(config, adapter, questions)


def held_out_rows(config: Config, run: RunDir) -> list[Row]:
    """At most `evaluation.num_rows` of the rows that stage `lora` holds out, drawn by the run's seed."""
    pairs = read_pairs(config.lora.data) if config.lora.data else annotated_rows(run)
    _, held = split_pairs(pairs, config.lora.validation_fraction, config.seed)
    order = generator(config.seed, "evaluation", "rows").permutation(len(held))[: config.evaluation.num_rows]
    return [held[i] | {"aspect_list": row_tags(held[i])} for i in sorted(order)]


def written(config: Config, run: RunDir, rows: list[Row], ask: Ask) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Each system's captions of the rows, and why a system wrote none."""
    seeded = [row | {"seed": derive(config.seed, "evaluation", i)} for i, row in enumerate(rows)]
    captions = {
        systems.HUMAN: [row["caption"] for row in rows],
        systems.GRAMMAR: list(GrammarCaptioner(config.captions)(to_batch(seeded))),
    }
    if config.captions.engine != "vllm":
        why = f"captions.engine is {config.captions.engine!r}"
        return captions, dict.fromkeys((systems.FINE_TUNED, systems.BASE, systems.ZERO_SHOT), why)
    adapter = adapter_of(config, run)
    absent: dict[str, str] = {}
    prompt = PromptTemplate.load(config.captions.prompt)
    prompts = {systems.BASE: prompt, systems.ZERO_SHOT: systems.zero_shot_prompt(config.evaluation.zero_shot_prompt)}
    if adapter:
        prompts[systems.FINE_TUNED] = prompt
    else:
        absent[systems.FINE_TUNED] = "the run has no adapter: run stage lora, or set captions.vllm.adapter"
    questions = [q for name, p in prompts.items() for q in systems.questions_to(name, rows, p, config.seed)]
    answers = ask(config, adapter, questions)
    for k, name in enumerate(prompts):
        captions[name] = systems.captions_in(answers[k * len(rows) : (k + 1) * len(rows)])
    return captions, absent


def adapter_of(config: Config, run: RunDir) -> str | None:
    """The adapter that the run serves, or the one that stage `lora` left in it."""
    if config.captions.vllm.adapter is not None:
        return find_adapter(config)
    return run.path(*ADAPTER) if run.is_local and run.exists(*ADAPTER, "adapter_config.json") else None


def run_rows(run: RunDir, limit: int) -> list[Row]:
    """The run's first rows that have a caption, by id."""
    found = [t.to_pylist() for t in shards.latest(run, ["caption", "aspect_list", "status"])]
    rows = [r for some in found for r in some if r["caption"] and r["status"] == schema.ACCEPTED]
    return sorted(rows, key=lambda row: row["id"])[:limit]


def vocabulary_of(run: RunDir, rows: list[Row]) -> list[str]:
    """The tags that a caption could say: the run's vocabulary, or the rows' own tags where there is none."""
    if run.exists("taxonomy", "concepts_to_tags.json"):
        return list(Vocabulary.from_json(run.read_bytes("taxonomy", "concepts_to_tags.json")).tags)
    return sorted({tag for row in rows for tag in row["aspect_list"]})


def judged(
    config: Config, captions: dict[str, list[str]], tags: dict[str, list[list[str]]], ask: Ask
) -> dict[str, Any] | None:
    """Each system's grades by the judge; None without one."""
    settings = config.evaluation.judge
    if settings.model is None:
        return None
    rubric = Rubric.load(settings.rubric)
    names = [name for name in systems.SYSTEMS if name in captions]
    asked = {n: judge_questions(rubric, captions[n], tags[n], settings.runs, config.seed) for n in names}
    served = config.captions.vllm.model_copy(update={"model": settings.model, "adapter": None, "revision": None})
    sampling = {"temperature": settings.temperature, "max_tokens": settings.max_tokens}
    section = config.captions.model_copy(update={"vllm": served, **sampling})
    answers = ask(config.model_copy(update={"captions": section}), None, [q for n in names for q in asked[n]])
    found: dict[str, Any] = {"model": settings.model, "rubric": settings.rubric, "runs": settings.runs}
    at = 0
    for name in names:
        some = answers[at : at + len(asked[name])]
        at += len(some)
        found[name] = summarise(read_grades(rubric, some, settings.runs))
    return found


def table_of(result: dict[str, Any]) -> str:
    """The results as Markdown: a line per metric, a column per system, and what is missing below."""
    names = [name for name in systems.SYSTEMS if name in result["values"]]
    metrics = list(dict.fromkeys(metric for name in names for metric in result["values"][name]))
    lines = [f"| {result['rows']} held-out rows | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for metric in metrics:
        shown = [_number(result["values"][name].get(metric)) for name in names]
        lines.append(f"| {metric} | {' | '.join(shown)} |")
    if result["judge"]:
        for field in ("mean", "unparsable_share", "agreement", "kappa"):
            shown = [_number(result["judge"][name][field]) for name in names]
            lines.append(f"| judge: {field} | {' | '.join(shown)} |")
    notes = [f"- {name}: {why}" for name, why in result["absent"].items()]
    reasons = {metric: why for some in result["missing"].values() for metric, why in some.items()}
    notes += [f"- {metric}: {why}" for metric, why in reasons.items()]
    return "\n".join([*lines, "", *notes, ""])


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
