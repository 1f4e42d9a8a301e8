"""The gradient derived by hand against autograd's, and the batches that it reads."""

import pytest
import torch

from conceptcaps.vae.batches import Batch, batches
from conceptcaps.vae.gradients import Gradients, flatten
from conceptcaps.vae.model import BetaVAE

ROWS = (torch.rand(61, 30, generator=torch.Generator().manual_seed(2)) < 0.15).double()


def double(batch: Batch) -> Batch:
    masks = batch.masks and (batch.masks[0].double(), batch.masks[1].double())
    return batch._replace(epsilon=batch.epsilon.double(), masks=masks)


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("dropout", [0.0, 0.25])
@pytest.mark.parametrize("world", [1, 3])
def test_agrees_with_autograd(members, dropout, world):
    model = BetaVAE(30, 16, 5, dropout, members, seed=1).double()
    with torch.no_grad():  # members that differ
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3))
    flatten(model)
    betas = torch.tensor([0.3, 1.0, 4.0])[:members].double()
    gradients = Gradients(model, betas)
    for rank in range(world):
        for batch in map(double, batches(model, ROWS, 20, torch.Generator().manual_seed(4), rank, world)):
            terms = gradients.write(batch)
            found = [p.grad.clone() for p in model.parameters()]
            expected = torch.stack(model.loss(batch.x, batch.epsilon, batch.masks)).sum(2)
            torch.testing.assert_close(terms, expected)
            loss = (expected[0] + betas * expected[1]).sum() / batch.size
            for own, autograds in zip(found, torch.autograd.grad(loss, list(model.parameters())), strict=True):
                torch.testing.assert_close(own, autograds, rtol=1e-9, atol=1e-12)


def test_flat_vectors_are_the_parameters():
    model = BetaVAE(30, 16, 5, 0.1, 2, seed=1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    value, gradient = flatten(model)
    torch.testing.assert_close(dict(model.state_dict()), before)
    value.zero_()
    gradient.fill_(1)
    assert not any(p.any() for p in model.parameters())
    assert all((p.grad == 1).all() for p in model.parameters())
    assert sum(p.numel() for p in model.parameters()) == len(value) == len(gradient)


@pytest.mark.parametrize("world", [1, 3])
def test_batches_hold_every_row_once_and_list_its_tags(world):
    model = BetaVAE(30, 16, 5, 0.1)
    table, seen = torch.randn(30, 4).double(), []
    for rank in range(world):
        for batch in batches(model, ROWS, 5, torch.Generator().manual_seed(4), rank, world):
            seen += map(tuple, batch.x.tolist())
            torch.testing.assert_close(batch.tags.sums(table), batch.x @ table)
            values = torch.randn(2, len(batch.x), 4).double()
            torch.testing.assert_close(batch.holders.sums(values), batch.x.T @ values)
            assert len(batch.epsilon) == len(batch.masks[0]) == len(batch.x)
    assert sorted(seen) == sorted(map(tuple, ROWS.tolist()))
