"""Trivial engines that say which version of `packaging` is installed where they run."""

from __future__ import annotations

import importlib.metadata

from trivial_engines import RATE, TrivialAligner, TrivialCaptioner, TrivialSynthesiser

from conceptcaps.pipelines.steps import Engines


class VersionCaptioner(TrivialCaptioner):
    """Captions begin with the version."""

    def __call__(self, batch):
        return [f"{importlib.metadata.version('packaging')} {caption}" for caption in super().__call__(batch)]


class VersionSynthesiser(TrivialSynthesiser):
    """The sampling rate is the major version above the usual one."""

    def __init__(self, config):
        super().__init__(config)
        self.sampling_rate = RATE + int(importlib.metadata.version("packaging").split(".")[0])


OLD_PACKAGE = Engines(VersionCaptioner, VersionSynthesiser, TrivialAligner)
