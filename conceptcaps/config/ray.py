"""Section `ray`: the cluster, and how rows travel on it."""

from __future__ import annotations

from conceptcaps.config.base import Section, speed_key


class RayConfig(Section):
    """Where the job runs. Nothing here changes what it makes."""

    address: str | None = speed_key(None, "Cluster to join: 'auto', 'ray://...', or null to start one in this process")
    num_cpus: int | None = speed_key(None, "Logical CPUs of a cluster started here (null: as many as the machine has)")
    object_store_mb: int | None = speed_key(None, "Object store of a cluster started here, MiB", ge=100)
    rows_per_block: int = speed_key(64, "Rows per block: what a kill can lose, and what a shard file holds", ge=1)
