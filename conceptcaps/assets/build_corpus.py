"""Rebuild the embedded corpus: `python -m conceptcaps.assets.build_corpus`.

A row is drawn as music is made: a genre, a point on the circumplex of affect (valence and energy; Russell 1980) near
that genre's own, then tempo from the energy, moods near the point, and instruments, rhythm and voices by the genre's
habits. So tags co-occur, in pairs and beyond, and a model of tag sets has something to learn.
"""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from conceptcaps.assets.corpus import COLUMNS, CORPUS, load_taxonomy
from conceptcaps.captions.grammar import GrammarCaptioner
from conceptcaps.seeding import derive, generator
from conceptcaps.vocabulary import Vocabulary

SEED = 20
NUM_ROWS = 3000


@dataclass(frozen=True)
class Genre:
    """A genre's habits: its place in (valence, energy), and the relative weights of what sounds in it."""

    valence: float
    energy: float
    instruments: Mapping[str, float]
    rhythms: Mapping[str, float]
    drums: Mapping[str, float]  # '' is no mention; 'no percussion' among them
    voices: Mapping[str, float]


_SUNG = {"male voice": 4, "female voice": 4, "": 2, "no voices": 2}
_SHOUTED = {"male voice": 7, "female voice": 1, "": 2, "no voices": 1}
_INSTRUMENTAL = {"no voices": 6, "": 4, "female voice": 0.7, "choir": 0.7}
_CHORAL = {"choir": 4, "no voices": 4, "": 3}
_KIT = {"acoustic drums": 7, "": 1, "snare": 1, "hand percussion": 0.5}
_MACHINE = {"electronic drums": 6, "punchy kick": 4, "hi-hats": 2, "claps": 2, "": 1}
_NONE = {"no percussion": 7, "": 2, "hand percussion": 0.5}
_SMALL = {"shakers": 2, "hand percussion": 4, "no percussion": 3, "": 2, "acoustic drums": 1}

