"""MusicGen's decoder (Copet et al. 2023) as one fused step over a preallocated cache.

Shapes: B clips, R rows (2B with guidance: conditional first, then unconditional; else B), K codebooks, V vocabulary,
T new columns, L columns attended to, S text tokens, H heads, D head dimension, E = H * D.

Three things are computed once where the reference computes them again. Until its first cross-attention a clip's
conditional and unconditional rows are equal, so the first layer's self-attention runs on B rows. The unconditional
text is all zeros and no projection has a bias, so its cross-attention adds exactly 0 and is left out. The text's keys
and values are computed once per batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

Position = int | Tensor
"""A column: an int, or an int64 (1,) tensor where the step is recorded as a CUDA graph."""

_ROWS_HINT = 32  # oneDNN picks a weight layout for this many rows; every call uses the same layout


class Linear:
    """x @ weight.T, with what follows it fused in.

    On a CPU in float32 the weight is packed for oneDNN: its kernels add up over the inputs in an order that does not
    depend on the number of rows, which the BLAS behind `F.linear` does not promise, and they are faster from 8 rows.
    """

    def __init__(self, weight: Tensor):
        self._packed = weight.device.type == "cpu" and weight.dtype == torch.float32 and _has_onednn()
        weight = weight.detach().contiguous()
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight, _ROWS_HINT) if self._packed else weight

    def __call__(self, x: Tensor) -> Tensor:
        if self._packed:
            return torch.ops.mkldnn._linear_pointwise(x, self._weight, None, "none", [], "")
        return F.linear(x, self._weight)

    def gelu(self, x: Tensor) -> Tensor:
        if self._packed:
            return torch.ops.mkldnn._linear_pointwise(x, self._weight, None, "gelu", [], "none")
        return F.gelu(F.linear(x, self._weight))

    def add(self, x: Tensor, residual: Tensor) -> Tensor:
        if self._packed:
            return torch.ops.mkldnn._linear_pointwise(x, residual, self._weight, None, "add")
        return torch.addmm(residual, x, self._weight.T)


@dataclass(frozen=True)
class Norm:
    """Layer normalisation."""

    weight: Tensor
    bias: Tensor
    eps: float

    def __call__(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)


@dataclass(frozen=True)
class Layer:
    """One decoder layer's weights, fused."""

    self_norm: Norm
    qkv: Linear
    self_out: Linear
    cross_norm: Norm
    cross_q: Linear
    cross_kv: Linear
    cross_out: Linear
    final_norm: Norm
    up: Linear
    down: Linear


@dataclass(frozen=True)
class Cache:
    """Keys and values of all columns so far, one (rows, H, columns, D) tensor per layer; layer 0 has B rows."""

    keys: list[Tensor]
    values: list[Tensor]


@dataclass(frozen=True)
class Text:
    """The captions' keys and values, one (B, H, S, D) tensor per layer, and 0 or -inf to add: (B, 1, 1, S)."""

    keys: list[Tensor]
    values: list[Tensor]
    mask: Tensor


