"""One writer at a time: refused while the holder lives, free when it has died here, and after a while anywhere."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pyarrow as pa
import pytest

from conceptcaps import lease, schema, shards
from conceptcaps.errors import InputError
from conceptcaps.lease import LEASE, Lease, holder
from conceptcaps.rundir import RunDir

DEAD = "import sys; from conceptcaps.lease import Lease; from conceptcaps.rundir import RunDir; import os\n"
DEAD += "Lease(RunDir(sys.argv[1]), 600).__enter__(); os._exit(9)"


def test_a_second_job_is_refused_with_one_message_that_names_the_first(tmp_path):
    with Lease(RunDir(tmp_path), 30):
        assert holder(RunDir(tmp_path)) is not None
        with pytest.raises(InputError, match=r"is in use by another job \(process \d+ on .*Wait for it"):
            Lease(RunDir(tmp_path), 30).__enter__()
    assert holder(RunDir(tmp_path)) is None
    with Lease(RunDir(tmp_path), 30):
        pass
    assert not RunDir(tmp_path).exists(LEASE)


def test_a_holder_that_died_on_this_machine_holds_nothing(tmp_path):
    subprocess.run([sys.executable, "-c", DEAD, str(tmp_path)], check=False)
    assert RunDir(tmp_path).exists(LEASE)
    assert holder(RunDir(tmp_path)) is None
    with Lease(RunDir(tmp_path), 30):
        pass


def from_elsewhere(run: RunDir, age: float, seconds: float = 0.3) -> None:
    held = {"token": "other", "host": "elsewhere", "pid": 1, "seconds": seconds, "renewed_at": time.time() - age}
    run.write_json(held, LEASE)


def test_a_lease_from_another_machine_ends_by_itself(tmp_path):
    run = RunDir(tmp_path)
    from_elsewhere(run, age=0.1, seconds=60)
    with pytest.raises(InputError, match="elsewhere"):
        Lease(run, 30).__enter__()
    from_elsewhere(run, age=1)
    with Lease(run, 30):
        pass


def test_a_clock_that_is_wrong_does_not_end_a_lease_that_moves(tmp_path, monkeypatch):
    run = RunDir(tmp_path)
    from_elsewhere(run, age=1000)
    monkeypatch.setattr(lease.time, "sleep", lambda _: from_elsewhere(run, age=999))
    with pytest.raises(InputError, match="elsewhere"):
        Lease(run, 30).__enter__()


def test_who_lost_the_lease_publishes_nothing_and_is_told(tmp_path):
    run, lost = RunDir(tmp_path), []
    row = {"id": "a", "status": schema.FAILED, "reason": "x.y", "attempt": 0}
    table = pa.Table.from_pylist([row], schema=schema.SHARD)
    with Lease(run, 0.3, on_loss=lambda: lost.append(True)):
        assert shards.publish(run, table, 0)
        run.write_json(json.loads(run.read_bytes(LEASE)) | {"token": "other"}, LEASE)
        with pytest.raises(InputError, match="in use by another job"):
            shards.publish(run, table.set_column(0, schema.SHARD.field("id"), pa.array(["b"])), 0)
        while not lost:
            time.sleep(0.01)
    assert json.loads(run.read_bytes(LEASE))["token"] == "other"
    assert shards.ids(run, 0).to_pylist() == ["a"]
