"""Section `captions`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from conceptcaps.config.base import Resources, Section, speed_key


class VllmConfig(Section):
    """The served model of engine `vllm`."""

    model: str = Field("embedded", description="'embedded', a hub id or a local path of a causal LM")
    revision: str | None = Field(None, description="Branch, tag or commit on the hub")
    adapter: str | None = Field(
        None, description="LoRA adapter (PEFT layout): path, hub id, or 'run' for the one stage `lora` fitted"
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field("auto", description="Weights and activations")
    max_model_len: int = Field(1024, description="Most tokens of prompt and caption together", ge=64)
    max_num_seqs: int = speed_key(64, "Most requests decoded at once", ge=1)
    gpu_memory_utilization: float = speed_key(0.9, "Fraction of device memory (RAM on a CPU) vLLM takes", gt=0, le=1)
    kv_cache_gib: float | None = speed_key(
        None,
        "GiB of keys and values on a GPU (null: what gpu_memory_utilization leaves); set it where other engines share "
        "the GPU, whose memory vLLM would take for its own",
        gt=0,
    )
    enforce_eager: bool = speed_key(False, "Skip compilation and CUDA graphs: slower steps, faster start")
    tensor_parallel_size: int = speed_key(1, "GPUs that share one copy of the model", ge=1)
    trust_remote_code: bool = Field(False, description="Let the hub's repository run its own code")


class ChecksConfig(Section):
    """What a served caption must pass; a row with no caption that does is rejected, with the reason."""

    min_coverage: float = Field(
        0.0, description="Least share of the row's tags that the caption must say; 1: all of them", ge=0, le=1
    )
    contradictions: bool = Field(True, description="Refuse a caption that asserts what a tag denies")
    min_words: int = Field(20, description="Fewest words", ge=1)
    max_words: int = Field(80, description="Most words", ge=5)
    names: bool = Field(True, description="Refuse captions that name an artist")
    near_duplicates: int | None = Field(
        None,
        description="Most bits in which SimHashes of near-duplicates differ, which are refused; null: no check",
        ge=0,
        le=15,
    )
    language: bool = Field(True, description="Refuse captions that are not English")


class CaptionsConfig(Section):
    """Tags to captions."""

    engine: Literal["vllm", "grammar"] = Field("grammar", description="The captioner")
    vllm: VllmConfig = Field(VllmConfig(), description="Settings of engine `vllm`")
    prompt: str | None = Field(None, description="YAML file with `system` and `user` templates; null: the built-in one")
    temperature: float = Field(0.7, description="Sampling temperature; 0 is greedy", ge=0)
    top_p: float = Field(0.9, description="Nucleus sampling: smallest set of tokens with this mass", gt=0, le=1)
    max_tokens: int = Field(160, description="Most tokens of a caption", ge=8)
    candidates: int = Field(1, description="Samples per row of engine `vllm`; the best by the checks is kept", ge=1)
    rounds: int = Field(1, description="Times a row without a good candidate is asked, with fresh seeds", ge=1)
    checks: ChecksConfig = Field(ChecksConfig(), description="Checks of captions of engine `vllm`")
    resources: Resources = Field(Resources(), description="Caption workers; each loads the model once")

    @property
    def fits_adapter(self) -> bool:
        """Whether the captions are served with an adapter that the run fits itself, in stage `lora`."""
        return self.engine == "vllm" and self.vllm.adapter == "run"

    @model_validator(mode="after")
    def _parallel_on_whole_gpus(self) -> CaptionsConfig:
        parts, gpus = self.vllm.tensor_parallel_size, self.resources.num_gpus
        if parts > 1 and gpus not in (0, 1):
            raise ValueError(f"tensor_parallel_size {parts} takes whole GPUs; resources.num_gpus is {gpus:g}, not 1")
        return self
