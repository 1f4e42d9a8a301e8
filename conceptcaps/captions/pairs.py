"""Captions of counterfactual pairs: one skeleton for both rows, and a sentence more for the row that has the tag."""

from __future__ import annotations

from typing import Any

from conceptcaps.captions.grammar import say_tags
from conceptcaps.pairs import added_tag
from conceptcaps.seeding import generator
from conceptcaps.vocabulary import CATEGORIES, aspects_column


def complete(caption: str, row: dict[str, Any]) -> str:
    """The caption of `pairs.skeleton(row)` made the row's own; other rows' captions are left as they are."""
    tag = added_tag(row)
    if tag is None:
        return caption
    category = next((c for c in CATEGORIES if tag in (row.get(aspects_column(c)) or [])), "other")
    return f"{caption} {say_tags({category: [tag]}, generator(int(row['seed']), 'caption', 'pair'))}"
