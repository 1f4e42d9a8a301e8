"""Rebuild the embedded CLAP: `python -m conceptcaps.assets.build_clap`.

A small ClapModel (HTSAT over mel bands, Roberta over byte pairs) is trained on procedural clips and what can be said
of them: of the whole tag set, and of single tags of it, as tag verification asks. Beside the contrastive loss of CLAP
(Wu et al. 2023, section 2.1) both towers predict, through one shared linear layer, attributes of the synthesiser: the
audio those that it rendered, a text those that it makes likely. The layer is dropped at the end, and makes a few
thousand clips enough. Then the text tower alone learns on, single tags by what is true of the clips (`clap_texts`).
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import ByteLevelBPETokenizer, Tokenizer, processors
from torch import nn
from torch.nn import functional
from transformers import ClapConfig, ClapFeatureExtractor, ClapModel, PreTrainedTokenizerFast

from conceptcaps.alignment.clap import EMBEDDED
from conceptcaps.alignment.mel import MelFrontEnd
from conceptcaps.assets import clap_data
from conceptcaps.assets.clap_quality import measure
from conceptcaps.assets.clap_sets import composed_sets
from conceptcaps.assets.clap_texts import Statements, make_statements, truth_loss
from conceptcaps.assets.tag_words import TagSet
from conceptcaps.audio.arrangement import arrange
from conceptcaps.seeding import derive, generator

logger = logging.getLogger(__name__)

SEED = 7
NUM_HELD_OUT, NUM_CORPUS, NUM_COMPOSED = 300, 2000, 5000
SECONDS = 5.0
"""Length of a training clip, and of what the model hears at once."""
NUM_SAYINGS, NUM_PARTS = 6, 3
"""Texts per clip that say its whole set, and a part of it."""
NUM_ARRANGED = 3
"""Arrangements from which it is estimated what a text makes likely."""
VOCAB_SIZE = 4000
MAX_TOKENS = 126
EPOCHS = 75
WARM_UP = 150
"""Steps."""
TUNE_STEPS, TUNE_RATE = 400, 6e-4
"""Of the text tower alone."""
PAD = 1
SPECIAL_TOKENS = {
    "bos_token": "<s>",
    "pad_token": "<pad>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "mask_token": "<mask>",
}
WEIGHTS = 1.0, 0.5
"""Of the losses of a whole set's text, and of a part's."""
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
        attributes: float16 (num_clips, num_attributes) in {0, 1}, what was rendered.
        whole: texts of the whole set.
        parts: texts of parts of it.
    """

    mel: torch.Tensor
    attributes: torch.Tensor
    whole: Texts
    parts: Texts


@dataclass(frozen=True)
class Texts:
    """Texts of every clip.

    Attributes:
        tokens: int32 (num_clips, num_texts, max_tokens), padded.
        likely: float16 (num_clips, num_texts or 1, num_attributes) in [0, 1], how likely a text makes each attribute.
    """

    tokens: torch.Tensor
    likely: torch.Tensor

    def draw(self, rows: torch.Tensor, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """One text of each row: int64 tokens, without padding that all share, and float32 `likely`."""
        tokens = torch.as_tensor(rng.integers(self.tokens.shape[1], size=len(rows)))
        drawn = self.tokens[rows, tokens].long()
        likely = self.likely[rows, tokens % self.likely.shape[1]].float()
        return drawn[:, : int((drawn != PAD).any(0).sum())], likely


@dataclass(frozen=True)
class Batch:
    """Some clips, each with one text of its whole set and one of a part; shapes as in `Corpus` and `Texts.draw`."""

    mel: torch.Tensor
    attributes: torch.Tensor
    texts: tuple[tuple[torch.Tensor, torch.Tensor], ...]


@dataclass(frozen=True)
class SaidSets:
    """Texts of tag sets: of the whole, and of parts with the tags that they say; both (num_clips, num_texts)."""

    whole: list[list[str]]
    parts: list[list[tuple[str, list[str]]]]


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


def attributes(tags: Sequence[str], seed: int) -> list[str]:
    """What is audible in a clip, as words."""
    heard = arrange(tags, seed)
    switches = ["percussion", "bass", "syncopated", "tense", "arpeggio", "hypnotic", "playful", "expressive"]
    switches += ["choir", "spoken"] * (heard.voice is not None) + ["march"] * heard.percussion
    words = [name for name in switches if getattr(heard, name)]
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


def tag_sets() -> tuple[list[TagSet], list[TagSet]]:
    """(training sets, held-out sets): the corpus without the held-out, then composed sets."""
    corpus = clap_data.corpus_sets()
    order = generator(SEED, "split").permutation(len(corpus))
    held_out = [corpus[i] for i in order[:NUM_HELD_OUT]]
    training = [corpus[i] for i in order[NUM_HELD_OUT : NUM_HELD_OUT + NUM_CORPUS]]
    return training + composed_sets(NUM_COMPOSED, derive(SEED, "composed")), held_out


def make_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE of the lower-cased training texts, with Roberta's special tokens."""
    bpe = ByteLevelBPETokenizer(lowercase=True, add_prefix_space=True)
    bpe.train_from_iterator(
        texts, vocab_size=VOCAB_SIZE, min_frequency=2, special_tokens=list(SPECIAL_TOKENS.values()), show_progress=False
    )
    bpe.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=True)
    backend = Tokenizer.from_str(bpe.to_str())
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=MAX_TOKENS, **SPECIAL_TOKENS)


