"""CLAP checkpoints of the true architecture with random weights, and clips and texts for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from tokenizers import ByteLevelBPETokenizer, Tokenizer, processors
from transformers import ClapConfig, ClapFeatureExtractor, ClapModel, PreTrainedTokenizerFast

RATE = 16_000
SPECIAL = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "mask_token": "<mask>"}
TEXTS = ["a slow piano", "fast techno with a very long description of everything that one hears in it", "flute"]


def write_checkpoint(folder: Path, fusion: bool) -> Path:
    """A random ClapModel with real configs, tokenizer and feature extractor; one-second windows."""
    torch.manual_seed(0)
    num_mels = 64 if fusion else 32  # fusion's shrinking is written for 64
    audio = {
        "num_mel_bins": num_mels, "spec_size": 64, "patch_embeds_hidden_size": 16, "depths": [1, 1], "window_size": 4,
        "num_attention_heads": [2, 2], "num_hidden_layers": 2, "hidden_size": 32, "projection_dim": 24,
        "num_classes": 1, "enable_fusion": fusion, "fusion_type": "aff_2d" if fusion else None,
    }  # fmt: skip
    text = {
        "vocab_size": 400, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48,
        "max_position_embeddings": 66, "projection_dim": 24,
    }  # fmt: skip
    model = ClapModel(ClapConfig(audio_config=audio, text_config=text, projection_dim=24))
    for tensor in model.state_dict().values():
        if tensor.is_floating_point() and tensor.dim() > 1:
            torch.nn.init.normal_(tensor, std=0.15)
    model.save_pretrained(folder)
    write_tokenizer(folder)
    ClapFeatureExtractor(
        feature_size=num_mels, sampling_rate=RATE, hop_length=256, max_length_s=1, fft_window_size=512,
        frequency_min=50, frequency_max=7_000, truncation="fusion" if fusion else "rand_trunc",
    ).save_pretrained(folder)  # fmt: skip
    return folder


def write_tokenizer(folder: Path) -> None:
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(TEXTS, vocab_size=380, special_tokens=list(SPECIAL.values()), show_progress=False)
    bpe.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(bpe.to_str()), **SPECIAL).save_pretrained(folder)


def tones(*seconds: float, rate: int = RATE) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    waves = []
    for i, length in enumerate(seconds):
        t = np.arange(int(length * rate)) / rate
        wave = 0.4 * np.sin(2 * np.pi * 220 * (i + 1) * t) * np.exp(-(t % 0.3) * 8) + 0.01 * rng.standard_normal(t.size)
        waves.append(wave.astype(np.float32)[None])
    return waves
