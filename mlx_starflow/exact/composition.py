"""The terms of -log p(x): per token, the log-scale in every block and the prior."""

from __future__ import annotations

import mlx.core as mx
import numpy as np

from ..device.wired import wired
from ..errors import NumericsError
from ..flow import Context, Flow
from ..flow.grid import grid_of, patchify
from .likelihood import LOG_2PI


@wired()
def composition(flow: Flow, x: mx.array, context: Context = None) -> np.ndarray:
    """The terms of -log p(x | context) in nats: (B, T, K + 1) float64 for K blocks.

    x (B, H, W, C): as the flow models it, with the noise of training added. context: one row per
    picture. Term k of a token is the sum of log sigma over its numbers in block k (0 for a block
    without layers); the last term is -log of the prior. The sum over tokens and terms is
    -log p(x | context). Errors: UsageError, NumericsError.
    """
    grid = grid_of(x, flow.config)
    context = flow.check_context(context, x.shape[0])
    u = patchify(x.astype(mx.float32), flow.config)
    parts = []
    for index in range(len(flow.blocks)):
        u, log_scale = flow.through_block(index, u, grid, context)
        if log_scale is None:
            parts.append(mx.zeros(u.shape[:2]))
            continue
        by_place = flow.order(index, grid).turn(log_scale)
        parts.append(-by_place.sum(axis=-1))
    parts.append(0.5 * (mx.square(u) + LOG_2PI).sum(axis=-1))
    whole = np.array(mx.stack(parts, axis=-1), dtype=np.float64)
    if not np.isfinite(whole).all():
        raise NumericsError("The likelihood is NaN or infinite; is the picture finite?")
    return whole
