"""Engine `clap`: waveforms and texts to one space, by a transformers ClapModel (Wu et al. 2023)."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoTokenizer, ClapFeatureExtractor, ClapModel

from conceptcaps import signal
from conceptcaps.alignment.mel import MelFrontEnd
from conceptcaps.config.alignment import AlignmentConfig
from conceptcaps.errors import InputError

logger = logging.getLogger(__name__)

EMBEDDED = Path(__file__).parent.parent / "assets" / "clap"
_CACHED_TEXTS = 65_536


class ClapAligner:
    """A ClapModel with its tokenizer and its mel front end, on the GPU where there is one.

    Args:
        config: section `alignment`; `model` and `revision` name the checkpoint, `resources.batch_size` is the most
            windows or texts per forward pass.

    Raises:
        InputError: no such checkpoint, a hub that cannot be reached, or a checkpoint of another architecture.
    """

    def __init__(self, config: AlignmentConfig):
        self.batch_size = config.resources.batch_size
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        source = str(EMBEDDED) if config.model == "embedded" else config.model
        model, self.tokenizer, extractor = load_checkpoint(source, config.revision or "main")
        self.model: Any = model.eval()
        self.model.to(self.device)
        self.front_end = MelFrontEnd(extractor, self.device)
        self._max_tokens = self.model.config.text_config.max_position_embeddings - 2  # Roberta counts from pad + 1
        self._texts: dict[str, np.ndarray] = {}

    def embed_audio(self, waveforms: Sequence[np.ndarray], sampling_rate: int) -> np.ndarray:
        """float32 (num_clips, dim), unit length, from (channels, samples) waveforms of `sampling_rate` Hz.

        Clips longer than the model hears are the normalised mean over windows that cover them.

        Raises:
            ValueError: a clip without samples.
        """
        windows: list[np.ndarray] = []
        owners: list[int] = []
        for i, waveform in enumerate(waveforms):
            if not waveform.size:
                raise ValueError(f"clip {i} has no samples")
            heard = self.front_end.windows(
                signal.downmix(signal.resample(waveform, sampling_rate, self.front_end.sampling_rate))
            )
            windows += heard
            owners += [i] * len(heard)
        total = np.zeros((len(waveforms), self.model.config.projection_dim), np.float32)
        for batch in self._batches([window.shape[0] for window in windows]):
            np.add.at(total, [owners[i] for i in batch], self._embed_windows([windows[i] for i in batch]))
        return _unit(total)

    def embed_text(self, texts: Sequence[str]) -> np.ndarray:
        """float32 (num_texts, dim), unit length. Embeddings of recent texts are kept."""
        missing = [text for text in dict.fromkeys(texts) if text not in self._texts]
        if len(self._texts) + len(missing) > _CACHED_TEXTS:
            self._texts.clear()
            missing = list(dict.fromkeys(texts))
        # Neighbours of like length waste little padding.
        missing.sort(key=len)
        for start in range(0, len(missing), self.batch_size):
            batch = missing[start : start + self.batch_size]
            self._texts.update(zip(batch, self._embed_texts(batch), strict=True))
        return np.stack([self._texts[text] for text in texts]) if texts else self._nothing()

    def _nothing(self) -> np.ndarray:
        return np.zeros((0, self.model.config.projection_dim), np.float32)

    def _batches(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Indices of windows, equal lengths together, at most `batch_size` at a time."""
        for length in dict.fromkeys(lengths):
            alike = [i for i, other in enumerate(lengths) if other == length]
            for start in range(0, len(alike), self.batch_size):
                yield alike[start : start + self.batch_size]

    @torch.inference_mode()
    def _embed_windows(self, windows: list[np.ndarray]) -> np.ndarray:
        features, is_longer = self.front_end.features(windows)
        output = self.model.get_audio_features(input_features=features, is_longer=is_longer)
        return _unit(_pooled(output).float().cpu().numpy())

    @torch.inference_mode()
    def _embed_texts(self, texts: list[str]) -> np.ndarray:
        tokens = self.tokenizer(
            texts, padding=True, truncation=True, max_length=self._max_tokens, return_tensors="pt"
        ).to(self.device)
        output = self.model.get_text_features(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])
        return _unit(_pooled(output).float().cpu().numpy())


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


def _pooled(output: Any) -> torch.Tensor:
    """The projected embedding; releases of transformers before 5 return it bare."""
    return output if isinstance(output, torch.Tensor) else output.pooler_output


def _unit(vectors: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.maximum(norms, np.finfo(np.float32).tiny)


def _line(error: Exception) -> str:
    """The first sentence of what transformers says, which often goes on for a paragraph."""
    return " ".join(str(error).split("\n")[0].split())[:200]
