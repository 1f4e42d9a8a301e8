"""Which revision of a model made the rows: the package's, a folder's digest, a cached commit, or what was asked."""

from __future__ import annotations

from conceptcaps import __version__, provenance
from conceptcaps.config import load


def test_embedded_models_carry_the_version_of_the_package():
    found = {entry["role"]: entry for entry in provenance.resolved_models(load("configs/demo.yaml"))}
    assert found["Captions"]["engine"] == "vLLM"
    assert found["Captions"]["revision"] == found["Alignment"]["revision"] == f"conceptcaps {__version__}"
    assert found["Tag sets"]["engine"].startswith("mixture")


def test_a_local_folder_is_known_by_its_files(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"0" * 10)
    before = provenance.resolve(str(tmp_path))
    assert before.startswith("sha256:")
    assert provenance.resolve(str(tmp_path)) == before
    (tmp_path / "config.json").write_text('{"a": 1}')
    assert provenance.resolve(str(tmp_path)) != before


def test_a_hub_model_is_known_by_the_commit_in_the_cache(tmp_path, monkeypatch):
    commit = "0123456789abcdef0123456789abcdef01234567"
    repo = tmp_path / "models--some--model"
    (repo / "snapshots" / commit).mkdir(parents=True)
    (repo / "snapshots" / commit / "config.json").write_text("{}")
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert provenance.resolve("some/model") == commit
    (repo / "snapshots" / commit / "weights").mkdir()
    (repo / "snapshots" / commit / "weights" / "music.pt").write_bytes(b"0")
    assert provenance.resolve("some/model/weights/music.pt") == commit


def test_a_file_of_weights_is_known_by_its_content(tmp_path):
    file = tmp_path / "music.safetensors"
    file.write_bytes(b"0" * 10)
    before = provenance.resolve(str(file))
    file.write_bytes(b"1" * 10)
    assert before.startswith("sha256:")
    assert provenance.resolve(str(file)) != before


def test_without_a_hub_the_revision_asked_for_stands(monkeypatch):
    def unreachable(*_, **__):
        raise ConnectionError("no network")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", unreachable)
    assert provenance.resolve("some/other-model", "v1") == "v1"
    assert provenance.resolve("fitted in this run") == ""
