"""The embedded synthesiser: tags rendered as music whose attributes can be measured in its samples.

Each part (drums, drums that tags name, bass, chords, melody, voice) draws from a generator of its own, and by bar, so
flipping one attribute of an `Arrangement` under the same seed leaves every other random choice as it was. Parts are
set to fixed levels before they are mixed, so a part that leaves does not make the others louder.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

import numpy as np

from conceptcaps.audio.arrangement import Arrangement, arrange
from conceptcaps.audio.instruments import VOICE_RANGE, VOWELS, play, sing
from conceptcaps.audio.mastering import master
from conceptcaps.audio.patterns import PATTERNS, Pattern, steps
from conceptcaps.audio.percussion import one_shot
from conceptcaps.audio.timbres import TIMBRES
from conceptcaps.config.audio import AudioConfig
from conceptcaps.engines import Batch
from conceptcaps.schema import ASPECT_COLUMNS
from conceptcaps.seeding import generator

SAMPLING_RATE = 32_000
"""Hz; MusicGen's."""

_SCALES = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10)}
_PROGRESSIONS = ((0, 3, 4, 0), (0, 4, 3, 0), (0, 3, 0, 4), (0, 4, 0, 3), (0, 0, 3, 4), (0, 5, 3, 0))
_RHYTHMS = (
    "9...7...8.6.7...",
    "9..7..8...7.6...",
    "9...7.7.8...6...",
    "9.7.8...7.6.8...",
    "8.6.7...9...7.6.",
    "9.....7.8...7...",
)
_WALTZ = {"kick": "9...........", "snare": "....6...6...", "hat": "5...5...5..."}
_HALF_TIME = {
    "kick": "9..........5....",
    "snare": "........9.......",
    "clap": "........8.......",
    "rim": "........8.......",
    "hat": "6...6...6...6...",
}
_SWING = 2 / 3  # of a sixteenth: a triplet
_NAMED_HITS = {
    "kick": "9...6..79...6.7.",
    "snare": "..4.9..4..4.9.44",
    "hat": "7565756575657565",
    "clap": "....9.......9.5.",
    "shaker": "7.6.7.6.7.6.7.6.",
    "tambourine": "..6.8.6...6.8.6.",
    "cymbal": "8.......7.......",
    "conga": "7.57.57.7.57.577",
    "tom": "8.....7.8...7.7.",
    "rim": "8..8..8...8.8...",
}
"""What a drum plays that the tags name: beside, and in front of, the pattern's own drums."""
_GROOVE = {"kick": ".......7..7.....", "snare": "...4...4.4.....4"}
"""What a syncopated feel adds to the drums."""
_GROOVY_BASS, _GROOVY_STABS = "9..8..8...8..8.7", "...8..8....8..8."
_DRUM_LEVELS = {
    "kick": 1.0,
    "hat": 0.55,
    "snare": 0.7,
    "tom": 0.7,
    "conga": 0.5,
    "clap": 0.55,
    "cymbal": 0.28,
    "open_hat": 0.3,
}
_LEVELS = {"drums": 0.9, "hits": 0.55, "bass": 0.85, "chords": 0.6, "melody": 0.85, "voice": 1.5}
"""Root mean square of each part before the mix is set to its level; of each player's chords."""
_MOST_PEAK = 6.0
"""Largest sample of a part: clicks would be drowned in by their root mean square."""


class ProceduralSynthesiser:
    """Engine `procedural`: no weights, no download; several ten times faster than real time on one core.

    Args:
        config: section `audio`; `duration` is read.
    """

    sampling_rate = SAMPLING_RATE

    def __init__(self, config: AudioConfig):
        self.duration = config.duration

    def __call__(self, batch: Batch) -> list[np.ndarray]:
        """One float32 (1, samples) waveform per row, from its tags (its caption where it has none) and seed."""
        rows = len(batch["seed"])
        return [self._render(batch, i) for i in range(rows)]

    def _render(self, batch: Batch, i: int) -> np.ndarray:
        tags = {tag for column in ASPECT_COLUMNS if column in batch for tag in batch[column][i] or ()}
        if not tags and "caption" in batch:
            tags = set(re.split(r"[.,;]", batch["caption"][i] or ""))
        seed = int(batch["seed"][i])
        return render(arrange(tags, seed), self.duration, self.sampling_rate, seed)


