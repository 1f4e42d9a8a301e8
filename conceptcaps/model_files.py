"""What is missing or broken in the files of a model or an adapter: in a folder here, or in a listing of the hub's."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path


def is_local(model: str) -> bool:
    """Whether a model is named by a path rather than by its id on the hub."""
    return model.startswith(("/", ".", "~")) or Path(model).is_dir()


def file_on_hub(model: str) -> tuple[str, str] | None:
    """Repository and file of 'owner/repository/path/of/file'; None of a path, or of a repository alone."""
    parts = model.split("/", 2)
    return (f"{parts[0]}/{parts[1]}", parts[2]) if len(parts) == 3 and not is_local(model) else None


def weight_file_faults(path: Path) -> Iterator[str]:
    """What is wrong with one file of weights."""
    if not path.is_file():
        yield "is no file"
    elif path.suffix == ".safetensors" and (fault := safetensors_fault(path)):
        yield fault


def local_faults(folder: Path) -> Iterator[str]:
    """What is missing or broken in a folder of a transformers model."""
    if not folder.is_dir():
        yield "is no folder"
        return
    names = {path.name for path in folder.iterdir()}
    yield from _file_faults(names)
    index = folder / "model.safetensors.index.json"
    shards = _shards_of(index) if index.is_file() else [n for n in ("model.safetensors",) if n in names]
    for shard in shards:
        if fault := safetensors_fault(folder / shard):
            yield fault


def local_adapter_faults(folder: Path) -> Iterator[str]:
    if not folder.is_dir():
        yield "is no folder"
        return
    yield from adapter_faults({path.name for path in folder.iterdir()})
    weights = folder / "adapter_model.safetensors"
    if weights.is_file() and (fault := safetensors_fault(weights)):
        yield fault


def _file_faults(names: set[str]) -> Iterator[str]:
    """What a listing lacks of a transformers model."""
    if "config.json" not in names:
        yield "config.json is missing"
    yield from tokenizer_faults(names)
    yield from weights_faults(names, with_config=False)


def tokenizer_faults(names: set[str]) -> Iterator[str]:
    if not names & {"tokenizer.json", "tokenizer_config.json", "vocab.json", "spiece.model", "tokenizer.model"}:
        yield "has no tokenizer"


def weights_faults(names: set[str], with_config: bool = True) -> Iterator[str]:
    if with_config and "config.json" not in names:
        yield "config.json is missing"
    weights = {n for n in names if n.endswith(".safetensors")}
    if not weights and "model.safetensors.index.json" not in names:
        pickled = any(n.endswith((".bin", ".pt", ".pth")) for n in names)
        yield "has pickled weights only, which may run code when loaded" if pickled else "has no safetensors weights"
    numbered = [m for n in weights if (m := re.fullmatch(r"model-(\d+)-of-(\d+)\.safetensors", n))]
    if numbered and len(numbered) != int(numbered[0][2]):
        yield f"has {len(numbered)} of {int(numbered[0][2])} weight files"


def adapter_faults(names: set[str]) -> Iterator[str]:
    for wanted in ("adapter_config.json", "adapter_model.safetensors"):
        if wanted not in names:
            yield f"{wanted} is missing"


def safetensors_fault(path: Path) -> str | None:
    """What is wrong with a safetensors file, by its header and its length; None where it is whole."""
    if not path.is_file():
        return f"{path.name} is missing"
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            header = json.loads(file.read(min(length, 100_000_000)))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        except (ValueError, KeyError, TypeError, AttributeError):
            return f"{path.name} is no safetensors file"
    wanted = 8 + length + max(ends, default=0)
    found = path.stat().st_size
    return None if found == wanted else f"{path.name} has {found} bytes, not {wanted}"


def _shards_of(index: Path) -> list[str]:
    try:
        return sorted(set(json.loads(index.read_text())["weight_map"].values()))
    except (ValueError, KeyError, AttributeError):
        return [index.name]  # not a safetensors file, and named as broken for it
