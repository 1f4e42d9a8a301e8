"""Joining Ray: what the config says, whatever else runs or has run on the machine."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import ray

from conceptcaps.config.base import Resources
from conceptcaps.errors import InputError
from conceptcaps.runtime import Demand, check_capacity


def test_a_cluster_that_others_left_behind_is_not_joined():
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp") as folder:  # short: Ray's sockets lie below it
        left = Path(folder) / "ray" / "ray_current_cluster"
        left.parent.mkdir()
        left.write_text("192.0.2.1:6379")
        words = "from conceptcaps.config.ray import RayConfig; from conceptcaps.runtime import connect; import ray\n"
        words += (
            "connect(RayConfig(num_cpus=1, object_store_mb=100), quiet=True); print(ray.cluster_resources()['CPU'])"
        )
        env = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | {"RAY_TMPDIR": folder}
        answer = subprocess.run([sys.executable, "-c", words], env=env, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr[-2000:]
    assert answer.stdout.strip() == "1.0"


@pytest.mark.parametrize(
    ("shares", "gpus"),
    [
        ([0.6, 0.6, 0.6], 3),  # 1.8 in all, and none of them beside another
        ([0.45, 0.4, 0.1], 1),
        ([0.5, 0.5, 0.5, 0.25, 0.25], 2),
        ([1, 0.5, 0.5], 2),
        ([2, 1, 0.1], 4),
    ],
)
def test_shares_of_gpus_are_packed_as_ray_must(monkeypatch, shares, gpus):
    demands = [Demand(f"pool{i}", Resources(num_gpus=share)) for i, share in enumerate(shares)]
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 64.0, "GPU": float(gpus)})
    check_capacity(demands)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 64.0, "GPU": gpus - 1.0})
    with pytest.raises(InputError, match=rf"has {gpus - 1} GPUs and the pools need {gpus}\b"):
        check_capacity(demands)
