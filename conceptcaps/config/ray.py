"""Section `ray`: the cluster, how rows travel on it, and what a job survives."""

from __future__ import annotations

from typing import Literal

from conceptcaps.config.base import Section, speed_key


class RayConfig(Section):
    """Where the job runs. Nothing here changes what it makes."""

    address: str | None = speed_key(None, "Cluster to join: 'auto', 'ray://...', or null to start one in this process")
    num_cpus: int | None = speed_key(None, "Logical CPUs of a cluster started here (null: as many as the machine has)")
    object_store_mb: int | None = speed_key(None, "Object store of a cluster started here, MiB", ge=100)
    rows_per_block: int = speed_key(
        64, "Rows per block: what a kill can lose, and what a shard file holds (a larger batch takes more)", ge=1
    )
    autoscaling: bool = speed_key(
        False, "The cluster adds nodes when they are asked for: do not refuse pools that it cannot hold yet"
    )
    grace_seconds: float = speed_key(
        20.0, "Seconds that SIGTERM leaves to rows under way; below what the sender waits until SIGKILL", ge=0
    )
    lease_seconds: float = speed_key(
        30.0, "Seconds after which a job that crashed on another machine no longer holds the run directory", ge=1
    )
    max_worker_deaths: int = speed_key(
        2, "Times that a row may kill its worker, alone in it, until the row is given up as failed", ge=1
    )
    max_failed_fraction: float = speed_key(
        0.5, "Stop when more than this share of a job's rows (of at least 50) has failed", gt=0, le=1
    )
    worker_logs: bool = speed_key(
        True, "Show here what workers print, vLLM's start-up for one; it is in Ray's own log files in any case"
    )
    log_format: Literal["text", "json"] = speed_key(
        "text", "'json': a line of JSON per log record, with the run's id and, where there is one, the row's"
    )
