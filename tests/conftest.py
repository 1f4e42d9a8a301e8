"""What all tests share: one Ray for the whole run, the shared data where it is present, small runs."""

from __future__ import annotations

import os
from pathlib import Path

TESTS = Path(__file__).resolve().parent
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")]))  # for Ray workers
os.environ.setdefault("RAY_worker_niceness", "0")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")

import pytest  # noqa: E402

ROOT = TESTS.parent


@pytest.fixture(scope="session")
def musiccaps() -> Path:
    """The folder of real MusicCaps rows that stands beside the checkout."""
    folder = ROOT.parent / "shared" / "data" / "musiccaps"
    if not folder.is_dir():
        pytest.skip("the real MusicCaps rows are not beside this checkout")
    return folder


@pytest.fixture(scope="session")
def cluster():
    """Ray in this process, two logical CPUs, started once."""
    import ray

    from conceptcaps.config.ray import RayConfig
    from conceptcaps.runtime import connect

    connect(RayConfig(num_cpus=2, object_store_mb=300), quiet=True)
    yield
    ray.shutdown()
