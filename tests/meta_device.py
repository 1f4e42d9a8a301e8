"""What can be known of code for a GPU without one: its operations run on the meta device, which holds no data.

An operation that reads a value on the host, or whose result's shape depends on one, fails there as it would within the
recording of a CUDA graph. What the meta device lets pass, a tensor of the host among its own, is looked for here.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

META = torch.device("meta")


class OnlyMeta(TorchDispatchMode):
    """Refuses every operation that a tensor of another device takes part in.

    Args:
        read_back: give zeros where a result is copied to the host, rather than refuse that too.

    Attributes:
        calls: how often each operation ran.
        read: how often a result was copied to the host.
    """

    def __init__(self, read_back: bool = False) -> None:
        super().__init__()
        self.read_back, self.read = read_back, 0
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        with self:  # inference mode hands composite operations over whole
            parts = func.decompose(*args, **kwargs)
        if parts is not NotImplemented:
            return parts
        if self.read_back and func is torch.ops.aten._local_scalar_dense.default and args[0].device == META:
            self.read += 1
            return True
        moves = func is torch.ops.aten._to_copy.default and kwargs.get("device") not in (None, args[0].device)
        if moves and args[0].device == META and self.read_back:
            self.read += 1
            return torch.zeros(args[0].shape, dtype=kwargs.get("dtype") or args[0].dtype)
        result = func(*args, **kwargs)
        own = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor)]
        strangers = {str(tensor.device) for tensor in own} - {str(META)}
        # Inputs arrive from the host, and what has nothing to do with the device is its own affair.
        arrives = moves and result.device == META
        if strangers and not arrives and any(tensor.device == META for tensor in own):
            raise AssertionError(f"{func} on the device takes a tensor of {strangers}")
        self.calls[func.name()] += 1
        return result


def to_meta(module: Any) -> Any:
    """`module` itself, with parameters and buffers that have shapes only. Tensors that it keeps elsewhere stay."""
    for part in module.modules():
        for name, value in part._parameters.items():
            if value is not None:
                part._parameters[name] = nn.Parameter(value.to(META), requires_grad=value.requires_grad)
        for name, value in part._buffers.items():
            if value is not None:
                part._buffers[name] = value.to(META)
    return module
