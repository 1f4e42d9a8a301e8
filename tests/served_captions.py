"""Rows for the served captioner, good and bad, and its config for two CPUs."""

from __future__ import annotations

from conceptcaps import schema
from conceptcaps.assets.corpus import load_taxonomy
from conceptcaps.assets.lm_quality import tag_sets
from conceptcaps.config import Config
from conceptcaps.seeding import row_identity

NUM_ROWS = 24
SERVED = {
    "dtype": "float32",
    "max_model_len": 512,
    "max_num_seqs": 16,
    "gpu_memory_utilization": 0.2,
    "enforce_eager": True,
}


def config_of(batch_size: int = 8, adapter: str | None = None, **captions) -> Config:
    section = {"engine": "vllm", "vllm": {**SERVED, "adapter": adapter}, **captions}
    return Config.model_validate({"captions": {**section, "resources": {"num_cpus": 0.3, "batch_size": batch_size}}})


def rows() -> list[dict]:
    vocabulary = load_taxonomy()
    made = []
    for i, tags in enumerate(tag_sets("taxonomy", NUM_ROWS)):
        name, seed = row_identity(7, i)
        said = [tag for group in tags.values() for tag in group]
        made.append({"id": name, "seed": seed, "attempt": 0, **vocabulary.columns(said)})
    made[3] |= {"status": schema.FAILED, "reason": "earlier.step"}
    made[5] |= {"genre_aspects": ["word " * 2000]}
    return made
