"""Rebuild the embedded CLAP: `python -m conceptcaps.assets.build_clap`.

A small ClapModel (HTSAT over mel bands, Roberta over byte pairs) is trained on procedural clips and what can be said
of them. Beside the contrastive loss of CLAP (Wu et al. 2023, section 2.1) both towers predict, through one shared
linear layer, the attributes that the synthesiser was asked to render: that layer is dropped at the end, and makes a
few thousand clips enough.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import ByteLevelBPETokenizer, Tokenizer, processors
from torch import nn
from torch.nn import functional
from transformers import ClapConfig, ClapFeatureExtractor, ClapModel, PreTrainedTokenizerFast

from conceptcaps.alignment.clap import EMBEDDED
from conceptcaps.alignment.mel import MelFrontEnd
from conceptcaps.assets import clap_data
from conceptcaps.assets.clap_quality import measure
from conceptcaps.audio.arrangement import arrange
from conceptcaps.seeding import derive, generator

logger = logging.getLogger(__name__)

SEED = 7
NUM_HELD_OUT, NUM_CORPUS, NUM_FREE = 300, 2000, 900
SECONDS = 5.0
"""Length of a training clip, and of what the model hears at once."""
NUM_SAYINGS = 12
VOCAB_SIZE = 2000
MAX_TOKENS = 126
EPOCHS = 16
PAD = 1
SPECIAL_TOKENS = {
    "bos_token": "<s>",
    "pad_token": "<pad>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "mask_token": "<mask>",
}
HEAD_GAIN = 8.0
"""Embeddings have unit length; the attribute layer reads them larger, to be sure of anything."""

EXTRACTOR = ClapFeatureExtractor(
    feature_size=64,
    sampling_rate=32_000,
    hop_length=640,
    max_length_s=5,
    fft_window_size=2048,
    frequency_min=40,
    frequency_max=14_000,
    truncation="rand_trunc",
    padding="repeatpad",
)


@dataclass(frozen=True)
class Corpus:
    """What one training run sees, held in memory.

    Attributes:
        mel: float16 (num_clips, num_frames, num_mels) decibels.
        tokens: int64 (num_clips, num_sayings, max_tokens), padded.
        attributes: float32 (num_clips, num_attributes) in {0, 1}.
    """

    mel: torch.Tensor
    tokens: torch.Tensor
    attributes: torch.Tensor


def model_config(vocab_size: int) -> ClapConfig:
    """The true architecture, small: 16 x 16 patches in three stages, two text layers."""
    audio = {
        "num_mel_bins": 64, "spec_size": 128, "patch_size": 8, "patch_stride": [8, 8], "window_size": 4,
        "patch_embeds_hidden_size": 64, "depths": [1, 1, 2], "num_attention_heads": [2, 4, 8], "num_hidden_layers": 3,
        "hidden_size": 256, "num_classes": 1, "projection_dim": 128, "hidden_dropout_prob": 0.0,
    }  # fmt: skip
    text = {
        "vocab_size": vocab_size, "hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 384, "max_position_embeddings": MAX_TOKENS + 2, "projection_dim": 128,
    }  # fmt: skip
    return ClapConfig(audio_config=audio, text_config=text, projection_dim=128)


def attributes(tags: clap_data.TagSet, seed: int) -> list[str]:
    """What is audible in a clip, as words."""
    heard = arrange(clap_data.flat(tags), seed)
    switches = ("percussion", "bass", "choir", "syncopated", "tense", "arpeggio", "march", "hypnotic", "playful")
    words = [name for name in (*switches, "spoken", "expressive") if getattr(heard, name)]
    words += [f"pattern {heard.pattern}", f"mode {heard.mode}", f"feel {heard.feel}", f"voice {heard.voice}"]
    words += [f"plays {name}" for name in (heard.lead, *heard.others)]
    if heard.percussion:
        words += [f"kit {heard.kit}", *(f"hit {name}" for name in heard.hits)]
    if heard.bass:
        words.append(f"bass {heard.bass_style}")
    words += [f"bpm over {bound}" for bound in (78, 91, 111, 129) if heard.bpm > bound]
    for name in ("brightness", "energy", "space"):
        words += [f"{name} over {bound}" for bound in (0.15, 0.3, 0.45, 0.6, 0.75) if getattr(heard, name) > bound]
    return words


def tag_sets() -> tuple[list[clap_data.TagSet], list[clap_data.TagSet]]:
    """(training sets, held-out sets): the corpus without the held-out, then sets in other words."""
    corpus = clap_data.corpus_sets()
    order = generator(SEED, "split").permutation(len(corpus))
    held_out = [corpus[i] for i in order[:NUM_HELD_OUT]]
    training = [corpus[i] for i in order[NUM_HELD_OUT : NUM_HELD_OUT + NUM_CORPUS]]
    return training + clap_data.free_sets(NUM_FREE, derive(SEED, "free")), held_out


def make_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE of the lower-cased training texts, with Roberta's special tokens."""
    bpe = ByteLevelBPETokenizer(lowercase=True, add_prefix_space=True)
    bpe.train_from_iterator(
        texts, vocab_size=VOCAB_SIZE, min_frequency=2, special_tokens=list(SPECIAL_TOKENS.values()), show_progress=False
    )
    bpe.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=True)
    backend = Tokenizer.from_str(bpe.to_str())
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=MAX_TOKENS, **SPECIAL_TOKENS)