GENRES: dict[str, Genre] = {
    "rock": Genre(0.1, 0.6, {"electric guitar": 6, "bass guitar": 4, "distorted guitar": 4, "organ": 1},
                  {"steady beat": 5, "": 5}, _KIT, _SHOUTED),
    "pop": Genre(0.6, 0.4, {"piano": 3, "synth pad": 2, "acoustic guitar": 2, "synth bass": 2, "bass guitar": 2,
                            "plucked synth": 2}, {"steady beat": 5, "four on the floor": 2, "": 4},
                 {**_MACHINE, "acoustic drums": 4}, _SUNG),
    "classical": Genre(0.1, -0.3, {"piano": 5, "violin": 4, "strings": 4, "cello": 3, "flute": 2, "no bass": 1},
                       {"waltz rhythm": 2, "free rhythm": 2, "": 5}, _NONE, _INSTRUMENTAL),
    "jazz": Genre(0.3, 0.0, {"saxophone": 5, "piano": 4, "walking bass": 6, "trumpet": 3, "electric piano": 1},
                  {"swing rhythm": 7, "syncopated rhythm": 2, "": 2}, {**_KIT, "hi-hats": 3},
                  {**_INSTRUMENTAL, "female voice": 2}),
    "ambient": Genre(0.0, -0.8, {"synth pad": 7, "bells": 2, "no bass": 3, "strings": 1, "harp": 1},
                     {"free rhythm": 6, "arpeggiated pattern": 2, "": 3}, _NONE, _INSTRUMENTAL),
    "electronic": Genre(0.1, 0.3, {"synth lead": 4, "synth bass": 5, "synth pad": 3, "plucked synth": 3},
                        {"arpeggiated pattern": 4, "four on the floor": 3, "syncopated rhythm": 2, "": 2},
                        _MACHINE, _INSTRUMENTAL),
    "techno": Genre(-0.3, 0.7, {"synth bass": 5, "deep bass": 4, "synth lead": 3, "plucked synth": 2},
                    {"four on the floor": 8, "": 2}, _MACHINE, _INSTRUMENTAL),
    "house": Genre(0.5, 0.6, {"piano": 3, "synth bass": 4, "electric piano": 2, "synth pad": 2, "deep bass": 2},
                   {"four on the floor": 8, "": 2}, _MACHINE, {**_INSTRUMENTAL, "female voice": 4}),
    "trance": Genre(0.5, 0.8, {"synth lead": 6, "synth pad": 4, "synth bass": 4, "plucked synth": 3},
                    {"four on the floor": 6, "arpeggiated pattern": 5, "": 1}, _MACHINE, _INSTRUMENTAL),
    "disco": Genre(0.8, 0.6, {"strings": 4, "bass guitar": 5, "electric guitar": 3, "brass section": 2},
                   {"four on the floor": 7, "syncopated rhythm": 2, "": 1}, {**_KIT, "claps": 3, "hi-hats": 3}, _SUNG),
    "hip hop": Genre(-0.1, 0.3, {"deep bass": 6, "electric piano": 2, "plucked synth": 2, "piano": 2},
                     {"half-time beat": 4, "syncopated rhythm": 3, "steady beat": 2, "": 2},
                     {**_MACHINE, "snare": 3}, _SHOUTED),
    "lo-fi": Genre(0.1, -0.4, {"electric piano": 6, "acoustic guitar": 2, "deep bass": 3, "bells": 1},
                   {"half-time beat": 5, "swing rhythm": 2, "": 3}, {**_MACHINE, "snare": 3, "": 2}, _INSTRUMENTAL),
    "folk": Genre(0.2, -0.2, {"acoustic guitar": 8, "violin": 2, "flute": 2, "harp": 1, "no bass": 2},
                  {"steady beat": 2, "waltz rhythm": 2, "": 5}, _SMALL, _SUNG),
    "country": Genre(0.5, 0.2, {"acoustic guitar": 6, "electric guitar": 3, "violin": 3, "bass guitar": 3},
                     {"steady beat": 5, "swing rhythm": 1, "": 3}, _KIT, _SUNG),
    "reggae": Genre(0.6, 0.0, {"electric guitar": 4, "organ": 5, "deep bass": 5, "bass guitar": 3},
                    {"syncopated rhythm": 7, "": 2}, {**_KIT, "hand percussion": 3}, _SHOUTED),
    "blues": Genre(-0.4, -0.1, {"electric guitar": 6, "organ": 2, "piano": 2, "walking bass": 3, "bass guitar": 2},
                   {"swing rhythm": 6, "": 3}, _KIT, _SHOUTED),
    "metal": Genre(-0.6, 0.9, {"distorted guitar": 9, "bass guitar": 4, "electric guitar": 1},
                   {"steady beat": 4, "half-time beat": 2, "": 4}, {**_KIT, "snare": 2}, _SHOUTED),
    "punk": Genre(0.0, 0.9, {"distorted guitar": 7, "bass guitar": 5, "electric guitar": 2},
                  {"steady beat": 6, "": 4}, {**_KIT, "snare": 2}, _SHOUTED),
    "funk": Genre(0.6, 0.5, {"electric guitar": 4, "bass guitar": 6, "brass section": 4, "electric piano": 2},
                  {"syncopated rhythm": 8, "": 2}, {**_KIT, "claps": 1}, _SUNG),
    "soul": Genre(0.3, 0.0, {"electric piano": 4, "organ": 3, "bass guitar": 4, "brass section": 2},
                  {"steady beat": 3, "swing rhythm": 2, "": 4}, _KIT, {**_SUNG, "female voice": 7}),
    "orchestral": Genre(0.0, 0.2, {"strings": 7, "brass section": 5, "flute": 2, "harp": 2, "cello": 2, "violin": 2},
                        {"": 6, "steady beat": 1, "free rhythm": 1}, {**_NONE, "acoustic drums": 2}, _CHORAL),
    "bossa nova": Genre(0.5, -0.3, {"acoustic guitar": 7, "flute": 2, "piano": 3, "walking bass": 2, "marimba": 1},
                        {"syncopated rhythm": 7, "": 2}, {**_SMALL, "shakers": 6}, {**_SUNG, "female voice": 6}),
    "lullaby": Genre(0.4, -0.8, {"bells": 5, "harp": 4, "piano": 3, "marimba": 2, "no bass": 4},
                     {"waltz rhythm": 5, "": 4}, _NONE, {"female voice": 5, "no voices": 4, "": 2}),
    "march": Genre(0.3, 0.5, {"brass section": 7, "trumpet": 5, "flute": 3}, {"steady beat": 7, "": 3},
                   {"snare": 8, "acoustic drums": 2}, {**_INSTRUMENTAL, "male voice": 1}),
}  # fmt: skip

