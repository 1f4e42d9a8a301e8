"""Engine `grammar`: tags to a caption by seeded templates, embedded and instant.

Every tag is said word for word, so that coverage can be checked by search. What a tag is (an adjective, a thing that
sounds, an absence) is read off its own words, never looked up in a taxonomy, so any tag of any taxonomy can be said.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from conceptcaps.seeding import generator
from conceptcaps.vocabulary import CATEGORIES, aspects_column

if TYPE_CHECKING:
    from conceptcaps.config.captions import CaptionsConfig
    from conceptcaps.engines import Batch

MIN_WORDS = 20
"""Shorter captions are lengthened by sentences that say nothing new."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_COUNTABLE = _words(
    """accompaniment arpeggio banjo bassline beat bongo cello chant choir chord clarinet crowd cymbal drone drum
    ensemble feel fiddle flute groove guitar guitarist harmonica harmony harp harpsichord kick keyboard lead line loop
    lute mandolin melody mood oboe orchestra organ pad pattern piano pulse quartet rapper rhythm riff sample saxophone
    section singer sitar snare solo song soprano soundtrack string synth synthesizer tambourine tempo tenor track
    trombone trumpet tuba ukulele vibe vibraphone violin vocal vocalist voice
    e-guitar atmosphere"""
)
_NEVER_COUNTABLE = frozenset({"percussion", "bass", "e-bass"})
_PULSE_ADJECTIVES = _words(
    """uptempo downtempo upbeat slow fast slower faster medium moderate groovy rhythmic syncopated contemporary lively
    brisk steady danceable driving bouncy swinging relaxed lazy quick rapid uneven rubato"""
)
_MOOD_NOUNS = frozenset({"mood", "feel", "feeling", "vibe", "vibes", "atmosphere", "dancing", "emotion", "emotions"})
_ABSENCE = ("no ", "without ", "lack of ", "absence of ")

_NOUNS = ("piece", "track", "recording", "composition", "tune")
_GENRE_ONE = ("in {a} {tags} style", "with {a} {tags} character", "rooted in {a} {tags} sound")
_GENRE_MANY = ("with {tags} influences", "that blends {tags} elements", "drawing on {tags} styles")
_GENRE_ALONE = ("{It} has {a} {tags} character", "The style is {tags}")
_MOOD = (
    "{It} has {a} {tags} atmosphere",
    "The overall feeling is {tags}",
    "{It} sets {a} {tags} mood",
    "The mood is {tags}",
)
_INSTRUMENT = (
    "{It} features {tags}",
    "The arrangement includes {tags}",
    "One can hear {tags}",
    "{It} is built on {tags}",
)
_ABSENT = ("{It} has {tags}", "Notably, there is {tags}", "The arrangement has {tags}")
_PULSE = ("{It} has {a} {tags} pulse", "The pace is {tags}", "The playing feels {tags}")
_TEMPO = ("{It} moves at {tags}", "{It} is played at {tags}", "The music goes at {tags}")
_RHYTHM = ("The rhythm rests on {tags}", "Its movement comes from {tags}", "The rhythm is shaped by {tags}")
_MOOD_NOUN = ("{It} conveys {tags}", "{It} suggests {tags}")
_LEFT_OVER = ("Further qualities are {tags}", "Other words for it are {tags}")
_CLOSERS = (
    "This character holds from beginning to end",
    "The recording keeps to this description throughout",
    "These qualities stay in place for the whole excerpt",
    "Nothing in the excerpt departs from this description",
)
_SUBJECTS = ("It", "The piece", "The music", "This piece")


class GrammarCaptioner:
    """Captions by templates; a row's caption depends on its tags and its seed only.

    Args:
        config: section `captions`; the grammar needs none of its keys.
    """

    def __init__(self, config: CaptionsConfig | None = None):
        self.config = config

    def __call__(self, batch: Batch) -> list[str]:
        """One caption per row, from the aspect columns and `seed`; uncategorised tags of `aspect_list` are said too."""
        captions = []
        for i, seed in enumerate(batch["seed"]):
            tags = {c: list(batch[aspects_column(c)][i] or ()) for c in CATEGORIES if aspects_column(c) in batch}
            listed = batch["aspect_list"][i] or () if "aspect_list" in batch else ()
            said = {tag for group in tags.values() for tag in group}
            tags["other"] = [tag for tag in listed if tag not in said]
            captions.append(describe_tags(tags, generator(int(seed), "caption", "grammar")))
        return captions


def describe_tags(tags: dict[str, list[str]], rng: np.random.Generator) -> str:
    """A caption that says every tag.

    Args:
        tags: category -> tags; categories other than the four are said as further qualities.
        rng: chooses wordings and the order of sentences.
    """
    opening = _opening(tags.get("genre", []), rng)
    parts = _beside_genre(tags, rng)
    order = rng.permutation(len(parts))
    sentences = [opening, *(parts[i] for i in order)]
    if other := tags.get("other"):
        sentences.append(_say(_LEFT_OVER, other, rng))
    for i in rng.permutation(len(_CLOSERS)):
        if sum(len(s.split()) for s in sentences) >= MIN_WORDS:
            break
        sentences.append(_CLOSERS[i])
    return " ".join(f"{sentence}." for sentence in sentences)


