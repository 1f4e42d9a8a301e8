"""The cluster: connect, turn a section's resources into Ray's arguments, refuse a cluster that is too small."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import ray
import ray.data
from ray.data import ActorPoolStrategy
from ray.train import ScalingConfig

from conceptcaps.config.base import Resources
from conceptcaps.config.ray import RayConfig
from conceptcaps.errors import InputError
from conceptcaps.node_watch import end_with_node

logger = logging.getLogger(__name__)

TASK_CPUS = 0.25
"""Logical CPUs of a read or write task: they wait for storage far more than they compute."""
RESERVED_CPUS = 2 * TASK_CPUS
"""Left free of actor pools: for a task that reads and one that writes."""


@dataclass(frozen=True)
class Demand:
    """What one actor pool takes for as long as the plan runs."""

    key: str
    """The config key that asks for it, e.g. 'audio.resources'."""
    resources: Resources
    num_cpus: float | None = None
    """Logical CPUs per worker where the pool takes other than `resources.num_cpus`."""
    gpus_per_worker: float | None = None

    @property
    def cpus(self) -> float:
        return self.resources.workers * (self.resources.num_cpus if self.num_cpus is None else self.num_cpus)

    @property
    def gpus(self) -> float:
        return self.resources.workers * self.each_gpus

    @property
    def each_gpus(self) -> float:
        return self.resources.num_gpus if self.gpus_per_worker is None else self.gpus_per_worker


def connect(config: RayConfig, quiet: bool = False) -> None:
    """Join the cluster that the config names, or start one in this process; no effect where one is joined already.

    Inside `ray job submit` the job's own cluster is joined whatever the config says. From here on this process ends
    when its Ray node dies.

    Raises:
        InputError: the cluster cannot be reached.
    """
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if not ray.is_initialized():
        address = os.environ.get("RAY_ADDRESS") or config.address
        settings: dict[str, Any] = {"log_to_driver": config.worker_logs and not quiet, "logging_level": logging.WARNING}
        if config.log_format == "json":
            settings["logging_config"] = ray.LoggingConfig(encoding="JSON", additional_log_standard_attrs=["name"])
        if address:
            settings["address"] = address
        else:
            # "local": without it, Ray joins whatever head node runs, or has once run, on this machine.
            settings |= {"address": "local", "include_dashboard": False, "num_cpus": config.num_cpus}
            if config.object_store_mb:
                settings["object_store_memory"] = config.object_store_mb * 2**20
        try:
            _start(settings)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise InputError(
                f"key 'ray.address' ({address})", f"no cluster answers ({error})", "Start one, or set it to null"
            ) from error
    end_with_node()
    _quieten(quiet)


def _start(settings: dict[str, Any], tries: int = 3) -> None:
    """ray.init, again where a local node was too slow: Ray gives its agents 15 s, which a busy machine may not."""
    for left in reversed(range(tries)):
        try:
            ray.init(**settings)
            return
        except Exception as error:
            if not left or "timed out during startup" not in str(error):
                raise
            logger.warning("the local Ray node did not start in time; trying again")
            ray.shutdown()


def _quieten(quiet: bool) -> None:
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = not quiet
    context.print_on_execution_start = False
    for name in ("ray.data", "ray.train"):
        logging.getLogger(name).setLevel(logging.WARNING)


def pool_arguments(resources: Resources) -> dict[str, Any]:
    """Arguments of `Dataset.map_batches` for a pool of actors that each hold one engine."""
    arguments: dict[str, Any] = {
        "batch_size": resources.batch_size,
        "compute": ActorPoolStrategy(min_size=resources.workers, max_size=resources.max_workers or resources.workers),
        "num_cpus": resources.num_cpus,
    }
    if resources.num_gpus:
        arguments["num_gpus"] = resources.num_gpus
    if resources.accelerator_type:
        arguments["accelerator_type"] = resources.accelerator_type
    if resources.python:
        arguments["runtime_env"] = {"py_executable": resources.python}
    return arguments


def scaling(resources: Resources) -> ScalingConfig:
    """Ray Train's view of the same resources; one worker trains in this process, without actors."""
    if resources.workers == 1 and not resources.num_gpus:
        return ScalingConfig(num_workers=0)
    needs: dict[str, float] = {"CPU": resources.num_cpus}
    if resources.num_gpus:
        needs["GPU"] = resources.num_gpus
    return ScalingConfig(
        num_workers=resources.workers,
        use_gpu=resources.num_gpus > 0,
        resources_per_worker=needs,
        accelerator_type=resources.accelerator_type,
    )


def _whole_gpus(demands: Iterable[Demand]) -> float:
    """GPUs that hold all workers: a worker's share lies on one GPU, so that three of 0.6 need three."""
    shares = sorted((d.each_gpus for d in demands for _ in range(d.resources.workers)), reverse=True)
    rooms: list[float] = []
    for share in (s for s in shares if 0 < s < 1):
        room = next((i for i, left in enumerate(rooms) if left >= share - 1e-6), None)
        if room is None:
            rooms.append(1 - share)
        else:
            rooms[room] -= share
    return len(rooms) + sum(s for s in shares if s >= 1)


def check_capacity(demands: Iterable[Demand], reserved: float = RESERVED_CPUS, autoscaling: bool = False) -> None:
    """Refuse a plan whose pools cannot all stand at once: Ray would wait for ever without a word.

    Args:
        demands: the pools.
        reserved: logical CPUs that the plan's own tasks need beside them.
        autoscaling: the cluster grows when it is asked to: only say what it lacks now.

    Raises:
        InputError: too few CPUs, too few GPUs or none, or no node with the accelerator asked for.
    """
    try:
        _check_capacity(list(demands), reserved)
    except InputError as error:
        if not autoscaling:
            raise
        logger.warning("waiting for the cluster to grow: %s %s", error.where, error.problem)


def _check_capacity(demands: list[Demand], reserved: float) -> None:
    have = ray.cluster_resources()
    cpus, gpus = have.get("CPU", 0.0), have.get("GPU", 0.0)
    needed_gpus = _whole_gpus(demands)
    if needed_gpus > gpus + 1e-6:
        asking = ", ".join(f"{d.key} {d.gpus:g}" for d in demands if d.gpus)
        whole = "; a worker's share lies on one GPU" if needed_gpus > sum(d.gpus for d in demands) + 1e-6 else ""
        raise InputError(
            "the cluster",
            f"has {gpus:g} GPUs and the pools need {needed_gpus:g} ({asking}{whole})",
            "Add GPUs, lower workers or num_gpus, or choose an engine that needs none",
        )
    needed = sum(d.cpus for d in demands) + reserved
    if needed > cpus + 1e-6:
        asking = ", ".join(f"{d.key} {d.cpus:g}" for d in demands)
        raise InputError(
            "the cluster",
            f"has {cpus:g} CPUs and the pools need {needed:g} ({asking}, reading and writing {reserved:g})",
            "Lower workers or num_cpus of these keys (fractions are fine), or raise ray.num_cpus",
        )
    for demand in demands:
        label = demand.resources.accelerator_type
        if label and not have.get(f"accelerator_type:{label}"):
            found = sorted(k.split(":", 1)[1] for k in have if k.startswith("accelerator_type:"))
            raise InputError(
                f"key '{demand.key}.accelerator_type'", f"no node has {label!r}", f"The cluster has {found or 'none'}"
            )