MOODS: dict[str, tuple[float, float]] = {
    "happy": (0.8, 0.3), "sad": (-0.7, -0.5), "bright": (0.6, 0.2), "dark": (-0.7, 0.1), "calm": (0.3, -0.7),
    "energetic": (0.3, 0.8), "aggressive": (-0.5, 0.9), "dreamy": (0.2, -0.5), "romantic": (0.5, -0.3),
    "melancholic": (-0.5, -0.4), "tense": (-0.5, 0.4), "mysterious": (-0.3, -0.2), "playful": (0.7, 0.3),
    "epic": (0.1, 0.7), "peaceful": (0.5, -0.8), "cheerful": (0.8, 0.4), "gloomy": (-0.8, -0.3), "soft": (0.2, -0.6),
    "intense": (-0.2, 0.8), "warm": (0.5, -0.2), "eerie": (-0.6, -0.4), "uplifting": (0.7, 0.6),
    "hypnotic": (-0.1, 0.1), "nostalgic": (0.1, -0.3),
}  # fmt: skip

ANTONYMS: tuple[frozenset[str], ...] = tuple(
    frozenset(words.split())
    for words in (
        "happy sad", "happy gloomy", "happy melancholic", "happy eerie", "cheerful sad", "cheerful gloomy",
        "cheerful melancholic", "cheerful dark", "bright dark", "bright gloomy", "happy dark", "calm energetic",
        "calm aggressive", "calm intense", "calm tense", "peaceful energetic", "peaceful aggressive",
        "peaceful intense", "peaceful tense", "soft aggressive", "soft intense", "soft energetic", "uplifting sad",
        "uplifting gloomy", "warm eerie", "playful gloomy", "playful sad",
    )
)  # fmt: skip

_BLENDS = {"pop": "rock soul electronic folk disco", "rock": "punk blues metal", "jazz": "funk soul blues",
           "electronic": "ambient techno house trance", "hip hop": "lo-fi funk soul", "classical": "orchestral",
           "folk": "country", "ambient": "classical"}  # fmt: skip


def draw_tags(rng: np.random.Generator) -> set[str]:
    """One row's tags: usually four to eight, in at least three categories."""
    main = _weighted(dict.fromkeys(GENRES, 1.0), rng)
    genre = GENRES[main]
    valence, energy = genre.valence + 0.35 * rng.normal(), genre.energy + 0.3 * rng.normal()
    if rng.random() < 0.25:
        valence -= 0.9  # every genre has its sad songs
    genres = {main}
    if main in _BLENDS and rng.random() < 0.25:
        options = _BLENDS[main].split()
        genres.add(options[int(rng.integers(len(options)))])
    if rng.random() < 0.04:
        genres = set()
    moods = _moods(valence, energy, rng)
    instruments = set(_several(genre.instruments, 1 + int(rng.random() < 0.6) + int(rng.random() < 0.2), rng))
    drums, voice = _weighted(genre.drums, rng), _weighted(genre.voices, rng)
    tempo = _tempo(energy, rng)
    rhythm = _weighted(genre.rhythms, rng) if rng.random() < 0.6 else ""
    if drums == "no percussion" and rhythm not in {"", "free rhythm", "waltz rhythm", "arpeggiated pattern"}:
        rhythm = ""
    if rhythm == "free rhythm" and tempo in {"fast tempo", "uptempo"}:
        rhythm = ""
    basses = {"bass guitar", "synth bass", "deep bass", "walking bass"}
    if "no bass" in instruments and (instruments & basses or len(instruments) == 1):
        instruments.discard("no bass")
    tags = genres | moods | instruments | {t for t in (drums, voice, tempo, rhythm) if t}
    return tags if len(tags) >= 4 else tags | {_weighted(genre.instruments, rng)} - {"no bass"}


