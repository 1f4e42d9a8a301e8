"""What every section shares: unknown keys are refused, values are frozen, resources are data."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Section(BaseModel):
    """A group of keys. An unknown key is an error; a section never changes after it is loaded."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), validate_default=True)


def speed_key(default: Any, description: str, **checks: Any) -> Any:
    """A key that changes how fast a run is or where it happens, never what it makes.

    Such keys may differ between two starts on one run directory; any other key may not.
    """
    return Field(default, description=description, json_schema_extra={"changes_output": False}, **checks)


class Resources(Section):
    """What one worker of a stage needs, and how many workers there are."""

    workers: int = speed_key(1, "Workers at the start, and the least kept alive", ge=1)
    max_workers: int | None = speed_key(None, "Most workers when the pool may grow (null: `workers`)", ge=1)
    num_cpus: float = speed_key(1.0, "Logical CPUs per worker", ge=0)
    num_gpus: float = speed_key(0.0, "GPUs per worker; fractions share a GPU between workers", ge=0)
    accelerator_type: str | None = speed_key(None, "Ray accelerator label a worker must run on, e.g. H100")
    python: str | None = speed_key(
        None, "Python interpreter of the workers, for packages that cannot live with the others (null: the job's own)"
    )
    batch_size: int = speed_key(16, "Rows per call of the engine", ge=1)

    @model_validator(mode="after")
    def _pool_grows_upwards(self) -> Resources:
        if self.max_workers is not None and self.max_workers < self.workers:
            raise ValueError(f"max_workers is {self.max_workers}, fewer than workers, {self.workers}")
        return self
