"""Tags to chat messages and to a model's own prompt tokens; a model's reply to a caption, or the reason to refuse it.

Training and inference render the same template file through the same functions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from conceptcaps.errors import InputError
from conceptcaps.vocabulary import CATEGORIES, aspects_column

Message = dict[str, str]

MIN_WORDS = 5
"""A reply of fewer words is no caption, whatever the checks ask for."""

_MARKUP = re.compile(r"<[^>\s][^>]*>|```|\*\*|^\s*(?:[#*•>-]|\d+[.)])\s|\[/?\w+\]|https?://", re.MULTILINE)
_PREAMBLE = re.compile(
    r"^(?:sure|certainly|of course|here(?: is|'s) (?:a|the|your) caption)\b[^\n:]*:\s*", re.IGNORECASE
)
_LABEL = re.compile(r"^caption:\s*", re.IGNORECASE)
_QUOTES = {'"': '"', "“": "”", "'": "'", "«": "»"}


@dataclass(frozen=True)
class PromptTemplate:
    """Jinja templates of the system and the user message.

    Attributes:
        system: rendered like `user`; empty for no system message.
        user: sees genre, mood, instrument, tempo (lists), aspects ((category, tags) pairs), tags (all).
    """

    system: str
    user: str

    @classmethod
    def load(cls, path: str | None) -> PromptTemplate:
        """The templates of a YAML file with keys `system` and `user`; None for the built-in ones.

        Raises:
            InputError: the file cannot be read, has other keys, or a template does not compile.
        """
        if path is None:
            text = resources.files("conceptcaps").joinpath("assets/prompts/default.yaml").read_text(encoding="utf-8")
        else:
            text = _read(path)
        where = path or "built-in prompt"
        try:
            tree = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise InputError(where, f"is not YAML ({' '.join(str(error).split())})", "Mend the file") from error
        if not isinstance(tree, dict) or not {"user"} <= set(tree) <= {"system", "user"}:
            raise InputError(where, "has not the keys 'system' and 'user'", "Follow the files in configs/prompts")
        template = cls(str(tree.get("system") or ""), str(tree["user"]))
        template._check(where)
        return template

    def _check(self, where: str) -> None:
        import jinja2

        example = {aspects_column(c): [f"{c} tag"] for c in CATEGORIES}
        try:
            said = self.messages(example)[-1]["content"]
        except jinja2.TemplateError as error:
            raise InputError(where, f"is no valid template ({error})", "Mend the template") from error
        if not all(f"{c} tag" in said for c in CATEGORIES):
            raise InputError(where, "leaves some category's tags out of the user message", "Use `aspects` or `tags`")

    def messages(self, row: Mapping[str, Any]) -> list[Message]:
        """The chat that asks for a row's caption, from its aspect columns (missing or null ones are empty)."""
        by_category = {c: [str(t) for t in _listed(row.get(aspects_column(c)))] for c in CATEGORIES}
        said = {tag for tags in by_category.values() for tag in tags}
        other = [str(tag) for tag in _listed(row.get("aspect_list")) if tag not in said]
        aspects = [(c, tags) for c, tags in [*by_category.items(), ("other", other)] if tags]
        values = {**by_category, "aspects": aspects, "tags": [t for _, tags in aspects for t in tags]}
        system, user = (_compiled(text).render(values).strip() for text in (self.system, self.user))
        opening = [{"role": "system", "content": system}] if system else []
        return [*opening, {"role": "user", "content": user}]


@lru_cache(maxsize=16)
def _compiled(text: str) -> Any:
    # Beside the dataclass, not in it: a compiled template does not pickle.
    import jinja2

    return jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False).from_string(text)


def _read(path: str) -> str:
    try:
        return Path(path).expanduser().read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(path, f"cannot be read ({error.strerror})", "Set captions.prompt to a YAML file") from error


def _listed(value: Any) -> Sequence[Any]:
    return () if value is None else value


def prompt_ids(tokenizer: Any, messages: list[Message]) -> list[int]:
    """The token ids that a model is asked with, by its own chat template, ready for the assistant's turn.

    Templates that know no system role get its text in front of the user's.
    """
    text = tokenizer.apply_chat_template(_fitting(tokenizer, messages), tokenize=False, add_generation_prompt=True)
    return _ids(tokenizer, text)


def dialogue_ids(tokenizer: Any, messages: list[Message], caption: str) -> tuple[list[int], int]:
    """Token ids of the whole dialogue for training, and how many of them are the prompt.

    The prompt's ids are exactly `prompt_ids`'s: the answer is tokenised apart and appended, so that no token spans
    the border, and ends as the chat template ends an assistant's turn.
    """
    fitting = _fitting(tokenizer, messages)
    asked = tokenizer.apply_chat_template(fitting, tokenize=False, add_generation_prompt=True)
    answer = [*fitting, {"role": "assistant", "content": caption}]
    whole = tokenizer.apply_chat_template(answer, tokenize=False)
    start = whole.rfind(caption)
    assert start >= 0, "the chat template drops the assistant's words"
    prompt = _ids(tokenizer, asked)
    said = _ids(tokenizer, caption + whole[start + len(caption) :].rstrip("\n"))
    if tokenizer.eos_token_id is not None and tokenizer.eos_token_id not in said:
        said.append(tokenizer.eos_token_id)
    return prompt + said, len(prompt)


def _ids(tokenizer: Any, text: str) -> list[int]:
    # The template has written the special tokens already; adding them again would double the first.
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _fitting(tokenizer: Any, messages: list[Message]) -> list[Message]:
    if messages[0]["role"] != "system" or _knows_system(tokenizer):
        return messages
    system, user, *rest = messages
    return [{"role": "user", "content": f"{system['content']}\n\n{user['content']}"}, *rest]


@lru_cache(maxsize=8)
def _knows_system(tokenizer: Any) -> bool:
    """Whether the chat template takes a system message; some raise on one."""
    import jinja2

    try:
        tokenizer.apply_chat_template(
            [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}], tokenize=False
        )
    except jinja2.TemplateError:
        return False
    return True


def clean_reply(reply: str) -> str:
    """A reply without what models put around a caption: preambles, labels, quotation marks, line breaks."""
    text = _LABEL.sub("", _PREAMBLE.sub("", reply.strip())).strip()
    if len(text) > 1 and _QUOTES.get(text[0]) == text[-1] and text[0] not in text[1:-1]:
        text = text[1:-1]
    return " ".join(text.split())


def refuse(caption: str, raw: str | None = None) -> str | None:
    """Why a cleaned reply is no caption: 'empty', 'too_short' or 'markup'; None if it may be one.

    Args:
        caption: the reply, cleaned.
        raw: the reply as it came, where line breaks still show lists.
    """
    if not caption:
        return "empty"
    if _MARKUP.search(clean_lines(raw) if raw else caption) or _MARKUP.search(caption):
        return "markup"
    return "too_short" if len(caption.split()) < MIN_WORDS else None


def clean_lines(raw: str) -> str:
    """A reply with its preamble and label taken off, line breaks kept."""
    return _LABEL.sub("", _PREAMBLE.sub("", raw.strip())).strip()
