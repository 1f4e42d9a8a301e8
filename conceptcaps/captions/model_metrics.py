"""Metrics of captions under a model that is read from a folder: perplexity, MAUVE, BERTScore."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from conceptcaps.captions.lora import Example, answer_loss, collate
from conceptcaps.captions.vllm import EMBEDDED
from conceptcaps.errors import InputError
from conceptcaps.extras import require

_BATCH = 16


@lru_cache(maxsize=2)
def load_language_model(source: str) -> tuple[Any, Any]:
    """The tokenizer and the causal LM, float32, of a local path, a hub id or 'embedded'; kept for the process.

    Raises:
        InputError: no model there.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = EMBEDDED if source == "embedded" else source
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        return tokenizer, AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    except (OSError, ValueError) as error:
        raise InputError(f"language model {source}", f"cannot be loaded ({error})", "Give a local path") from error


def _batches(tokenizer: Any, model: Any, texts: Sequence[str]) -> list[tuple[list[int], dict[str, torch.Tensor]]]:
    """Texts from their beginning, those of like length together: their places and their tokens."""
    begin = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    longest = model.config.max_position_embeddings
    examples = [Example([begin, *tokenizer(t, add_special_tokens=False)["input_ids"]][:longest], 1) for t in texts]
    order = sorted(range(len(texts)), key=lambda i: len(examples[i].ids))
    places = [order[i : i + _BATCH] for i in range(0, len(order), _BATCH)]
    return [(some, collate([examples[i] for i in some], begin)) for some in places]


@torch.no_grad()
def perplexity(texts: Sequence[str], source: str) -> float:
    """exp of the mean nats per token under a causal LM, every text from its beginning; lower is more usual.

    Args:
        texts: to score.
        source: local path or hub id of the LM, or 'embedded'.

    Raises:
        InputError: no model there.
    """
    tokenizer, model = load_language_model(source)
    total = num_tokens = 0.0
    for _, batch in _batches(tokenizer, model, texts):
        total += float(answer_loss(model, batch))
        num_tokens += float(batch["answer"].sum())
    return math.exp(total / num_tokens) if num_tokens else float("nan")


@torch.no_grad()
def last_states(texts: Sequence[str], source: str) -> np.ndarray:
    """float32 (num_texts, hidden_size): the LM's last hidden state at each text's last token."""
    tokenizer, model = load_language_model(source)
    found = np.zeros((len(texts), model.config.hidden_size), np.float32)
    for places, batch in _batches(tokenizer, model, texts):
        states = model(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], output_hidden_states=True
        ).hidden_states[-1]
        last = batch["attention_mask"].sum(1) - 1
        found[places] = states[torch.arange(len(places)), last].float().numpy()
    return found


def mauve(texts: Sequence[str], references: Sequence[str], source: str, seed: int = 0) -> float:
    """How near the distribution of texts is to that of the references, in (0, 1], higher is nearer (Pillutla 2021).

    From `last_states`, whose LM is the caller's: values under different LMs, or of collections of different sizes,
    cannot be compared.

    Raises:
        InputError: mauve-text is not installed, no model there, or fewer than 20 texts.
    """
    compute = require("mauve", "metrics").compute_mauve
    fewest = min(len(texts), len(references))
    if fewest < 20:
        raise InputError("MAUVE", f"wants 20 texts or more and has {fewest}", "Raise evaluation.num_rows")
    return float(
        compute(
            p_features=last_states(references, source),
            q_features=last_states(texts, source),
            num_buckets=max(2, min(500, fewest // 10)),
            seed=seed,
            verbose=False,
        ).mauve
    )


def bert_score(texts: Sequence[str], references: Sequence[str], folder: str, layer: int | None = None) -> float:
    """Mean F1 of BERTScore, higher is closer (Zhang et al. 2020); not rescaled by a baseline.

    Args:
        texts: (num_texts,).
        references: one for each text.
        folder: of an encoder that transformers' AutoModel reads.
        layer: hidden layer to compare; None for the last.

    Raises:
        InputError: torchmetrics is not installed, or no model there.
    """
    score = require("torchmetrics.functional.text.bert", "metrics").bert_score
    # An empty caption has no token to compare.
    some = [text or "." for text in texts]
    try:
        found = score(some, list(references), model_name_or_path=folder, num_layers=layer, batch_size=_BATCH)
    except (OSError, ValueError) as error:
        raise InputError(f"encoder {folder}", f"cannot be used ({error})", "Give a local path") from error
    return float(torch.as_tensor(found["f1"]).mean())