class Transformer:
    """The decoder of a `MusicgenForCausalLM`, its weights fused and laid out for decoding.

    Args:
        model: a transformers `MusicgenForCausalLM` on the device and in the dtype to use; not kept.
    """

    def __init__(self, model: Any):
        config, decoder = model.config, model.model.decoder
        self.num_codebooks, self.vocab_size = config.num_codebooks, config.vocab_size
        self.num_heads, self.hidden_size = config.num_attention_heads, config.hidden_size
        self.head_dim = self.hidden_size // self.num_heads
        self._embedding = torch.cat([table.weight.detach() for table in decoder.embed_tokens])
        self.device, self.dtype = self._embedding.device, self._embedding.dtype
        self._positions = decoder.embed_positions.weights.detach().to(self.device, self.dtype)
        self.max_columns = self._positions.shape[0]
        offsets = torch.arange(self.num_codebooks, device=self.device) * (self.vocab_size + 1)
        self._offsets = offsets[None, :, None]
        self._layers = [_fuse(layer) for layer in decoder.layers]
        self._gelu = config.activation_function == "gelu"
        self._activation = decoder.layers[0].activation_fn
        self._norm = _norm(decoder.layer_norm)
        self._heads = Linear(torch.cat([head.weight for head in model.lm_heads]))

    def new_cache(self, batch: int, columns: int, guided: bool) -> Cache:
        """An empty cache for `batch` clips of `columns` columns."""
        rows = [batch] + [batch * (1 + guided)] * (len(self._layers) - 1)
        shapes = [(n, self.num_heads, columns, self.head_dim) for n in rows]
        # Zeros, not whatever memory held: a masked key must still be finite.
        make = [[torch.zeros(s, device=self.device, dtype=self.dtype) for s in shapes] for _ in range(2)]
        return Cache(*make)

    def cache_bytes(self, columns: int, guided: bool) -> int:
        """Bytes of a cache for one clip."""
        rows = 1 + (len(self._layers) - 1) * (1 + guided)
        return 2 * rows * columns * self.hidden_size * self.dtype.itemsize

    def text_bytes(self, tokens: int) -> int:
        """Bytes of a `Text` of `tokens` tokens for one clip."""
        return 2 * len(self._layers) * tokens * self.hidden_size * self.dtype.itemsize

    def new_text(self, batch: int, tokens: int) -> Text:
        """Room for the texts of `batch` clips."""
        shape = (batch, self.num_heads, tokens, self.head_dim)
        keys, values = (
            [torch.zeros(shape, device=self.device, dtype=self.dtype) for _ in self._layers] for _ in range(2)
        )
        return Text(keys, values, torch.zeros(batch, 1, 1, tokens, device=self.device, dtype=self.dtype))

    def read(self, states: Tensor, mask: Tensor) -> Text:
        """Project encoded captions, once per batch.

        Args:
            states: (B, S, E), zero where there is no text.
            mask: bool (B, S), true where there is text.
        """
        batch, length, _ = states.shape
        keys, values = [], []
        for layer in self._layers:
            both = layer.cross_kv(states.reshape(batch * length, -1))
            both = both.view(batch, length, 2, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4).contiguous()
            keys.append(both[0])
            values.append(both[1])
        return Text(keys, values, _additive(mask[:, None, None, :], self.dtype))

    def step(self, tokens: Tensor, position: Position, length: int, cache: Cache, text: Text, guided: bool) -> Tensor:
        """Read T columns and return the logits that follow the last, (R, K, V) in the weights' dtype.

        Args:
            tokens: int64 (B, K, T).
            position: the first of the T columns; their keys and values are written to the cache.
            length: columns to attend to, from 0; those after a column of `tokens` are masked from it.
            cache: from `new_cache`.
            text: from `read`.
            guided: whether unconditional rows follow the conditional ones.
        """
        batch, _, columns = tokens.shape
        x = self._embed(tokens, position)
        mask = self._mask(position, columns, length)
        for index, layer in enumerate(self._layers):
            x = self._self_attention(layer, x, columns, position, mask, cache.keys[index], cache.values[index], length)
            if guided and index == 0:
                x = x.repeat(2, 1)
            conditional = x[: batch * columns]
            x[: batch * columns] = self._cross_attention(layer, conditional, columns, text, index)
            x = self._feed_forward(layer, x)
        last = x.view(-1, columns, self.hidden_size)[:, -1]
        return self._heads(self._norm(last)).view(-1, self.num_codebooks, self.vocab_size)

    def _embed(self, tokens: Tensor, position: Position) -> Tensor:
        x = F.embedding(tokens + self._offsets, self._embedding).sum(1)
        columns = torch.arange(tokens.shape[-1], device=self.device) + position
        return (x + self._positions[columns]).view(-1, self.hidden_size)

    def _mask(self, position: Position, columns: int, length: int) -> Tensor | None:
        if isinstance(position, int) and columns == 1:
            return None
        own = torch.arange(columns, device=self.device) + position
        return _additive(torch.arange(length, device=self.device)[None, :] <= own[:, None], self.dtype)

    def _self_attention(
        self,
        layer: Layer,
        x: Tensor,
        columns: int,
        position: Position,
        mask: Tensor | None,
        keys: Tensor,
        values: Tensor,
        length: int,
    ) -> Tensor:
        qkv = layer.qkv(layer.self_norm(x)).view(-1, columns, 3, self.num_heads, self.head_dim)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        put(keys, 2, position, key)
        put(values, 2, position, value)
        attended = attend(query, keys[:, :, :length], values[:, :, :length], mask)
        return layer.self_out.add(_join(attended), x)

    def _cross_attention(self, layer: Layer, x: Tensor, columns: int, text: Text, index: int) -> Tensor:
        query = layer.cross_q(layer.cross_norm(x)).view(-1, columns, self.num_heads, self.head_dim).transpose(1, 2)
        attended = attend(query, text.keys[index], text.values[index], text.mask)
        return layer.cross_out.add(_join(attended), x)

    def _feed_forward(self, layer: Layer, x: Tensor) -> Tensor:
        normed = layer.final_norm(x)
        hidden = layer.up.gelu(normed) if self._gelu else self._activation(layer.up(normed))
        return layer.down.add(hidden, x)


