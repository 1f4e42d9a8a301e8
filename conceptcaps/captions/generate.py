"""Captions by plain transformers, in this process: for measuring a model where starting vLLM would not pay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from conceptcaps.captions.prompts import PromptTemplate, clean_reply, prompt_ids
from conceptcaps.captions.vllm import load_tokenizer, model_source
from conceptcaps.config.captions import CaptionsConfig


def generate(
    model: Any, rows: Sequence[Mapping[str, Any]], config: CaptionsConfig, seed: int, batch_size: int = 32
) -> list[str]:
    """A caption for each row, sampled as the run samples: its prompt, temperature, nucleus and longest answer.

    Args:
        model: a causal LM of transformers, on any device.
        rows: with aspect columns.
        config: of the run.
        seed: of all samples; unlike in a run, a caption depends on the rows beside it.
        batch_size: rows decoded together.
    """
    served = config.vllm
    tokenizer = load_tokenizer(model_source(served), served.revision, served.trust_remote_code)
    template = PromptTemplate.load(config.prompt)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    sampling: dict[str, Any] = {"do_sample": config.temperature > 0, "max_new_tokens": config.max_tokens}
    sampling["pad_token_id"] = pad
    if config.temperature > 0:
        sampling |= {"temperature": config.temperature, "top_p": config.top_p, "top_k": 0}
    asked = [prompt_ids(tokenizer, template.messages(row)) for row in rows]
    # Rows of like length together, so that little of a batch is padding.
    order = sorted(range(len(rows)), key=lambda i: len(asked[i]))
    captions = [""] * len(rows)
    model.eval()
    with torch.random.fork_rng(), torch.inference_mode():
        torch.manual_seed(seed % 2**32)
        for start in range(0, len(order), batch_size):
            places = order[start : start + batch_size]
            ids, mask = _pad_left([asked[i] for i in places], pad)
            device = next(model.parameters()).device
            said = model.generate(input_ids=ids.to(device), attention_mask=mask.to(device), **sampling)
            replies = tokenizer.batch_decode(said[:, ids.shape[1] :], skip_special_tokens=True)
            for place, reply in zip(places, replies, strict=True):
                captions[place] = clean_reply(reply)
    return captions


def _pad_left(prompts: Sequence[list[int]], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """int64 (rows, longest prompt): the ids, so that every answer begins in one column, and their mask."""
    length = max(map(len, prompts))
    ids = torch.full((len(prompts), length), pad)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, length - len(prompt) :] = torch.tensor(prompt)
        mask[row, length - len(prompt) :] = 1
    return ids, mask
