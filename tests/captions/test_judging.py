from __future__ import annotations

import numpy as np
import pytest

from conceptcaps.captions.asking import Answer
from conceptcaps.captions.judging import Rubric, judge_questions, read_grades, summarise
from conceptcaps.errors import InputError


@pytest.fixture(scope="module")
def rubric():
    return Rubric.load(None)


@pytest.mark.parametrize(
    ("text", "grade"),
    [
        ("Score: 4", 4),
        ("**Score:** 5.", 5),
        ("It says all tags.\nscore = 2", 2),
        ("Score: 1, no: score: 3", 3),
        ("4", 4),
        ("Score: 9", None),
        ("Score: 44", None),
        ("It has 3 tags and they are good.", None),
        ("", None),
        (None, None),
    ],
)
def test_a_grade_is_read_or_there_is_none(rubric, text, grade):
    assert rubric.grade(Answer(text)) == grade


def test_the_judge_sees_caption_and_tags_and_each_run_has_its_seeds(rubric):
    questions = judge_questions(rubric, ["A slow song.", "A fast song."], [["slow"], ["fast"]], 2, 0)
    assert ["A slow song." in q.messages[-1]["content"] for q in questions] == [True, False] * 2
    assert "slow" in questions[2].messages[-1]["content"]
    assert len({q.seed for q in questions}) == 4


def test_unparsable_answers_are_counted_and_never_averaged(rubric):
    texts = ["Score: 4", "Score: 2", "no idea", "Score: 4", "Score: 4", "Score: 5"]
    grades = read_grades(rubric, [Answer(text) for text in texts], 2)
    np.testing.assert_array_equal(grades, [[4, 2, np.nan], [4, 4, 5]])
    found = summarise(grades)
    assert (found["answers"], found["unparsable"]) == (6, 1)
    assert found["mean"] == pytest.approx(19 / 5)
    assert (found["agreement"], found["difference"]) == (0.5, 1.0)


def test_kappa_is_one_for_equal_runs_and_zero_for_chance():
    varied = np.array([1.0, 2, 3, 4, 5, 1, 2, 3])
    assert summarise(np.stack([varied, varied]))["kappa"] == pytest.approx(1)
    one, other = (a.ravel() for a in np.meshgrid([1.0, 2, 3], [1.0, 2, 3]))
    assert summarise(np.stack([one, other]))["kappa"] == pytest.approx(0)
    assert summarise(np.full((2, 3), np.nan))["mean"] is None


@pytest.mark.parametrize(
    "text", ["a: [", "user: x", "{system: a, user: b, lowest: 1, highest: 5}", "{system: '', user: '{{ x', lowest: 1}"]
)
def test_a_file_that_is_no_rubric_is_refused(tmp_path, text):
    path = tmp_path / "rubric.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"rubric\.yaml"):
        Rubric.load(str(path))
