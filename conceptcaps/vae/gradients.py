"""The gradient of the beta-VAE's loss, derived by hand: what autograd finds, without its graph and its copies.

Notation as in `model`: M members, B rows, V tags, H hidden units, L latent dimensions. With masks m and noise e,

    h = relu(x W1 + b1) m          z = mean + exp(log_variance / 2) e      loss = sum(reconstruction + beta KL) / size
    (mean, log_variance) = h W2 + b2       g = relu(z W3 + b3) m'          logits = g W4 + b4

and, writing d_y for the gradient of the loss in y,

    d_logits = (sigmoid(logits) - x) / size
    d_mean = d_z + beta mean / size
    d_log_variance = (d_z e exp(log_variance / 2) + beta (exp(log_variance) - 1) / size) / 2

An affine map y = a W + b has d_W = a' d_y, d_b = the sum of d_y over rows, and d_a = d_y W'.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from conceptcaps.vae.batches import Batch
from conceptcaps.vae.model import BetaVAE, MemberLinear


def flatten(model: BetaVAE) -> tuple[Tensor, Tensor]:
    """Lay the model's parameters into one vector and zero gradients of them into another; returns both.

    One vector makes one call of an optimiser's step, and of a sum over workers.
    """
    parameters = list(model.parameters())
    sizes = [p.numel() for p in parameters]
    flat = torch.cat([p.detach().flatten() for p in parameters])
    gradient = torch.zeros_like(flat)
    for p, value, d_value in zip(parameters, flat.split(sizes), gradient.split(sizes), strict=True):
        p.data, p.grad = value.view_as(p), d_value.view_as(p)
    return flat, gradient


class Gradients:
    """Writes a model's gradients, batch after batch.

    Args:
        model: M members, laid flat.
        betas: (M,) weights of the KL term.
    """

    def __init__(self, model: BetaVAE, betas: Tensor):
        # Attributes of modules are looked up in several dictionaries: here once, and not at every step.
        self.layers = [_Layer.of(layer) for layer in model.children() if isinstance(layer, MemberLinear)]
        self.betas = betas[:, None, None] if len(betas) > 1 else betas
        self._shares: dict[int, tuple[Tensor, Tensor]] = {}

    @torch.no_grad()
    def write(self, batch: Batch) -> Tensor:
        """Overwrite the gradients with those of this worker's rows of a batch.

        Returns:
            (2, M): the sums of reconstruction and KL terms over these rows, nats; see `BetaVAE.loss`.
        """
        encoder_hidden, encoder_out, decoder_hidden, decoder_out = self.layers
        x, (encoder_mask, decoder_mask) = batch.x, batch.masks or (None, None)
        share, half_share = self._share(batch.size)

        encoded = _relu(batch.tags.sums(encoder_hidden.weight).add_(encoder_hidden.bias), encoder_mask)
        posterior = encoder_out(encoded)
        mean, log_variance = posterior.chunk(2, -1)
        excess = torch.expm1(log_variance)
        shift = torch.exp(0.5 * log_variance).mul_(batch.epsilon)
        z = mean + shift
        decoded = _relu(decoder_hidden(z), decoder_mask)
        logits = decoder_out(decoded)

        kl = torch.addcmul(excess, mean, mean).sub_(log_variance).sum((-2, -1))
        reconstruction = F.softplus(logits).sub_(logits * x).sum((-2, -1))

        d_logits = logits.sigmoid_().sub_(x).div_(batch.size)
        d_decoded = _through_relu(decoder_out.through(decoded, d_logits), decoded, decoder_mask)
        d_z = decoder_hidden.through(z, d_decoded)
        # The posterior's gradient takes its place.
        torch.addcmul(d_z, mean, share, out=mean)
        torch.addcmul(excess.mul_(half_share), d_z, shift, value=0.5, out=log_variance)
        d_encoded = _through_relu(encoder_out.through(encoded, posterior), encoded, encoder_mask)
        encoder_hidden.d_weight.copy_(batch.holders.sums(d_encoded))
        torch.sum(d_encoded, -2, keepdim=True, out=encoder_hidden.d_bias)
        return torch.stack([reconstruction, kl.mul_(0.5)]).view(2, -1)

    def _share(self, size: int) -> tuple[Tensor, Tensor]:
        """beta / size, and half of it."""
        if size not in self._shares:
            self._shares[size] = self.betas / size, self.betas / (2 * size)
        return self._shares[size]


class _Layer(NamedTuple):
    """A `MemberLinear` and its gradients, without the first dimension of a single member: plain products are faster."""

    weight: Tensor
    bias: Tensor
    d_weight: Tensor
    d_bias: Tensor

    @classmethod
    def of(cls, layer: MemberLinear) -> _Layer:
        parameters = layer.weight, layer.bias
        tensors = [*(p.detach() for p in parameters), *(p.grad for p in parameters if p.grad is not None)]
        return cls(*(t[0] if len(t) == 1 else t for t in tensors))

    def __call__(self, a: Tensor) -> Tensor:
        affine = torch.addmm if a.dim() == 2 else torch.baddbmm
        return affine(self.bias, a, self.weight)

    def through(self, a: Tensor, d_y: Tensor) -> Tensor:
        """Write the gradients, from the layer's input and the gradient of its output; returns that of its input."""
        product = torch.mm if a.dim() == 2 else torch.bmm
        product(a.mT, d_y, out=self.d_weight)
        torch.sum(d_y, -2, keepdim=True, out=self.d_bias)
        return product(d_y, self.weight.mT)


def _relu(x: Tensor, mask: Tensor | None) -> Tensor:
    """relu(x) times the mask, in place."""
    return x.relu_() if mask is None else x.relu_().mul_(mask)


def _through_relu(d_hidden: Tensor, hidden: Tensor, mask: Tensor | None) -> Tensor:
    """The gradient before `_relu` from that after it and its result; overwrites both."""
    d_hidden.mul_(hidden.sign_())
    return d_hidden if mask is None else d_hidden.mul_(mask)
