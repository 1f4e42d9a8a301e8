"""The command as a user types it: exit codes, one clear message, nothing half-written."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from conceptcaps import cli
from conceptcaps.config import load
from conceptcaps.errors import InputError, TooFewRows, input_error_in
from conceptcaps.pipelines import stages
from conceptcaps.rundir import Manifest, RunDir


def conceptcaps(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "conceptcaps.cli", *words], capture_output=True, text=True, check=False
    )


def test_help_lists_the_stages():
    answer = conceptcaps("--help")
    assert answer.returncode == 0
    for name in ("run", "status", "verify", *stages.BY_NAME):
        assert name in answer.stdout


def test_config_show_prints_what_a_run_would_use():
    answer = conceptcaps("config", "show", "-c", "configs/demo.yaml", "--set", "specs.num_samples=11")
    assert answer.returncode == 0
    assert "num_samples: 11" in answer.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("config", "show", "--set", "specs.num_sample=1"), "Did you mean 'specs.num_samples'"),
        (("config", "show", "-c", "no-such.yaml"), "no-such.yaml"),
        (("status", "no-such-run"), "holds no run"),
        (("verify", "no-such-run"), "holds no run"),
        (("nonsense",), "No such command"),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(words, said):
    answer = conceptcaps(*words)
    assert answer.returncode == 2
    assert said in " ".join(answer.stderr.split())
    assert "Traceback" not in answer.stderr


def test_unknown_stage_names_the_stages():
    with pytest.raises(InputError, match=r"no stage 'vea'.*vae"):
        stages.parse_stages(["vea"])


def test_stages_run_in_their_own_order():
    assert stages.parse_stages(["dataset", "taxonomy"]) == ("taxonomy", "dataset")


def test_adapter_stage_runs_only_where_the_run_serves_its_own():
    assert "lora" not in stages.default_stages(load("configs/demo.yaml"))
    assert "lora" in stages.default_stages(load("configs/paper.yaml"))


@pytest.fixture
def counted(monkeypatch):
    """Two stages that only count how often they run."""
    calls = []
    first = stages.Stage("taxonomy", "", ("taxonomy",), (), "first")
    second = stages.Stage("vae", "", ("vae",), ("taxonomy",), "second")
    monkeypatch.setattr(stages, "STAGES", (first, second))
    monkeypatch.setattr(stages, "BY_NAME", {"taxonomy": first, "vae": second})

    def load_stage(stage):
        def function(config, run):
            calls.append(stage.name)
            if config.name == "half made":
                run.write_bytes(b"half", stage.name, "part")
            if config.name in ("broken", "half made"):
                raise InputError("file x", "is bad", "Mend it")
            if config.name == "small" and stage.name == "taxonomy":
                raise TooFewRows("the rows", "are few", "Make more")
            return {"counts": {"rows": 3}}

        return function

    monkeypatch.setattr(stages.Stage, "load", load_stage)
    return calls


def test_finished_stages_are_skipped_and_changed_settings_refused(tmp_path, counted):
    config = load(None, [f"run_dir={tmp_path}"])
    stages.run_stages(config, ("taxonomy", "vae"))
    stages.run_stages(config, ("taxonomy", "vae"))
    assert counted == ["taxonomy", "vae"]
    other = load(None, [f"run_dir={tmp_path}", "vae.epochs=7"])
    with pytest.raises(InputError, match=r"vae\.epochs: \d+ -> 7"):
        stages.run_stages(other, ("taxonomy", "vae"))
    faster = load(None, [f"run_dir={tmp_path}", "vae.resources.workers=2"])
    stages.run_stages(faster, ("taxonomy", "vae"))
    assert counted == ["taxonomy", "vae"]


def test_a_changed_input_file_is_a_changed_setting(tmp_path, counted):
    annotations = tmp_path / "rows.csv"
    annotations.write_text("one")
    config = load(None, [f"run_dir={tmp_path / 'run'}", f"taxonomy.annotations={annotations}"])
    stages.run_stages(config, ("taxonomy",))
    annotations.write_text("two")
    with pytest.raises(InputError, match=r"sha256.taxonomy\.annotations"):
        stages.run_stages(config, ("taxonomy",))


def test_a_stage_whose_needs_are_missing_is_refused_before_anything_is_written(tmp_path, counted):
    with pytest.raises(InputError, match="needs stage 'taxonomy'"):
        stages.run_stages(load(None, [f"run_dir={tmp_path / 'run'}"]), ("vae",))
    assert not (tmp_path / "run").exists()


def test_a_stage_that_the_run_is_too_small_for_is_left_out_unless_it_is_all_that_is_asked_for(tmp_path, counted):
    small = load(None, [f"run_dir={tmp_path}", "name=small"])
    said = []
    stages.run_stages(small, ("taxonomy", "vae"), said.append)
    assert counted == ["taxonomy", "vae"]
    assert "taxonomy: left out, because the rows: are few. Make more" in said
    assert Manifest(RunDir(tmp_path)).stage("taxonomy")["state"] == "left out"
    with pytest.raises(TooFewRows):
        stages.run_stages(small, ("taxonomy",))
    stages.run_stages(load(None, [f"run_dir={tmp_path}", "taxonomy.num_tags=50"]), ("taxonomy",))
    assert Manifest(RunDir(tmp_path)).is_finished("taxonomy")


def test_a_failed_stage_is_recorded_and_runs_again(tmp_path, counted):
    broken = load(None, [f"run_dir={tmp_path}", "name=broken"])
    with pytest.raises(InputError, match="file x"):
        stages.run_stages(broken, ("taxonomy",))
    record = Manifest(RunDir(tmp_path)).stage("taxonomy")
    assert record["state"] == "failed"
    assert "file x" in record["error"]
    stages.run_stages(load(None, [f"run_dir={tmp_path}"]), ("taxonomy",))
    assert Manifest(RunDir(tmp_path)).is_finished("taxonomy")


@pytest.mark.parametrize("name", ["broken", "half made"])
def test_a_failed_stage_binds_the_settings_of_what_it_made(tmp_path, counted, name):
    with pytest.raises(InputError, match="file x"):
        stages.run_stages(load(None, [f"run_dir={tmp_path}", f"name={name}"]), ("taxonomy",))
    mended = load(None, [f"run_dir={tmp_path}", "taxonomy.num_tags=50"])
    if name == "half made":
        with pytest.raises(InputError, match=r"taxonomy\.num_tags: \d+ -> 50"):
            stages.run_stages(mended, ("taxonomy",))
    else:
        stages.run_stages(mended, ("taxonomy",))
        assert Manifest(RunDir(tmp_path)).is_finished("taxonomy")


def test_status_counts_rows_and_what_is_left(tmp_path, capsys, monkeypatch):
    from runs import write_specs

    run = RunDir(tmp_path)
    write_specs(run, 12)
    Manifest(run).save()
    cli.status(str(tmp_path))
    assert "'left': 12" in capsys.readouterr().out


def test_the_input_error_behind_a_workers_death_is_found_again():
    inner = InputError("checkpoint x", "is none", "Give another")
    text = f"The actor died\n  conceptcaps.errors.InputError: {inner}\n"
    found = input_error_in(RuntimeError(text))
    assert found is not None
    assert str(found).rstrip(".") == str(inner).rstrip(".")
    assert input_error_in(RuntimeError("another")) is None


def test_manifest_is_json_a_person_can_read(tmp_path, counted):
    stages.run_stages(load(None, [f"run_dir={tmp_path}"]), ("taxonomy",))
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["stages"]["taxonomy"]["state"] == "finished"
    assert manifest["stages"]["taxonomy"]["settings"]["seed"] == 0
    assert (tmp_path / "config.yaml").exists()


def test_json_logs_name_the_run_and_the_row(capsys):
    import logging

    from conceptcaps import logs

    cli.set_up_logging(quiet=True, log_format="json")
    logs.name_run("run-1")
    try:
        logging.getLogger("conceptcaps.x").warning("row %s failed", "a", extra={"row_id": "a"})
        line = json.loads(capsys.readouterr().err.strip())
        assert {k: line[k] for k in ("level", "logger", "message", "run_id", "row_id")} == {
            "level": "WARNING", "logger": "conceptcaps.x", "message": "row a failed", "run_id": "run-1", "row_id": "a"
        }  # fmt: skip
    finally:
        logs._RUN.clear()
        logging.getLogger().handlers.clear()
