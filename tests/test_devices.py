"""Which device an engine takes, and what it takes for a lack of memory."""

from __future__ import annotations

import pytest
import torch

from conceptcaps import devices
from conceptcaps.config.base import Resources
from conceptcaps.errors import InputError

GIB = 2**30


def test_a_gpu_that_was_not_asked_for_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert devices.device_for(Resources(), "audio.resources").type == "cpu"
    assert devices.device_for(Resources(num_gpus=0.5), "audio.resources").type == "cuda"


def test_a_gpu_that_torch_does_not_see_names_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match=r"'audio\.resources\.num_gpus': is 0\.5, and torch .* sees no GPU"):
        devices.device_for(Resources(num_gpus=0.5), "audio.resources")


@pytest.mark.parametrize(
    ("free", "share", "gib"),
    [
        (70, 1.0, 74.0),  # and 4 that the allocator keeps unused
        (70, 0.4, 20.0),  # 0.4 of 100, less 20 in use
        (10, 0.4, 14.0),  # others have taken more than their share
        (70, 0.1, 0.0),
    ],
)
def test_memory_is_what_is_free_within_the_share(
    monkeypatch: pytest.MonkeyPatch, free: int, share: float, gib: float
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free * GIB, 100 * GIB))
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 20 * GIB)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 24 * GIB)
    assert devices.device_memory(torch.device("cuda"), share) == gib * GIB


@pytest.mark.parametrize(
    ("error", "out"),
    [
        (torch.OutOfMemoryError("anything"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (torch.AcceleratorError("CUDA error: out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (torch.AcceleratorError("CUDA error: an illegal memory access was encountered"), False),
        (RuntimeError("shapes differ"), False),
    ],
)
def test_lack_of_memory_is_known_by_its_words(error: RuntimeError, out: bool) -> None:
    assert devices.is_out_of_memory(error) is out
