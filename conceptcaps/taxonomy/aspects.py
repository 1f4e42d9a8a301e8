"""The tags of an aspect_list in any of its spellings."""

from __future__ import annotations

import ast
import json
import re
from typing import Any

import numpy as np

_QUOTED = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""", re.DOTALL)


def parse_aspects(value: Any) -> list[str]:
    """The tags of an aspect_list: a list, or the text of a Python, JSON or numpy list, or comma-separated text.

    Raises:
        ValueError: it is none of these, or holds something other than strings; says what is wrong.
    """
    if isinstance(value, np.ndarray | tuple):
        value = list(value)
    if isinstance(value, list):
        return _strings(value)
    if not isinstance(value, str) or not value.strip():
        raise ValueError("aspect_list is empty")
    text = value.strip()
    if text[0] not in "[(":
        return [tag for part in text.split(",") if (tag := part.strip())]
    if text[-1] != {"[": "]", "(": ")"}[text[0]]:
        raise ValueError(f"aspect_list is not closed: {_short(text)}")
    return _bracketed(text)


def _bracketed(text: str) -> list[str]:
    if (plain := _plain(text)) is not None:
        return _strings(plain)
    if '"' in text:
        try:
            return _strings(json.loads(text))
        except json.JSONDecodeError:
            pass  # a Python or numpy list may hold double quotes too
    # Not literal_eval on the whole: Python joins adjacent strings, which is how numpy prints its items.
    inner, tags, end = text[1:-1], [], 0
    for match in _QUOTED.finditer(inner):
        if inner[end : match.start()].strip() not in ("", ","):
            break
        tags.append(_unquoted(match.group()))
        end = match.end()
    if inner[end:].strip() not in ("", ","):
        raise ValueError(f"aspect_list does not parse: {_short(text)}")
    return _strings(tags)


def _plain(text: str) -> list[str] | None:
    """The items of what most lists are, "['a', 'b']" without quotes inside; None for any other."""
    items = text[2:-2].split("', '")
    is_plain = text.startswith("['") and text.endswith("']") and "\\" not in text and len(text) > 3
    return items if is_plain and text.count("'") == 2 * len(items) else None


def _unquoted(literal: str) -> str:
    return str(ast.literal_eval(literal)) if "\\" in literal or "\n" in literal else literal[1:-1]


def _strings(values: Any) -> list[str]:
    if not isinstance(values, list) or not all(isinstance(v, str) for v in values):
        raise ValueError(f"aspect_list holds something other than strings: {_short(repr(values))}")
    return [tag for v in values if (tag := v.strip())]


def _short(text: str, limit: int = 80) -> str:
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 3] + "..."
