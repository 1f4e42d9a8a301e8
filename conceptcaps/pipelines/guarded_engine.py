"""The served engine with the care that the other steps take: requests that kill it are given up by row, and its time is
counted."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from conceptcaps.captions.checks import Synonyms
from conceptcaps.captions.vllm import DIED, ERROR_COLUMN, Row
from conceptcaps.config.captions import CaptionsConfig
from conceptcaps.pipelines.caption_candidates import CandidateEngine
from conceptcaps.pipelines.guard import Guard, Watch
from conceptcaps.pipelines.telemetry import stage_seconds

STAGE = "captions"
SECONDS, STARTUP = "engine_seconds", "engine_startup"
"""Columns of a reply, in seconds: the row's share of the engine's busy time, and its start in the first one."""


class GuardedEngine(CandidateEngine):
    """Batches run side by side, so all of them are suspect when the engine dies: then they run one after the other."""

    def __init__(self, *args: Any, captions: CaptionsConfig, synonyms: Synonyms, watch: Watch | None, **kwargs: Any):
        started = time.perf_counter()
        super().__init__(*args, captions=captions, synonyms=synonyms, **kwargs)
        self.guard = Guard.of(watch, STAGE)
        self.alone = asyncio.Lock()
        self.clock = BusyClock()
        self._startup: float | None = time.perf_counter() - started

    async def udf(self, batch: list[Row]) -> AsyncIterator[Row]:  # type: ignore[override]
        """The reply to each request, with its index in the batch."""
        if self.guard is None:
            for reply in await self._timed(batch):
                yield reply
            return
        rows = [{"id": json.loads(request["row"])["id"], "request": request} for request in batch]
        alive = self.guard.give_up(rows)
        for row in rows:
            if "reason" in row:
                died = f"{DIED}: {row['reason'].partition(': ')[2]}"
                yield {ERROR_COLUMN: died, self.IDX_IN_BATCH_COLUMN: row["request"][self.IDX_IN_BATCH_COLUMN]}
        for piece in self.guard.pieces(alive):
            for reply in await self._watched(self.guard, piece):
                yield reply

    async def _watched(self, guard: Guard, piece: Sequence[Row]) -> list[Row]:
        if not guard.groups:
            return await self._marked(guard, piece)
        async with self.alone:
            return await self._marked(guard, piece)

    async def _marked(self, guard: Guard, piece: Sequence[Row]) -> list[Row]:
        marker = guard.begin(piece)
        try:
            return await self._timed([row["request"] for row in piece])
        finally:
            guard.end(piece, marker)

    async def _timed(self, requests: list[Row]) -> list[Row]:
        if not requests:
            return []
        begun = time.perf_counter()
        self.clock.begin(begun)
        try:
            replies = [reply async for reply in CandidateEngine.udf(self, requests)]
        finally:
            share = self.clock.end(time.perf_counter()) / len(requests)
            stage_seconds(STAGE).observe(time.perf_counter() - begun)
        replies = [reply | {SECONDS: share, STARTUP: 0.0} for reply in replies]
        if self._startup is not None:
            replies[0][STARTUP], self._startup = self._startup, None
        return replies


class BusyClock:
    """The time during which something ran, shared out among what has ended: overlapping work is counted once."""

    def __init__(self) -> None:
        self._running, self._since = 0, 0.0

    def begin(self, at: float) -> None:
        if not self._running:
            self._since = at
        self._running += 1

    def end(self, at: float) -> float:
        """Seconds since the last end, or since the beginning where nothing else was running."""
        self._running -= 1
        share, self._since = at - self._since, at
        return share


def guard_engine(processor: Any, captions: CaptionsConfig, synonyms: Synonyms, watch: Watch | None) -> None:
    """Put `GuardedEngine` in the place of the processor's engine."""
    stage = processor.get_stage_by_name("vLLMEngineStage")
    stage.fn_constructor_kwargs.update(captions=captions, synonyms=synonyms, watch=watch)
    # Assignment would run the stage's validator a second time, which takes its resources for a GPU's.
    stage.__dict__["fn"] = GuardedEngine
