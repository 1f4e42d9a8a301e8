"""Engine `vllm`: what the served model is asked, and what becomes of its replies. Pure functions; no Ray, no vLLM."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from conceptcaps.captions.checks import Synonyms, Verdict, judge
from conceptcaps.captions.duplicates import caption_checks
from conceptcaps.captions.pairs import complete
from conceptcaps.captions.prompts import PromptTemplate, clean_reply, prompt_ids, refuse
from conceptcaps.config.captions import CaptionsConfig, VllmConfig
from conceptcaps.errors import InputError, describe
from conceptcaps.pairs import skeleton
from conceptcaps.schema import FAILED, REJECTED, reason
from conceptcaps.seeding import derive

Device = Literal["cpu", "gpu"]
Row = dict[str, Any]

EMBEDDED = str(Path(__file__).parents[1] / "assets" / "lm")
"""Where the packaged language model lies."""

ERROR_COLUMN = "__inference_error__"
ENDED = "ended before"
"""In the error column: the row was ended, or captioned, by an earlier step and wants no caption."""
DIED = "worker died"
"""Begins the error of a row that was given up because it killed the engine."""
MIN_ROOM = 8
"""Tokens that a prompt must leave for the caption."""

QUIET = {"VLLM_NO_USAGE_STATS": "1"}
"""In the environment of every engine: no calls home."""
DRAW = "conceptcaps_draw"
"""In a request's extra arguments: what `captions.vllm_sampler` draws its tokens by."""
SAMPLER = "conceptcaps.captions.vllm_sampler:SeededNucleus"
"""The logits processor of a CPU engine, as vLLM names it."""


def model_source(config: VllmConfig) -> str:
    """The checkpoint to serve: a local path or a hub id.

    Raises:
        InputError: a local folder that holds no checkpoint.
    """
    source = EMBEDDED if config.model == "embedded" else config.model
    folder = Path(source).expanduser()
    if folder.exists() and not (folder / "config.json").is_file():
        raise InputError("key 'captions.vllm.model'", f"{source} holds no config.json", "Give a checkpoint's folder")
    if not folder.exists() and (source.startswith(("/", "./", "../", "~")) or source.count("/") > 1):
        raise InputError("key 'captions.vllm.model'", f"there is no folder {source}", "Give a checkpoint's folder")
    return str(folder) if folder.exists() else source


def engine_kwargs(config: VllmConfig, device: Device, adapter: str | None = None) -> dict[str, Any]:
    """Arguments of vLLM's engine.

    Args:
        adapter: the folder of a PEFT adapter that requests will name.
    """
    arguments: dict[str, Any] = {
        "dtype": config.dtype,
        "max_model_len": config.max_model_len,
        "max_num_seqs": config.max_num_seqs,
        "gpu_memory_utilization": config.gpu_memory_utilization,
        "enforce_eager": config.enforce_eager or device == "cpu",
        "tensor_parallel_size": config.tensor_parallel_size,
        "trust_remote_code": config.trust_remote_code,
        "enable_prefix_caching": True,
        "disable_log_stats": True,
    }
    if config.revision:
        arguments["revision"] = config.revision
    if device == "cpu":
        arguments["logits_processors"] = [SAMPLER]
    elif config.kv_cache_gib:
        arguments["kv_cache_memory_bytes"] = int(config.kv_cache_gib * 2**30)
    if adapter:
        # On a CPU vLLM 0.32 gives requests without an adapter the last of the places for adapters, where others beside
        # them have one: a second place, which stays zero, is none.
        places = 1 if device == "gpu" else 2
        arguments |= {"enable_lora": True, "max_loras": places, "max_lora_rank": max(8, adapter_rank(adapter))}
    return arguments


def engine_environment(config: CaptionsConfig) -> dict[str, str]:
    """Environment variables of the engine's process.

    A CPU engine decodes in the process that schedules it, on as many threads as it has CPUs. By default vLLM puts a
    process of its own behind a queue that is polled, with a thread bound to every core: threads that wait for one
    another lose more than they gain where Ray gives the cores to other steps as well.
    """
    if device_of(config) == "gpu":
        return QUIET
    threads = str(max(1, int(config.resources.num_cpus)))
    own = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "OMP_NUM_THREADS": threads}
    return QUIET | own | {"VLLM_CPU_KVCACHE_SPACE": "1"}  # GiB of keys and values


def adapter_rank(folder: str) -> int:
    """The rank of a PEFT LoRA adapter, rounded up to one that vLLM knows.

    Raises:
        InputError: the folder holds no LoRA adapter.
    """
    path = Path(folder) / "adapter_config.json"
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
        rank = max([int(settings["r"]), *map(int, (settings.get("rank_pattern") or {}).values())])
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"adapter {folder}", f"holds no readable adapter_config.json ({error})", "Fit it") from error
    known = (1, 8, 16, 32, 64, 128, 256, 320, 512)
    fitting = [k for k in known if k >= rank]
    if not fitting:
        raise InputError(f"adapter {folder}", f"has rank {rank}, more than vLLM serves", f"Fit one of {known[-1]}")
    return fitting[0]


