"""Several candidates per row inside the engine's own actor: the best by the checks goes on.

Ray's stage keeps one sample per request, and a request for one row can be made again only where the engine is; so its
UDF is widened here, on the contract that it has for every stage: rows in, each of them out once, by its index.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

from ray.llm._internal.batch.stages.vllm_engine_stage import vLLMEngineStageUDF

from conceptcaps.captions.checks import Synonyms
from conceptcaps.captions.vllm import ERROR_COLUMN, Row, judge_reply, sampling
from conceptcaps.config.captions import CaptionsConfig


class CandidateEngine(vLLMEngineStageUDF):
    """Ray's vLLM engine, asked for `candidates` samples of each row in up to `rounds` turns.

    The samples of a row share its prompt, which vLLM's prefix cache computes once.
    """

    def __init__(self, *args: Any, captions: CaptionsConfig, synonyms: Synonyms, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.captions, self.synonyms = captions, synonyms

    async def udf(self, batch: list[Row]) -> AsyncIterator[Row]:  # type: ignore[override]
        """The best reply to each row, with its index in the batch."""
        best: dict[int, tuple[Any, Row]] = {}
        waiting = batch
        for turn in range(self.captions.rounds):
            replies = await self._ask(waiting, turn)
            for row, candidates in zip(waiting, replies, strict=True):
                at = row[self.IDX_IN_BATCH_COLUMN]
                ranked = [(self._rank(reply, row), reply) for reply in candidates]
                best[at] = max([*([best[at]] if at in best else []), *ranked], key=lambda pair: pair[0])
            waiting = [row for row in waiting if not best[row[self.IDX_IN_BATCH_COLUMN]][0][0]]
            if not waiting:
                break
        for at, (_, reply) in best.items():
            yield {**reply, self.IDX_IN_BATCH_COLUMN: at}

    async def _ask(self, rows: list[Row], turn: int) -> list[list[Row]]:
        """All candidates of all rows at once, so that the engine decodes them together."""
        from vllm.sampling_params import RequestOutputKind

        # Nobody reads a caption while it is being written; by default vLLM sends what there is of it at every step.
        whole = {"output_kind": RequestOutputKind.FINAL_ONLY}
        requests: list[Row] = []
        number = self.captions.candidates
        for row in rows:
            carried = json.loads(row["row"])
            for candidate in range(number):
                settings = sampling(
                    self.captions, int(carried["seed"]), int(carried.get("attempt") or 0), turn, candidate
                )
                at = {self.IDX_IN_BATCH_COLUMN: len(requests)}
                # The engine takes fields out of the rows that it is given.
                requests.append({**row, "sampling_params": settings | whole, **at})
        replies: list[Row] = [{}] * len(requests)
        async for reply in super().udf(requests):
            replies[reply[self.IDX_IN_BATCH_COLUMN]] = reply
        return [replies[i : i + number] for i in range(0, len(replies), number)]

    def _rank(self, reply: Row, row: Row) -> tuple[bool, int, float]:
        if reply[ERROR_COLUMN]:
            return False, -(10**6), 0.0
        _, verdict = judge_reply(reply["generated_text"], json.loads(row["row"]), self.captions, self.synonyms)
        return verdict.rank
