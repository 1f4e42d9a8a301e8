"""More of a run that is there: rows tried again, or more rows. What is made stays as it is."""

from __future__ import annotations

import json
from collections.abc import Collection

import yaml

from conceptcaps import schema
from conceptcaps.config import Config
from conceptcaps.errors import InputError
from conceptcaps.lease import Lease
from conceptcaps.pipelines.stages import STAGES
from conceptcaps.rundir import CONFIG, Manifest, RunDir


def config_of(run: RunDir) -> Config:
    """The configuration that a run was last started with.

    Raises:
        InputError: the run has none.
    """
    return Config.model_validate(yaml.safe_load(run.read_bytes(CONFIG))).model_copy(update={"run_dir": run.location})


def retry(run: RunDir, statuses: Collection[str], config: Config) -> tuple[int, int]:
    """List a new attempt of all rows that ended so, for stage `generate` to make; its number and its rows.

    Raises:
        InputError: a status that does not exist, `generate` not finished, or another job in the run directory.
    """
    unknown = sorted(set(statuses) - set(schema.STATUSES))
    if unknown or not statuses:
        problem = f"has no status {unknown[0]!r}" if unknown else "names no status"
        raise InputError("--status", problem, f"Choose among {', '.join(schema.STATUSES)}")
    from conceptcaps.pipelines import attempts

    with Lease(run, config.ray.lease_seconds):
        manifest = Manifest(run)
        if not manifest.is_finished("generate"):
            mend = f"Finish it first: conceptcaps run -c CONFIG --run-dir {run}"
            raise InputError(f"run directory {run}", "holds rows that are not made yet", mend)
        attempt, rows = attempts.list_by_status(run, statuses, config.audio.rounds)
        if rows:
            _reopen(manifest, "generate", f"{rows} rows are tried again in attempt {attempt}")
    return attempt, rows


def extend(run: RunDir, num_samples: int, config: Config) -> Config:
    """Let a run have more rows; returns the config to go on with.

    Raises:
        InputError: fewer rows than there are, no specs yet, or another job in the run directory.
    """
    if num_samples < config.specs.num_samples:
        raise InputError(
            "--num-samples", f"is {num_samples}, fewer than the {config.specs.num_samples} there are", "Give more"
        )
    larger = config.model_copy(update={"specs": config.specs.model_copy(update={"num_samples": num_samples})})
    with Lease(run, config.ray.lease_seconds):
        manifest = Manifest(run)
        if not manifest.stage("specs"):
            raise InputError(f"run directory {run}", "has no specs yet", "Start it with specs.num_samples as you want")
        settings = json.loads(json.dumps(manifest.stage("specs")["settings"]))
        settings["specs"]["num_samples"] = num_samples
        manifest.data["stages"]["specs"]["settings"] = settings
        _reopen(manifest, "specs", f"the run grows to {num_samples} rows")
    return larger


def stages_begun(run: RunDir) -> tuple[str, ...]:
    """The stages that a run has a record of, in their order."""
    manifest = Manifest(run)
    return tuple(stage.name for stage in STAGES if manifest.stage(stage.name))


def _reopen(manifest: Manifest, name: str, why: str) -> None:
    """Mark a stage and all that depend on it as having more to do."""
    stale = {name}
    for stage in STAGES:  # in running order, so that one pass is enough
        if stage.name in stale or stale & set(stage.needs):
            stale.add(stage.name)
            manifest.reopen(stage.name, why)
    manifest.save()
