"""Engine `laion_clap`: checkpoints of the authors' own package (Wu et al. 2023), in an interpreter of its own.

Some are in that layout only, such as the one that the MusicGen paper scores with. laion-clap 1.1 pins releases that
nothing else here can live with: `conceptcaps env build laion_clap` makes an environment for it, and
`alignment.resources.python` names its interpreter.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from conceptcaps import environments
from conceptcaps.alignment.mel import MelFrontEnd
from conceptcaps.alignment.windows import WindowedAligner
from conceptcaps.config.alignment import AlignmentConfig
from conceptcaps.devices import device_for
from conceptcaps.errors import InputError, describe
from conceptcaps.model_files import file_on_hub

_KEY = "key 'alignment.model'"
_PIECES = {96: ("tiny", 768), 128: ("base", 1024), 256: ("large", 2048)}
"""Width of the first layer -> HTS-AT's name and the width of its last."""
_TEXT_HEAD = 64  # width of one attention head of every RoBERTa
_MAX_TOKENS = 77  # as the authors cut texts
_AUDIO: dict[str, Any] = {
    "model_type": "HTSAT", "audio_length": 1024, "clip_samples": 480_000, "mel_bins": 64, "sample_rate": 48_000,
    "window_size": 1024, "hop_size": 480, "fmin": 50, "fmax": 14_000, "class_num": 527,
}  # fmt: skip
_UNUSED = ("audio_branch.head", "audio_branch.tscam_conv", "audio_transform", "text_transform", "logit_scale")
"""Parameters that no embedding depends on."""


class LaionClapAligner(WindowedAligner):
    """A CLAP of HTS-AT and RoBERTa; its sizes, and whether it fuses, are read from its weights.

    Clips longer than its 10 s are cut into windows that cover them, where the authors hear one drawn at random.

    Args:
        config: section `alignment`; `model` is a file of weights: a path, or `owner/repository/file` on the hub.

    Raises:
        InputError: laion-clap is not installed in this interpreter, no such file, pickled weights that were not asked
            for, or weights of another architecture.
    """

    def __init__(self, config: AlignmentConfig):
        from transformers import AutoTokenizer, ClapFeatureExtractor

        folder = environments.folder_of("laion_clap", "laion_clap", "alignment.resources.python")
        self.device = device_for(config.resources, "alignment.resources")
        weights = load_weights(config)
        fusion = any("mel_conv2d" in name for name in weights)
        self.model: Any = build(folder, weights, fusion).eval().to(self.device)
        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(config.laion_clap.tokenizer)
        except (OSError, ValueError) as error:
            where = "key 'alignment.laion_clap.tokenizer'"
            raise InputError(where, f"cannot be loaded ({describe(error, 200)})", "Name a folder of it") from error
        extractor = ClapFeatureExtractor(
            frequency_min=_AUDIO["fmin"], frequency_max=_AUDIO["fmax"], truncation="fusion" if fusion else "rand_trunc"
        )
        self.front_end = MelFrontEnd(extractor, self.device)
        super().__init__(self.front_end.sampling_rate, self.model.joint_embed_shape, config.resources.batch_size)

    def windows(self, waveform: np.ndarray) -> list[np.ndarray]:
        return self.front_end.windows(_sixteen_bits(waveform))

    @torch.inference_mode()
    def forward_windows(self, windows: list[np.ndarray]) -> np.ndarray:
        inputs = {"waveform": torch.from_numpy(np.stack(windows)), "longer": torch.zeros(len(windows), 1).bool()}
        if self.front_end.fusion:
            inputs["mel_fusion"], inputs["longer"] = self.front_end.features(windows)
        hidden = self.model.encode_audio(inputs, device=self.device)["embedding"]
        return self.model.audio_projection(hidden).float().cpu().numpy()

    @torch.inference_mode()
    def forward_texts(self, texts: list[str]) -> np.ndarray:
        tokens = self.tokenizer(texts, padding=True, truncation=True, max_length=_MAX_TOKENS, return_tensors="pt")
        return self.model.encode_text(tokens, device=self.device).float().cpu().numpy()


