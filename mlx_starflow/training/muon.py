"""Muon for the matrices inside the layers, AdamW for everything else.

Muon (https://kellerjordan.github.io/posts/muon/) orthogonalises the momentum of a matrix. The fused
matrix of queries, keys and values is treated as three matrices. Updates are scaled so that the root
mean square of their entries is about that of AdamW's, and the learning rate of the matrices is
twice that of the other parameters.
"""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx
import mlx.optimizers as optim

MOMENTUM = 0.95
MATRIX_RATE = 2.0  # learning rate of the matrices, relative to that of the other parameters
SIZE = 0.2  # root mean square of an update's entries, about that of AdamW


class StackedMuon(optim.Muon):
    """``mlx.optimizers.Muon`` that splits stacked square matrices and scales its updates to the
    size of AdamW's."""

    def apply_single(self, gradient: mx.array, parameter: mx.array, state: dict) -> mx.array:  # type: ignore[type-arg]
        moment = MOMENTUM * state["v"] + gradient
        state["v"] = moment
        update = gradient + MOMENTUM * moment
        rows, columns = update.shape
        parts = 3 if rows == 3 * columns else 1
        # The Newton-Schulz iteration of the parent class.
        done = [
            self._zeropower_via_newtonschulz5(part, steps=5) for part in mx.split(update, parts)
        ]
        update = mx.concatenate(done) * (SIZE * max(done[0].shape) ** 0.5)
        rate = self.learning_rate.astype(gradient.dtype)
        return parameter * (1 - rate * self.weight_decay) - rate * update


def muon(
    arrays: dict[str, mx.array], rate: Callable[[mx.array], mx.array], weight_decay: float
) -> optim.Optimizer:
    """The optimizer of all parameters. ``rate``: the learning rate by step."""

    def inside(path: str, array: mx.array) -> bool:
        return "/layers/" in path and array.ndim == 2

    return optim.MultiOptimizer(
        [
            StackedMuon(
                lambda step: MATRIX_RATE * rate(step), momentum=MOMENTUM, weight_decay=weight_decay
            ),
            optim.AdamW(rate, betas=[0.9, 0.98], weight_decay=0.0, bias_correction=True),
        ],
        [inside],
    )
