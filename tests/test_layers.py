"""Imports point one way, and importing the package is cheap."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "conceptcaps"
BASE = {
    "schema", "vocabulary", "config", "rundir", "seeding", "signal", "engines", "errors", "extras", "contradictions",
    "shards", "metrics", "pairs", "provenance", "retrying", "lease", "logs", "model_files", "counter_random",
    "devices",
}  # fmt: skip
STAGES = {"taxonomy", "vae", "comparison", "captions", "audio", "alignment", "dataset", "tcav", "report"}
TOP = {"cli", "plots", "doctor"}
CLUSTER_EDGES = {"train"}  # <stage>/train.py, the only stage module that may import ray


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def ours(names: set[str]) -> set[str]:
    """The first name below the package of each import of ours."""
    return {n.split(".")[1] for n in names if n.startswith("conceptcaps.") and n.count(".") >= 1}


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_downwards(path):
    part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    names = imports(path)
    below = ours(names) & (BASE | STAGES | TOP | {"pipelines", "runtime"})
    uses_ray = any(n == "ray" or n.startswith("ray.") for n in names)
    if part in BASE:
        assert not below & (STAGES | TOP | {"pipelines", "runtime"}), "a base module imports from above"
        assert not uses_ray
    elif part in STAGES:
        edge = path.stem in CLUSTER_EDGES
        assert not below & ((STAGES - {part}) | TOP | {"pipelines"}), "a stage imports another stage or from above"
        assert edge or "runtime" not in below
        assert edge or not uses_ray, "only train.py of a stage may import ray"
    elif part in {"pipelines", "runtime"}:
        assert not below & TOP


def test_importing_the_package_loads_neither_torch_nor_ray():
    code = (
        "import sys, conceptcaps, conceptcaps.config, conceptcaps.schema, conceptcaps.rundir;"
        "print([m for m in ('torch', 'ray', 'transformers', 'vllm') if m in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_file_is_two_rooms(path):
    assert len(path.read_text().splitlines()) <= 450