def attend(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    """softmax(query keys^T / sqrt(D) + mask) values, (rows, H, T, D).

    For one column on a CPU the plain products: torch's own attention is made for many columns, and spends on one
    several times what the products take.

    Args:
        query: (rows, H, T, D).
        keys: (rows, H, L, D), as are the values.
        mask: 0 or -inf, of a shape that broadcasts to (rows, H, T, L).
    """
    if query.device.type == "cuda":
        # One kernel on every GPU: torch prefers cuDNN's on some, whose reading of a broadcast mask is its own.
        with sdpa_kernel([SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]):
            return F.scaled_dot_product_attention(query, keys, values, attn_mask=mask)
    if query.device.type != "cpu" or query.shape[2] > 1:
        return F.scaled_dot_product_attention(query, keys, values, attn_mask=mask)
    scores = (query * query.shape[-1] ** -0.5) @ keys.mT
    return (scores if mask is None else scores + mask).softmax(-1) @ values


def take(x: Tensor, dim: int, position: Position) -> Tensor:
    """One slice of `x`, kept as a dimension of length 1."""
    return x.narrow(dim, position, 1) if isinstance(position, int) else x.index_select(dim, position)


def put(x: Tensor, dim: int, position: Position, value: Tensor) -> None:
    """Write `value` into `x` at `position` and after."""
    if isinstance(position, int):
        x.narrow(dim, position, value.shape[dim]).copy_(value)
    else:
        x.index_copy_(dim, position, value)


def _additive(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where `seen` is true, else -inf: made once, where a bool mask would be converted in every layer."""
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, -torch.inf)


def _join(attended: Tensor) -> Tensor:
    """(rows, H, T, D) to (rows * T, E)."""
    rows, heads, columns, dim = attended.shape
    return attended.transpose(1, 2).reshape(rows * columns, heads * dim)


def _norm(module: Any) -> Norm:
    return Norm(module.weight.detach(), module.bias.detach(), module.eps)


def _fuse(layer: Any) -> Layer:
    own, cross = layer.self_attn, layer.encoder_attn
    return Layer(
        self_norm=_norm(layer.self_attn_layer_norm),
        qkv=Linear(torch.cat([own.q_proj.weight, own.k_proj.weight, own.v_proj.weight])),
        self_out=Linear(own.out_proj.weight),
        cross_norm=_norm(layer.encoder_attn_layer_norm),
        cross_q=Linear(cross.q_proj.weight),
        cross_kv=Linear(torch.cat([cross.k_proj.weight, cross.v_proj.weight])),
        cross_out=Linear(cross.out_proj.weight),
        final_norm=_norm(layer.final_layer_norm),
        up=Linear(layer.fc1.weight),
        down=Linear(layer.fc2.weight),
    )


def _has_onednn() -> bool:
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
