"""A layer for a compiled step of fixed shape: computes the same as ``Layer``, with few kernels and
few arrays.

Every call of a compiled step costs time on the device for each kernel and time on the host for each
array (views included), so both are kept few. Activations are rows (R, channels) without a separate
batch axis where possible, matrices are transposed beforehand, biases are added in the next
element-wise kernel, and one rotation is applied to queries, keys and values together, with angle 0
for the values.
"""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn

from ..device.activations import gelu, gelu_tanh
from ..device.products import adapted, kept_type, linear, product, product_type, with_bias
from ..device.shared import added_up
from .layers import Layer
from .rope import Rotation


@dataclass(frozen=True)
class Turn:
    """The rotary embedding of the positions of a step, the same for all layers: the queries, keys
    and values x (B, all heads, n, head_dim) of a layer become x * cos + x[..., partners] * sin."""

    cos: mx.array  # (1 or B, all heads, n, head_dim)
    sin: mx.array | None  # same shape, negative for the first number of a pair; None: no rotation


def partners(head_dim: int, halves: bool) -> mx.array:
    """The index of the other number of the pair, for every number of a head (head_dim,); see
    ``Rotation``."""
    order = mx.arange(head_dim)
    return (order + head_dim // 2) % head_dim if halves else order ^ 1


def by_number(rotation: Rotation) -> tuple[mx.array, mx.array]:
    """Cosines and sines (S, head_dim), one for every number of a head."""
    cos, sin = rotation.cos, rotation.sin
    if rotation.halves:
        return mx.concatenate([cos, cos], -1), mx.concatenate([-sin, sin], -1)
    both = (cos.shape[0], 2 * cos.shape[1])
    return mx.stack([cos, cos], -1).reshape(both), mx.stack([-sin, sin], -1).reshape(both)


class _Matrix:
    """A linear layer for rows (R, in): computes the product without ``bias``, which the caller
    adds."""

    def __init__(self, layer: nn.Module) -> None:
        self.layer, self.kind = layer, product_type(layer)
        self.bias: mx.array | None = layer.get("bias")
        self.turned = None if "scales" in layer else layer.weight.T

    def __call__(self, x: mx.array) -> mx.array:
        if self.turned is None:
            return product(self.layer, x)[0]
        value = adapted(self.layer, x, x.astype(self.kind) @ self.turned, with_bias=False)
        return added_up(self.layer, value)


class _SameProduct:
    """A linear layer for rows (R, in): the product of ``Layer``, bias included, which rounds
    differently from ``_Matrix``."""

    def __init__(self, layer: nn.Module) -> None:
        self.layer = layer
        self.bias: mx.array | None = None
        self.turned: mx.array | None = None

    def __call__(self, x: mx.array) -> mx.array:
        return linear(self.layer, x)


class StepLayer:
    """The step of one layer. It is made outside the compiled function, so that work that is equal
    for all tokens is done once. It refers to the layer's weights, but not to the block."""

    def __init__(self, layer: Layer, halves: bool, same: bool = False) -> None:
        """``halves``: which numbers of a head form a pair, see ``Rotation``. ``same``: have the
        numbers of ``Layer`` to the bit on a CPU, for exported functions."""
        matrix = _SameProduct if same else _Matrix
        part, mlp = layer.attention, layer.mlp
        self.heads, self.kv_heads, self.head_dim = part.heads, part.kv_heads, part.head_dim
        self.kept, self.kind = kept_type(part.qkv), product_type(part.qkv)
        self.norm, self.mlp_norm = part.norm, mlp.norm
        self.post = part.post_norm if "post_norm" in part else None
        self.mlp_post = mlp.post_norm if "post_norm" in mlp else None
        self.qkv, self.proj = matrix(part.qkv), matrix(part.proj)
        self.gate = matrix(mlp.gate) if "gate" in mlp else None
        self.up, self.down = matrix(mlp.up), matrix(mlp.down)
        self.partners = partners(self.head_dim, halves)
        self.bias = self.other_bias = None
        if self.qkv.bias is not None:
            self.bias = self.qkv.bias.reshape(-1, 1, self.head_dim)
            self.other_bias = mx.take(self.bias, self.partners, axis=-1)
        head = mx.arange(self.heads + 2 * self.kv_heads)[:, None, None]
        self.queries, self.values = head < self.heads, head >= self.heads + self.kv_heads
        self.scale = None
        if "query_norm" in part:
            weights = [part.query_norm.weight] * self.heads + [part.key_norm.weight] * self.kv_heads
            weights += [mx.zeros((self.head_dim,))] * self.kv_heads
            self.scale = 1.0 + mx.stack(weights).astype(mx.float32)[:, None]

    def arrays(self) -> list[mx.array]:
        """The arrays derived from the weights, which must be evaluated before the function is
        compiled."""
        matrices = (self.qkv, self.proj, self.gate, self.up, self.down)
        made = [m.turned for m in matrices if m is not None]
        made += [self.partners, self.bias, self.other_bias, self.queries, self.values, self.scale]
        return [a for a in made if a is not None]

    def turn(
        self, cos: mx.array | None, sin: mx.array | None, sharpness: mx.array | None
    ) -> Turn | None:
        """The ``Turn`` of a step; None if it would change nothing. ``cos``, ``sin`` (n, head_dim):
        rows of ``by_number`` for the n positions, or None. ``sharpness`` (B, 1, 1, 1): factors of
        the queries, or None. Values are not changed."""
        factor = None if sharpness is None else mx.where(self.queries, sharpness, 1.0)
        if cos is None or sin is None:
            return None if factor is None else Turn(factor, None)
        cos, sin = mx.where(self.values, 1.0, cos), mx.where(self.values, 0.0, sin)
        return Turn(cos, sin) if factor is None else Turn(cos * factor, sin * factor)

    def __call__(
        self,
        x: mx.array,
        batch: int,
        turned: Turn | None,
        mask: mx.array | None,
        cache: tuple[mx.array, mx.array],
        place: mx.array,
        visible: int,
    ) -> tuple[mx.array, tuple[mx.array, mx.array]]:
        """Apply the layer to n tokens of every sequence, which begin at position ``place`` (1,).

        x (B * n, channels): the tokens' activations. Returns the same shape, and the cache with
        their keys and values added. Attention is to the first ``visible`` keys, with ``mask``
        (n, visible); None: all of these.
        """
        q, k, v = self._heads(self.qkv(self.norm(x)), batch, turned)
        keys = mx.slice_update(cache[0], k.astype(self.kept), place, axes=(2,))
        values = mx.slice_update(cache[1], v.astype(self.kept), place, axes=(2,))
        seen_keys, seen_values = keys[:, :, :visible], values[:, :, :visible]
        out = mx.fast.scaled_dot_product_attention(
            q.astype(self.kind),
            seen_keys.astype(self.kind),
            seen_values.astype(self.kind),
            scale=self.head_dim**-0.5,
            mask=mask,
        )
        if out.shape[2] > 1:
            out = out.transpose(0, 2, 1, 3)
        x = _added(x, self.proj(out.reshape(x.shape[0], -1)), self.proj.bias, self.post)
        h = self.mlp_norm(x)
        up = with_bias(self.up(h), self.up.bias)
        if self.gate is None:
            hidden = gelu(up)
        else:
            hidden = gelu_tanh(with_bias(self.gate(h), self.gate.bias)) * up
        x = _added(x, self.down(hidden), self.down.bias, self.mlp_post)
        return x, (keys, values)

    def _heads(
        self, qkv: mx.array, batch: int, turned: Turn | None
    ) -> tuple[mx.array, mx.array, mx.array]:
        """Rows (B * n, all heads * head_dim) -> queries, keys and values (B, heads, n, head_dim),
        with the rotary embedding."""
        n = qkv.shape[0] // batch
        if n == 1:
            x = qkv.reshape(batch, -1, 1, self.head_dim)
        else:
            x = qkv.reshape(batch, n, -1, self.head_dim).transpose(0, 2, 1, 3)
        bias = self.bias
        if self.scale is not None:
            x, bias = with_bias(x, bias), None
            normed = mx.fast.rms_norm(x, None, 1e-6) * self.scale
            x = mx.where(self.values, x, normed)
        here = with_bias(x, bias)
        if turned is not None:
            here = here * turned.cos
            if turned.sin is not None:
                other = mx.take(x, self.partners, axis=-1)
                here = (
                    here + with_bias(other, bias if bias is None else self.other_bias) * turned.sin
                )
        x = here.astype(self.kind) if self.kept == self.kind else here
        end = self.heads + self.kv_heads
        return x[:, : self.heads], x[:, self.heads : end], x[:, end:]


def _added(x: mx.array, value: mx.array, bias: mx.array | None, norm: nn.Module | None) -> mx.array:
    """The residual stream x plus the output of attention or MLP, with its bias and norm."""
    value = with_bias(value, bias)
    return x + (value if norm is None else norm(value))
