"""Rows that kill their worker are found in few deaths, whatever the batch; healthy workers pay nothing."""

from __future__ import annotations

import pytest

from conceptcaps.pipelines.guard import Guard, Watch
from conceptcaps.rundir import RunDir


class DeathError(BaseException):
    """Stands for the end of the worker's process: nothing of the worker's own is cleaned up."""


def worker(watch: Watch, *, restarted: bool) -> Guard:
    guard = Guard(watch, "audio", careful=restarted, _actor="actor")
    guard.look()
    return guard


def die_on(guard: Guard, rows: list[dict], killers: set[str], tried: list[str]) -> list[str]:
    """One life of a worker over one batch; raises DeathError, leaving its marker, or returns the ids that it did."""
    done = []
    for piece in guard.pieces(guard.give_up([r for r in rows if r.get("status") is None])):
        marker = guard.begin(piece)
        tried += [row["id"] for row in piece]
        if any(row["id"] in killers for row in piece):
            raise DeathError
        guard.end(piece, marker)
        done += [row["id"] for row in piece]
    return done


@pytest.mark.parametrize("killers", [set(), {"7"}, {"0", "31"}])
@pytest.mark.parametrize("max_deaths", [1, 2])
def test_just_the_killers_are_given_up(tmp_path, killers, max_deaths):
    watch = Watch(RunDir(tmp_path), "run", 0, "session", max_deaths)
    rows = [{"id": str(i)} for i in range(32)]
    tried: list[str] = []
    for life in range(40):
        try:
            done = die_on(worker(watch, restarted=life > 0), rows, killers, tried)
            break
        except DeathError:
            for row in rows:  # Ray hands out the task's own rows again
                row.pop("status", None)
    assert {row["id"] for row in rows if row.get("status") == "failed"} == killers
    assert set(done) == {row["id"] for row in rows} - killers
    assert all(row["reason"].startswith("audio.worker_died") for row in rows if "reason" in row)
    # One death unseen, one that names the batch, one that names a piece, then the row alone.
    assert life <= 2 + len(killers) * (1 + max_deaths)
    assert max(tried.count(row["id"]) for row in rows if row["id"] not in killers) <= 3 + 3 * len(killers)


def test_a_worker_that_was_never_restarted_writes_nothing(tmp_path):
    guard = worker(Watch(RunDir(tmp_path), "run", 0, "session", 2), restarted=False)
    with guard.trying([{"id": "a"}]):
        assert not RunDir(tmp_path).files("begun")


def test_markers_of_the_living_say_nothing_and_those_of_earlier_starts_only_suspect(tmp_path):
    run = RunDir(tmp_path)
    run.write_json(["a"], "begun", "attempt-0", "audio", "session.other.1.json")
    run.write_json(["b"], "begun", "attempt-0", "audio", "earlier.other.1.json")
    guard = worker(Watch(run, "run", 0, "session", 1), restarted=False)
    assert set(guard.groups) == {"b"}
    assert not guard.deaths
    assert guard.careful
