"""What the embedded CLAP learns from: tag sets, their clips, and many ways to say each set."""

from __future__ import annotations

import ast
from collections.abc import Sequence

import numpy as np

from conceptcaps.assets.corpus import load_corpus, load_taxonomy
from conceptcaps.audio.arrangement import arrange
from conceptcaps.audio.procedural import render
from conceptcaps.audio.words import WORDS
from conceptcaps.captions.grammar import GrammarCaptioner
from conceptcaps.seeding import derive, generator
from conceptcaps.vocabulary import Vocabulary

_FREE_KINDS = {
    "genre": (("patterns", 0.9, 2),),
    "mood": (("mode", 0.4, 1), ("brightness", 0.3, 1), ("energy", 0.35, 1), ("flags", 0.25, 1), ("space", 0.15, 1)),
    "instrument": (("instruments", 0.9, 3), ("hits", 0.3, 1), ("bass_style", 0.3, 1), ("on", 0.7, 2), ("kit", 0.2, 1)),
    "tempo": (("tempo", 0.7, 1), ("feel", 0.15, 1)),
}
"""category -> (table of words, how likely it is drawn from, most tags drawn)."""

TagSet = dict[str, list[str]]
"""category -> tags."""


def corpus_sets() -> list[TagSet]:
    """The distinct tag sets of the embedded corpus, in its order."""
    vocabulary = load_taxonomy()
    rows = [tuple(sorted(ast.literal_eval(row["aspect_list"]))) for row in load_corpus()]
    return [_split(tags, vocabulary) for tags in dict.fromkeys(rows)]


def _split(tags: Sequence[str], vocabulary: Vocabulary) -> TagSet:
    columns = vocabulary.columns(tags)
    return {category: columns[f"{category}_aspects"] for category in _FREE_KINDS}


def free_sets(number: int, seed: int) -> list[TagSet]:
    """Tag sets in words that the corpus does not use: any that the synthesiser knows, negations among them."""
    return [_free_set(generator(seed, "free set", i)) for i in range(number)]


def _free_set(rng: np.random.Generator) -> TagSet:
    tags: TagSet = {}
    for category, kinds in _FREE_KINDS.items():
        found: list[str] = []
        for kind, probability, most in kinds:
            if rng.random() < probability:
                values = [value for value in WORDS[kind] if value is not None]
                for _ in range(int(rng.integers(1, most + 1))):
                    phrases = WORDS[kind][values[int(rng.integers(len(values)))]].split("; ")
                    found.append(phrases[int(rng.integers(len(phrases)))])
        tags[category] = list(dict.fromkeys(found))
    refusals = ("no percussion", "no voices", "no singer", "instrumental", "no drums", "no bass", "no vocals")
    if rng.random() < 0.3:
        tags["instrument"].append(refusals[int(rng.integers(len(refusals)))])
    return tags if sum(map(len, tags.values())) >= 2 else _free_set(rng)


def flat(tags: TagSet) -> list[str]:
    """All tags of a set."""
    return [tag for group in tags.values() for tag in group]


def clip(tags: TagSet, seed: int, seconds: float, rate: int) -> np.ndarray:
    """float32 (samples,): a set as the synthesiser renders it under a seed."""
    return render(arrange(flat(tags), seed), seconds, rate, seed)[0]


def sayings(tags: TagSet, number: int, seed: int) -> list[str]:
    """Texts for a set: captions of the grammar, and tag lists in any order, some framed, some of a part only."""
    grammar = GrammarCaptioner()
    columns = {f"{category}_aspects": [group] for category, group in tags.items()}
    texts = []
    for i in range(number):
        rng = generator(seed, "saying", i)
        draw = rng.random()
        if draw < 0.55:
            texts.append(grammar({**columns, "aspect_list": [flat(tags)], "seed": [derive(seed, "grammar", i)]})[0])
        else:
            said = rng.permutation(flat(tags))
            if draw > 0.85:
                said = said[: int(rng.integers(1, len(said) + 1))]
            listed = ", ".join(str(tag) for tag in said)
            frame = ("{}", "{}.", "music with {}", "A recording that features {}.", "This song has {}.", "tags: {}")
            texts.append(frame[int(rng.integers(len(frame)))].format(listed))
    return texts
