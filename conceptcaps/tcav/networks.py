"""Small classifiers of three architectures for the ground truth, each with a `features` layer under a dense head."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from conceptcaps.tcav.classifier import Block

NUM_MELS, HEAD_DIM = 48, 64


class _Classifier(nn.Module):
    """Normalised log-mel -> `trunk` -> `features` -> `head`."""

    def __init__(self, trunk: nn.Module, num_features: int, num_classes: int):
        super().__init__()
        self.halve = nn.AvgPool1d(2)  # 50 ms frames: enough for sixteenths at 150 beats a minute, half the work
        self.input_norm = nn.BatchNorm1d(NUM_MELS)
        self.trunk = trunk
        self.features = nn.Identity()
        self.head = nn.Sequential(nn.Linear(num_features, HEAD_DIM), nn.ReLU(), nn.Linear(HEAD_DIM, num_classes))

    def forward(self, mel: Tensor) -> Tensor:
        return self.head(self.features(self.trunk(self.input_norm(self.halve(mel)))))


class _Pool(nn.Module):
    """Mean and maximum over all positions: (num_clips, channels, ...) -> (num_clips, 2 channels)."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(2)
        return torch.cat([x.mean(-1), x.amax(-1)], 1)


class _Tokens(nn.Module):
    """Four (halved) frames a token, two transformer layers, mean over tokens."""

    def __init__(self, dim: int = 64, frames: int = 4, tokens: int = 21):
        super().__init__()
        self.embed = nn.Conv1d(NUM_MELS, dim, frames, stride=frames)
        self.place = nn.Parameter(0.02 * torch.randn(tokens, dim))
        self.layers = nn.Sequential(
            *(
                nn.TransformerEncoderLayer(dim, 4, 2 * dim, dropout=0.0, batch_first=True, norm_first=True)
                for _ in range(2)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embed(x).mT
        return self.layers(tokens + self.place[: tokens.shape[1]]).mean(1)


def _convolutions_2d() -> tuple[nn.Module, int]:
    widths = [8, 16, 32]
    first = nn.Sequential(nn.Unflatten(1, (1, NUM_MELS)), nn.Conv2d(1, widths[0], 5, stride=2, padding=2), nn.ReLU())
    blocks = [Block(a, b) for a, b in itertools.pairwise(widths)]
    return nn.Sequential(first, *blocks, _Pool()), 2 * widths[-1]


def _convolutions_1d() -> tuple[nn.Module, int]:
    layers: list[nn.Module] = []
    for in_channels, stride in ((NUM_MELS, 1), (48, 2), (48, 2)):
        layers += [
            nn.Conv1d(in_channels, 48, 5, stride=stride, padding=2, bias=False),
            nn.BatchNorm1d(48),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers, _Pool()), 96


def _transformer() -> tuple[nn.Module, int]:
    return _Tokens(), 64


ARCHITECTURES = {
    "2-D convolutions": _convolutions_2d,
    "1-D convolutions": _convolutions_1d,
    "transformer": _transformer,
}


def train(
    architecture: str, mel: np.ndarray, labels: np.ndarray, num_classes: int, seed: int, epochs: int = 12
) -> nn.Module:
    """Adam with a one-cycle rate and random shifts in time.

    Args:
        mel: float16 (num_clips, NUM_MELS, frames).
        labels: int64 (num_clips,).
    """
    torch.manual_seed(seed)
    trunk, num_features = ARCHITECTURES[architecture]()
    model = _Classifier(trunk, num_features, num_classes).train()
    source = torch.Generator().manual_seed(seed)
    x, y = torch.from_numpy(mel).float(), torch.from_numpy(labels)
    steps = epochs * (len(x) // 32)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps)
    for _ in range(epochs):
        order = torch.randperm(len(x), generator=source)[: len(x) // 32 * 32].reshape(-1, 32)
        for batch in order:
            shift = int(torch.randint(0, 8, (), generator=source))
            loss = nn.functional.cross_entropy(model(x[batch][..., shift:]), y[batch], label_smoothing=0.05)
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
    return model.eval()


@torch.no_grad()
def logits_of(model: nn.Module, mel: np.ndarray) -> np.ndarray:
    """float32 (num_clips, num_classes)."""
    return np.concatenate([model(torch.from_numpy(part).float()).numpy() for part in batches(mel)])


def batches(mel: np.ndarray, size: int = 200) -> Sequence[np.ndarray]:
    """Consecutive parts of at most `size` clips."""
    return [mel[i : i + size] for i in range(0, len(mel), size)]
