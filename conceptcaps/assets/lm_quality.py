"""The embedded language model, measured: how many of the tags it is asked for it says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from conceptcaps.assets.build_corpus import draw_tags
from conceptcaps.assets.corpus import load_taxonomy
from conceptcaps.assets.tag_words import TagSet, composed_tag, invented_tag
from conceptcaps.captions.prompts import PromptTemplate, clean_reply, prompt_ids
from conceptcaps.seeding import generator
from conceptcaps.vocabulary import CATEGORIES, aspects_column

SEED = 1_000_003
"""Far from the seed of training: these tag sets were drawn for measuring only."""


def tag_sets(kind: str, count: int, seed: int = SEED) -> list[TagSet]:
    """Tag sets to ask for: 'taxonomy' (the embedded one's tags), 'composed' (real words) or 'invented' (words)."""
    vocabulary = load_taxonomy()
    found = []
    for i in range(count):
        rng = generator(seed, kind, i)
        if kind == "taxonomy":
            columns = vocabulary.columns(draw_tags(rng))
            found.append({c: columns[aspects_column(c)] for c in CATEGORIES})
            continue
        sizes = dict(zip(CATEGORIES, (1, int(rng.integers(1, 4)), int(rng.integers(1, 5)), 1), strict=True))
        draw = {"composed": composed_tag, "invented": lambda _, r: invented_tag(r)}[kind]
        found.append({c: list(dict.fromkeys(draw(c, rng) for _ in range(n))) for c, n in sizes.items()})
    return found


def generate(
    folder: str | Path, sets: list[TagSet], temperature: float = 0.7, top_p: float = 0.9, seed: int = SEED
) -> list[str]:
    """Captions by plain transformers, sampled as the run samples them."""
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    template = PromptTemplate.load(None)
    replies: list[str] = []
    with torch.random.fork_rng():
        torch.manual_seed(seed % 2**32)
        for start in range(0, len(sets), 50):
            rows = [{aspects_column(c): tags for c, tags in some.items()} for some in sets[start : start + 50]]
            asked = [{"input_ids": prompt_ids(tokenizer, template.messages(row))} for row in rows]
            batch = tokenizer.pad(asked, return_tensors="pt")
            said = model.generate(
                **batch, do_sample=temperature > 0, temperature=temperature or None, top_p=top_p, max_new_tokens=160
            )
            replies += tokenizer.batch_decode(said[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    return [clean_reply(reply) for reply in replies]


def said(tag: str, caption: str) -> bool:
    """Whether the caption holds the tag word for word, at word borders."""
    return re.search(rf"(?<!\w){re.escape(tag.lower())}(?!\w)", caption.lower()) is not None


def coverage(sets: list[TagSet], captions: list[str]) -> dict[str, float]:
    """Fractions: of all tags that are said, and of captions that say all of theirs; and the mean words of a caption."""
    hits = [[said(t, c) for tags in s.values() for t in tags] for s, c in zip(sets, captions, strict=True)]
    return {
        "tags_said": round(float(np.mean(np.concatenate([np.array(h) for h in hits]))), 4),
        "captions_complete": round(float(np.mean([all(h) for h in hits])), 4),
        "mean_words": round(float(np.mean([len(c.split()) for c in captions])), 1),
    }


def measure(folder: str | Path, count: int = 200, **sampling: Any) -> dict[str, dict[str, float]]:
    """Coverage by kind of tag set."""
    measured = {}
    for kind in ("taxonomy", "composed", "invented"):
        sets = tag_sets(kind, count)
        measured[kind] = coverage(sets, generate(folder, sets, **sampling))
    return measured
