"""Tiny MusicGen checkpoints of the true architecture, saved as a hub checkpoint is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    EncodecConfig,
    MusicgenConfig,
    MusicgenDecoderConfig,
    MusicgenForConditionalGeneration,
    PreTrainedTokenizerFast,
    T5Config,
)

WORDS = "slow fast calm loud piano guitar drums jazz rock techno with and a the 120 bpm warm song"
VOCABULARY = ["<pad>", "</s>", "<unk>", *WORDS.split(" ")]


def tokenizer() -> PreTrainedTokenizerFast:
    """One token per known word and </s> at the end, padded on the right like T5's."""
    vocabulary = {word: index for index, word in enumerate(VOCABULARY)}
    model = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    model.pre_tokenizer = pre_tokenizers.Whitespace()
    model.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=model, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=512
    )


def tokenize(captions: list[str]) -> Any:
    """Ids and attention mask of a batch, as tensors."""
    return tokenizer()(captions, padding=True, return_tensors="pt")


def build_musicgen(
    channels: int = 1, hidden: int = 32, layers: int = 2, text: int = 24, entries: int = 64, **decoder: Any
) -> Any:
    """A random MusicgenForConditionalGeneration whose logits differ enough for a greedy choice to be clear."""
    torch.manual_seed(hidden + channels)
    codebooks = 4
    config = MusicgenConfig(
        text_encoder=T5Config(
            vocab_size=len(VOCABULARY), d_model=text, d_kv=8, d_ff=48, num_layers=2, num_heads=3, dropout_rate=0.0
        ).to_dict(),
        audio_encoder=EncodecConfig(
            target_bandwidths=[codebooks * 0.1 * (entries - 1).bit_length()],  # 4 codebooks at 100 frames a second
            sampling_rate=1600,
            hidden_size=16,
            codebook_size=entries,
            codebook_dim=16,
            num_filters=4,
            upsampling_ratios=[4, 2, 2],
            use_causal_conv=False,
            normalize=False,
        ).to_dict(),
        decoder=MusicgenDecoderConfig(
            **{
                "vocab_size": entries,
                "max_position_embeddings": 256,
                "num_hidden_layers": layers,
                "ffn_dim": 4 * hidden,
                "num_attention_heads": 4,
                "hidden_size": hidden,
                "num_codebooks": codebooks * channels,
                "audio_channels": channels,
                "pad_token_id": entries,
                "bos_token_id": entries,
                "initializer_factor": 0.2,
                **decoder,
            }
        ).to_dict(),
    )
    model = MusicgenForConditionalGeneration(config).eval()
    with torch.no_grad():
        for parameter in model.decoder.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 2.5 / parameter.shape[1] ** 0.5)
        for layer in model.audio_encoder.quantizer.layers:
            layer.codebook.embed.normal_()
    start = model.config.decoder.vocab_size
    for name in ("pad_token_id", "bos_token_id", "decoder_start_token_id"):
        setattr(model.generation_config, name, start)
    model.generation_config.guidance_scale = 3.0
    return model


def save_musicgen(path: Path, model: Any) -> Path:
    """`model` as a folder that `from_pretrained` reads."""
    model.save_pretrained(path)
    tokenizer().save_pretrained(path)
    return path


def encode(model: Any, tokens: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """States in the decoder's width, and where there is text."""
    with torch.no_grad():
        states = model.text_encoder(**tokens).last_hidden_state
        if hasattr(model, "enc_to_dec_proj"):
            states = model.enc_to_dec_proj(states)
    return states * tokens.attention_mask[..., None], tokens.attention_mask.bool()
