"""Ensemble of mixtures of autoregressive Bernoulli models over tag sets.

A member orders the tags at random and gives each a logistic regression on the tags before it (a fully visible sigmoid
belief network, Neal 1992); its K components share the regressions' weights and differ in their biases. Averaging
members over orders follows Germain et al. 2015 (MADE, section 4.2).

Shapes: M members, K components, B rows, V tags.
"""

from __future__ import annotations

import copy
import logging
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from conceptcaps.seeding import derive

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class MixtureSettings:
    """How a `TagMixture` is fitted.

    Attributes:
        members: M. components: K.
        epochs: most passes over the rows.
        batch_size: rows per optimiser step.
        learning_rate: of Adam.
        weight_decay: penalty on squared weights.
        bias_decay: penalty on squared distances of biases from the tags' log odds.
        averaging: share of the old in each step's running mean of the parameters, which is what is kept (Polyak and
            Juditsky 1992); 0 keeps the parameters themselves.
        validation_fraction: rows that a member stops early on; every member keeps other rows aside.
        patience: epochs without a better validation likelihood before a member stops.
    """

    members: int = 6
    components: int = 16
    epochs: int = 120
    batch_size: int = 96
    learning_rate: float = 3e-2
    weight_decay: float = 1e-3
    bias_decay: float = 1e-4
    averaging: float = 0.98
    validation_fraction: float = 0.1
    patience: int = 8


class TagMixture(nn.Module):
    """The fitted density.

    Args:
        num_tags: V.
        members: M.
        components: K.
        seed: of tag orders and initial biases.
    """

    order: Tensor

    def __init__(self, num_tags: int, members: int, components: int, seed: int = 0):
        super().__init__()
        self.num_tags, self.members, self.components = num_tags, members, components
        generator = torch.Generator().manual_seed(seed)
        order = torch.stack([torch.randperm(num_tags, generator=generator) for _ in range(members)])
        self.register_buffer("order", order)  # (M, V): the tag at each position
        self.weight = nn.Parameter(torch.zeros(members, num_tags, num_tags))
        self.bias = nn.Parameter(0.5 * torch.randn(members, components, num_tags, generator=generator))
        self.mixing = nn.Parameter(torch.zeros(members, components))

    @property
    def mask(self) -> Tensor:
        """float (M, V, V): 1 where the row's tag comes before the column's."""
        position = self.order.argsort(1)
        return (position[:, :, None] < position[:, None, :]).float()

    def member_log_likelihood(self, x: Tensor) -> Tensor:
        """(M, B) log p(x) under each member, of rows (B, V) or of each member's own rows (M, B, V)."""
        x = x.expand(self.members, *x.shape[-2:])
        shared = torch.bmm(x, self.weight * self.mask)  # (M, B, V)
        of_set = (shared * x).sum(-1)[:, None] + torch.bmm(self.bias, x.transpose(1, 2))  # (M, K, B)
        log_rows = of_set - F.softplus(shared[:, None] + self.bias[:, :, None]).sum(-1)
        return torch.logsumexp(log_rows + self.mixing.log_softmax(1)[:, :, None], 1)

    @torch.no_grad()
    def log_likelihood(self, x: Tensor) -> Tensor:
        """(B,) log p(x), nats, of the ensemble: members mixed in equal parts."""
        parts = [torch.logsumexp(self.member_log_likelihood(rows), 0) for rows in x.split(512)]
        return torch.cat(parts) - math.log(self.members)


def fit_mixture(matrix: np.ndarray, settings: MixtureSettings, seed: int) -> tuple[TagMixture, dict[str, float]]:
    """Fit every member, side by side, each stopping early on rows of its own.

    Args:
        matrix: uint8 (num_rows, num_tags).
        settings: of the fit.
        seed: of orders, starting points, batches and held-out rows.

    Returns:
        The model, and facts: epochs, and the mean validation nats per row of single members.
    """
    rows = torch.from_numpy(np.ascontiguousarray(matrix)).float()
    model = TagMixture(rows.shape[1], settings.members, settings.components, derive(seed, "orders"))
    generator = torch.Generator().manual_seed(derive(seed, "fit"))
    train, validation = _split(rows, settings, generator)
    frequency = rows.mean(0).clamp(0.5 / len(rows), 1 - 0.5 / len(rows))
    centre = torch.logit(frequency)
    model.bias.data += centre
    optimizer = torch.optim.Adam(model.parameters(), lr=settings.learning_rate, fused=True)
    mean = copy.deepcopy(model)
    best, best_score = copy.deepcopy(model), torch.full((settings.members,), -torch.inf)
    best_epoch = torch.zeros(settings.members, dtype=torch.int64)
    epoch = step = 0
    while epoch < settings.epochs and (epoch - best_epoch < settings.patience).any():
        epoch += 1
        for batch in torch.randperm(train.shape[1], generator=generator).split(settings.batch_size):
            step += 1
            likelihood = model.member_log_likelihood(train[:, batch]).mean(1).sum()
            penalty = settings.weight_decay * model.weight.square().sum()
            penalty = penalty + settings.bias_decay * (model.bias - centre).square().sum()
            optimizer.zero_grad()
            (penalty - likelihood).backward()
            optimizer.step()
            _move(mean, model, 1 - min(settings.averaging, step / (step + 10)))
        with torch.no_grad():
            score = mean.member_log_likelihood(validation).mean(1)
        better = score > best_score
        best_score, best_epoch[better] = torch.where(better, score, best_score), epoch
        for kept, now in zip(best.parameters(), mean.parameters(), strict=True):
            kept.data[better] = now.data[better]
    logger.info("fitted %d members in %d epochs", settings.members, epoch)
    return best.eval(), {"epochs": epoch, "validation_nats_per_row": -float(best_score.mean())}