def _moods(valence: float, energy: float, rng: np.random.Generator) -> set[str]:
    """One to three moods near a point of the circumplex, no two of them antonyms."""
    weights = {m: float(np.exp(-((v - valence) ** 2 + (e - energy) ** 2) / 0.12)) for m, (v, e) in MOODS.items()}
    chosen: set[str] = set()
    for mood in _several(weights, 1 + int(rng.random() < 0.65) + int(rng.random() < 0.25), rng):
        if not any(pair <= chosen | {mood} for pair in ANTONYMS):
            chosen.add(mood)
    return chosen


def _tempo(energy: float, rng: np.random.Generator) -> str:
    level = energy + 0.35 * rng.normal()
    if rng.random() < 0.08:
        return ""
    if level < -0.15:
        return "slow tempo"
    if level < 0.45:
        return "medium tempo"
    return "fast tempo" if rng.random() < 0.7 else "uptempo"


def _weighted(weights: Mapping[str, float], rng: np.random.Generator) -> str:
    """One key, by weight. Written out, because a library's sampling may change between versions."""
    mark = rng.random() * sum(weights.values())
    for name, weight in weights.items():
        mark -= weight
        if mark < 0:
            return name
    return list(weights)[-1]


def _several(weights: Mapping[str, float], count: int, rng: np.random.Generator) -> list[str]:
    """Different keys, by weight, in the order drawn (a list: the order of a set differs from process to process)."""
    left, chosen = dict(weights), []
    for _ in range(min(count, len(left))):
        chosen.append(_weighted(left, rng))
        del left[chosen[-1]]
    return chosen


def build_rows(num_rows: int = NUM_ROWS, seed: int = SEED) -> list[dict[str, str]]:
    """The corpus: rows with keys `COLUMNS`, each depending on (seed, its index) only."""
    vocabulary = load_taxonomy()
    captioner = GrammarCaptioner()
    rows = []
    for i in range(num_rows):
        rng = generator(seed, "corpus", i)
        columns = _shuffled(vocabulary, sorted(draw_tags(rng)), rng)
        batch = {name: [tags] for name, tags in columns.items()} | {"seed": [derive(seed, "corpus", i, "caption")]}
        start = 10 * int(rng.integers(0, 30))
        values = (f"synth{i:06d}", str(start), str(start + 10), repr(columns["aspect_list"]), captioner(batch)[0])
        rows.append(dict(zip(COLUMNS, values, strict=True)))
    return rows


def _shuffled(vocabulary: Vocabulary, tags: Sequence[str], rng: np.random.Generator) -> dict[str, list[str]]:
    """The aspect columns, each in a random order, as an annotator writes them."""
    columns = vocabulary.columns(tags)
    return {name: [values[i] for i in rng.permutation(len(values))] for name, values in columns.items()}


def encode(rows: Sequence[Mapping[str, str]]) -> bytes:
    """The rows as gzipped CSV, the same bytes for the same rows."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return gzip.compress(text.getvalue().encode(), compresslevel=9, mtime=0)


def main(path: Path = CORPUS) -> None:
    path.write_bytes(encode(build_rows()))
    print(f"{path}: {NUM_ROWS} rows, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
