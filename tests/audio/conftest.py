"""Checkpoints on disk that the tests of the audio engines share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def mono_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tiny_musicgen import build_musicgen, save_musicgen

    return save_musicgen(tmp_path_factory.mktemp("musicgen") / "mono", build_musicgen())


@pytest.fixture(scope="session")
def stereo_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tiny_musicgen import build_musicgen, save_musicgen

    return save_musicgen(tmp_path_factory.mktemp("musicgen") / "stereo", build_musicgen(channels=2))
