"""Joining Ray: what the config says, whatever else runs or has run on the machine."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path


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
