"""The gradient of the beta-VAE's loss, derived by hand: what autograd finds, in half the time.

Notation as in `model`: M members, B rows, V tags, H hidden units, L latent dimensions. With masks m and noise e,

    h = relu(x W1 + b1) m          z = mean + exp(log_variance / 2) e      loss = sum(reconstruction + beta KL) / size
    (mean, log_variance) = h W2 + b2       g = relu(z W3 + b3) m'          logits = g W4 + b4

and, writing d_y for the gradient of the loss in y,

    d_logits = (sigmoid(logits) - x) / size
    d_mean = d_z + beta mean / size        d_log_variance = (d_z e exp(log_variance / 2) + beta (variance - 1) / size) / 2

An affine map y = a W + b has d_W = a' d_y, d_b = the sum of d_y over rows, and d_a = d_y W'.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from conceptcaps.vae.batches import Batch
from conceptcaps.vae.model import BetaVAE, MemberLinear


def flatten(model: BetaVAE) -> nn.Parameter:
    """Lay the model's parameters, and zero gradients of them, into one vector each, which the result is.

    One vector makes one call of an optimiser's step, and of a sum over workers.
    """
    parameters = list(model.parameters())
    flat = nn.Parameter(torch.cat([p.detach().flatten() for p in parameters]))
    flat.grad = torch.zeros_like(flat)
    sizes = [p.numel() for p in parameters]
    for p, value, gradient in zip(parameters, flat.detach().split(sizes), flat.grad.split(sizes), strict=True):
        p.data, p.grad = value.view_as(p), gradient.view_as(p)
    return flat


@torch.no_grad()
def write_gradients(model: BetaVAE, batch: Batch, betas: Tensor) -> Tensor:
    """Overwrite the gradients of a model that is laid flat.

    Args:
        model: M members.
        batch: this worker's rows of a batch.
        betas: (M,) weights of the KL term.

    Returns:
        (2, M): the sums of reconstruction and KL terms over these rows, nats; see `BetaVAE.loss`.
    """
    encoder_mask, decoder_mask = batch.masks or (None, None)
    first, latent_dim = model.encoder_hidden, model.latent_dim
    bottom = torch.stack([batch.tags.sums(weight) for weight in first.weight]).add_(first.bias)
    encoded = _relu(bottom, encoder_mask)
    posterior = model.encoder_out(encoded)
    mean, log_variance = posterior.split(latent_dim, -1)
    deviation = torch.exp(0.5 * log_variance)
    z = torch.addcmul(mean, deviation, batch.epsilon)
    decoded = _relu(model.decoder_hidden(z), decoder_mask)
    logits = model.decoder_out(decoded)

    reconstruction = (F.softplus(logits) - logits * batch.x).sum((1, 2))
    excess = deviation.square().sub_(1)
    kl = torch.addcmul(excess, mean, mean).sub_(log_variance).sum((1, 2)).mul_(0.5)

    d_logits = torch.sigmoid(logits).sub_(batch.x).div_(batch.size)
    d_decoded = _through_relu(_through(model.decoder_out, decoded, d_logits), decoded, decoder_mask)
    d_z = _through(model.decoder_hidden, z, d_decoded)
    weight = (betas / batch.size)[:, None, None]
    d_posterior = torch.empty_like(posterior)
    torch.addcmul(d_z, weight, mean, out=d_posterior[..., :latent_dim])
    d_deviation = d_z.mul_(batch.epsilon).mul_(deviation)
    torch.addcmul(d_deviation, weight, excess, out=d_posterior[..., latent_dim:]).mul_(0.5)
    d_encoded = _through_relu(_through(model.encoder_out, encoded, d_posterior), encoded, encoder_mask)
    for gradient, of_member in zip(first.weight.grad, d_encoded, strict=True):
        gradient.copy_(batch.holders.sums(of_member))
    torch.sum(d_encoded, 1, keepdim=True, out=first.bias.grad)
    return torch.stack([reconstruction, kl])


def _relu(x: Tensor, mask: Tensor | None) -> Tensor:
    """relu(x) times the mask, in place."""
    return x.relu_() if mask is None else x.relu_().mul_(mask)


def _through_relu(d_hidden: Tensor, hidden: Tensor, mask: Tensor | None) -> Tensor:
    """The gradient before `_relu` from that after it and its result; overwrites both."""
    d_hidden.mul_(hidden.sign_())
    return d_hidden if mask is None else d_hidden.mul_(mask)


def _through(layer: MemberLinear, a: Tensor, d_y: Tensor) -> Tensor:
    """Write a layer's gradients, from its input and the gradient of its output; returns that of its input."""
    torch.bmm(a.transpose(1, 2), d_y, out=layer.weight.grad)
    torch.sum(d_y, 1, keepdim=True, out=layer.bias.grad)
    return torch.bmm(d_y, layer.weight.transpose(1, 2))
