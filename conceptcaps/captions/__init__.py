"""Tags to captions."""

from __future__ import annotations

from conceptcaps.config.captions import CaptionsConfig
from conceptcaps.engines import Captioner


def make_captioner(config: CaptionsConfig) -> Captioner:
    """The captioner that runs inside a worker; engine `vllm` is served by ray.data.llm instead."""
    match config.engine:
        case "grammar":
            from conceptcaps.captions.grammar import GrammarCaptioner

            return GrammarCaptioner(config)
        case other:
            raise ValueError(f"engine {other!r} is no batch captioner")
