"""Audio against caption."""

from __future__ import annotations

from conceptcaps.config.alignment import AlignmentConfig
from conceptcaps.engines import Aligner


def make_aligner(config: AlignmentConfig) -> Aligner:
    """The aligner that the config names, loaded on this worker's device."""
    match config.engine:
        case "clap":
            from conceptcaps.alignment.clap import ClapAligner

            return ClapAligner(config)
        case "laion_clap":
            from conceptcaps.alignment.laion import LaionClapAligner

            return LaionClapAligner(config)
