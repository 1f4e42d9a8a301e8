"""Arrangement patterns of the procedural synthesiser: one bar of sixteen steps per part.

A step is a digit, its loudness out of 9, or a dot for a rest.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Pattern:
    """How a genre divides the bar.

    Attributes:
        drums: drum -> steps.
        chords, bass: steps on which chords and the bass line sound.
        chord_gate: fraction of the time to the next chord for which a chord is held.
        broken: chords are played note by note.
        swing: whether off-beat eighths come late where tags do not say.
        kit: acoustic or electronic drums where tags do not say.
        percussion, bass_line, voice: how likely these are where tags do not say.
        bpm: range in beats per minute where tags do not say.
        instruments: what is drawn from where tags name no instrument.
        accompaniment: who plays the chords under a melodic instrument.
        space: reverberation in [0, 1] where tags do not say.
    """

    drums: dict[str, str]
    chords: str
    bass: str
    chord_gate: float = 0.9
    broken: bool = False
    swing: bool = False
    kit: str = "acoustic"
    percussion: float = 0.95
    bass_line: float = 0.8
    voice: float = 0.15
    bpm: tuple[float, float] = (80.0, 130.0)
    instruments: tuple[str, ...] = field(default=("piano",))
    accompaniment: str = "piano"
    space: float = 0.15


PATTERNS: dict[str, Pattern] = {
    "backbeat": Pattern(
        drums={"kick": "9.....5.9.......", "snare": "....9.......9...", "hat": "6.4.6.4.6.4.6.4."},
        chords="9.....6.7...6...",
        bass="9...6.6.9...6.6.",
        bpm=(88, 128),
        instruments=("electric_guitar", "piano", "acoustic_guitar", "synth"),
        accompaniment="electric_guitar",
    ),
    "rock": Pattern(
        drums={
            "kick": "9.....9.9.9.....",
            "snare": "....9.......9...",
            "hat": "8.6.8.6.8.6.8.6.",
            "cymbal": "7...............",
        },
        chords="9.7.9.7.9.7.9.7.",
        bass="9.8.9.8.9.8.9.8.",
        bpm=(110, 150),
        instruments=("distorted_guitar", "electric_guitar"),
        accompaniment="electric_guitar",
    ),
    "metal": Pattern(
        drums={"kick": "9.9.9.9.9.9.9.9.", "snare": "....9.......9...", "cymbal": "8.......8......."},
        chords="9.999.999.999.99",
        bass="9.9.9.9.9.9.9.9.",
        chord_gate=0.6,
        bpm=(130, 170),
        instruments=("distorted_guitar",),
        accompaniment="distorted_guitar",
    ),
    "four_on_the_floor": Pattern(
        drums={
            "kick": "9...9...9...9...",
            "clap": "....7.......7...",
            "open_hat": "..6...6...6...6.",
            "hat": "4...4...4...4...",
        },
        chords="..8...8...8...8.",
        bass="..9...9...9...9.",
        chord_gate=0.5,
        kit="electronic",
        percussion=1.0,
        bpm=(120, 138),
        instruments=("synth",),
        accompaniment="synth",
    ),
    "hip_hop": Pattern(
        drums={"kick": "9......7..9.....", "snare": "....9.......9...", "hat": "6.5.6.5.6.5.6.5."},
        chords="8.......6.......",
        bass="9......6..8.....",
        kit="electronic",
        percussion=1.0,
        voice=0.4,
        bpm=(82, 100),
        instruments=("keyboard", "synth", "piano"),
        accompaniment="keyboard",
    ),
    "trap": Pattern(
        drums={"kick": "9.........8.....", "snare": "........9.......", "hat": "6.6.6.6.6.666.66"},
        chords="8...............",
        bass="9.........8.....",
        kit="electronic",
        percussion=1.0,
        voice=0.4,
        bpm=(70, 90),
        instruments=("synth", "bells"),
        accompaniment="pad",
    ),
    "funk": Pattern(
        drums={"kick": "9..7..9...7..9..", "snare": "....9..4.4..9..4", "hat": "6.6.6.6.6.6.6.6."},
        chords="..7..7....7..7..",
        bass="9..8..7.9..8.7..",
        chord_gate=0.4,
        percussion=1.0,
        bpm=(98, 118),
        instruments=("electric_guitar", "keyboard", "brass"),
        accompaniment="electric_guitar",
    ),
    "swing": Pattern(
        drums={
            "open_hat": "7...7.5.7...7.5.",
            "hat": "....6.......6...",
            "kick": "4...4...4...4...",
            "rim": "......3.......4.",
        },
        chords="7.....6.....6...",
        bass="8...8...8...8...",
        chord_gate=0.4,
        swing=True,
        bpm=(110, 150),
        instruments=("piano", "saxophone", "trumpet", "electric_guitar"),
        accompaniment="piano",
        space=0.2,
    ),
    "blues": Pattern(
        drums={"kick": "9.......9.......", "snare": "....8.......8...", "hat": "6.5.6.5.6.5.6.5."},
        chords="8.5.8.5.8.5.8.5.",
        bass="9.6.9.6.9.6.9.6.",
        chord_gate=0.7,
        swing=True,
        bpm=(75, 110),
        instruments=("electric_guitar", "harmonica", "piano"),
        accompaniment="electric_guitar",
    ),
    "reggae": Pattern(
        drums={"kick": "........9.......", "rim": "........8.......", "hat": "6.5.6.5.6.5.6.5."},
        chords="....9.......9...",
        bass="9.....8...9...6.",
        chord_gate=0.3,
        percussion=1.0,
        bpm=(72, 92),
        instruments=("electric_guitar", "organ"),
        accompaniment="organ",
    ),
    "latin": Pattern(
        drums={
            "conga": "7.57.57.7.57.577",
            "rim": "8..8..8...8.8...",
            "shaker": "5.3.5.3.5.3.5.3.",
            "kick": "7.......7.......",
        },
        chords="7..7..7...7.7...",
        bass="......9.....9...",
        chord_gate=0.4,
        bpm=(92, 116),
        instruments=("acoustic_guitar", "trumpet", "piano"),
        accompaniment="piano",
    ),
    "afrobeat": Pattern(
        drums={
            "kick": "9..7..7.9..7..7.",
            "conga": "..5.75..5.7.5.75",
            "shaker": "5.4.5.4.5.4.5.4.",
            "click": "8..8..8...8.8...",
        },
        chords="..7...7..7....7.",
        bass="9..7..8...7.8...",
        chord_gate=0.35,
        percussion=1.0,
        bpm=(100, 120),
        instruments=("electric_guitar", "brass"),
        accompaniment="keyboard",
    ),
    "folk": Pattern(
        drums={"kick": "8.......8.......", "tambourine": "....6.......6..."},
        chords="8.6.7.6.8.6.7.6.",
        bass="8.......7.......",
        broken=True,
        percussion=0.3,
        bass_line=0.4,
        bpm=(84, 120),
        instruments=("acoustic_guitar", "banjo", "harmonica", "accordion"),
        accompaniment="acoustic_guitar",
    ),
    "country": Pattern(
        drums={"kick": "9.......9.......", "snare": "....8.......8...", "hat": "..5...5...5...5."},
        chords="....8.......8...",
        bass="9.......8.......",
        chord_gate=0.5,
        bpm=(100, 130),
        instruments=("acoustic_guitar", "banjo", "electric_guitar"),
        accompaniment="acoustic_guitar",
    ),
    "ballad": Pattern(
        drums={"kick": "8.......6.......", "rim": "....6.......6...", "hat": "4...4...4...4..."},
        chords="8...6...7...6...",
        bass="8.......7.......",
        broken=True,
        percussion=0.5,
        bass_line=0.6,
        voice=0.3,
        bpm=(62, 82),
        instruments=("piano", "acoustic_guitar", "strings"),
        accompaniment="piano",
        space=0.3,
    ),
    "classical": Pattern(
        drums={"tom": "6.......5......."},
        chords="7.5.6.5.7.5.6.5.",
        bass="7.......6.......",
        broken=True,
        percussion=0.02,
        bass_line=0.2,
        voice=0.05,
        bpm=(72, 132),
        instruments=("strings", "violin", "piano", "cello", "flute"),
        accompaniment="strings",
        space=0.4,
    ),
    "cinematic": Pattern(
        drums={"tom": "9...6.6.8...6.6.", "kick": "9.......9.......", "cymbal": "6..............."},
        chords="9.......8.......",
        bass="9.......8.......",
        percussion=0.5,
        bass_line=0.6,
        voice=0.05,
        bpm=(70, 120),
        instruments=("strings", "brass", "piano"),
        accompaniment="strings",
        space=0.55,
    ),
    "ambient": Pattern(
        drums={"shaker": "3...3...3...3...", "kick": "4..............."},
        chords="8...............",
        bass="7...............",
        chord_gate=1.05,
        percussion=0.05,
        bass_line=0.35,
        voice=0.03,
        bpm=(60, 84),
        instruments=("pad", "bells", "synth", "flute"),
        accompaniment="pad",
        space=0.8,
    ),
}
"""Patterns by name; 'backbeat' is the plain one."""


def steps(line: str) -> list[tuple[int, float]]:
    """(step, loudness in (0, 1]) of each digit: '9..5' -> [(0, 1.0), (3, 5 / 9)]."""
    return [(i, int(mark) / 9) for i, mark in enumerate(line) if mark != "."]
