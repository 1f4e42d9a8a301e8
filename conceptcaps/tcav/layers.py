"""Named layers of any torch module: activations and class gradients in one pass, one backward per class and batch."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from conceptcaps.errors import InputError

_CHANNELS_FIRST = (nn.Conv1d, nn.BatchNorm1d, nn.MaxPool1d, nn.AvgPool1d, nn.Sequential)


def plain_logits(output: Any) -> Tensor:
    """The logits in a module's output: the tensor itself, or the `logits` of a transformers output."""
    return output if isinstance(output, Tensor) else output.logits


@dataclass(frozen=True)
class Reading:
    """What one batch leaves behind.

    Args:
        logits: float32 (num_clips, num_classes).
        activations: layer -> float32 (num_clips, dim).
        gradients: layer -> float32 (num_asked_classes, num_clips, dim).
    """

    logits: np.ndarray
    activations: dict[str, np.ndarray]
    gradients: dict[str, np.ndarray]


class LayerReader:
    """A classifier seen through its named layers.

    Layers with positions (time, frequency, tokens) are averaged over them: an activation is then one value per
    channel, and its gradient the sum over positions, the derivative for the same step at all of them.

    Args:
        model: any module; put into eval mode.
        layers: names as in `model.named_modules()`.
        logits: picks the (num_clips, num_classes) logits from the model's output.
        channel_axis: where channels stand in a layer with positions; None: axis 1 of four-dimensional outputs and of
            those of 1-D convolutions and norms, the last axis of other three-dimensional ones (tokens).

    Raises:
        InputError: a layer that does not exist, with those that do.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[str],
        *,
        logits: Callable[[Any], Tensor] = plain_logits,
        channel_axis: int | None = None,
    ):
        self.model, self.layers = model.eval(), tuple(layers)
        self._logits, self._channel_axis = logits, channel_axis
        modules = dict(model.named_modules())
        for layer in layers:
            if layer not in modules or not layer:
                raise _unknown_layer(layer, [name for name in modules if name])
        self._modules = {layer: modules[layer] for layer in layers}

    def read(self, inputs: Tensor, classes: Sequence[int] = ()) -> Reading:
        """Logits and activations of a batch, and the gradients of the logits of `classes`."""
        with torch.set_grad_enabled(bool(classes)), _capture(self._modules) as captured:
            logits = self._logits(self.model(inputs.detach()))
        outputs = [captured[layer] for layer in self.layers]
        gradients: dict[str, list[np.ndarray]] = {layer: [] for layer in self.layers}
        for c in classes:
            found = torch.autograd.grad(logits[:, c].sum(), outputs, retain_graph=True, allow_unused=True)
            for layer, output, gradient in zip(self.layers, outputs, found, strict=True):
                whole = torch.zeros_like(output) if gradient is None else gradient
                positions = self._positions(self._modules[layer], output)
                gradients[layer].append(_to_numpy(_pool(whole, positions, Tensor.sum)))
        return Reading(
            _to_numpy(logits),
            {
                name: _to_numpy(_pool(o, self._positions(self._modules[name], o), Tensor.mean))
                for name, o in captured.items()
            },
            {layer: np.stack(g) for layer, g in gradients.items() if g},
        )

    def time_reach(self, inputs: Tensor, rate: float) -> dict[str, float]:
        """layer -> seconds of input that one position of the layer sees, by the gradient of its middle position.

        A layer without positions (a dense one after pooling) has the reach of the last module before it that has
        some: what that one cannot see in time, pooling does not bring back.

        Args:
            inputs: float (num_clips, ..., time), random or real.
            rate: steps of the last axis per second.
        """
        probe = inputs.detach().clone().requires_grad_()
        everything = {n: m for n, m in self.model.named_modules() if n in self._modules or not list(m.children())}
        with torch.enable_grad(), _capture(everything) as captured:
            self.model(probe)
        reaches: dict[str, float] = {}
        before = 0.0
        for name, output in captured.items():
            positions = self._positions(everything[name], output)
            if positions and max(output.shape[a] for a in positions) > 1 and output.grad_fn is not None:
                before = self._reach(everything[name], output, probe, positions) / rate
            if name in self._modules:
                reaches[name] = before
        return reaches

    def _reach(self, module: nn.Module, output: Tensor, probe: Tensor, positions: tuple[int, ...]) -> int:
        middle = output.movedim(self._axis(module, output), -1).flatten(1, -2)
        spans = [output.shape[a] for a in positions]
        index = int(np.ravel_multi_index([s // 2 for s in spans], spans))
        seen = torch.autograd.grad(middle[:, index].sum(), probe, retain_graph=True, allow_unused=True)[0]
        steps = [] if seen is None else torch.nonzero(seen.abs().flatten(0, -2).sum(0))[:, 0].tolist()
        return max(steps) - min(steps) + 1 if steps else 0

    def _axis(self, module: nn.Module, output: Tensor) -> int:
        if self._channel_axis is not None:
            return self._channel_axis % output.ndim
        channels_first = output.ndim >= 4 or (output.ndim == 3 and isinstance(module, _CHANNELS_FIRST))
        return 1 if channels_first else output.ndim - 1

    def _positions(self, module: nn.Module, output: Tensor) -> tuple[int, ...]:
        axis = self._axis(module, output)
        return tuple(a for a in range(1, output.ndim) if a != axis)


@contextmanager
def _capture(modules: Mapping[str, nn.Module]) -> Iterator[dict[str, Tensor]]:
    """The outputs of modules in the order in which they run."""
    captured: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            tensor = output if isinstance(output, Tensor) else output[0]
            if torch.is_grad_enabled() and not tensor.requires_grad:
                tensor.requires_grad_()
            captured[name] = tensor

        return hook

    handles = [module.register_forward_hook(keep(name)) for name, module in modules.items()]
    try:
        yield captured
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def randomised(module: nn.Module, seed: int) -> Iterator[None]:
    """Draw a module's weights anew for a while, each tensor with its own mean and spread; restored at the end."""
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    source = torch.Generator().manual_seed(seed % 2**63)
    try:
        with torch.no_grad():
            for p in module.parameters():
                noise = torch.randn(p.shape, generator=source).to(p)
                p.copy_(p.mean() + noise * (p.std() if p.numel() > 1 else 1))
        yield
    finally:
        with torch.no_grad():
            for name, p in module.named_parameters():
                p.copy_(before[name])


def _pool(tensor: Tensor, axes: tuple[int, ...], reduce: Callable[..., Tensor]) -> Tensor:
    return reduce(tensor, axes) if axes else tensor


def _to_numpy(tensor: Tensor) -> np.ndarray:
    return tensor.detach().float().cpu().numpy()


def _unknown_layer(layer: str, known: list[str]) -> InputError:
    near = difflib.get_close_matches(layer, known, n=1)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    return InputError(f"layer {layer!r}", "does not exist in the classifier", f"{hint}Layers: {', '.join(known)}")
