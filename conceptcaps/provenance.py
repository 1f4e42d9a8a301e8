"""What made the rows: engines, models and the exact revision of each, as far as it can be known."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path

from conceptcaps import __version__
from conceptcaps.config import Config
from conceptcaps.model_files import file_on_hub

logger = logging.getLogger(__name__)

EMBEDDED = "embedded"
_PATIENCE = 10.0  # seconds for the hub's answer
_MODEL_FILES = (".safetensors", ".bin", ".json", ".model")


def models(config: Config) -> list[dict[str, str]]:
    """For each role the engine, the model and the revision asked for; '' where none was."""
    names = {"beta_vae": "beta-VAE", "mixture": "mixture of autoregressive Bernoulli models"}
    found = [_entry("Tag sets", names[config.vae.model], "fitted in this run")]
    served = config.captions.vllm
    if config.captions.engine == "vllm":
        found.append(_entry("Captions", "vLLM", served.model, served.revision))
        if served.adapter:
            found.append(_entry("Captions' adapter", "LoRA", served.adapter))
    else:
        found.append(_entry("Captions", config.captions.engine, EMBEDDED))
    if config.audio.engine in ("musicgen", "audiocraft"):
        name = "MusicGen" if config.audio.engine == "musicgen" else "MusicGen (audiocraft)"
        found.append(_entry("Audio", name, config.audio.musicgen.model, config.audio.musicgen.revision))
    else:
        found.append(_entry("Audio", config.audio.engine, EMBEDDED))
    name = "CLAP" if config.alignment.engine == "clap" else "CLAP (laion_clap)"
    found.append(_entry("Alignment", name, config.alignment.model, config.alignment.revision))
    return found


def resolved_models(config: Config) -> list[dict[str, str]]:
    """`models` with the revision that was in fact used: a commit on the hub, or a digest of a local folder."""
    return [entry | {"revision": resolve(entry["model"], entry["revision"])} for entry in models(config)]


def resolve(model: str, revision: str = "") -> str:
    """The exact revision of a model; what was asked for where it cannot be known.

    Args:
        model: 'embedded', a local folder, a hub id, or words that name no checkpoint.
        revision: branch, tag or commit asked for.
    """
    if model == EMBEDDED:
        return f"conceptcaps {__version__}"
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder_digest(folder)
    if folder.is_file():
        with folder.open("rb") as file:
            return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()[:16]}"
    repository, *files = file_on_hub(model) or (model, "config.json", "adapter_config.json")
    if repository.count("/") != 1 or " " in repository:
        return revision
    return _cached_commit(repository, revision, files) or _hub_commit(repository, revision) or revision


def folder_digest(folder: Path) -> str:
    """'sha256:...' over names and sizes of a checkpoint's files and the content of its config."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.iterdir() if p.suffix in _MODEL_FILES):
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        if path.name in ("config.json", "adapter_config.json"):
            digest.update(path.read_bytes())
    return f"sha256:{digest.hexdigest()[:16]}"


def _cached_commit(model: str, revision: str, files: Sequence[str]) -> str:
    """The commit of the copy in the local cache of any of the files, which the workers of one machine have loaded."""
    from huggingface_hub import try_to_load_from_cache

    for name in files:
        path = try_to_load_from_cache(model, name, revision=revision or "main")
        if isinstance(path, str):
            return Path(path.removesuffix(name)).name
    return ""


def _hub_commit(model: str, revision: str) -> str:
    from huggingface_hub import HfApi

    try:
        return HfApi().model_info(model, revision=revision or None, timeout=_PATIENCE).sha or ""
    except Exception as error:  # no network, no such model: it has been used all the same, so the run goes on
        logger.warning("the revision of %s is not known: %s", model, error)
        return ""


def _entry(role: str, engine: str, model: str, revision: str | None = None) -> dict[str, str]:
    return {"role": role, "engine": engine, "model": model, "revision": revision or ""}
