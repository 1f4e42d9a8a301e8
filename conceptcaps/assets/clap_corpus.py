"""What the embedded CLAP learns from, as tensors: rendered clips, what is heard in them, tokens of what is said."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import ClapFeatureExtractor, PreTrainedTokenizerFast

from conceptcaps.alignment.mel import MelFrontEnd
from conceptcaps.assets import clap_data
from conceptcaps.assets.clap_sets import composed_sets
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
MAX_TOKENS, PAD = 126, 1

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
        index: numbers of attributes.
        attributes: float16 (num_clips, num_attributes) in {0, 1}, what was rendered.
        whole: texts of the whole set.
        parts: texts of parts of it.
    """

    mel: torch.Tensor
    index: Index
    attributes: torch.Tensor
    whole: Texts
    parts: Texts


@dataclass(frozen=True)
class Index:
    """Attributes as numbers, by the words of `attributes`."""

    numbers: dict[str, int]

    @classmethod
    def of(cls, heard: list[list[str]]) -> Index:
        """Of all words that some clips have."""
        return cls({word: k for k, word in enumerate(sorted({word for words in heard for word in words}))})

    def shares(self, groups: list[list[str]]) -> torch.Tensor:
        """float16 (num_attributes,): the share of groups that hold each word."""
        shares = torch.zeros(len(self.numbers), dtype=torch.float16)
        for group in groups:
            shares[[self.numbers[word] for word in group if word in self.numbers]] += 1 / len(groups)
        return shares

    def likely(self, tags: Sequence[str], number: int = NUM_ARRANGED) -> torch.Tensor:
        """float16 (num_attributes,): the share of arrangements of some tags that have each attribute."""
        return self.shares([attributes(tags, derive(SEED, "likely", k)) for k in range(number)])


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
        drawn, which = draw_tokens(self.tokens, rows, rng)
        return drawn, self.likely[rows, which % self.likely.shape[1]].float()


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


def heard_in(sets: list[TagSet]) -> list[list[str]]:
    """What the clips of `render_all` have, in words."""
    return [attributes(clap_data.flat(tags), derive(SEED, "clip", i)) for i, tags in enumerate(sets)]


def say_all(sets: list[TagSet], number: int = NUM_SAYINGS, name: str = "sayings") -> list[list[str]]:
    """Texts of each whole set, seeded by `name`."""
    return [clap_data.sayings(tags, number, derive(SEED, name, i)) for i, tags in enumerate(sets)]


def prepare(sets: list[TagSet], tokenizer: PreTrainedTokenizerFast, texts: SaidSets) -> Corpus:
    """Tokenise, and arrange and render what is said, once for all epochs."""
    flat = [clap_data.flat(tags) for tags in sets]
    heard = heard_in(sets)
    index = Index.of(heard)
    whole = Texts(tokenise(tokenizer, texts.whole), torch.stack([index.likely(tags) for tags in flat])[:, None])
    parts = Texts(
        tokenise(tokenizer, [[text for text, _ in group] for group in texts.parts]),
        torch.stack([torch.stack([index.likely(said) for _, said in group]) for group in texts.parts]),
    )
    return Corpus(render_all(sets), index, torch.stack([index.shares([words]) for words in heard]), whole, parts)


def draw_tokens(
    tokens: torch.Tensor, rows: torch.Tensor, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """One text of each row, int64 without padding that all share, and which it is."""
    which = torch.as_tensor(rng.integers(tokens.shape[1], size=len(rows)))
    drawn = tokens[rows, which].long()
    return drawn[:, : int((drawn != PAD).any(0).sum())], which


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


def tokenise(tokenizer: PreTrainedTokenizerFast, texts: list[list[str]]) -> torch.Tensor:
    """int32 (num_clips, num_texts, max_tokens)."""
    flat = [text for group in texts for text in group]
    tokens = tokenizer(flat, padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")["input_ids"]
    return tokens.reshape(len(texts), -1, tokens.shape[-1]).int()
