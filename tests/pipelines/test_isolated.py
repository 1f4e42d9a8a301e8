"""One stage of the streaming plan in an interpreter of its own, with a package that the others could not live with."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import sysconfig
from pathlib import Path

import pyarrow as pa
import pytest
from old_package import OLD_PACKAGE
from runs import small_config, write_specs

from conceptcaps import schema, shards
from conceptcaps.pipelines.generate import run_generate
from conceptcaps.rundir import RunDir

OLDER = "23.2"  # of `packaging`; this package needs 24 or later


@pytest.fixture(scope="module")
def interpreter(tmp_path_factory) -> Path:
    """A virtual environment that sees this one's packages after its own."""
    folder = tmp_path_factory.mktemp("isolated") / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    site = next(folder.glob("lib/python*/site-packages"))
    (site / "outer.pth").write_text(sysconfig.get_path("purelib") + "\n")
    words = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site)]
    subprocess.run([*words, f"packaging=={OLDER}"], check=True)
    return folder / "bin" / "python"


@pytest.mark.isolated
def test_a_stage_runs_with_packages_that_the_others_cannot_have(cluster, interpreter, tmp_path):
    run = RunDir(tmp_path / "run")
    write_specs(run, 12)
    run_generate(small_config(tmp_path / "run", f"audio.resources.python={interpreter}"), run, OLD_PACKAGE)
    rows = pa.concat_tables(shards.latest(run, schema.SHARD.names)).to_pylist()
    assert len(rows) == 12
    # The engines write down which version they run beside.
    assert {row["caption"].split()[0] for row in rows} == {importlib.metadata.version("packaging")}
    assert {row["sampling_rate"] for row in rows} == {8000 + int(OLDER.split(".")[0])}
    assert importlib.metadata.version("packaging") != OLDER
