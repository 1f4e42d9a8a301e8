"""Read a YAML run, apply overrides, and refuse what is wrong with the key, the file and the nearest valid key."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from conceptcaps.config.root import Config
from conceptcaps.errors import InputError


def load(path: str | Path | None, overrides: Sequence[str] = ()) -> Config:
    """The resolved configuration of a run.

    Args:
        path: a YAML file; None for the defaults.
        overrides: `section.key=value` strings, values in YAML, applied in order.

    Raises:
        InputError: no such file, not YAML, an unknown key or a bad value; names key, file and nearest valid key.
    """
    return load_tree(_read(path) if path is not None else {}, overrides, str(path) if path is not None else "defaults")


def load_tree(tree: dict[str, Any], overrides: Sequence[str] = (), where: str = "the run's configuration") -> Config:
    """A configuration from a tree of sections, which overrides are applied to in place.

    Raises:
        InputError: an unknown key or a bad value; names key, place and nearest valid key.
    """
    origin: dict[str, str] = {}
    for override in overrides:
        _apply(tree, override)
        origin[override.split("=", 1)[0].strip()] = f"--set {override}"
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise _explain(error, where, origin) from None


def output_settings(section: BaseModel) -> dict[str, Any]:
    """A section as JSON values, without the keys that change speed or place only."""
    settings = {}
    for name, field in type(section).model_fields.items():
        extra = field.json_schema_extra
        if isinstance(extra, dict) and extra.get("changes_output") is False:
            continue
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            value = output_settings(value)
            if not value:
                continue
        settings[name] = list(value) if isinstance(value, tuple) else value
    return settings


def _read(path: str | Path) -> dict[str, Any]:
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(str(path), f"cannot be read ({error.strerror})", "Give the path of a YAML config") from error
    try:
        tree = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise InputError(str(path), f"is not YAML ({' '.join(str(error).split())})", "Mend the file") from error
    if not isinstance(tree, dict):
        raise InputError(str(path), "is not a mapping of sections", "Start from one of the files in configs/")
    return tree


def _apply(tree: dict[str, Any], override: str) -> None:
    key, sign, value = override.partition("=")
    if not sign or not key.strip():
        raise InputError(f"--set {override}", "is not key=value", "Write it like --set specs.num_samples=100")
    *parents, leaf = key.strip().split(".")
    for parent in parents:
        child = tree.setdefault(parent, {})
        if not isinstance(child, dict):
            raise InputError(f"--set {override}", f"{parent!r} is a value, not a section", "Check the key")
        tree = child
    try:
        tree[leaf] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise InputError(f"--set {override}", "has a value that is not YAML", "Quote the value") from error


def _explain(error: ValidationError, where: str, origin: dict[str, str]) -> InputError:
    """The first fault of a validation, in the user's terms."""
    fault = error.errors()[0]
    parts = [str(part) for part in fault["loc"]]
    key = ".".join(parts) or "the configuration"
    source = next((text for name, text in origin.items() if key.startswith(name)), where)
    if fault["type"] == "extra_forbidden":
        valid = _valid_keys(parts[:-1])
        near = difflib.get_close_matches(parts[-1], valid, n=1, cutoff=0.4) or _elsewhere(parts[-1])
        mend = f"Did you mean {'.'.join([*parts[:-1], near[0]]) if near[0] in valid else near[0]!r}?" if near else ""
        return InputError(source, f"unknown key {key!r}", f"{mend} Valid here: {', '.join(valid)}".strip())
    message = fault["msg"].removeprefix("Value error, ")
    shown = f" (it is {fault['input']!r})" if not isinstance(fault["input"], dict | BaseModel) else ""
    return InputError(
        source, f"key {key!r}: {message}{shown}", "Change the value; `conceptcaps config show` lists keys"
    )


def _valid_keys(parents: list[str]) -> list[str]:
    model = _section_at(parents)
    return sorted(model.model_fields) if model else []


def _section_at(parents: list[str]) -> type[BaseModel] | None:
    model: type[BaseModel] = Config
    for parent in parents:
        field = model.model_fields.get(parent)
        section = _model_of(field.annotation) if field else None
        if section is None:
            return None
        model = section
    return model


def _model_of(annotation: Any) -> type[BaseModel] | None:
    """The section behind an annotation, also behind `Section | None`."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return next((m for a in typing.get_args(annotation) if (m := _model_of(a))), None)
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _elsewhere(name: str) -> list[str]:
    """Where a key of this name stands in another section."""
    found: list[str] = []

    def visit(model: type[BaseModel], prefix: str) -> None:
        for key, field in model.model_fields.items():
            if key == name and prefix:
                found.append(prefix + key)
            if section := _model_of(field.annotation):
                visit(section, f"{prefix}{key}.")

    visit(Config, "")
    return found[:1]
