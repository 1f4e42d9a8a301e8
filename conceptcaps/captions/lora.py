"""LoRA for a chat model (Hu et al. 2021): pairs of tags and captions, the masked loss, the adapter and its layout."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from conceptcaps.captions.checks import is_said
from conceptcaps.captions.grammar import say_tags
from conceptcaps.captions.prompts import PromptTemplate, dialogue_ids
from conceptcaps.config.lora import LoraConfig
from conceptcaps.errors import InputError
from conceptcaps.extras import require
from conceptcaps.seeding import generator
from conceptcaps.vocabulary import CATEGORIES, aspects_column

Row = dict[str, Any]
PROVENANCE = "provenance.json"
_GROUPED_STEPS = 32
"""Steps whose pairs are sorted by length together: enough for like lengths, few enough to stay random."""


@dataclass(frozen=True)
class Example:
    """A dialogue in tokens.

    Attributes:
        ids: of prompt and answer.
        num_prompt: how many of them are the prompt, on which there is no loss.
    """

    ids: list[int]
    num_prompt: int

    @property
    def num_answer(self) -> int:
        return len(self.ids) - self.num_prompt


def read_pairs(path: str) -> list[Row]:
    """Rows with `caption` and aspect columns from a CSV or Parquet file.

    The tags of a category stand in `<category>_aspects` or `<category>_tags`, as a list or as text between commas.

    Raises:
        InputError: no such file, or columns are missing.
    """
    import pandas as pd

    if not Path(path).is_file():
        raise InputError("key 'lora.data'", f"there is no file {path}", "Give a CSV or Parquet file")
    try:
        frame = pd.read_parquet(path) if path.endswith(".parquet") else pd.read_csv(path, keep_default_na=False)
    except (ValueError, OSError) as error:
        raise InputError(path, f"cannot be read ({error})", "Give a CSV or Parquet file") from error
    sources = {c: next((n for n in (aspects_column(c), f"{c}_tags") if n in frame), None) for c in CATEGORIES}
    missing = [c for c, name in sources.items() if name is None]
    if missing or "caption" not in frame:
        wanted = ["caption", *(f"{c}_tags" for c in CATEGORIES)]
        raise InputError(path, f"lacks columns; found {list(frame)}", f"Columns needed: {', '.join(wanted)}")
    rows = []
    for record in frame.to_dict("records"):
        tags = {aspects_column(c): _tags(record[str(sources[c])]) for c in CATEGORIES}
        if str(record["caption"]).strip() and any(tags.values()):
            rows.append({"caption": " ".join(str(record["caption"]).split()), **tags})
    return rows


def _tags(value: Any) -> list[str]:
    parts = value.split(",") if isinstance(value, str) else ([] if value is None else list(value))
    return list(dict.fromkeys(t for part in parts if (t := str(part).strip())))


def split_pairs(rows: Sequence[Row], fraction: float, seed: int) -> tuple[list[Row], list[Row]]:
    """Training and held-out rows. Rows of one caption stay on one side.

    Raises:
        InputError: too few rows for both.
    """
    from conceptcaps.seeding import generator

    captions = sorted({row["caption"] for row in rows})
    if len(captions) < 2:
        raise InputError("the pairs of stage `lora`", f"hold {len(captions)} captions", "Give 2 or more")
    order = generator(seed, "lora", "split").permutation(len(captions))
    held = {captions[i] for i in order[: min(max(1, round(fraction * len(captions))), len(captions) - 1)]}
    return [r for r in rows if r["caption"] not in held], [r for r in rows if r["caption"] in held]


def row_tags(row: Row) -> list[str]:
    """All tags of a pair, in the order of the categories."""
    return [tag for c in CATEGORIES for tag in row.get(aspects_column(c)) or ()]


def without_unsaid_tags(rows: Iterable[Row]) -> list[Row]:
    """The pairs with the tags that their captions say; pairs that say none are left out.

    A model fitted on them learns that what it is asked for is said: human captions leave out many of their tags.

    Raises:
        InputError: no caption says any of its tags.
    """
    found = []
    for row in rows:
        said = {aspects_column(c): tags for c, tags in _tags_by_saying(row, said=True).items()}
        if any(said.values()):
            found.append(row | said | {"aspect_list": [tag for tags in said.values() for tag in tags]})
    if not found:
        raise InputError(
            "key 'lora.unsaid_tags'", "is 'drop', and no caption says any of its tags", "Use 'say' or 'keep'"
        )
    return found


def with_unsaid_tags_said(rows: Iterable[Row], seed: int) -> list[Row]:
    """The pairs with sentences behind their captions that say the tags which these leave out."""
    found = []
    for i, row in enumerate(rows):
        unsaid = _tags_by_saying(row, said=False)
        if any(unsaid.values()):
            caption = row["caption"].rstrip()
            caption += "" if caption.endswith((".", "!", "?")) else "."
            row = row | {"caption": f"{caption} {say_tags(unsaid, generator(seed, 'lora', 'unsaid', i))}"}
        found.append(row)
    return found


def _tags_by_saying(row: Row, said: bool) -> dict[str, list[str]]:
    """category -> the tags that the caption says, or those that it does not."""
    return {c: [t for t in row.get(aspects_column(c)) or () if is_said(row["caption"], t) == said] for c in CATEGORIES}


def encode_pairs(
    tokenizer: Any, template: PromptTemplate, rows: Iterable[Row], max_length: int
) -> tuple[list[Example], dict[str, int]]:
    """Rows as tokens, and how many answers were cut short or lost to `max_length`.

    Raises:
        InputError: no answer is left.
    """
    examples, counts = [], {"pairs": 0, "answers_cut": 0, "answers_lost": 0}
    for row in rows:
        ids, num_prompt = dialogue_ids(tokenizer, template.messages(row), row["caption"])
        counts["pairs"] += 1
        if num_prompt >= max_length:
            counts["answers_lost"] += 1
            continue
        counts["answers_cut"] += len(ids) > max_length
        examples.append(Example(ids[:max_length], num_prompt))
    if not examples:
        raise InputError("key 'lora.max_length'", f"{max_length} tokens leave room for no answer", "Raise it")
    return examples, counts


def order_steps(lengths: Sequence[int], batch_size: int, rng: np.random.Generator, grouped: bool) -> list[np.ndarray]:
    """The rows of each optimiser step of an epoch, at random.

    Args:
        lengths: in tokens.
        batch_size: rows of a step.
        rng: of the order.
        grouped: rows of a step have like lengths.
    """
    order = rng.permutation(len(lengths))
    if not grouped:
        return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    sizes = np.asarray(lengths)
    steps: list[np.ndarray] = []
    for start in range(0, len(order), _GROUPED_STEPS * batch_size):
        some = order[start : start + _GROUPED_STEPS * batch_size]
        some = some[np.argsort(sizes[some], kind="stable")]
        steps += [some[i : i + batch_size] for i in range(0, len(some), batch_size)]
    return [steps[i] for i in rng.permutation(len(steps))]


def padding_share(lengths: Sequence[int], steps: Sequence[np.ndarray], micro_batch: int) -> float:
    """The fraction of an epoch's token places that hold padding, in [0, 1)."""
    sizes, places = np.asarray(lengths), 0
    for rows in steps:
        ordered = np.sort(sizes[rows])
        places += sum(
            int(c.max()) * len(c) for c in (ordered[i : i + micro_batch] for i in range(0, len(ordered), micro_batch))
        )
    return 1 - float(sizes.sum()) / places