class Preprocess:
    """A row to a request: prompt tokens by the model's chat template and sampling parameters with the row's own seed.

    The prompt is tokenised here, by the same function as in training, rather than by the processor's own stages,
    which tokenise rendered text again and so begin it twice. The row itself travels as JSON in `row`, because the
    engine's stages hold what they carry in one column whose type Ray guesses from the data.
    """

    def __init__(self, config: CaptionsConfig, adapter: str | None = None):
        self.config, self.adapter = config, adapter
        self.template = PromptTemplate.load(config.prompt)
        self.source = model_source(config.vllm)

    def __call__(self, row: Row) -> Row:
        plain = json.loads(json.dumps(row, default=_plain))
        # Rows that bypass the engine have settings too: a seed missing from some rows of a block turns the others' into
        # floats, which the engine refuses by hanging.
        settings = sampling(self.config, int(plain["seed"]), int(plain.get("attempt") or 0))
        request: Row = {"row": json.dumps(plain), "tokenized_prompt": [], "sampling_params": settings, ERROR_COLUMN: ""}
        if self.adapter:
            request["model"] = self.adapter
        if plain.get("status") is not None or plain.get("caption") is not None:
            # A row with an error bypasses the engine: what is ended, or brings its caption, costs nothing here.
            return request | {ERROR_COLUMN: ENDED}
        try:
            request["tokenized_prompt"] = self._prompt(plain)
        except InputError:
            raise
        except Exception as error:
            # One bad row must not end the job.
            return request | {ERROR_COLUMN: describe(error)}
        return request

    def _prompt(self, row: Row) -> list[int]:
        settings = self.config.vllm
        tokenizer = load_tokenizer(self.source, settings.revision, settings.trust_remote_code)
        tokens = prompt_ids(tokenizer, self.template.messages(skeleton(row)))
        room = settings.max_model_len - len(tokens)
        if room < MIN_ROOM:
            raise ValueError(f"the prompt takes {len(tokens)} of captions.vllm.max_model_len {settings.max_model_len}")
        return tokens


def sampling(config: CaptionsConfig, seed: int, attempt: int, turn: int = 0, candidate: int = 0) -> dict[str, Any]:
    """Arguments of vLLM's SamplingParams, its seed the row's own, whatever batch the row travels in.

    Args:
        config: section `captions`.
        seed: of the row.
        attempt: of the row.
        turn: how often the row has been asked before; one of `captions.rounds`.
        candidate: one of `captions.candidates`.
    """
    return seeded_sampling(config, derive(seed, "caption", attempt, turn, candidate) % 2**31)


def seeded_sampling(config: CaptionsConfig, seed: int) -> dict[str, Any]:
    """Arguments of vLLM's SamplingParams for one request.

    Args:
        config: section `captions`.
        seed: of this request, in [0, 2**31).
    """
    settings = {"temperature": config.temperature, "top_p": config.top_p, "max_tokens": config.max_tokens}
    if device_of(config) == "gpu" or not config.temperature:
        return settings | {"seed": seed}
    # The engine takes the likeliest token, which its logits processor has drawn.
    own = {"seed": seed, "temperature": float(config.temperature), "top_p": float(config.top_p)}
    return {"temperature": 0.0, "max_tokens": config.max_tokens, "extra_args": {DRAW: own}}


def device_of(config: CaptionsConfig) -> Device:
    """Where the engine runs: on GPUs where its section asks for some."""
    return "gpu" if config.resources.num_gpus else "cpu"


@lru_cache(maxsize=2)
def load_tokenizer(source: str, revision: str | None = None, trust_remote_code: bool = False) -> Any:
    """The tokenizer of a checkpoint, kept for the process.

    Raises:
        InputError: no tokenizer there, or one without a chat template.
    """
    from transformers import AutoTokenizer

    where = "key 'captions.vllm.model'"
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, revision=revision, trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        raise InputError(
            where, f"no tokenizer at {source} ({error})", "Give a checkpoint's folder or a hub id"
        ) from error
    if not tokenizer.chat_template:
        raise InputError(where, f"the tokenizer of {source} has no chat template", "Choose an instruct model")
    return tokenizer


def postprocess(reply: Row, config: CaptionsConfig, synonyms: Synonyms | None = None) -> Row:
    """The engine's reply to the row as it came, with `caption`, or a `status` and the `reason`.

    A row that got no reply has failed. One whose best caption fails a check is rejected, and the caption stays beside
    the reason, for a researcher to read.
    """
    row: Row = json.loads(reply["row"])
    error = reply.get(ERROR_COLUMN)
    if error == ENDED:
        return row
    if error and error.startswith(DIED):
        return row | {"status": FAILED, "reason": reason("captions", "worker_died", error.partition(": ")[2])}
    if error:
        return row | {"status": FAILED, "reason": reason("captions", "error", " ".join(error.split())[:300])}
    caption, verdict = judge_reply(reply["generated_text"], row, config, synonyms)
    row |= {"caption": caption or None} | caption_checks(caption, row["aspect_list"] or (), verdict)
    if verdict.problem:
        return row | {"status": REJECTED, "reason": reason("captions", *verdict.problem)}
    return row | {"caption": complete(caption, row)}


def judge_reply(raw: str, row: Row, config: CaptionsConfig, synonyms: Synonyms | None = None) -> tuple[str, Verdict]:
    """A reply, cleaned, and what the checks say of it; of a pair's row, as the caption that both rows share."""
    caption = clean_reply(raw)
    verdict = judge(caption, skeleton(row)["aspect_list"] or [], config.checks, synonyms)
    code = refuse(caption, raw)
    return caption, replace(verdict, problem=(code, "")) if code else verdict


def _plain(value: Any) -> Any:
    """NumPy arrays and scalars, which Ray makes of lists and numbers, as JSON knows them."""
    return value.tolist()
