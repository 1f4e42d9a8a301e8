"""The stages of a run, in order: what each depends on, and running those that are not finished yet."""

from __future__ import annotations

import hashlib
import importlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from conceptcaps.config import Config, output_settings
from conceptcaps.errors import InputError, TooFewRows, describe, input_error_in
from conceptcaps.lease import Lease
from conceptcaps.logs import name_run
from conceptcaps.pipelines.drain import Drained, stop_at_once
from conceptcaps.rundir import CONFIG, Manifest, RunDir

logger = logging.getLogger(__name__)

Run = Callable[[Config, RunDir], dict[str, Any]]


@dataclass(frozen=True)
class Stage:
    """One stage.

    Attributes:
        name: on the command line and in the manifest.
        function: 'module:function' below `conceptcaps.pipelines`; takes (config, run), returns facts for the manifest.
        sections: config sections whose values its artefacts depend on.
        needs: stages that must be finished first.
        help: one line.
    """

    name: str
    function: str
    sections: tuple[str, ...]
    needs: tuple[str, ...]
    help: str

    def load(self) -> Run:
        """Import the stage's function; nothing of a stage is imported before it is wanted."""
        module, function = self.function.split(":")
        return getattr(importlib.import_module(f"conceptcaps.pipelines.{module}"), function)


STAGES = (
    Stage("taxonomy", "taxonomy:run_taxonomy", ("taxonomy",), (), "Annotations to a vocabulary and training rows"),
    Stage("vae", "vae:run_vae", ("vae",), ("taxonomy",), "Fit the model of tag sets"),
    Stage("specs", "specs:run_specs", ("specs",), ("vae",), "Sample new tag sets"),
    Stage("comparison", "comparison:run_comparison", ("comparison",), ("specs",), "Sampled tag sets against real ones"),
    Stage("lora", "lora:run_lora", ("lora", "captions"), ("taxonomy",), "Fit the captioner's LoRA adapter"),
    Stage(
        "generate",
        "generate:run_generate",
        ("captions", "audio", "alignment"),
        ("specs",),
        "Captions, audio and alignment scores, streamed into shards",
    ),
    Stage("quality", "quality:run_quality", ("quality",), ("generate",), "Measures of the audio, concept by concept"),
    Stage("dataset", "dataset:run_dataset", ("dataset",), ("generate",), "Shards to train, validation and test"),
    Stage("tcav", "tcav:run_tcav", ("tcav",), ("generate",), "What a music classifier has learned"),
    Stage("report", "report:run_report", ("report",), ("generate",), "The page to read before publishing"),
)
BY_NAME = {stage.name: stage for stage in STAGES}


def default_stages(config: Config) -> tuple[str, ...]:
    """All stages, less `lora` where the run serves no adapter of its own."""
    return tuple(s.name for s in STAGES if s.name != "lora" or config.captions.fits_adapter)


def parse_stages(names: Sequence[str]) -> tuple[str, ...]:
    """Stage names in running order.

    Raises:
        InputError: a name that is no stage.
    """
    unknown = [name for name in names if name not in BY_NAME]
    if unknown:
        raise InputError("--stages", f"has no stage {unknown[0]!r}", f"Choose among {', '.join(BY_NAME)}")
    return tuple(stage.name for stage in STAGES if stage.name in names)


def _check_needs(config: Config, stages: Sequence[str], run: RunDir) -> Manifest:
    """Refuse, before anything is written, a run that cannot go on with this config and these stages."""
    manifest = Manifest(run)
    for stage in STAGES:
        manifest.check_settings(stage.name, settings_of(stage, config))
    for name in stages:
        missing = [n for n in BY_NAME[name].needs if n not in stages and not manifest.is_finished(n)]
        if missing:
            raise InputError(
                f"stage {name!r}",
                f"needs stage {missing[0]!r}, not finished in {run}",
                f"Run --stages {missing[0]} first",
            )
    return manifest


