"""From tags to an arrangement: what is to be heard, settled and complete, before a sample is made."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np

from conceptcaps.audio.keywords import Cues, read
from conceptcaps.audio.patterns import PATTERNS, Pattern
from conceptcaps.audio.timbres import TIMBRES
from conceptcaps.seeding import generator

Mode = Literal["major", "minor"]
Feel = Literal["straight", "swing", "half_time", "waltz", "free"]
Voice = Literal["male", "female", "duet"]
_Choice = TypeVar("_Choice")
_MOST_INSTRUMENTS = 3


@dataclass(frozen=True)
class Arrangement:
    """Every attribute of a clip that can be heard and measured. Flip one with `dataclasses.replace`.

    Attributes:
        bpm: beats per minute.
        key: pitch class of the tonic, 0 is C.
        mode: scale and chords; minor is played lower.
        pattern: how the bar is divided (`patterns.PATTERNS`).
        percussion: whether there are drums at all.
        kit: acoustic or electronic drums.
        hits: drums that stand out beside the pattern's own, e.g. ('clap',).
        bass: whether there is a bass line.
        lead: instrument of the melody (`instruments.TIMBRES`).
        others: instruments of the chords; empty: the lead plays them too.
        voice: who sings; None: nobody.
        spoken: syllables are spoken in rhythm instead of sung.
        expressive: melody notes swell, the voice has a deeper vibrato.
        brightness: spectral tilt in [0, 1], dark to bright; 0.5 leaves the spectrum as it is.
        energy: loudness and playing in [0, 1], soft to energetic.
        space: reverberation in [0, 1].
        syncopated: chords and bass off the beat, drums with strokes between.
        tense: chords tremble, with tones outside the scale.
        bass_style: bass, synth_bass, deep_bass, or walking (four notes a bar).
        choir: several singers hold chords, instead of one who sings a melody.
        feel: straight, swing (late off-beats), half_time (one snare a bar), waltz (three beats), free (unsteady).
        arpeggio: chords are played note by note, in sixteenths up and down.
        march: a snare roll on every beat.
        hypnotic: instead of a melody two notes in sixteenths, the same in every bar.
        playful: short, detached melody notes.
    """

    bpm: float = 100.0
    key: int = 0
    mode: Mode = "major"
    pattern: str = "backbeat"
    percussion: bool = True
    kit: str = "acoustic"
    hits: tuple[str, ...] = ()
    bass: bool = True
    lead: str = "piano"
    others: tuple[str, ...] = ()
    voice: Voice | None = None
    spoken: bool = False
    expressive: bool = False
    brightness: float = 0.5
    energy: float = 0.5
    space: float = 0.15
    syncopated: bool = False
    tense: bool = False
    bass_style: str = "bass"
    choir: bool = False
    feel: Feel = "straight"
    arpeggio: bool = False
    march: bool = False
    hypnotic: bool = False
    playful: bool = False

    def __post_init__(self) -> None:
        assert self.pattern in PATTERNS, self.pattern
        assert {self.lead, *self.others} <= set(TIMBRES), (self.lead, self.others)
        assert 20 <= self.bpm <= 400, self.bpm


def arrange(tags: Iterable[str], seed: int) -> Arrangement:
    """The arrangement that a set of tags asks for; what the tags leave open is drawn from the seed.

    Each attribute draws from a generator of its own, so stating one leaves the others as they were. A refusal ('no
    percussion') wins over a request ('drums').
    """
    cues = read(tags)
    pattern_name = _pick(cues.patterns or cues.leanings, seed, "pattern") or _draw(tuple(PATTERNS), seed, "pattern")
    pattern = PATTERNS[pattern_name]
    lead, others = _instruments(cues, pattern, seed)
    return Arrangement(
        bpm=_bpm(cues, pattern, seed),
        key=int(generator(seed, "key").integers(12)),
        mode=_mode(cues, seed),
        pattern=pattern_name,
        percussion=_part("percussion", cues, pattern.percussion, seed),
        kit=_pick(cues.kit, seed, "kit") or pattern.kit,
        hits=tuple(sorted(set(cues.hits) - cues.off)),
        bass=_part("bass", cues, pattern.bass_line, seed),
        lead=lead,
        others=others,
        voice=_voice(cues, pattern, seed),
        spoken="spoken" in cues.flags,
        expressive="expressive" in cues.flags,
        brightness=_level(cues.brightness, (0.4, 0.6), seed, "brightness"),
        energy=_level(cues.energy, (0.4, 0.6), seed, "energy"),
        space=_level(cues.space, (pattern.space, pattern.space), seed, "space"),
        syncopated="syncopated" in cues.flags,
        tense="tense" in cues.flags,
        bass_style=_pick(cues.bass_style, seed, "bass style") or _usual_bass(pattern_name),
        choir="choir" in cues.flags,
        feel=_feel(cues, pattern, seed),
        arpeggio="arpeggio" in cues.flags,
        march="march" in cues.flags,
        hypnotic="hypnotic" in cues.flags,
        playful="playful" in cues.flags,
    )


def _uniform(seed: int, name: str) -> float:
    return float(generator(seed, name).random())


def _draw(options: Sequence[_Choice], seed: int, name: str) -> _Choice:
    return options[int(_uniform(seed, name) * len(options))]


def _pick(votes: Sequence[str], seed: int, name: str) -> str | None:
    """The value most often named; among equals, drawn from the seed."""
    if not votes:
        return None
    most = max(votes.count(v) for v in votes)
    return _draw(sorted({v for v in votes if votes.count(v) == most}), seed, name)


def _bpm(cues: Cues, pattern: Pattern, seed: int) -> float:
    """Within the family named, or the middle of several; else as the pattern likes it."""
    low, high = np.mean(cues.tempo, axis=0) if cues.tempo else pattern.bpm
    return round(float(low + (high - low) * _uniform(seed, "bpm")), 2)


def _mode(cues: Cues, seed: int) -> Mode:
    balance = cues.mode.count("major") - cues.mode.count("minor")
    if balance:
        return "major" if balance > 0 else "minor"
    return "major" if _uniform(seed, "mode") < 0.5 else "minor"


def _part(name: str, cues: Cues, probability: float, seed: int) -> bool:
    if name in cues.off:
        return False
    return name in cues.on or _uniform(seed, name) < probability


def _usual_bass(pattern: str) -> str:
    if pattern in ("swing", "blues"):
        return "walking"
    return "synth_bass" if PATTERNS[pattern].kit == "electronic" else "bass"


def _feel(cues: Cues, pattern: Pattern, seed: int) -> Feel:
    match _pick(cues.feel, seed, "feel"):
        case "swing":
            return "swing"
        case "half_time":
            return "half_time"
        case "waltz":
            return "waltz"
        case "free":
            return "free"
        case _:
            return "swing" if pattern.swing else "straight"


def _voice(cues: Cues, pattern: Pattern, seed: int) -> Voice | None:
    wanted = {"male", "female"} & cues.on - cues.off
    if "voice" in cues.off or not ("voice" in cues.on or _uniform(seed, "voice") < pattern.voice):
        return None
    if len(wanted) == 2:
        return "duet"
    if "male" in wanted or "female" in cues.off:
        return "male"
    if "female" in wanted or "male" in cues.off:
        return "female"
    return "male" if _uniform(seed, "voice kind") < 0.5 else "female"


def _instruments(cues: Cues, pattern: Pattern, seed: int) -> tuple[str, tuple[str, ...]]:
    """The lead and the rest. Melodic instruments lead, and have someone play the chords for them."""
    named = sorted(set(cues.instruments) - cues.off)
    if not named:
        allowed = [name for name in pattern.instruments if name not in cues.off] or ["piano"]
        named = [_draw(allowed, seed, "lead")]
    order = generator(seed, "lead order").permutation(len(named))
    named = sorted((named[i] for i in order), key=lambda name: not TIMBRES[name].melodic)[:_MOST_INSTRUMENTS]
    lead, others = named[0], tuple(named[1:])
    if not any(not TIMBRES[name].melodic for name in named):
        others = (*others[: _MOST_INSTRUMENTS - 2], pattern.accompaniment)
    return lead, others


def _level(votes: Sequence[float], unstated: tuple[float, float], seed: int, name: str) -> float:
    """The mean of what the tags say, or a draw between two bounds."""
    if votes:
        return round(float(np.mean(votes)), 4)
    return round(unstated[0] + (unstated[1] - unstated[0]) * _uniform(seed, name), 4)
