"""Captions to audio."""

from __future__ import annotations

from conceptcaps.config.audio import AudioConfig
from conceptcaps.engines import Synthesiser


def make_synthesiser(config: AudioConfig) -> Synthesiser:
    """The synthesiser that the config names, loaded on this worker's device."""
    match config.engine:
        case "procedural":
            from conceptcaps.audio.procedural import ProceduralSynthesiser

            return ProceduralSynthesiser(config)
        case "musicgen":
            from conceptcaps.audio.musicgen import MusicgenSynthesiser

            return MusicgenSynthesiser(config)
        case "audiocraft":
            from conceptcaps.audio.audiocraft import AudiocraftSynthesiser

            return AudiocraftSynthesiser(config)
