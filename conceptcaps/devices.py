"""Where an engine's model runs."""

from __future__ import annotations

import torch

from conceptcaps.config.base import Resources
from conceptcaps.errors import InputError

_OUT_OF_MEMORY = ("can't allocate memory", "out of memory", "alloc_failed")


def device_for(resources: Resources, key: str) -> torch.device:
    """The GPU that Ray gave this worker where its section asks for a share of one, else the CPU.

    A GPU that is merely there is not taken: Ray shows all of them to workers that asked for none.

    Args:
        resources: of the engine's section.
        key: of `resources`, for the error.

    Raises:
        InputError: the section asks for a GPU, and torch sees none.
    """
    if not resources.num_gpus:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        problem = f"is {resources.num_gpus:g}, and torch {torch.__version__} sees no GPU here"
        raise InputError(f"key '{key}.num_gpus'", problem, "Install torch for CUDA and its driver, or set it to 0")
    return torch.device("cuda")


def device_memory(device: torch.device, share: float = 1.0) -> int:
    """Bytes of a GPU that this process may still take: what is free, within its `share` of the whole.

    What torch's allocator keeps without using it counts as free.
    """
    free, total = torch.cuda.mem_get_info(device)
    used = torch.cuda.memory_allocated(device)
    unused = torch.cuda.memory_reserved(device) - used
    return max(0, min(free + unused, int(total * min(share, 1.0)) - used))


def is_out_of_memory(error: BaseException) -> bool:
    """Also where it is a plain RuntimeError: of the CPU's allocator, CUDA's driver, cuBLAS or cuDNN."""
    told = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or any(words in told for words in _OUT_OF_MEMORY)