def render(arrangement: Arrangement, duration: float, sampling_rate: int, seed: int) -> np.ndarray:
    """float32 (1, round(duration * sampling_rate)), within [-1, 1].

    Args:
        arrangement: what is heard.
        duration: seconds.
        sampling_rate: Hz.
        seed: source of melody, harmony, fills and small variations, each drawn apart from the others.
    """
    score = _Score(arrangement, duration, sampling_rate, seed)
    parts = {"chords": score.chords(), "melody": score.melody()}
    if arrangement.percussion:
        parts["drums"] = score.drums()
        parts["hits"] = score.hits()
    if arrangement.bass:
        parts["bass"] = score.bass()
    if arrangement.voice is not None:
        parts["voice"] = score.voice()
    mix = np.zeros(score.num_samples, np.float32)
    for name, part in parts.items():
        mix += part if name in ("hits", "chords") else _level(part, _LEVELS[name])
    return master(mix, arrangement, sampling_rate)[None]


class _Score:
    """Turns an arrangement into parts. Times are in sixteenth steps until a note is placed."""

    def __init__(self, arrangement: Arrangement, duration: float, rate: int, seed: int):
        self.arrangement, self.rate, self.seed = arrangement, rate, seed
        self.pattern: Pattern = PATTERNS[arrangement.pattern]
        self.num_samples = max(1, round(duration * rate))
        self.step = 15.0 / arrangement.bpm * rate  # samples per sixteenth
        self.bar_steps = 12 if arrangement.feel == "waltz" else 16
        self.num_bars = int(np.ceil(self.num_samples / (self.bar_steps * self.step)))
        self.swing = _SWING if arrangement.feel == "swing" else 0.0
        self.unsteady = self._rng("timing").uniform(-1.1, 1.1, (self.num_bars, 16)) * (arrangement.feel == "free")
        self.scale = _SCALES[arrangement.mode]
        self.register = 3 if arrangement.mode == "major" else -3
        self.progression = _PROGRESSIONS[int(self._rng("progression").integers(len(_PROGRESSIONS)))]

    def _rng(self, name: str) -> np.random.Generator:
        return generator(self.seed, "render", name)

    def _at(self, bar: int, step: float) -> int:
        """The sample of a step: off-beat eighths are late in a swing feel, all are unsteady in a free one."""
        late = self.swing if step % 4 == 2 else 0.0
        return max(0, round((self.bar_steps * bar + step + late + self.unsteady[bar, int(step)]) * self.step))

    def _place(self, part: np.ndarray, start: int, wave: np.ndarray, gain: float) -> None:
        end = min(start + wave.size, part.size)
        if start < end:
            part[start:end] += np.float32(gain) * wave[: end - start]

    def _pitch(self, degree: int, near: float) -> int:
        """The MIDI note of a scale degree, in the octave nearest to `near`."""
        note = self._degree(degree)
        return note + 12 * round((near - note) / 12)

    def _degree(self, degree: int) -> int:
        """Semitones of a scale degree, any octave, above C."""
        octave, place = divmod(degree, 7)
        return self.arrangement.key + self.scale[place] + 12 * octave

    def _bars(self) -> Iterator[tuple[int, int]]:
        """(bar, scale degree of its chord)."""
        return ((bar, self.progression[bar % 4]) for bar in range(self.num_bars))

    def _steps(self, line: str) -> list[tuple[int, float]]:
        return [(step, loud) for step, loud in steps(line) if step < self.bar_steps]

    def _drum_lines(self) -> dict[str, str]:
        """Steps of every drum, as feel and march change the pattern's own."""
        lines = dict(self.pattern.drums)
        if self.arrangement.feel == "waltz":
            lines = dict(_WALTZ)
        elif self.arrangement.feel == "half_time":
            lines = {drum: _HALF_TIME.get(drum, line) for drum, line in lines.items()}
            if not lines.keys() & {"snare", "clap", "rim"}:
                lines["snare"] = _HALF_TIME["snare"]
        if self.arrangement.march:
            lines["snare"] = "9.779.779.779777"
        return lines

    def drums(self) -> np.ndarray:
        part, rng = np.zeros(self.num_samples, np.float32), self._rng("drums")
        lines = self._drum_lines()
        for drum, line in lines.items():
            self._strike(part, drum, line, _DRUM_LEVELS.get(drum, 0.4))
        if self.arrangement.syncopated:
            for drum, line in _GROOVE.items():
                self._strike(part, drum, line, _DRUM_LEVELS[drum])
        for bar in range(3, self.num_bars, 4):
            if rng.random() < 0.5:
                wave = one_shot("snare" if "snare" in lines else "tom", self.arrangement.kit, self.rate)
                for i in range(4):
                    self._place(part, self._at(bar, self.bar_steps - 4 + i), wave, 0.1 * (i + 2))
        return part

    def hits(self) -> np.ndarray:
        """The drums that tags name, each as loud as the others."""
        whole = np.zeros(self.num_samples, np.float32)
        for drum in self.arrangement.hits:
            part = np.zeros(self.num_samples, np.float32)
            self._strike(part, drum, _NAMED_HITS[drum], 1.0)
            whole += _level(part, _LEVELS["hits"])
        return whole

    def _strike(self, part: np.ndarray, drum: str, line: str, level: float) -> None:
        rng, wave = self._rng(f"drums {drum}"), one_shot(drum, self.arrangement.kit, self.rate)
        for bar in range(self.num_bars):
            loud = rng.uniform(0.85, 1.0, 16)
            for step, force in self._steps(line):
                self._place(part, self._at(bar, step), wave, force * loud[step] * level)

    def bass(self) -> np.ndarray:
        part, rng = np.zeros(self.num_samples, np.float32), self._rng("bass")
        style = self.arrangement.bass_style
        walking = style == "walking"
        name = "bass" if walking else style
        line = self._steps(self._bass_line())
        centre = 28 if style == "deep_bass" else 33
        for bar, degree in self._bars():
            choices = rng.random(16)
            for i, (step, force) in enumerate(line):
                up = i if walking else 4 * (i > 0 and choices[i] < 0.25)
                until = line[i + 1][0] if i + 1 < len(line) else self.bar_steps
                note = self._pitch(degree + up, centre)
                length = int((until - step) * self.step * 0.92)
                self._place(part, self._at(bar, step), play(name, note, length, self.rate), force)
        return part

    def _bass_line(self) -> str:
        if self.arrangement.syncopated:
            return _GROOVY_BASS
        if self.arrangement.bass_style == "walking":
            return "9...8...9...8..."
        return "9..........." if self.bar_steps == 12 else self.pattern.bass

    def chords(self) -> np.ndarray:
        whole = np.zeros(self.num_samples, np.float32)
        players = self.arrangement.others or (self.arrangement.lead,)
        for place, name in enumerate(players):
            part = np.zeros(self.num_samples, np.float32)
            self._chords_of(part, name, place)
            if self.arrangement.tense:
                part *= self._tremble(9.0, 0.8)
            whole += _level(part, _LEVELS["chords"])
        return self._phrased(whole)

    def _chords_of(self, part: np.ndarray, name: str, place: int) -> None:
        """The first player keeps the pattern; others hold their chords, an octave apart."""
        rng = self._rng(f"chords {place}")
        line = self._steps(self._chord_line()) if place == 0 else [(0, 0.8), (8, 0.7)]
        gate = self.pattern.chord_gate if place == 0 else 0.95
        gate = min(gate, 0.25) if self.arrangement.playful else gate
        broken = (self.pattern.broken or self.arrangement.arpeggio) and place == 0
        centre = 60 if place == 0 else 66
        for bar, degree in self._bars():
            loud = rng.uniform(0.85, 1.0, 16)
            tones = [self._pitch(degree + third, centre + self.register) for third in (0, 2, 4)]
            if self.arrangement.tense:
                tones = [tones[0], tones[0] + 1, tones[2] + 1]
            for i, (step, force) in enumerate(line):
                until = line[i + 1][0] if i + 1 < len(line) else self.bar_steps
                length = max(int((until - step) * self.step * gate), int(0.07 * self.rate))
                sounding = [self._broken(sorted(tones), i)] if broken else tones
                for k, note in enumerate(sounding):
                    strum = int(TIMBRES[name].strum * k * self.rate)
                    self._place(part, self._at(bar, step) + strum, play(name, note, length, self.rate), force * loud[i])

    def _broken(self, tones: list[int], i: int) -> int:
        """The i-th note of a broken chord: to and fro, or up two octaves and down in an arpeggio."""
        if not self.arrangement.arpeggio:
            return tones[(0, 1, 2, 1)[i % 4]]
        ladder = [*tones, *(tone + 12 for tone in tones), tones[0] + 24]
        return ladder[(0, 1, 2, 3, 4, 5, 6, 5, 4, 3, 2, 1)[i % 12]]

    def _tremble(self, hertz: float, depth: float) -> np.ndarray:
        """Gain of each sample of a part, from 1 - depth to 1."""
        cycles = hertz / self.rate * np.arange(self.num_samples, dtype=np.float32)
        return 1 - depth * (0.5 - 0.5 * np.cos(2 * np.pi * cycles))

    def _chord_line(self) -> str:
        if self.arrangement.arpeggio:
            return "9676867696768676"
        line = "....7...7..." if self.bar_steps == 12 else self.pattern.chords
        return "".join(map(max, line, _GROOVY_STABS)) if self.arrangement.syncopated else line

    def melody(self) -> np.ndarray:
        timbre = TIMBRES[self.arrangement.lead]
        part = np.zeros(self.num_samples, np.float32)
        for start, length, note, force in self._tune("melody", (timbre.low + timbre.high) / 2 + self.register):
            length = min(length, int(0.13 * self.rate)) if self.arrangement.playful else length
            note = timbre.low + (note - timbre.low) % 12 if not timbre.low <= note <= timbre.high else note
            self._place(part, start, play(self.arrangement.lead, note, length, self.rate), force)
        return self._phrased(part)

    def _phrased(self, part: np.ndarray) -> np.ndarray:
        """A part that swells through every bar where the playing is expressive."""
        if not self.arrangement.expressive:
            return part
        bars = np.arange(part.size, dtype=np.float32) / np.float32(self.bar_steps * self.step)
        return part * (0.15 + 1.35 * (bars % 1) ** 2)

    def voice(self) -> np.ndarray:
        part, rng = np.zeros(self.num_samples, np.float32), self._rng("vowels")
        who = self.arrangement.voice
        assert who is not None
        if self.arrangement.choir:
            return self._choir(who)
        spoken = self.arrangement.spoken
        vibrato = 0.0 if spoken else 0.9 if self.arrangement.expressive else 0.45
        for i, (start, length, note, force) in enumerate(self._tune("voice", 0.0)):
            sex = ("male", "female")[(i // 6) % 2] if who == "duet" else who
            low, high = VOICE_RANGE[sex]
            note = low + (note - low) % 12 if not spoken else low + i % 2
            vowels = (VOWELS[int(rng.integers(5))], VOWELS[int(rng.integers(5))])
            length = min(length, int(0.16 * self.rate)) if spoken else length
            assert note <= high
            self._place(part, start, sing(sex, vowels, note, length, self.rate, vibrato), force)
        return part

    def _choir(self, who: str) -> np.ndarray:
        """Chords held for half a bar, each tone by three singers not quite in tune."""
        part, rng = np.zeros(self.num_samples, np.float32), self._rng("vowels")
        sexes = ("male", "female") if who == "duet" else (who,)
        length = int(self.bar_steps / 2 * self.step * 1.05)
        for bar, degree in self._bars():
            for half in (0, 1):
                vowel = VOWELS[int(rng.integers(5))]
                for sex, third, cents in itertools.product(sexes, (0, 2, 4), (-14, 0, 17)):
                    low, high = VOICE_RANGE[sex]
                    note = self._pitch(degree + third, (low + high) / 2) + cents / 100
                    start = self._at(bar, half * self.bar_steps // 2) + int(0.03 * self.rate * (cents > 0))
                    self._place(part, start, sing(sex, (vowel, vowel), note, length, self.rate, 0.5), 0.5)
        return part

    def _tune(self, name: str, centre: float) -> Iterator[tuple[int, int, int, float]]:
        """(start, length, MIDI note, loudness) of each note: a two-bar motif, chord tones on the beat."""
        if self.arrangement.hypnotic and name == "melody":
            yield from self._ostinato(centre)
            return
        rng = self._rng(name)
        rhythms = [_RHYTHMS[int(i)] for i in rng.integers(len(_RHYTHMS), size=2)]
        walks = rng.integers(-2, 3, size=(2, 16))
        for bar, degree in self._bars():
            variation = rng.integers(-1, 2, size=16) * (rng.random(16) < 0.2)
            line = self._steps(rhythms[bar % 2])
            walk = np.clip(np.cumsum(walks[bar % 2]) + variation, -4, 4)
            for i, (step, force) in enumerate(line):
                until = line[i + 1][0] if i + 1 < len(line) else self.bar_steps
                offset = 2 * round(walk[i] / 2) if step % 8 == 0 else int(walk[i])
                octave = self._pitch(degree, centre) - self._degree(degree)
                note = self._degree(degree + offset) + octave
                yield self._at(bar, step), int((until - step) * self.step * 0.95), note, force

    def _ostinato(self, centre: float) -> Iterator[tuple[int, int, int, float]]:
        """Tonic and fifth in sixteenths, the same in every bar; yields as `_tune`."""
        notes = [self._pitch(degree, centre) for degree in (0, 4)]
        for bar, _ in self._bars():
            for step in range(self.bar_steps):
                yield self._at(bar, step), int(0.6 * self.step), notes[step % 4 == 3], 1.0 if step % 4 == 0 else 0.7


def _level(part: np.ndarray, target: float) -> np.ndarray:
    rms, peak = float(np.sqrt(np.mean(np.square(part, dtype=np.float64)))), float(np.abs(part).max(initial=0))
    return part * np.float32(min(target / rms, _MOST_PEAK / peak)) if rms > 0 else part
