"""A language model as a judge of captions: its rubric, its answers, and how far two runs of it agree.

An answer that holds no grade is counted as such: a middle grade in its place would look like an opinion.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from conceptcaps.captions.asking import Answer, Question
from conceptcaps.captions.prompts import Message
from conceptcaps.errors import InputError
from conceptcaps.seeding import derive

_GRADE = re.compile(r"(?:score|grade|rating)\W{0,4}(-?\d+(?:\.\d+)?)(?!\d)", re.IGNORECASE)
_ALONE = re.compile(r"^\W*(-?\d+(?:\.\d+)?)\W*$")


@dataclass(frozen=True)
class Rubric:
    """What the judge is told.

    Attributes:
        system: Jinja template of the system message.
        user: Jinja template of the user message; sees `caption` and `tags`.
        lowest: grade.
        highest: grade.
    """

    system: str
    user: str
    lowest: int
    highest: int

    @classmethod
    def load(cls, path: str | None) -> Rubric:
        """The rubric of a YAML file; None for the built-in one.

        Raises:
            InputError: the file cannot be read, has other keys, or leaves the caption or the tags out.
        """
        where = path or "built-in rubric"
        try:
            if path is None:
                text = resources.files("conceptcaps").joinpath("assets/prompts/judge.yaml").read_text(encoding="utf-8")
            else:
                text = Path(path).expanduser().read_text(encoding="utf-8")
            tree = yaml.safe_load(text)
            rubric = cls(str(tree["system"]), str(tree["user"]), int(tree["lowest"]), int(tree["highest"]))
        except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
            mend = "Give a YAML file with system, user, lowest and highest"
            raise InputError(where, f"is no rubric ({error})", mend) from error
        shown = str(rubric.messages("the caption", ["the tag"]))
        if "the caption" not in shown or "the tag" not in shown or rubric.lowest >= rubric.highest:
            raise InputError(where, "shows no caption or no tags, or has no range of grades", "Use {{ caption }}, tags")
        return rubric

    def messages(self, caption: str, tags: Sequence[str]) -> list[Message]:
        """The chat that asks for a grade."""
        import jinja2

        environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False)
        values = {"caption": caption, "tags": list(tags), "lowest": self.lowest, "highest": self.highest}
        try:
            system, user = (environment.from_string(t).render(values).strip() for t in (self.system, self.user))
        except jinja2.TemplateError as error:
            raise InputError("the rubric", f"is no valid template ({error})", "Mend the template") from error
        opening = [{"role": "system", "content": system}] if system else []
        return [*opening, {"role": "user", "content": user}]

    def grade(self, answer: Answer) -> float | None:
        """The grade in an answer: the last 'score: n', or a number that stands alone; None where there is none."""
        text = answer.text or ""
        found = _GRADE.findall(text) or _ALONE.findall(text)
        value = float(found[-1]) if found else None
        return value if value is not None and self.lowest <= value <= self.highest else None


def judge_questions(
    rubric: Rubric, captions: Sequence[str], tags: Sequence[Sequence[str]], runs: int, seed: int
) -> list[Question]:
    """Every caption once per run, run by run."""
    return [
        Question(rubric.messages(caption, row), derive(seed, "judge", run, i))
        for run in range(runs)
        for i, (caption, row) in enumerate(zip(captions, tags, strict=True))
    ]


def read_grades(rubric: Rubric, answers: Sequence[Answer], runs: int) -> np.ndarray:
    """float64 (runs, captions): the grades of the answers to `judge_questions`; nan where there is none."""
    grades = [rubric.grade(answer) for answer in answers]
    return np.array([np.nan if g is None else g for g in grades], dtype=np.float64).reshape(runs, -1)


def summarise(grades: np.ndarray) -> dict[str, Any]:
    """The grades in numbers.

    Returns:
        `mean` of the grades there are; `unparsable`: answers without a grade, and their `unparsable_share`;
        of the captions that the first two runs both graded, the share with one grade (`agreement`), the mean
        `difference`, and the quadratically weighted `kappa` (Cohen 1968). None where there is nothing to say.
    """
    missing = np.isnan(grades)
    found: dict[str, Any] = {"answers": int(grades.size), "unparsable": int(missing.sum())}
    found["unparsable_share"] = float(missing.mean()) if grades.size else None
    found["mean"] = float(np.nanmean(grades)) if not missing.all() else None
    found |= {"agreement": None, "difference": None, "kappa": None}
    if len(grades) > 1:
        both = ~missing[:2].any(0)
        first, second = grades[0, both], grades[1, both]
        if both.any():
            found["agreement"] = float((first == second).mean())
            found["difference"] = float(np.abs(first - second).mean())
            found["kappa"] = _kappa(first, second)
    return found


def _kappa(first: np.ndarray, second: np.ndarray) -> float | None:
    """1 - observed / expected squared difference; None where neither run ever differs from itself."""
    expected = float(((first[:, None] - second[None, :]) ** 2).mean())
    return 1 - float(((first - second) ** 2).mean()) / expected if expected else None