def collate(examples: Sequence[Example], pad: int) -> dict[str, Tensor]:
    """`input_ids`, `attention_mask` (int64) and `answer` (bool), all (rows, length), padded on the right."""
    length = max(len(e.ids) for e in examples)
    ids = torch.full((len(examples), length), pad)
    mask, answer = torch.zeros_like(ids), torch.zeros(ids.shape, dtype=torch.bool)
    for row, example in enumerate(examples):
        size = len(example.ids)
        ids[row, :size] = torch.tensor(example.ids)
        mask[row, :size] = 1
        answer[row, example.num_prompt : size] = True
    return {"input_ids": ids, "attention_mask": mask, "answer": answer}


def answer_loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Sum over the batch's answer tokens of their cross-entropy, nats: a sum, so that parts of a step add up."""
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False).logits
    wanted = batch["answer"][:, 1:]
    return F.cross_entropy(logits[:, :-1][wanted].float(), batch["input_ids"][:, 1:][wanted], reduction="sum")


def load_base(source: str, config: LoraConfig, device: torch.device, revision: str | None = None) -> Any:
    """The frozen model, quantised where the config says so.

    Raises:
        InputError: no checkpoint there, or bitsandbytes is missing.
    """
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    arguments: dict[str, Any] = {"dtype": base_dtype(config, device), "revision": revision}
    if config.quantisation == "nf4":
        require("bitsandbytes", "qlora")
        arguments |= {
            "device_map": {"": device},
            "quantization_config": BitsAndBytesConfig(
                load_in_4bit=True,
                bnb_4bit_quant_type="nf4",
                bnb_4bit_use_double_quant=True,
                bnb_4bit_compute_dtype=arguments["dtype"],
            ),
        }
    try:
        model = AutoModelForCausalLM.from_pretrained(source, **arguments)
    except (OSError, ValueError, ImportError) as error:
        raise InputError("key 'captions.vllm.model'", f"no model at {source} ({error})", "Give a checkpoint") from error
    return model if config.quantisation == "nf4" else model.to(device)  # type: ignore[arg-type]


