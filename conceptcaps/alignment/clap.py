"""Engine `clap`: waveforms and texts to one space, by a transformers ClapModel (Wu et al. 2023)."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoTokenizer, ClapFeatureExtractor, ClapModel

from conceptcaps.alignment.mel import MelFrontEnd
from conceptcaps.alignment.windows import WindowedAligner
from conceptcaps.config.alignment import AlignmentConfig
from conceptcaps.devices import device_for
from conceptcaps.errors import InputError

logger = logging.getLogger(__name__)

EMBEDDED = Path(__file__).parent.parent / "assets" / "clap"


class ClapAligner(WindowedAligner):
    """A ClapModel with its tokenizer and its mel front end, on the GPU where there is one.

    Args:
        config: section `alignment`; `model` and `revision` name the checkpoint, `resources.batch_size` is the most
            windows or texts per forward pass.

    Raises:
        InputError: no such checkpoint, a hub that cannot be reached, or a checkpoint of another architecture.
    """

    def __init__(self, config: AlignmentConfig):
        self.device = device_for(config.resources, "alignment.resources")
        source = str(EMBEDDED) if config.model == "embedded" else config.model
        model, self.tokenizer, extractor = load_checkpoint(source, config.revision or "main")
        self.model: Any = model.eval()
        self.model.to(self.device)
        self.front_end = MelFrontEnd(extractor, self.device)
        self._max_tokens = self.model.config.text_config.max_position_embeddings - 2  # Roberta counts from pad + 1
        super().__init__(self.front_end.sampling_rate, self.model.config.projection_dim, config.resources.batch_size)

    def windows(self, waveform: np.ndarray) -> list[np.ndarray]:
        return self.front_end.windows(waveform)

    @torch.inference_mode()
    def forward_windows(self, windows: list[np.ndarray]) -> np.ndarray:
        features, is_longer = self.front_end.features(windows)
        output = self.model.get_audio_features(input_features=features, is_longer=is_longer)
        return _projected(output).float().cpu().numpy()

    @torch.inference_mode()
    def forward_texts(self, texts: list[str]) -> np.ndarray:
        tokens = self.tokenizer(
            texts, padding=True, truncation=True, max_length=self._max_tokens, return_tensors="pt"
        ).to(self.device)
        output = self.model.get_text_features(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])
        return _projected(output).float().cpu().numpy()


def load_checkpoint(source: str, revision: str = "main") -> tuple[ClapModel, Any, ClapFeatureExtractor]:
    """Model in float32, tokenizer and feature extractor of a transformers CLAP checkpoint.

    Args:
        source: hub id or local folder.
        revision: branch, tag or commit on the hub.

    Raises:
        InputError: as `ClapAligner` says.
    """
    mend = "Give alignment.model 'embedded', a local folder of a ClapModel, or a hub id such as laion/larger_clap_music"
    if not Path(source).is_dir() and (source.startswith(("/", ".", "~")) or source.count("/") > 1):
        raise InputError(f"alignment.model {source!r}", "is no folder", mend)
    try:
        architecture = AutoConfig.from_pretrained(source, revision=revision).model_type
    except (OSError, ValueError) as error:
        raise InputError(
            f"alignment.model {source!r}", f"is no checkpoint that can be reached ({_line(error)})", mend
        ) from error
    if architecture != "clap":
        raise InputError(f"alignment.model {source!r}", f"is a {architecture!r} checkpoint, not a ClapModel", mend)
    try:
        model = ClapModel.from_pretrained(source, revision=revision, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(source, revision=revision)
        extractor = ClapFeatureExtractor.from_pretrained(source, revision=revision)
    except (OSError, ValueError) as error:
        raise InputError(f"alignment.model {source!r}", f"cannot be loaded ({_line(error)})", mend) from error
    logger.info("loaded %s", source)
    return model, tokenizer, extractor


def _projected(output: Any) -> torch.Tensor:
    """The projected embedding; releases of transformers before 5 return it bare."""
    return output if isinstance(output, torch.Tensor) else output.pooler_output


def _line(error: Exception) -> str:
    """The first sentence of what transformers says, which often goes on for a paragraph."""
    return " ".join(str(error).split("\n")[0].split())[:200]
