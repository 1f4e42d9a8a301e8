"""The seven notebooks: named as published, without outputs or logic of their own, and each runs on a finished run."""

import ast
import os
from pathlib import Path

import nbformat
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from nbclient import NotebookClient
from synthetic import tags_of, write_run

from conceptcaps.config import load
from conceptcaps.pipelines.dataset import run_dataset

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
NAMES = (
    "1. Taxonomy and dataset distillation",
    "2. VAE aspect modeling",
    "3. MusicCaps and VAE generated dataset comparison",
    "4. Conditioned caption inference",
    "5. Audio generation analysis",
    "6. Create final datasets",
    "7. TCAV for genre classification",
)


def read(name):
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def code(notebook) -> list[str]:
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


@pytest.fixture(scope="module")
def run(cluster, tmp_path_factory):
    """A run with the artefacts of every stage, small."""
    run = write_run(tmp_path_factory.mktemp("notebooks") / "run", 160)
    run_dataset(load(None), run)

    def table(rows, folder, name):
        run.fs.create_dir(run.path(folder), recursive=True)
        pq.write_table(pa.Table.from_pylist(rows), run.path(folder, name))

    table([{"aspect_list": tags_of(i, 5)} for i in range(60)], "taxonomy/rows", "part.parquet")
    run.write_json({"rows": 60, "kept": 60, "unused": []}, "taxonomy", "report.json")
    run.write_json({"members": [{"validation_nats_per_row": 9.5}]}, "vae", "metrics.json")
    run.write_json([{"epoch": k, "validation_bound": [-10 + k]} for k in (1, 2, 3)], "vae", "history.json")
    figure = {"sampler": "specs", "metric": "size_wasserstein", "value": 0.2, "low": 0.1, "high": 0.3, "floor": 0.1}
    table([figure | {"verdict": "near floor"}], "comparison", "figures.parquet")
    effect = {"concept": "rock", "class": "metal", "layer": "deep", "effect_sd": 0.5, "low": 0.4, "high": 0.6}
    table([effect | {"verdict": "used"}], "tcav", "effects.parquet")
    run.write_json(
        {"threshold": 0.28, "null_scores": [0.1, 0.2], "matched_scores": [0.4]}, "alignment", "calibration.json"
    )
    return run


def test_the_seven_are_there():
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == list(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_holds_no_logic_and_no_outputs(name):
    notebook = read(name)
    assert all(not cell.get("outputs") for cell in notebook.cells)
    for source in code(notebook):
        lines = "\n".join(line for line in source.splitlines() if not line.startswith("%"))
        kinds = (ast.FunctionDef, ast.ClassDef, ast.Lambda, ast.While, ast.Try)
        assert not [node for node in ast.walk(ast.parse(lines)) if isinstance(node, kinds)]
        assert len(lines.splitlines()) <= 8
    assert "plots.open_run()" in code(notebook)[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs(run, name, tmp_path, monkeypatch):
    monkeypatch.setenv("CONCEPTCAPS_RUN", run.location)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    notebook = read(name)
    client = NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(FOLDER)}})
    client.execute(env=os.environ | {"OMP_NUM_THREADS": "1"})
    shown = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert not [output for output in shown if output.output_type == "error"]
    assert any(output.output_type in ("display_data", "execute_result") for output in shown)
    if name.startswith("5"):
        assert any("<audio" in output.get("data", {}).get("text/html", "") for output in shown)
    if name[0] in "1345":
        assert any("image/png" in output.get("data", {}) for output in shown)
