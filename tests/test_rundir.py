"""The run directory: whole files or none, settings that must not change, any filesystem."""

from __future__ import annotations

import json

import pyarrow.fs as pafs
import pytest

from conceptcaps.errors import InputError
from conceptcaps.rundir import Manifest, RunDir, differences


def test_files_are_written_whole_and_found_again(tmp_path):
    run = RunDir(tmp_path / "run")
    run.write_json({"a": 1}, "deep", "er", "x.json")
    assert run.read_json("deep", "er", "x.json") == {"a": 1}
    assert [p.rsplit("/", 1)[1] for p in run.files("deep")] == ["x.json"]
    assert run.files("nowhere") == []


def test_a_write_that_breaks_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    run = RunDir(tmp_path)
    run.write_bytes(b"old", "x.bin")

    def broken(*_):
        raise OSError(28, "No space left on device")

    class Stub:
        def __getattr__(self, name):
            return broken if name == "move" else getattr(pafs.LocalFileSystem(), name)

    run.fs = Stub()
    monkeypatch.setattr(RunDir, "is_local", True)
    with pytest.raises(InputError, match="No space left"):
        run.write_bytes(b"new", "x.bin")
    assert [p.name for p in tmp_path.iterdir()] == ["x.bin"]
    assert (tmp_path / "x.bin").read_bytes() == b"old"


def test_unwritable_place_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match=r"cannot be written.*--run-dir"):
        RunDir(tmp_path / "file" / "run").write_bytes(b"", "x")


def test_uri_of_an_unknown_scheme_is_refused():
    with pytest.raises(InputError, match="nosuch://"):
        RunDir("nosuch://bucket/run")


def test_file_uri_is_the_same_place_as_its_path(tmp_path):
    RunDir(f"file://{tmp_path}/run").write_bytes(b"1", "x")
    assert RunDir(tmp_path / "run").read_bytes("x") == b"1"


def test_missing_artefact_says_to_run_its_stage(tmp_path):
    with pytest.raises(InputError, match="Run the stage"):
        RunDir(tmp_path).read_json("taxonomy", "concepts_to_tags.json")


def test_manifest_refuses_other_settings_and_lists_what_differs(tmp_path):
    run = RunDir(tmp_path)
    manifest = Manifest(run)
    manifest.begin("vae", {"seed": 1, "vae": {"beta": 1.0, "epochs": 3}})
    Manifest(run).check_settings("vae", {"seed": 1, "vae": {"beta": 1.0, "epochs": 3}})
    with pytest.raises(InputError) as caught:
        Manifest(run).check_settings("vae", {"seed": 2, "vae": {"beta": 4.0, "epochs": 3}})
    assert "seed: 1 -> 2" in str(caught.value)
    assert "vae.beta: 1.0 -> 4.0" in str(caught.value)
    assert "epochs" not in str(caught.value)


def test_manifest_survives_and_records_versions(tmp_path):
    run = RunDir(tmp_path)
    manifest = Manifest(run)
    manifest.begin("vae", {})
    assert not Manifest(run).is_finished("vae")
    manifest.finish("vae", counts={"rows": 3})
    again = Manifest(run)
    assert again.is_finished("vae")
    assert again.stage("vae")["counts"] == {"rows": 3}
    assert again.data["run_id"] == manifest.data["run_id"]
    assert {"ray", "torch", "pyarrow"} <= set(again.data["packages"])
    json.dumps(again.data)


def test_differences_name_added_and_removed_keys():
    assert differences({"a": 1, "b": {"c": 2}}, {"b": {"c": 3}, "d": 4}) == [
        "a: 1 -> None",
        "b.c: 2 -> 3",
        "d: None -> 4",
    ]