def prepare(sets: list[clap_data.TagSet], tokenizer: PreTrainedTokenizerFast, texts: list[list[str]]) -> Corpus:
    """Render, listen and tokenise, once for all epochs."""
    front_end = MelFrontEnd(EXTRACTOR, torch.device("cpu"))
    mels = []
    for i, tags in enumerate(sets):
        wave = clap_data.clip(tags, derive(SEED, "clip", i), SECONDS, EXTRACTOR.sampling_rate)
        mels.append(front_end.log_mel(wave[None])[0].half())
        if i % 500 == 0:
            logger.info("rendered %d of %d clips", i, len(sets))
    return Corpus(torch.stack(mels), tokenise(tokenizer, texts), encode_attributes(sets))


def tokenise(tokenizer: PreTrainedTokenizerFast, texts: list[list[str]]) -> torch.Tensor:
    """int64 (num_clips, num_sayings, max_tokens)."""
    flat = [text for group in texts for text in group]
    tokens = tokenizer(flat, padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")["input_ids"]
    return tokens.reshape(len(texts), -1, tokens.shape[-1])


def encode_attributes(sets: list[clap_data.TagSet]) -> torch.Tensor:
    """float32 (num_clips, num_attributes)."""
    words = [attributes(tags, derive(SEED, "clip", i)) for i, tags in enumerate(sets)]
    index = {word: k for k, word in enumerate(sorted({word for group in words for word in group}))}
    matrix = torch.zeros(len(sets), len(index))
    for row, group in zip(matrix, words, strict=True):
        row[[index[word] for word in group]] = 1
    return matrix


def train(model: ClapModel, corpus: Corpus, epochs: int, batch_size: int = 64, learning_rate: float = 1.2e-3) -> None:
    """Contrastive and attribute losses under AdamW, warm-up and cosine decay."""
    frequency = corpus.attributes.mean(0).clamp(0.005, 0.995)
    head = nn.Linear(model.config.projection_dim, corpus.attributes.shape[1])
    nn.init.constant_(head.bias, 0.0)
    head.bias.data = torch.logit(frequency)
    parameters = [*model.parameters(), *head.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.05, betas=(0.9, 0.98))
    num_steps = epochs * (len(corpus.mel) // batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, num_steps))
    model.train()
    started = time.monotonic()
    for step, (mel, tokens, wanted) in enumerate(batches(corpus, epochs, batch_size)):
        loss = _loss(model, head, mel, tokens, wanted)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()
        if step % 20 == 0:
            logger.info("step %d of %d, loss %.3f, %.0f s", step, num_steps, loss.item(), time.monotonic() - started)


def _rate(step: int, num_steps: int) -> float:
    warm_up = max(1, num_steps // 12)
    return min((step + 1) / warm_up, 0.5 * (1 + math.cos(math.pi * step / num_steps)) + 0.01)


def _loss(
    model: ClapModel, head: nn.Linear, mel: torch.Tensor, tokens: torch.Tensor, wanted: torch.Tensor
) -> torch.Tensor:
    longer = torch.zeros(len(mel), 1, dtype=torch.bool)
    audio = model.get_audio_features(input_features=mel[:, None], is_longer=longer).pooler_output
    text = model.get_text_features(input_ids=tokens, attention_mask=(tokens != PAD).long()).pooler_output
    logits = model.logit_scale_a.exp().clamp(max=50) * audio @ text.T
    target = torch.arange(len(mel))
    contrast = (functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)) / 2
    told = [functional.binary_cross_entropy_with_logits(head(HEAD_GAIN * side), wanted) for side in (audio, text)]
    return contrast + 10 * told[0] + 5 * told[1]


def batches(corpus: Corpus, epochs: int, batch_size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """(mel, tokens, attributes) of random clips, each with one of its sayings; time is rolled and level shifted."""
    rng = generator(SEED, "batches")
    for _ in range(epochs):
        order = rng.permutation(len(corpus.mel))
        for start in range(0, len(order) - batch_size + 1, batch_size):
            rows = torch.as_tensor(order[start : start + batch_size])
            mel = corpus.mel[rows].float()
            mel = torch.roll(mel, int(rng.integers(mel.shape[1])), dims=1)
            mel = mel + torch.as_tensor(rng.normal(0, 1.0, (len(rows), 1, 1)), dtype=torch.float32)
            tokens = corpus.tokens[rows, torch.as_tensor(rng.integers(corpus.tokens.shape[1], size=len(rows)))]
            used = int((tokens != PAD).any(0).sum())
            yield mel, tokens[:, :used], corpus.attributes[rows]


def save(model: ClapModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """The checkpoint in transformers' layout, weights in float16."""
    model.eval().half().save_pretrained(folder)
    model.float()
    tokenizer.save_pretrained(folder)
    EXTRACTOR.save_pretrained(folder)


def build(folder: Path, epochs: int) -> dict[str, float]:
    """Train, save and measure; returns what `clap_quality.measure` found on sets held out."""
    started = time.monotonic()
    sets, held_out = tag_sets()
    texts = [clap_data.sayings(tags, NUM_SAYINGS, derive(SEED, "sayings", i)) for i, tags in enumerate(sets)]
    tokenizer = make_tokenizer([text for group in texts for text in group])
    corpus = prepare(sets, tokenizer, texts)
    torch.manual_seed(derive(SEED, "weights") % 2**32)
    model = ClapModel(model_config(len(tokenizer)))
    train(model, corpus, epochs)
    save(model, tokenizer, folder)
    quality = measure(str(folder), held_out, derive(SEED, "held out"))
    report = {**quality, "epochs": epochs, "train_clips": len(sets), "minutes": (time.monotonic() - started) / 60}
    (folder / "quality.json").write_text(json.dumps(report, indent=2) + "\n")
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=EMBEDDED)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    print(json.dumps(build(arguments.folder, arguments.epochs), indent=2))


if __name__ == "__main__":
    main()
