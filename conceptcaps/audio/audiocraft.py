"""Engine `audiocraft`: MusicGen by its authors' own package (Copet et al. 2023), in an interpreter of its own.

audiocraft 1.3 pins releases that nothing else here can live with: `conceptcaps env build audiocraft` makes an
environment for it, and `audio.resources.python` names its interpreter. It reads the same transformers checkpoints as
engine `musicgen`, from safetensors: the weights are put into audiocraft's layout, and no pickle is opened.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from conceptcaps import environments
from conceptcaps.audio.checkpoint import MAX_TEXT_TOKENS, load_checkpoint, load_tokenizer
from conceptcaps.audio.conversion import to_audiocraft
from conceptcaps.config.audio import AudioConfig
from conceptcaps.devices import device_for
from conceptcaps.engines import Batch
from conceptcaps.errors import InputError

_AUTHORS_WINDOW = 30.0  # seconds; the constructor refuses less than its default stride
_TEXT_ENCODER = "condition_provider.conditioners.description.t5."


class AudiocraftSynthesiser:
    """Captions to audio with audiocraft's decoding loop.

    Reads the columns `caption` and `seed`. Clips are decoded one by one, each after its own seed has been set, because
    audiocraft draws all rows of a batch from one generator. They are other clips than those of engine `musicgen`.

    Args:
        config: section `audio`; the keys of `audio.musicgen`, but for `dtype` and `clips_at_once`, mean the same here.

    Raises:
        InputError: audiocraft is not installed in this interpreter, or as `load_checkpoint` says.
    """

    sampling_rate: int

    def __init__(self, config: AudioConfig):
        environments.require("audiocraft.models", "audiocraft", "audio.resources.python")
        from audiocraft.models import MusicGen

        settings = config.musicgen
        device = device_for(config.resources, "audio.resources")
        checkpoint = load_checkpoint(settings)
        codec = _codec(checkpoint.audio_encoder, checkpoint.config.decoder.audio_channels).to(device)
        language = language_model(checkpoint, load_tokenizer(settings)).to(device)
        window = _whole_frames(settings.window, codec.frame_rate)
        self._model = MusicGen(settings.model, codec, language, max_duration=_AUTHORS_WINDOW)
        self._model.max_duration = window
        self._model.set_generation_params(
            top_k=settings.top_k,
            top_p=settings.top_p,
            temperature=settings.temperature,
            cfg_coef=settings.guidance_scale,
            duration=_whole_frames(config.duration, codec.frame_rate),
            extend_stride=min(settings.extend_stride, window - 1 / codec.frame_rate),  # it wants windows to overlap
        )
        self.sampling_rate = int(self._model.sample_rate)
        self._num_samples = round(config.duration * self.sampling_rate)
        if self._num_samples < 1:
            raise InputError("key 'audio.duration'", f"{config.duration} s holds no sample", "Make clips longer")

    def __call__(self, batch: Batch) -> list[np.ndarray]:
        """One float32 (channels, samples) waveform in [-1, 1] per row."""
        return [self._clip(caption, seed) for caption, seed in zip(batch["caption"], batch["seed"], strict=True)]

    def tokens(self, caption: str, seed: int) -> Tensor:
        """int64 (num_codebooks, num_frames) codes of one clip."""
        return self._generate(caption, seed)[1][0]

    def _clip(self, caption: str, seed: int) -> np.ndarray:
        waveform = self._generate(caption, seed)[0][0].float().clamp(-1, 1).cpu().numpy()
        return np.ascontiguousarray(waveform[:, : self._num_samples])

    def _generate(self, caption: str, seed: int) -> tuple[Tensor, Tensor]:
        torch.manual_seed(seed % 2**63)
        return self._model.generate([caption], return_tokens=True)


def _whole_frames(duration: float, frame_rate: float) -> float:
    """Seconds of the frames that a clip needs, in the middle of the last one: audiocraft rounds down."""
    return (np.ceil(round(duration * frame_rate, 6)) + 0.5) / frame_rate


def _codec(encodec: Any, channels: int) -> Any:
    from audiocraft.models.encodec import HFEncodecCompressionModel, InterleaveStereoCompressionModel

    codec = HFEncodecCompressionModel(encodec)
    return InterleaveStereoCompressionModel(codec) if channels == 2 else codec


def language_model(checkpoint: Any, tokenizer: Any) -> Any:
    """audiocraft's `LMModel` in eval mode with the weights of a transformers `MusicgenForConditionalGeneration`."""
    from audiocraft.models.lm import LMModel
    from audiocraft.modules.codebooks_patterns import DelayedPatternProvider
    from audiocraft.modules.conditioners import ConditionFuser, ConditioningProvider

    decoder = checkpoint.config.decoder
    conditioner = _text_conditioner(checkpoint, tokenizer)
    steps = [k // decoder.audio_channels for k in range(decoder.num_codebooks)]
    model = LMModel(
        DelayedPatternProvider(decoder.num_codebooks, delays=steps),
        ConditioningProvider({"description": conditioner}),
        ConditionFuser({"sum": [], "prepend": [], "cross": ["description"], "input_interpolate": []}),
        n_q=decoder.num_codebooks,
        card=decoder.vocab_size,
        dim=decoder.hidden_size,
        num_heads=decoder.num_attention_heads,
        num_layers=decoder.num_hidden_layers,
        hidden_scale=decoder.ffn_dim / decoder.hidden_size,
        activation=decoder.activation_function,
        norm_first=True,
        bias_proj=False,
        bias_ff=False,
        bias_attn=False,
        dropout=0.0,
        causal=True,
        custom=True,
        cross_attention=True,
        positional_embedding="sin",
    )
    loaded = model.load_state_dict(to_audiocraft(checkpoint.state_dict()), strict=False)
    # The text encoder is the checkpoint's own, and has its weights.
    missing = [name for name in loaded.missing_keys if not name.startswith(_TEXT_ENCODER)]
    if odd := [*missing, *loaded.unexpected_keys]:
        where = "key 'audio.musicgen.model'"
        raise InputError(where, f"has weights that audiocraft's model has not, or lacks some ({odd[0]})", "Use another")
    return model.eval()


def _text_conditioner(checkpoint: Any, tokenizer: Any) -> Any:
    """The checkpoint's own text encoder as an audiocraft conditioner; a text that is None becomes zeros."""
    from audiocraft.modules.conditioners import TextConditioner

    class Conditioner(TextConditioner):
        def __init__(self) -> None:
            encoder = checkpoint.text_encoder.eval()
            super().__init__(encoder.config.d_model, checkpoint.config.decoder.hidden_size)
            self.t5 = encoder
            if not hasattr(checkpoint, "enc_to_dec_proj"):
                self.output_proj = torch.nn.Identity()

        def tokenize(self, texts: Sequence[str | None]) -> Any:
            tokens = tokenizer(
                [text or "" for text in texts],
                padding=True, truncation=True, max_length=MAX_TEXT_TOKENS, return_tensors="pt",
            )  # fmt: skip
            mask = tokens["attention_mask"] * torch.tensor([[text is not None] for text in texts])
            device = next(self.t5.parameters()).device
            return tokens["input_ids"].to(device), mask.to(device)

        def forward(self, tokenized: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
            ids, mask = tokenized
            # In its own precision: MusicGen decodes under half precision, which T5 overflows.
            with torch.no_grad(), torch.autocast(ids.device.type, enabled=False):
                states = self.output_proj(self.t5(input_ids=ids, attention_mask=mask).last_hidden_state)
            return states * mask[..., None], mask

    return Conditioner()