@torch.no_grad()
def _move(mean: TagMixture, model: TagMixture, share: float) -> None:
    """Move a running mean of parameters by a share of the way to the latest."""
    for kept, now in zip(mean.parameters(), model.parameters(), strict=True):
        kept.lerp_(now, share)


def _split(rows: Tensor, settings: MixtureSettings, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Training rows (M, B, V) and validation rows (M, B', V) of each member."""
    held = min(max(1, round(settings.validation_fraction * len(rows))), len(rows) - 1)
    orders = [torch.randperm(len(rows), generator=generator) for _ in range(settings.members)]
    return torch.stack([rows[o[held:]] for o in orders]), torch.stack([rows[o[:held]] for o in orders])


@dataclass(frozen=True)
class _Member:
    """One member with its tags in generation order, as NumPy arrays."""

    order: np.ndarray  # int (V,)
    weight: np.ndarray  # float32 (V, V), upper triangular
    bias: np.ndarray  # float32 (K, V)
    share: np.ndarray  # float64 (K,)


class MixtureProposer:
    """Draws from a `TagMixture`, tag by tag for many rows at once.

    Only sums in a fixed order and comparisons stand between the random numbers and the tags, so that the same
    generator gives the same rows on any number of threads.

    Args:
        model: the fitted density.
        temperature: logits are divided by it.
        tilt: float (V,), added to the logits: raises or lowers how often each tag appears.
    """

    def __init__(self, model: TagMixture, temperature: float = 1.0, tilt: np.ndarray | None = None):
        self.num_tags = model.num_tags
        self.temperature = temperature
        self.tilt = np.zeros(model.num_tags) if tilt is None else tilt
        self._members = [self._member(model, m) for m in range(model.members)]

    def tilted(self, tilt: np.ndarray) -> MixtureProposer:
        """The same model with another tilt."""
        other = object.__new__(MixtureProposer)
        other.__dict__ |= self.__dict__ | {"tilt": tilt}
        return other

    def _member(self, model: TagMixture, m: int) -> _Member:
        order = model.order[m].numpy()
        weight = (model.weight[m] * model.mask[m]).detach().numpy()[np.ix_(order, order)] / self.temperature
        bias = model.bias[m].detach().numpy()[:, order] / self.temperature
        share = torch.softmax(model.mixing[m].detach().double(), 0).numpy()
        return _Member(order, np.ascontiguousarray(weight), bias, share)

    def propose(self, rng: np.random.Generator, count: int, given: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        matrix = np.zeros((count, self.num_tags), np.uint8)
        log_weight = np.zeros(count)
        begin = 0
        for member, size in zip(self._members, self._sizes(rng, count), strict=True):
            rows = slice(begin, begin + size)
            matrix[rows, member.order], log_weight[rows] = self._draw(member, rng, int(size), given)
            begin += size
        shuffled = rng.permutation(count)
        return matrix[shuffled], log_weight[shuffled]

    def _sizes(self, rng: np.random.Generator, count: int) -> np.ndarray:
        return rng.multinomial(count, np.full(len(self._members), 1 / len(self._members)))

    def _draw(self, member: _Member, rng: np.random.Generator, count: int, given: np.ndarray) -> tuple[np.ndarray, ...]:
        """Tags in the member's order, uint8 (count, V), and the log probability of the given ones."""
        component = rng.choice(len(member.share), size=count, p=member.share)
        logits = (member.bias + self.tilt[member.order].astype(np.float32))[component]
        # Tags are the rows of what each step reads whole, and the columns of what it adds to, a few rows at a time.
        uniform = rng.random((self.num_tags, count), dtype=np.float32)
        with np.errstate(divide="ignore"):
            noise = np.log(uniform) - np.log1p(-uniform)
        drawn = np.zeros((self.num_tags, count), np.uint8)
        log_weight = np.zeros(count)
        forced = np.isin(member.order, given)
        for j in range(self.num_tags):
            if forced[j]:
                log_weight -= np.logaddexp(0, -logits[:, j].astype(np.float64))
                chosen = np.arange(count)
            else:
                chosen = (noise[j] < logits[:, j]).nonzero()[0]
            drawn[j, chosen] = 1
            logits[chosen, j + 1 :] += member.weight[j, j + 1 :]
        return drawn.T, log_weight