def say_tags(tags: dict[str, list[str]], rng: np.random.Generator) -> str:
    """Sentences that say every tag, to go behind a caption that does not; arguments as of `describe_tags`."""
    genres, absent = _split_absent(tags.get("genre", []))
    sentences = [_say(_GENRE_ALONE, genres, rng)] if genres else []
    sentences += [*_absences(absent, rng), *_beside_genre(tags, rng)]
    if other := tags.get("other"):
        sentences.append(_say(_LEFT_OVER, other, rng))
    return " ".join(f"{sentence}." for sentence in sentences)


def _beside_genre(tags: dict[str, list[str]], rng: np.random.Generator) -> list[str]:
    return [
        *_mood(tags.get("mood", []), rng),
        *_instruments(tags.get("instrument", []), rng),
        *_tempo(tags.get("tempo", []), rng),
    ]


def is_absence(tag: str) -> bool:
    """Whether the tag denies something, e.g. 'no voices'."""
    return tag.lower().startswith(_ABSENCE)


def _opening(genres: list[str], rng: np.random.Generator) -> str:
    noun = _pick(_NOUNS, rng)
    start = f"{_pick(('This is', 'Here is', 'We hear'), rng)} {article(noun)} {noun}"
    genres, absent = _split_absent(genres)
    if genres:
        start += " " + _fill(_pick(_GENRE_ONE if len(genres) == 1 else _GENRE_MANY, rng), genres, rng)
    return f"{start}, with {enumerate_words(absent)}" if absent else start


def _mood(moods: list[str], rng: np.random.Generator) -> list[str]:
    moods, absent = _split_absent(moods)
    nouns = [m for m in moods if m.lower().split()[-1:] and m.lower().split()[-1] in _MOOD_NOUNS]
    adjectives = [m for m in moods if m not in nouns]
    sentences = [_say(_MOOD, adjectives, rng)] if adjectives else []
    if nouns:
        sentences.append(_say(_MOOD_NOUN, [with_article(n) for n in nouns], rng))
    return sentences + _absences(absent, rng)


def _instruments(instruments: list[str], rng: np.random.Generator) -> list[str]:
    present, absent = _split_absent(instruments)
    sentences = [_say(_INSTRUMENT, [with_article(p) for p in present], rng)] if present else []
    return sentences + _absences(absent, rng)


def _tempo(tempi: list[str], rng: np.random.Generator) -> list[str]:
    tempi, absent = _split_absent(tempi)
    named = [t for t in tempi if t.lower().endswith(" tempo")]
    pulse = [
        t for t in tempi if t not in named and t.lower().split()[-1:] and t.lower().split()[-1] in _PULSE_ADJECTIVES
    ]
    rhythm = [t for t in tempi if t not in named and t not in pulse]
    sentences = [_say(_TEMPO, [with_article(t) for t in named], rng)] if named else []
    if pulse:
        sentences.append(_say(_PULSE, pulse, rng))
    if rhythm:
        sentences.append(_say(_RHYTHM, [with_article(r) for r in rhythm], rng))
    return sentences + _absences(absent, rng)


def _absences(absent: list[str], rng: np.random.Generator) -> list[str]:
    return [_say(_ABSENT, absent, rng)] if absent else []


def _split_absent(tags: Sequence[str]) -> tuple[list[str], list[str]]:
    return [t for t in tags if not is_absence(t)], [t for t in tags if is_absence(t)]


def _say(patterns: Sequence[str], phrases: Sequence[str], rng: np.random.Generator) -> str:
    return _fill(_pick(patterns, rng), phrases, rng)


def _fill(pattern: str, phrases: Sequence[str], rng: np.random.Generator) -> str:
    listed = enumerate_words(phrases)
    # Plain replacement: a tag may hold braces.
    text = pattern.replace("{It}", _pick(_SUBJECTS, rng)).replace("{a}", article(listed))
    return text.replace("{tags}", listed)


def _pick(options: Sequence[str], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]


def enumerate_words(phrases: Sequence[str]) -> str:
    """'a', 'a and b', 'a, b and c'."""
    return phrases[0] if len(phrases) == 1 else f"{', '.join(phrases[:-1])} and {phrases[-1]}"


def article(phrase: str) -> str:
    """'a' or 'an', by the letters that sound like vowels at the start of musical words."""
    word = phrase.lower()
    if word.startswith(("8", "11", "18", "r&b", "mc ", "mp3", "fm ")):
        return "an"
    return "an" if word[:1] in tuple("aeiou") and not word.startswith(("uni", "uku", "use", "eu", "one")) else "a"


def with_article(phrase: str) -> str:
    """A noun phrase with its article where its last word is known to want one: 'a piano', 'strings'."""
    words = phrase.lower().split()
    if not words or words[0] in {"a", "an", "the", "some", "two", "three"}:
        return phrase
    head = words[-1]
    wants = head in _COUNTABLE and head not in _NEVER_COUNTABLE
    return f"{article(phrase)} {phrase}" if wants else phrase