def base_dtype(config: LoraConfig, device: torch.device) -> torch.dtype:
    """The type of the frozen weights."""
    if config.dtype != "auto":
        return getattr(torch, config.dtype)
    return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float32


def add_adapter(model: Any, config: LoraConfig, seed: int) -> Any:
    """The model with trainable LoRA layers, in float32; their start depends on the seed only.

    Raises:
        InputError: a target module that the model has not.
    """
    import peft

    targets = config.target_modules if config.target_modules == "all-linear" else list(config.target_modules)
    settings = peft.LoraConfig(
        r=config.r, lora_alpha=config.alpha, lora_dropout=config.dropout, target_modules=targets, task_type="CAUSAL_LM"
    )
    if config.quantisation == "nf4":
        model = peft.prepare_model_for_kbit_training(model, gradient_checkpointing_kwargs={"use_reentrant": False})
    with torch.random.fork_rng():
        torch.manual_seed(seed % 2**32)
        try:
            adapted = peft.get_peft_model(model, settings)
        except ValueError as error:
            raise InputError(
                "key 'lora.target_modules'", f"does not fit the model ({error})", "Name its layers"
            ) from error
    for parameter in trainable(adapted):
        parameter.data = parameter.data.float()
    return adapted


def trainable(model: nn.Module) -> list[nn.Parameter]:
    """The adapter's parameters."""
    return [p for p in model.parameters() if p.requires_grad]


def adapter_state(model: nn.Module) -> dict[str, Tensor]:
    """The adapter's parameters by name, on the CPU."""
    return {name: p.detach().cpu().clone() for name, p in model.named_parameters() if p.requires_grad}


def set_adapter_state(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Put `adapter_state` back."""
    named = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in state.items():
            named[name].copy_(value)


def save_adapter(model: Any, folder: Path, provenance: dict[str, Any]) -> None:
    """The adapter as PEFT and vLLM read it, beside a file that says what made it."""
    model.save_pretrained(folder)
    (folder / PROVENANCE).write_text(json.dumps(provenance, indent=2, default=str) + "\n", encoding="utf-8")


def save_merged(model: Any, tokenizer: Any, folder: Path) -> None:
    """The model with the adapter merged into its weights, as any loader of checkpoints reads it."""
    model.merge_and_unload().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