def load_weights(config: AlignmentConfig) -> dict[str, Tensor]:
    """The tensors of a checkpoint by their names in the authors' model.

    Raises:
        InputError: no such file, a hub out of reach, pickled weights that were not asked for, or a broken file.
    """
    from safetensors.torch import load_file

    path = _file_of(config)
    load: Callable[[Path], Any] = load_file
    if path.suffix != ".safetensors" and config.laion_clap.allow_pickle:
        load = partial(torch.load, map_location="cpu", weights_only=False)
    elif path.suffix != ".safetensors":
        mend = "Convert it to safetensors, or trust it: alignment.laion_clap.allow_pickle=true"
        raise InputError(_KEY, f"{path.name} is pickled, and may run any code when it is loaded", mend)
    try:
        loaded = load(path)
        found = loaded.get("state_dict", loaded)
    except Exception as error:  # an unpickler raises whatever the file makes it raise
        raise InputError(_KEY, f"{path} cannot be read ({describe(error, 200)})", "Download it again") from error
    return {name.removeprefix("module."): tensor for name, tensor in found.items() if "position_ids" not in name}


def _file_of(config: AlignmentConfig) -> Path:
    mend = "Give the path of a file of weights, or owner/repository/file on the hub"
    path = Path(config.model).expanduser()
    if path.is_file():
        return path
    named = file_on_hub(config.model)
    if named is None:
        raise InputError(_KEY, f"{config.model!r} is no file here, and names none on the hub", mend)
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(*named, revision=config.revision))
    except (OSError, ValueError) as error:
        problem = f"{config.model!r} is no file here, and the hub did not give it ({describe(error, 200)})"
        raise InputError(_KEY, problem, mend) from error


def build(folder: Path, weights: dict[str, Tensor], fusion: bool) -> Any:
    """The authors' `CLAP` of the sizes that the weights have, with these weights.

    Args:
        folder: of package laion_clap. It is not imported itself: that would fetch three tokenizers from the hub.
        weights: of `load_weights`.
        fusion: whether it hears a long clip in one pass.

    Raises:
        InputError: weights that do not fit.
    """
    from transformers import RobertaModel

    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    authors = importlib.import_module("clap_module.model")
    mend = "Name a checkpoint of HTS-AT and RoBERTa"
    try:
        name, width = _PIECES[weights["audio_branch.patch_embed.proj.weight"].shape[0]]
        text = RobertaModel(_text_config(weights))
    except KeyError as error:
        raise InputError(_KEY, f"is no CLAP of HTS-AT and RoBERTa (it lacks {error})", mend) from error
    # The authors would fetch RoBERTa's own weights first, only to replace them.
    with mock.patch.object(authors, "RobertaModel", SimpleNamespace(from_pretrained=lambda _: text)):
        model = authors.CLAP(
            embed_dim=width,
            audio_cfg=_AUDIO | {"model_name": name},
            text_cfg={
                "model_type": "roberta", "context_length": _MAX_TOKENS, "vocab_size": 0, "width": 0, "heads": 0,
                "layers": 0,
            },
            enable_fusion=fusion,
            fusion_type="aff_2d" if fusion else "None",
        )  # fmt: skip
    try:
        loaded = model.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        raise InputError(_KEY, f"has weights of other sizes ({describe(error, 200)})", mend) from error
    learned = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    missing = [name for name in loaded.missing_keys if name in learned and not name.startswith(_UNUSED)]
    if odd := [*missing, *loaded.unexpected_keys]:
        raise InputError(_KEY, f"has weights that the authors' model has not, or lacks some ({odd[0]})", mend)
    return model


def _text_config(weights: dict[str, Tensor]) -> Any:
    from transformers import RobertaConfig

    words = weights["text_branch.embeddings.word_embeddings.weight"]
    layers = {name.split(".")[3] for name in weights if name.startswith("text_branch.encoder.layer.")}
    return RobertaConfig(
        vocab_size=words.shape[0],
        hidden_size=words.shape[1],
        num_hidden_layers=len(layers),
        num_attention_heads=words.shape[1] // _TEXT_HEAD,
        intermediate_size=weights["text_branch.encoder.layer.0.intermediate.dense.weight"].shape[0],
        max_position_embeddings=weights["text_branch.embeddings.position_embeddings.weight"].shape[0],
        type_vocab_size=weights["text_branch.embeddings.token_type_embeddings.weight"].shape[0],
        layer_norm_eps=1e-5,
    )


def _sixteen_bits(waveform: np.ndarray) -> np.ndarray:
    """Rounded as the authors round what they hear."""
    whole = (np.clip(waveform, -1, 1) * np.float32(32767)).astype(np.int16)
    return whole.astype(np.float32) / np.float32(32767)
