"""Counterfactual pairs: two rows that differ in one tag and share their seed, and with it all that is not that tag.

What a tag does to the audio, or to a model that hears it, is then the difference of the two rows, tag by tag.
"""

from __future__ import annotations

from typing import Any

from conceptcaps import schema
from conceptcaps.seeding import derive

_MARK = "#"


def pair_id(tag: str, number: int) -> str:
    """The `pair_id` of both rows of a pair; it names the tag that one of them lacks."""
    return f"{tag}{_MARK}{number:06d}"


def pair_tag(name: str) -> str:
    """The tag that the rows of a pair differ in."""
    return name.rpartition(_MARK)[0]


def pair_seed(run_seed: int, name: str) -> int:
    """The seed of both rows, from the run's seed and the pair's id alone: more pairs leave the others as they are."""
    return derive(run_seed, "pair", name)


def row_ids(seed: int) -> tuple[str, str]:
    """The ids of the row with the tag and of the row without it."""
    return f"pair-{seed:016x}-with", f"pair-{seed:016x}-without"


def skeleton(row: dict[str, Any]) -> dict[str, Any]:
    """A row less the tag of its pair: the same for both rows of a pair, and any other row as it is."""
    if not row.get("pair_id"):
        return row
    tag = pair_tag(row["pair_id"])
    return row | {name: [t for t in row[name] or [] if t != tag] for name in schema.ASPECT_COLUMNS if name in row}


def added_tag(row: dict[str, Any]) -> str | None:
    """The tag that this row has and its twin lacks; None for the twin and for rows of no pair."""
    if not row.get("pair_id"):
        return None
    tag = pair_tag(row["pair_id"])
    return tag if tag in (row["aspect_list"] or []) else None
