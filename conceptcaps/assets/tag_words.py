"""Tag sets for teaching the embedded language model to say any tag: corpus tags, composed phrases, invented words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from conceptcaps.assets.build_corpus import draw_tags
from conceptcaps.vocabulary import CATEGORIES, Vocabulary

TagSet = dict[str, list[str]]


def _words(text: str) -> list[str]:
    return text.split()


_SYLLABLES = [
    c + v for c in _words("b br c ch d dr f fl g gr h j k l m n p pr qu r s sh st t tr v w y z") for v in "aeiou"
]
_ENDINGS = ["", "", "n", "r", "s", "l", "m", "t", "nd", "x", "ck", "ing", "ic", "y"]

_GENRES = _words("""
rock pop jazz blues soul funk disco house techno trance ambient folk country reggae metal punk gospel
ballad swing salsa samba tango flamenco opera choral baroque minuet march waltz polka bluegrass ska dub grime trap rap
hip-hop hip hop r&b edm idm dubstep breakbeat jungle garage synthwave vaporwave chillwave shoegaze grunge indie
alternative acoustic electronic electro classical orchestral cinematic soundtrack film movie game television
christmas children worship meditation spa yoga lounge chill lo-fi new age world latin african indian celtic arabic
balkan asian chinese japanese korean brazilian cuban french irish spanish turkish persian hawaiian nordic dance
danceable soulful rapping experimental industrial noise drone minimal progressive psychedelic hard soft post neo
contemporary traditional modern western eastern retro vintage""")
_GENRE_NOUNS = _words(
    "music song track sounds soundtrack rock pop jazz metal folk house dance ballad beat noises theme"
)
_MOODS = _words("""
happy sad calm calming angry aggressive tender gentle soft hard harsh bright dark warm cold cool dreamy
dramatic epic heroic emotional emotive passionate romantic sensual seductive sentimental nostalgic melancholic
melancholy mellow mysterious eerie scary spooky haunting sinister ominous suspenseful tense intense energetic lively
vibrant exciting excited cheerful joyful joyous jolly fun funny funky playful quirky weird strange chaotic frantic
hypnotic trippy psychedelic meditative peaceful serene soothing relaxing relaxed reflective pensive poignant solemn
spiritual uplifting inspiring inspirational motivational hopeful positive optimistic triumphant majestic powerful
ethereal atmospheric spacious airy floating dense gloomy grim sombre lonely longing yearning innocent cute sweet
charming elegant sophisticated rustic raw rough rebellious wild boisterous youthful festive celebratory ceremonial
loud quiet subtle simple complex repetitive""")
_MOOD_NOUNS = _words("mood feel vibe atmosphere feeling emotions dancing")
_INSTRUMENTS = _words("""
guitar bass piano keyboard organ synth synthesizer synthesiser drum drums percussion kick snare hat
hi-hat cymbal cymbals tom toms tambourine shaker shakers bongo bongos conga congas tabla djembe claps clap clapping
snaps finger voice voices vocal vocals vocalist singer singing choir chant humming rapper rap speech narration
whistling violin viola cello fiddle strings string harp lute banjo mandolin ukulele sitar koto oud zither flute
piccolo clarinet oboe bassoon saxophone sax trumpet trumpets trombone horn horns tuba brass woodwind woodwinds
bagpipes accordion harmonica bell bells chimes glockenspiel xylophone marimba vibraphone celesta timpani gong triangle
cowbell maracas castanets orchestra ensemble band section line lines bassline riff riffs chord chords melody harmony
accompaniment arpeggio arpeggios solo loop sample samples pad pads lead leads pluck plucks stab stabs drone effects
noise crackle birds rain wind waves crowd laughter applause footsteps e-guitar e-bass e-piano beatbox turntable
scratching kit rhythm beat beats sound sounds""")
_QUALITIES = _words("""
acoustic electric electronic digital analog distorted clean muted fuzzy gritty overdriven palm-muted
fingerpicked strummed plucked bowed slapped sliding bent wide punchy tight snappy boomy deep low high sub heavy thick
thin mellow groovy steady simple slick shimmering sparkling crisp energetic soft softly loud airy breathy raspy husky
nasal flat deep-voiced high-pitched low-pitched pitched-down passionate emotional soulful melodic harmonic rhythmic
syncopated repetitive sustained staccato reverberant echoing ambient vintage male female child children backing
background main layered harmonized harmonised auto-tuned autotuned vocoded whispered shouted spoken sung solo double
upright grand electric steel nylon wooden metallic brushed rattling stomping tinny roaring addictive playful""")
_SPEEDS = _words("slow slower medium moderate mid fast faster up high low steady quick lively relaxed variable")
_PULSES = _words("""
groovy rhythmic syncopated steady driving bouncy swinging danceable straight shuffled polyrhythmic
off-beat on-beat half-time double-time four-on-the-floor latin afro dance slick strong simple complex minimal
pulsating stomping marching rising falling repeating""")
_PULSE_NOUNS = _words("""
rhythm rhythms groove beat beats pattern patterns pulse bass bassline drumming harmony kick snare
percussion tempo feel patter chords guitar""")
_ABSENT = _words("""
voices voice vocals singer singers singing percussion drums bass guitar instruments melody lyrics
harmony""")
_LINKS = ["with", "and", "on the", "of", "in", "like", "to"]


def draw_tag_set(rng: np.random.Generator, vocabulary: Vocabulary, most: int = 5) -> TagSet:
    """Tags by category, in random order, from a mixture of sources.

    Args:
        most: the most tags of one category.
    """
    if rng.random() < 0.2:
        columns = vocabulary.columns(draw_tags(rng))
        return {c: _shuffled(columns[f"{c}_aspects"], rng) for c in CATEGORIES}
    strange = 0.3 if rng.random() < 0.7 else 1.0
    counts = {c: int(rng.integers(0, most + 1)) if rng.random() < 0.85 else 0 for c in CATEGORIES}
    return {c: _distinct(c, min(n, 3) if c in {"genre", "tempo"} else n, strange, rng) for c, n in counts.items()}


def invented_tag(rng: np.random.Generator) -> str:
    """One to three words that exist in no language on purpose."""
    return " ".join(_invented_word(rng) for _ in range(1 + int(rng.integers(0, 3))))


def composed_tag(category: str, rng: np.random.Generator) -> str:
    """A phrase of real musical words such as 'groovy bass line', not all of them sensible."""
    match category:
        case "genre":
            words = [*_some(_GENRES, 1 + int(rng.random() < 0.3), rng)]
            words += _some(_GENRE_NOUNS, int(rng.random() < 0.35), rng)
        case "mood":
            words = _some(_MOODS, 1, rng) + _some(_MOOD_NOUNS, int(rng.random() < 0.15), rng)
        case "instrument":
            if rng.random() < 0.1:
                words = ["no", *_some(_ABSENT, 1, rng)]
            else:
                words = _some(_QUALITIES, int(rng.integers(0, 3)), rng)
                words += _some(_INSTRUMENTS, 1 + int(rng.random() < 0.5), rng)
        case _:
            words = _tempo_words(rng)
    if rng.random() < 0.04:
        words = [*words, _pick(_LINKS, rng), *_some(_INSTRUMENTS, 1, rng)]
    return " ".join(words)


def _tempo_words(rng: np.random.Generator) -> list[str]:
    chance = rng.random()
    if chance < 0.35:
        return [_pick(_SPEEDS, rng), "tempo"]
    if chance < 0.5:
        return [_pick(_SPEEDS, rng), "to", _pick(_SPEEDS, rng), "tempo"]
    if chance < 0.65:
        return [_pick([*_PULSES, "uptempo", "upbeat", "rhythmic"], rng)]
    return [*_some(_PULSES, 1, rng), *_some(_PULSE_NOUNS, 1 + int(rng.random() < 0.4), rng)]


def _invented_word(rng: np.random.Generator) -> str:
    word = "".join(_some(_SYLLABLES, 1 + int(rng.integers(0, 3)), rng)) + _pick(_ENDINGS, rng)
    return word + str(rng.integers(1, 100)) if rng.random() < 0.03 else word


def _distinct(category: str, count: int, strange: float, rng: np.random.Generator) -> list[str]:
    draws = (invented_tag(rng) if rng.random() < strange else composed_tag(category, rng) for _ in range(count))
    return list(dict.fromkeys(draws))


def _some(words: Sequence[str], count: int, rng: np.random.Generator) -> list[str]:
    return [_pick(words, rng) for _ in range(count)]


def _pick(words: Sequence[str], rng: np.random.Generator) -> str:
    return words[int(rng.integers(len(words)))]


def _shuffled(words: Sequence[str], rng: np.random.Generator) -> list[str]:
    return [words[int(i)] for i in rng.permutation(len(words))]
