"""Training batches of the beta-VAE: rows in random order with their noise, gathered and drawn many batches at a time.

Rows hold few of the tags (5.5 of 200 in MusicCaps), so that a batch also lists which: the products with the tags, in
the first layer and in its gradient, are then sums of a few rows each.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from conceptcaps.vae.model import BetaVAE, Masks

_BATCHES_PER_BLOCK = 16
"""Enough to share the cost of drawing and listing, and noise that stays in cache.

Blocks of many megabytes are returned to the system and cleared anew, at a tenth of a fit.
"""


class Bags(NamedTuple):
    """A sum of table rows for each of several bags, in the layout of `torch.embedding_bag`.

    Attributes:
        members: int64 (num_members,), rows of the table, bag by bag.
        offsets: int64 (num_bags + 1,), where each bag begins, and the end of the last.
    """

    members: Tensor
    offsets: Tensor

    def sums(self, table: Tensor) -> Tensor:
        """(..., num_bags, width) from (..., num_rows, width): the product with the 0/1 matrix that the bags are."""
        if table.dim() > 2:
            return torch.stack([self.sums(of_member) for of_member in table])
        total: Tensor = torch.embedding_bag(
            table, self.members, self.offsets, scale_grad_by_freq=False, mode=0, include_last_offset=True
        )[0]
        return total


class Batch(NamedTuple):
    """A worker's rows of one batch.

    Attributes:
        x: float (B, V) in {0, 1}.
        tags: B bags of tags, `x` times a table.
        holders: V bags of rows, `x` transposed times a table.
        epsilon: float (B, L), standard normal.
        masks: dropout, (B, H) each; None without.
        size: rows of the batch over all workers.
    """

    x: Tensor
    tags: Bags
    holders: Bags
    epsilon: Tensor
    masks: Masks | None
    size: int


def batches(
    model: BetaVAE, train: Tensor, batch_size: int, generator: torch.Generator, rank: int = 0, world: int = 1
) -> Iterator[Batch]:
    """One pass over the rows.

    Every worker draws the noise of every row and keeps its own, which is each `world`-th row of a batch: the loss of a
    step is the same whatever the number of workers.

    Args:
        model: whose noise is drawn.
        train: float (num_rows, V) in {0, 1}; batches are on its device.
        batch_size: rows over all workers.
        generator: on the CPU, of order and noise.
        rank: of this worker.
        world: number of workers.
    """
    order = torch.randperm(len(train), generator=generator)
    for block in order.split(_BATCHES_PER_BLOCK * batch_size):
        epsilon = torch.randn(len(block), model.latent_dim, generator=generator)
        masks = model.draw_masks(len(block), generator)
        sizes = [min(batch_size, len(block) - begin) for begin in range(0, len(block), batch_size)]
        if world > 1:
            own = torch.tensor([i * batch_size + j for i, size in enumerate(sizes) for j in range(rank, size, world)])
            block, epsilon = block[own], epsilon[own]
            masks = None if masks is None else (masks[0][own], masks[1][own])
        counts = [len(range(rank, size, world)) for size in sizes]
        rows = train.index_select(0, block.to(train.device))
        noise = epsilon.to(train.device).split(counts)
        dropout: Iterable[Masks | None] = [None] * len(sizes)
        if masks is not None:
            dropout = zip(*(mask.to(train.device).split(counts) for mask in masks), strict=True)
        yield from map(Batch, rows.split(counts), *_incidence(rows, counts), noise, dropout, sizes)


def _incidence(rows: Tensor, counts: list[int]) -> tuple[Iterator[Bags], Iterator[Bags]]:
    """`Batch.tags` and `Batch.holders` of batches of `counts` rows each; all but the last are equally many."""
    most, num_tags, num_batches = counts[0], rows.shape[1], len(counts)
    row, tag = rows.nonzero(as_tuple=True)
    batch = row // most
    row_of_batch, tag_of_batch = row, batch * num_tags + tag
    sizes = torch.bincount(batch, minlength=num_batches).tolist()
    holder = (row - batch * most)[torch.argsort(tag_of_batch, stable=True)]
    tags = list(_offsets(row_of_batch, num_batches, most))
    tags[-1] = tags[-1][: counts[-1] + 1]
    holders = _offsets(tag_of_batch, num_batches, num_tags)
    return map(Bags, tag.split(sizes), tags), map(Bags, holder.split(sizes), holders)


def _offsets(bag: Tensor, num_batches: int, bags_of_batch: int) -> tuple[Tensor, ...]:
    """`Bags.offsets` of each batch, from the number of every member's bag."""
    counts = torch.bincount(bag, minlength=num_batches * bags_of_batch).view(num_batches, bags_of_batch)
    return pad(counts.cumsum(1), (1, 0)).unbind()