def open_run(config: Config, stages: Sequence[str], run: RunDir) -> Manifest:
    """The manifest of a run directory, once every stage made before agrees with the config.

    Raises:
        InputError: settings that differ from those a stage was made with, listing each; a stage whose needs are
            missing.
    """
    manifest = _check_needs(config, stages, run)
    run.write_bytes(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False).encode(), CONFIG)
    manifest.save()
    return manifest


def run_stages(config: Config, stages: Sequence[str], report: Callable[[str], None] = logger.info) -> RunDir:
    """Run stages in order, skipping those whose manifest says finished. Nobody else may write to the run meanwhile.

    A stage that the run has too few rows for is left out, unless it is the only one asked for.

    Args:
        report: is told one line per stage.

    Raises:
        InputError: bad input, in the config or in what a stage reads; another job in the run directory.
        Drained: the job was asked to stop, and has.
    """
    run = RunDir(config.run_dir or f"runs/{config.name}")
    _check_needs(config, stages, run)
    with Lease(run, config.ray.lease_seconds, on_loss=stop_at_once):
        _run_all(config, stages, run, report)
    return run


def _run_all(config: Config, stages: Sequence[str], run: RunDir, report: Callable[[str], None]) -> None:
    if stale := run.clean():
        report(f"{len(stale)} unfinished files of an earlier job are removed")
    manifest = open_run(config, stages, run)
    name_run(manifest.data["run_id"])
    for name in stages:
        stage = BY_NAME[name]
        if manifest.is_finished(name):
            report(f"{name}: done before")
            continue
        report(f"{name}: {stage.help.lower()} ...")
        try:
            facts, seconds = _run_one(stage, config, run, manifest)
        except TooFewRows as error:
            manifest.leave_out(name, str(error))
            if len(stages) == 1:
                raise
            report(f"{name}: left out, because {error}")
            continue
        report(f"{name}: done in {seconds:.0f} s{_summary(facts)}")


def _run_one(stage: Stage, config: Config, run: RunDir, manifest: Manifest) -> tuple[dict[str, Any], float]:
    function = stage.load()
    before = None if "settings" in manifest.stage(stage.name) else run.files()
    manifest.begin(stage.name, settings_of(stage, config))
    started = time.monotonic()
    try:
        facts = function(config, run)
    except Drained:
        manifest.stop(stage.name)
        raise
    except BaseException as error:
        refused = input_error_in(error)
        manifest.fail(stage.name, describe(refused or error), made_nothing=run.files() == before)
        if refused and refused is not error:
            raise refused from error
        raise
    seconds = time.monotonic() - started
    manifest.finish(stage.name, **({"seconds": round(seconds, 1)} | facts))
    return facts, seconds


def _summary(facts: dict[str, Any]) -> str:
    counts = facts.get("counts")
    if not isinstance(counts, dict):
        return ""
    shown = ", ".join(f"{value} {key}" for key, value in counts.items() if isinstance(value, int | float))
    return f": {shown}" if shown else ""


def settings_of(stage: Stage, config: Config) -> dict[str, Any]:
    """What the stage's artefacts depend on: its sections, the seed, and the content of the files they name."""
    settings: dict[str, Any] = {"seed": config.seed}
    for section in stage.sections:
        settings[section] = output_settings(getattr(config, section))
    hashes = {key: _sha256(value) for key, value in _named_files(settings).items()}
    return settings | ({"sha256": hashes} if hashes else {})


def _named_files(settings: Any, prefix: str = "") -> dict[str, Path]:
    """Every string value that is the path of a local file."""
    if isinstance(settings, dict):
        found: dict[str, Path] = {}
        for key, value in settings.items():
            found |= _named_files(value, f"{prefix}.{key}" if prefix else key)
        return found
    if isinstance(settings, str) and len(settings) < 1024 and ("/" in settings or "." in settings):
        path = Path(settings).expanduser()
        if path.is_file():
            return {prefix: path}
    return {}


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
