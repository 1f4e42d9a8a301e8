"""A bad row costs one row; a lost GPU costs the process."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch

from conceptcaps.pipelines import isolation


class Left(BaseException):
    pass


def leave(code: int) -> None:
    raise Left(code)


def test_a_row_that_raises_fails_alone() -> None:
    rows: list[dict[str, Any]] = [{"id": i} for i in range(4)]

    def call(batch: list[dict[str, Any]]) -> list[int]:
        if any(row["id"] == 2 for row in batch):
            raise ValueError("not this one")
        return [10 * row["id"] for row in batch]

    assert [answer for _, answer in isolation.answers(call, rows, "audio")] == [0, 10, 30]
    assert [row.get("status") for row in rows] == [None, None, "failed", None]
    assert "not this one" in rows[2]["reason"]


def test_a_lost_gpu_ends_the_process_and_no_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each row alone would fail as well, in a process that can do nothing any more."""
    monkeypatch.setattr(os, "_exit", leave)
    rows: list[dict[str, Any]] = [{"id": i} for i in range(4)]

    def call(batch: list[dict[str, Any]]) -> list[int]:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    with pytest.raises(Left):
        isolation.answers(call, rows, "audio")
    assert not any("status" in row for row in rows)


def test_a_lack_of_memory_is_no_lost_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "_exit", leave)
    row: dict[str, Any] = {"id": 1}

    def call(batch: list[dict[str, Any]]) -> list[int]:
        raise torch.AcceleratorError("CUDA error: out of memory")

    assert isolation.answers(call, [row], "audio") == []
    assert row["status"] == "failed"
