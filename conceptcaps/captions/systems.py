"""Who writes captions of the held-out tag sets, and what each of them is asked."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from typing import Any

from conceptcaps.captions.asking import Answer, Question
from conceptcaps.captions.prompts import PromptTemplate, clean_reply
from conceptcaps.seeding import derive

FINE_TUNED, BASE, ZERO_SHOT, GRAMMAR, HUMAN, RUN = "fine_tuned", "base", "zero_shot", "grammar", "human", "run"
SYSTEMS = (FINE_TUNED, BASE, ZERO_SHOT, GRAMMAR, HUMAN, RUN)
"""In the order of the table: the model with its adapter, the bare model with the same prompt, with a prompt that
explains the task, templates, the annotators, and the run's own captions, which are of other tag sets."""


def zero_shot_prompt(path: str | None) -> PromptTemplate:
    """The prompt of a YAML file; None for the packaged one."""
    if path is not None:
        return PromptTemplate.load(path)
    packaged = resources.files("conceptcaps").joinpath("assets/prompts/zero-shot.yaml")
    with resources.as_file(packaged) as file:
        return PromptTemplate.load(str(file))


def questions_to(system: str, rows: Sequence[dict[str, Any]], prompt: PromptTemplate, seed: int) -> list[Question]:
    """What a system that is a language model is asked: the same seed for one row, whoever is asked."""
    return [
        Question(prompt.messages(row), derive(seed, "evaluation", i), adapted=system == FINE_TUNED)
        for i, row in enumerate(rows)
    ]


def captions_in(answers: Sequence[Answer]) -> list[str]:
    """The answers, cleaned; empty where there is none."""
    return [clean_reply(answer.text or "") for answer in answers]
