"""What the embedded CLAP learns from: tag sets, their clips, and many ways to say each set."""

from __future__ import annotations

import ast
from collections.abc import Sequence

import numpy as np

from conceptcaps.alignment.tags import PROMPTS
from conceptcaps.assets.corpus import load_corpus, load_taxonomy
from conceptcaps.assets.tag_words import TagSet
from conceptcaps.audio.arrangement import arrange
from conceptcaps.audio.procedural import render
from conceptcaps.captions.grammar import GrammarCaptioner
from conceptcaps.seeding import derive, generator
from conceptcaps.vocabulary import CATEGORIES, Vocabulary

FRAMES = ("{}", "{}.", "music with {}", "A recording that features {}.", "This song has {}.", "tags: {}")
"""What a list of tags is said in."""


def corpus_sets() -> list[TagSet]:
    """The distinct tag sets of the embedded corpus, in its order."""
    vocabulary = load_taxonomy()
    rows = [tuple(sorted(ast.literal_eval(row["aspect_list"]))) for row in load_corpus()]
    return [_split(tags, vocabulary) for tags in dict.fromkeys(rows)]


def _split(tags: Sequence[str], vocabulary: Vocabulary) -> TagSet:
    columns = vocabulary.columns(tags)
    return {category: columns[f"{category}_aspects"] for category in CATEGORIES}


def flat(tags: TagSet) -> list[str]:
    """All tags of a set."""
    return [tag for group in tags.values() for tag in group]


def clip(tags: TagSet, seed: int, seconds: float, rate: int) -> np.ndarray:
    """float32 (samples,): a set as the synthesiser renders it under a seed."""
    return render(arrange(flat(tags), seed), seconds, rate, seed)[0]


def sayings(tags: TagSet, number: int, seed: int) -> list[str]:
    """Texts that say a whole set: captions of the grammar, and lists of the tags in any order, some framed."""
    grammar = GrammarCaptioner()
    columns = {f"{category}_aspects": [group] for category, group in tags.items()}
    texts = []
    for i in range(number):
        rng = generator(seed, "saying", i)
        if rng.random() < 0.7:
            texts.append(grammar({**columns, "aspect_list": [flat(tags)], "seed": [derive(seed, "grammar", i)]})[0])
        else:
            listed = ", ".join(str(tag) for tag in rng.permutation(flat(tags)))
            texts.append(_pick(FRAMES, rng).format(listed))
    return texts


def part_sayings(tags: TagSet, number: int, seed: int) -> list[tuple[str, list[str]]]:
    """(text, the tags it says): one tag of a set, now and then two, in the prompts that tags are verified by."""
    found = []
    for i in range(number):
        rng = generator(seed, "part", i)
        said = [str(tag) for tag in rng.permutation(flat(tags))][: 1 + int(rng.random() < 0.25)]
        category = next(category for category, group in tags.items() if said[0] in group)
        found.append((_pick(PROMPTS[category], rng).format(" and ".join(said)), said))
    return found


def _pick(options: Sequence[str], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]
