"""A fast step does not run far ahead of a slow one: what it has made is lost by a kill."""

from __future__ import annotations

from functools import partial

from runs import small_config, write_specs
from trivial_engines import LoggedCaptioner, LoggedSynthesiser, TrivialAligner

from conceptcaps.pipelines.generate import run_generate
from conceptcaps.pipelines.steps import Engines
from conceptcaps.rundir import RunDir

ROWS = 400


def test_captions_wait_for_audio(cluster, tmp_path):
    run, log = RunDir(tmp_path / "run"), tmp_path / "log"
    write_specs(run, ROWS)
    engines = Engines(partial(LoggedCaptioner, log), partial(LoggedSynthesiser, log), TrivialAligner)
    settings = ["ray.rows_per_block=2", "captions.resources.batch_size=2", "audio.resources.batch_size=2"]
    run_generate(small_config(tmp_path / "run", *settings), run, engines)
    lead = most = captioned = 0
    for line in log.read_text().split():
        lead += int(line)
        most, captioned = max(most, lead), captioned + max(0, int(line))
    assert captioned == ROWS
    assert most < ROWS / 10  # 170 and more where nothing holds captions back
