"""Any question to the served model, and its answer: what evaluation and judging share. No Ray, no vLLM."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from conceptcaps.captions.prompts import Message, prompt_ids
from conceptcaps.captions.vllm import ERROR_COLUMN, MIN_ROOM, load_tokenizer, model_source, seeded_sampling
from conceptcaps.config.captions import CaptionsConfig
from conceptcaps.errors import describe


@dataclass(frozen=True)
class Question:
    """One request.

    Attributes:
        messages: the chat.
        seed: of the answer.
        adapted: whether the adapter answers, or the bare model.
    """

    messages: list[Message]
    seed: int
    adapted: bool = False


@dataclass(frozen=True)
class Answer:
    """What came back: the text, or the error that stands in its place."""

    text: str | None
    error: str = ""


Ask = Callable[[Sequence[Question]], list[Answer]]
"""Answers in the order of the questions."""


class AskPreprocess:
    """A question, as a row with `index` and `question` (JSON), to the engine's request."""

    def __init__(self, config: CaptionsConfig, adapter: str | None = None):
        self.config, self.source = config, model_source(config.vllm)
        self.adapter = adapter

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        question = Question(**json.loads(row["question"]))
        request: dict[str, Any] = {
            "row": str(row["index"]),
            "tokenized_prompt": [],
            "sampling_params": seeded_sampling(self.config, question.seed % 2**31),
            ERROR_COLUMN: "",
        }
        if self.adapter:
            # The engine serves the bare model under the name that it was loaded by.
            request["model"] = self.adapter if question.adapted else self.source
        try:
            return request | {"tokenized_prompt": self._tokens(question)}
        except ValueError as error:
            return request | {ERROR_COLUMN: describe(error)}

    def _tokens(self, question: Question) -> list[int]:
        served = self.config.vllm
        tokens = prompt_ids(load_tokenizer(self.source, served.revision, served.trust_remote_code), question.messages)
        if served.max_model_len - len(tokens) < MIN_ROOM:
            raise ValueError(f"the prompt takes {len(tokens)} of captions.vllm.max_model_len {served.max_model_len}")
        return tokens


def read_answer(reply: dict[str, Any]) -> dict[str, Any]:
    """The engine's reply to `index`, `text` (None where there is none) and `error`."""
    error = reply.get(ERROR_COLUMN) or ""
    return {"index": int(reply["row"]), "text": None if error else reply["generated_text"], "error": error}
