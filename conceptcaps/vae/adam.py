"""Adam (Kingma and Ba 2015) on one vector."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim.adam import adam


class Adam:
    """The optimiser of `torch.optim.Adam`, less what that does around each step: hooks, profiling, grouping.

    For a model of half a megabyte, that takes as long as the update.

    Args:
        value: (n,) what is optimised, in place.
        gradient: (n,) read at every step.
        learning_rate: the step size.
    """

    def __init__(self, value: Tensor, gradient: Tensor, learning_rate: float):
        self.value, self.gradient, self.learning_rate = value, gradient, learning_rate
        self.mean, self.square = torch.zeros_like(value), torch.zeros_like(value)
        self.steps = torch.zeros((), device=value.device)

    @torch.no_grad()
    def step(self) -> None:
        adam(
            [self.value],
            [self.gradient],
            [self.mean],
            [self.square],
            [],
            [self.steps],
            fused=True,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=self.learning_rate,
            weight_decay=0.0,
            eps=1e-8,
            maximize=False,
        )

    def state_dict(self) -> dict[str, Tensor]:
        return {"mean": self.mean, "square": self.square, "steps": self.steps}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for name, value in self.state_dict().items():
            value.copy_(state[name])