def prepare(sets: list[TagSet], tokenizer: PreTrainedTokenizerFast, texts: SaidSets) -> Corpus:
    """Tokenise, and arrange and render what is said, once for all epochs."""
    flat = [clap_data.flat(tags) for tags in sets]
    heard = [attributes(tags, derive(SEED, "clip", i)) for i, tags in enumerate(flat)]
    index = {word: k for k, word in enumerate(sorted({word for words in heard for word in words}))}
    whole = Texts(tokenise(tokenizer, texts.whole), torch.stack([_likely(tags, index) for tags in flat])[:, None])
    parts = Texts(
        tokenise(tokenizer, [[text for text, _ in group] for group in texts.parts]),
        torch.stack([torch.stack([_likely(said, index) for _, said in group]) for group in texts.parts]),
    )
    return Corpus(render_all(sets), torch.stack([_encode([words], index) for words in heard]), whole, parts)


def render_all(sets: list[TagSet]) -> torch.Tensor:
    """float16 (num_clips, num_frames, num_mels) of one clip of each set."""
    front_end = MelFrontEnd(EXTRACTOR, torch.device("cpu"))
    mels = []
    for i, tags in enumerate(sets):
        wave = clap_data.clip(tags, derive(SEED, "clip", i), SECONDS, EXTRACTOR.sampling_rate)
        mels.append(front_end.log_mel(wave[None])[0].half())
        if i % 500 == 0:
            logger.info("rendered %d of %d clips", i, len(sets))
    return torch.stack(mels)


def _likely(tags: Sequence[str], index: dict[str, int]) -> torch.Tensor:
    """float16 (num_attributes,): the share of arrangements of some tags that have each attribute."""
    return _encode([attributes(tags, derive(SEED, "likely", k)) for k in range(NUM_ARRANGED)], index)


def _encode(groups: list[list[str]], index: dict[str, int]) -> torch.Tensor:
    """float16 (num_attributes,): the share of groups that hold each word."""
    shares = torch.zeros(len(index), dtype=torch.float16)
    for group in groups:
        shares[[index[word] for word in group if word in index]] += 1 / len(groups)
    return shares


