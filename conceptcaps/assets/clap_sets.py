"""Tag sets that the embedded CLAP is taught beyond the corpus: composed as annotators compose them.

An annotation names a thing more than once ('drum machine, punchy kick'), qualifies it ('soft piano melody'), gives
several moods that agree, and refuses now and then ('no vocals'). Sets are drawn likewise, from the synthesiser's own
dictionary (`audio.words`): part by part, each with one or several phrases, moods near one point of affect.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np

from conceptcaps.assets.tag_words import TagSet, composed_tag
from conceptcaps.audio.keywords import read
from conceptcaps.audio.words import WORDS, Value
from conceptcaps.seeding import generator

_COMMON = {
    "patterns": ("backbeat", "rock", "four_on_the_floor"),
    "instruments": ("piano", "keyboard", "acoustic_guitar", "electric_guitar"),
    "hits": ("kick", "snare"),
}
"""What most recorded music has."""
FEWEST, MOST = 3, 12
"""Tags of a set."""

_SINGERS = "voice; vocal; vocals; singer; vocalist; voice singing; voices; lead vocal; singing"
_SEXES = "male; male; male; female; female; female; "
_SUNG = (
    "passionate; flat; soft; emotional; soulful; powerful; gentle; melodic; expressive; rap; spoken; harmonized; "
    "energetic; sad; sensual; breathy; echoing; mellow"
)
_STRUCK = (
    "punchy; steady; shimmering; soft; strong; simple; energetic; groovy; tight; syncopated; slick; loud; gentle; "
    "rhythmic; crisp; heavy"
)
_LOW = "groovy; deep; heavy; steady; punchy; simple; warm; driving; subtle; syncopated; soft; melodic"
_PITCHED = (
    "soft; mellow; groovy; bright; warm; gentle; distorted; rhythmic; sad; emotional; playful; dreamy; shimmering; "
    "repetitive; arpeggiated; melodic; harsh; echoing; aggressive; upbeat; simple; sustained"
)
_DRUM_PARTS = "drumming; drumming rhythm; drum rhythm; drum beat; percussion; beat; drums; percussive rhythm; groove"
_BASS_PARTS = "bass; bass line; bassline; bass lines; bass guitar; e bass; synth bass; double bass; bass rhythm"
_PARTS = (
    "accompaniment; harmony; chords; melody; solo; riff; line; rhythm; arpeggio; notes; lead; chord progression; sound"
)
_PULSES = (
    "groovy; groovy rhythm; groovy music; dance rhythm; dance groove; dance beat; rhythmic; steady rhythm; rhythmic "
    "beat; groovy beat; syncopated rhythm; syncopated; syncopated harmony; polyrhythm; steady beat; rhythm; rhythmic "
    "pattern; contemporary; strong rhythm; rising pattern; funky groove; lively rhythm; rhythmic speech; beatboxing; "
    "four on the floor; half time beat; swing rhythm; waltz rhythm; free rhythm; march rhythm"
)
_REFUSALS = {
    "voice": (
        "no voices; no singer; no vocals; no voice; no vocal; no singing; instrumental; without vocals; no singers"
    ),
    "drums": "no percussion; no drums; without percussion; no drum; no beat; without drums",
    "bass": "no bass; no bass line; without bass; no bassline",
}


def composed_sets(number: int, seed: int) -> list[TagSet]:
    """Tag sets by (seed, index), most of them of three to nine tags."""
    return [_composed_set(generator(seed, "composed set", i)) for i in range(number)]


def _composed_set(rng: np.random.Generator) -> TagSet:
    tags = {
        "genre": _several(rng, (0.25, 0.53, 0.16, 0.06), lambda: _genre(rng)),
        "mood": _moods(rng),
        "instrument": [*_voice(rng), *_drums(rng), *_bass(rng), *_players(rng)],
        "tempo": _several(rng, (0.18, 0.62, 0.15, 0.05), lambda: _movement(rng)),
    }
    for category, group in tags.items():
        if rng.random() < 0.06:
            group.append(composed_tag(category, rng))
        tags[category] = [group[i] for i in rng.permutation(len(group))]
    tags = {category: list(dict.fromkeys(_spelt(tag, rng) for tag in group)) for category, group in tags.items()}
    return tags if FEWEST <= sum(map(len, tags.values())) <= MOST else _composed_set(rng)


def _spelt(tag: str, rng: np.random.Generator) -> str:
    """Plural, or hyphenated, now and then: annotators write 'e-bass' and 'hi-hats'."""
    if tag.startswith(("e ", "hi ", "lo ", "half ")) and rng.random() < 0.6:
        tag = tag.replace(" ", "-", 1)
    plural = tag[-1:].isalpha() and not tag.endswith(("s", "ing", "music")) and rng.random() < 0.12
    return tag + "s" * plural


def _genre(rng: np.random.Generator) -> str:
    named = _of("patterns", rng)
    return f"{named} {_one('music; song; music; track', rng)}" if rng.random() < 0.2 else named


def _moods(rng: np.random.Generator) -> list[str]:
    """Moods around one level of energy and in one mode; now and then moods that disagree."""
    words, energy, minor, common = _affects()
    level, sad = rng.random(), float(rng.random() < 0.5)
    apart = np.where(np.isnan(energy), 0.3, np.abs(energy - level))
    weights = common * np.exp(-((apart / 0.2) ** 2)) * np.where(np.abs(minor - sad) == 1, 0.1, 1.0)
    if rng.random() < 0.15:
        weights = common
    number = int(rng.choice(6, p=(0.2, 0.33, 0.25, 0.13, 0.06, 0.03)))
    chosen = rng.choice(len(words), number, replace=False, p=weights / weights.sum())
    return [words[i] + " mood" * (rng.random() < 0.03) for i in chosen]


@lru_cache(maxsize=1)
def _affects() -> tuple[list[str], np.ndarray, np.ndarray, np.ndarray]:
    """(moods; their energy, NaN for none; 1 for minor, 0 for major, NaN for neither; how common they are).

    The words for which the dictionary has most to say are those that annotators have most use for.
    """
    kinds = ("mode", "brightness", "energy", "space", "flags")
    told = [word for kind in kinds for value in WORDS[kind] for word in _phrases(kind, value)]
    words = sorted(set(told))
    cues = [read([word]) for word in words]
    energy = np.array([np.mean(cue.energy) if cue.energy else np.nan for cue in cues])
    minor = np.array([float(cue.mode[0] == "minor") if cue.mode else np.nan for cue in cues])
    return words, energy, minor, np.array([told.count(word) ** 2.0 for word in words])


def _voice(rng: np.random.Generator) -> list[str]:
    draw = rng.random()
    if draw < 0.12:
        return [_one(_REFUSALS["voice"], rng)]
    if draw > 0.56:
        return []
    sex = _one(_SEXES, rng)

    def phrase() -> str:
        if rng.random() < 0.12:
            return _of("on", rng, sex or "voice")
        quality = _one(_SUNG, rng) if rng.random() < 0.35 else ""
        return " ".join(f"{quality} {sex} {_one(_SINGERS, rng)}".split())

    return _several(rng, (0, 0.75, 0.2, 0.05), phrase)


def _drums(rng: np.random.Generator) -> list[str]:
    draw = rng.random()
    if draw < 0.08:
        return [_one(_REFUSALS["drums"], rng)]
    if draw > 0.62:
        return []
    kit = ("acoustic", "electronic")[int(rng.integers(2))]

    def phrase() -> str:
        draw = rng.random()
        if draw < 0.3:
            found = _of("kit", rng, kit)
        elif draw < 0.65:
            found = _of("hits", rng)
        elif draw < 0.8:
            found = _of("on", rng, "percussion")
        else:
            return f"{_one(_STRUCK, rng)} {_one(_DRUM_PARTS, rng)}"
        return f"{_one(_STRUCK, rng)} {found}" if rng.random() < 0.4 else found

    return _several(rng, (0, 0.45, 0.3, 0.15, 0.1), phrase)


def _bass(rng: np.random.Generator) -> list[str]:
    draw = rng.random()
    if draw < 0.04:
        return [_one(_REFUSALS["bass"], rng)]
    if draw > 0.45:
        return []

    def phrase() -> str:
        found = _of("bass_style", rng) if rng.random() < 0.4 else _one(_BASS_PARTS, rng)
        return f"{_one(_LOW, rng)} {found}" if rng.random() < 0.4 else found

    return _several(rng, (0, 0.8, 0.2), phrase)


def _players(rng: np.random.Generator) -> list[str]:
    def phrase() -> str:
        found = _of("instruments", rng)
        found = f"{found} {_one(_PARTS, rng)}" if rng.random() < 0.3 else found
        return f"{_one(_PITCHED, rng)} {found}" if rng.random() < 0.25 else found

    return _several(rng, (0.3, 0.42, 0.2, 0.08), phrase)


def _movement(rng: np.random.Generator) -> str:
    draw = rng.random()
    if draw < 0.62:
        return _of("tempo", rng)
    if draw < 0.68:
        return _of("feel", rng)
    if draw < 0.76:
        return f"{_one(_STRUCK, rng)} {_one(_DRUM_PARTS, rng)}"
    if draw < 0.84:
        return f"{_one('groovy; rhythmic; syncopated', rng)} {_of('instruments', rng)}"
    return _one(_PULSES, rng)


def _several(rng: np.random.Generator, odds: Sequence[float], draw: Callable[[], str]) -> list[str]:
    """As many draws as the odds of none, one, two... say."""
    return [draw() for _ in range(int(rng.choice(len(odds), p=np.divide(odds, sum(odds)))))]


def _of(kind: str, rng: np.random.Generator, value: Value | None = None) -> str:
    """A phrase of a table of the dictionary: of one value, or of any, the common ones more often."""
    values: Sequence[Value] = [known for known in WORDS[kind] if known is not None]
    if kind in _COMMON and rng.random() < 0.3:
        values = _COMMON[kind]
    wanted = values[int(rng.integers(len(values)))] if value is None else value
    found = _phrases(kind, wanted)
    return found[int(rng.integers(len(found)))]


def _phrases(kind: str, value: Value | None) -> list[str]:
    return [] if value is None else WORDS[kind][value].split("; ")


def _one(listed: str, rng: np.random.Generator) -> str:
    options = listed.split("; ")
    return options[int(rng.integers(len(options)))].strip()
