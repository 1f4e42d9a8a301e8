"""MusicGen checkpoints of transformers, as every engine that knows them loads them.

Also imported in the environment of engine `audiocraft`, whose transformers is of release 4.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from conceptcaps.config.audio import MusicgenConfig
from conceptcaps.errors import InputError

MAX_TEXT_TOKENS = 512


def load_checkpoint(settings: MusicgenConfig) -> Any:
    """A transformers `MusicgenForConditionalGeneration` in float32 on the CPU, from safetensors.

    Raises:
        InputError: no checkpoint there, another architecture, a hub out of reach.
    """
    from transformers import AutoConfig, MusicgenForConditionalGeneration

    where = "key 'audio.musicgen.model'"
    path = Path(settings.model)
    if path.exists() and not (path / "config.json").is_file():
        raise InputError(where, f"{settings.model!r} is no checkpoint: it has no config.json", "Name the folder of one")
    try:
        config = AutoConfig.from_pretrained(settings.model, revision=settings.revision)
        if config.model_type != "musicgen":
            raise InputError(
                where, f"{settings.model!r} is a {config.model_type} checkpoint, not musicgen", "Name a MusicGen model"
            )
        model: Any = MusicgenForConditionalGeneration.from_pretrained(
            settings.model, revision=settings.revision or "main", use_safetensors=True
        )
    except InputError:
        raise
    except (OSError, ValueError) as error:
        raise _cannot_load(where, settings.model, error) from error
    return model.float()


def load_tokenizer(settings: MusicgenConfig) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(settings.model, revision=settings.revision)
    except (OSError, ValueError) as error:
        raise _cannot_load("key 'audio.musicgen.model'", settings.model, error) from error


def _cannot_load(where: str, model: str, error: Exception) -> InputError:
    detail = " ".join(str(error).split())[:200]
    if Path(model).exists():
        return InputError(
            where, f"checkpoint {model!r} cannot be read ({detail})", "Save it again with save_pretrained"
        )
    return InputError(
        where,
        f"{model!r} is no folder here, and the hub did not give it ({detail})",
        "Check the name and the network, or download it and name its folder",
    )