def tokenise(tokenizer: PreTrainedTokenizerFast, texts: list[list[str]]) -> torch.Tensor:
    """int32 (num_clips, num_texts, max_tokens)."""
    flat = [text for group in texts for text in group]
    tokens = tokenizer(flat, padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")["input_ids"]
    return tokens.reshape(len(texts), -1, tokens.shape[-1]).int()


def train(model: ClapModel, corpus: Corpus, epochs: int, batch_size: int = 96, learning_rate: float = 1.2e-3) -> None:
    """Contrastive and attribute losses under AdamW."""
    frequency = corpus.attributes.float().mean(0).clamp(0.005, 0.995)
    head = nn.Linear(model.config.projection_dim, corpus.attributes.shape[1])
    head.bias.data = torch.logit(frequency)
    parameters = [*model.parameters(), *head.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.05, betas=(0.9, 0.98))
    num_steps = epochs * (len(corpus.mel) // batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, num_steps))
    model.train()
    started = time.monotonic()
    for step, batch in enumerate(batches(corpus, epochs, batch_size)):
        loss = _loss(model, head, batch)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()
        if step % 20 == 0:
            logger.info("step %d of %d, loss %.3f, %.0f s", step, num_steps, loss.item(), time.monotonic() - started)


def _rate(step: int, num_steps: int) -> float:
    """Up, level, and down over the last three tenths: longer training begins as a shorter one does."""
    return min(1.0, (step + 1) / WARM_UP, (num_steps - step) / (0.3 * num_steps))


def _loss(model: ClapModel, head: nn.Linear, batch: Batch) -> torch.Tensor:
    longer = torch.zeros(len(batch.mel), 1, dtype=torch.bool)
    with torch.autocast("cpu", torch.bfloat16):  # twice as fast; the losses are in single precision
        audio = model.get_audio_features(input_features=batch.mel[:, None], is_longer=longer).pooler_output
        texts = [_read(model, tokens) for tokens, _ in batch.texts]
    scale = model.logit_scale_a.exp().clamp(max=50)
    loss = 10 * _told(head, audio.float(), batch.attributes)
    for text, (_, likely), weight in zip(texts, batch.texts, WEIGHTS, strict=True):
        contrast = _contrast(scale * audio.float() @ text.float().T)
        loss = loss + weight * (contrast + 5 * _told(head, text.float(), likely))
    return loss


def _contrast(logits: torch.Tensor) -> torch.Tensor:
    """Cross entropy of (num_clips, num_clips) logits, from audio to text and back."""
    target = torch.arange(len(logits))
    return (functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)) / 2


def _told(head: nn.Linear, side: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    return functional.binary_cross_entropy_with_logits(head(HEAD_GAIN * side), wanted)


def batches(corpus: Corpus, epochs: int, batch_size: int) -> Iterator[Batch]:
    """Random clips with texts; time is rolled and level shifted."""
    rng = generator(SEED, "batches")
    for _ in range(epochs):
        order = rng.permutation(len(corpus.mel))
        for start in range(0, len(order) - batch_size + 1, batch_size):
            rows = torch.as_tensor(order[start : start + batch_size])
            mel = corpus.mel[rows].float()
            mel = torch.roll(mel, int(rng.integers(mel.shape[1])), dims=1)
            mel = mel + torch.as_tensor(rng.normal(0, 1.0, (len(rows), 1, 1)), dtype=torch.float32)
            texts = corpus.whole.draw(rows, rng), corpus.parts.draw(rows, rng)
            yield Batch(mel, corpus.attributes[rows].float(), texts)


def tune_texts(model: ClapModel, tokenizer: PreTrainedTokenizerFast, corpus: Corpus, said: Statements) -> None:
    """Teach the text tower on, the audio tower as it is: statements by their truth, whole texts by contrast."""
    torch.manual_seed(derive(SEED, "tune") % 2**32)
    model.eval().requires_grad_(False)
    audio = torch.cat([_hear(model, corpus.mel[start : start + 100]) for start in range(0, len(corpus.mel), 100)])
    parameters = [*model.text_model.parameters(), *model.text_projection.parameters()]
    for parameter in parameters:
        parameter.requires_grad_(True)
    optimiser = torch.optim.AdamW(parameters, lr=TUNE_RATE, weight_decay=0.05, betas=(0.9, 0.98))
    scale, rng = model.logit_scale_a.exp().clamp(max=50), generator(SEED, "tune")
    model.text_model.train()
    for step in range(TUNE_STEPS):
        rows = torch.as_tensor(rng.integers(len(audio), size=96))
        chosen = rng.permutation(len(said.tags))[:128]
        texts = tokenizer(said.say(chosen, rng), padding=True, return_tensors="pt")["input_ids"]
        true = torch.as_tensor(said.true[rows][:, chosen], dtype=torch.float32)
        with torch.autocast("cpu", torch.bfloat16):
            statements, whole = (_read(model, tokens) for tokens in (texts, corpus.whole.draw(rows, rng)[0]))
        loss = truth_loss(scale * audio[rows] @ statements.float().T, true)
        loss = loss + _contrast(scale * audio[rows] @ whole.float().T)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        for group in optimiser.param_groups:
            group["lr"] = TUNE_RATE * min(1.0, (step + 1) / 50, 1 - step / TUNE_STEPS)
        optimiser.step()
        if step % 20 == 0:
            logger.info("text step %d of %d, loss %.3f", step, TUNE_STEPS, loss.item())


@torch.no_grad()
def _hear(model: ClapModel, mel: torch.Tensor) -> torch.Tensor:
    longer = torch.zeros(len(mel), 1, dtype=torch.bool)
    return model.get_audio_features(input_features=mel.float()[:, None], is_longer=longer).pooler_output


def _read(model: ClapModel, tokens: torch.Tensor) -> torch.Tensor:
    return model.get_text_features(input_ids=tokens, attention_mask=(tokens != PAD).long()).pooler_output


def save(model: ClapModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """The checkpoint in transformers' layout, weights in float16."""
    model.eval().half().save_pretrained(folder)
    model.float()
    tokenizer.save_pretrained(folder)
    EXTRACTOR.save_pretrained(folder)


def build(folder: Path, epochs: int) -> dict[str, float]:
    """Train, save and measure; returns what `clap_quality.measure` found on sets held out."""
    sets, held_out = tag_sets()
    texts = SaidSets(
        [clap_data.sayings(tags, NUM_SAYINGS, derive(SEED, "sayings", i)) for i, tags in enumerate(sets)],
        [clap_data.part_sayings(tags, NUM_PARTS, derive(SEED, "parts", i)) for i, tags in enumerate(sets)],
    )
    tokenizer = make_tokenizer([text for group in texts.whole for text in group])
    corpus = prepare(sets, tokenizer, texts)
    torch.manual_seed(derive(SEED, "weights") % 2**32)
    model = ClapModel(model_config(len(tokenizer)))
    heard = [attributes(clap_data.flat(tags), derive(SEED, "clip", i)) for i, tags in enumerate(sets)]
    train(model, corpus, epochs)
    save(model, tokenizer, folder)  # the second lesson goes on from what float16 keeps, so that it can be run alone
    tune_texts(model, tokenizer, corpus, make_statements(sets, heard, attributes))
    save(model, tokenizer, folder)
    quality = measure(str(folder), held_out, derive(SEED, "held out"))
    report = {**quality, "epochs": epochs, "train_clips": len(sets)}
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
