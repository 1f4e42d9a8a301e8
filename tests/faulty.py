"""Trivial engines that keep a log of what they did, take their time, and do harm on the rows that ask for it.

What they do is in the environment, which Ray's workers inherit: FAULTY_LOG names an append-only file that gets a line
per row, step and node; FAULTY_SECONDS is slept for each row of audio. A row tagged `kill-audio` or `kill-caption` ends
its worker each time; `raise-...` rows raise. Nothing in the package imports this.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import ray
from trivial_engines import TrivialAligner, TrivialCaptioner, TrivialSynthesiser

from conceptcaps.pipelines.steps import Engines


def log(step: str, ids: list[str]) -> None:
    """Append "step id node" lines, in one write so that processes do not mix theirs."""
    if path := os.environ.get("FAULTY_LOG"):
        node = ray.get_runtime_context().get_node_id()
        with Path(path).open("a") as file:
            file.write("".join(f"{step} {row_id} {node}\n" for row_id in ids))


def read_log(path: Path) -> list[tuple[str, str, str]]:
    """The (step, id, node) lines of a log; a line cut off by a kill is left out."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [(parts[0], parts[1], parts[2]) for parts in map(str.split, lines) if len(parts) == 3]


def harm(batch, kind: str) -> None:
    if any(kind in tags for tags in batch["aspect_list"]):
        os._exit(1)


class FaultyCaptioner(TrivialCaptioner):
    def __call__(self, batch):
        harm(batch, "kill-caption")
        log("captions", batch["id"])
        return super().__call__(batch)


class FaultySynthesiser(TrivialSynthesiser):
    def __call__(self, batch):
        time.sleep(float(os.environ.get("FAULTY_SECONDS", "0")) * len(batch["id"]))
        harm(batch, "kill-audio")
        log("audio", batch["id"])
        return super().__call__(batch)


class SlowSynthesiser(TrivialSynthesiser):
    """A twentieth of a second per row."""

    def __call__(self, batch):
        time.sleep(0.05 * len(batch["id"]))
        return super().__call__(batch)


SLOW = Engines(TrivialCaptioner, SlowSynthesiser, TrivialAligner)
FAULTY = Engines(FaultyCaptioner, FaultySynthesiser, TrivialAligner)
