"""Gradients of -log p by PyTorch, for tests/test_train_gradient.py: run where PyTorch is, and where
the shared reference cases are.

    PYTHONPATH=.:tests python tests/torch_gradients.py

writes tests/data/gradients/CASE.npz for every reference case of a flow: for a batch with the
training's noise, of which one caption is dropped, the loss in nats per dimension, and for every
weight the length of its gradient and some of its numbers. PyTorch computes in float64, with
``torch_flow``, whose noise must be that of the published implementation.
"""

from __future__ import annotations

import tempfile
import zlib
from pathlib import Path

import mlx.core as mx
import numpy as np
from conftest import DATA, case_tensors
from mlx.utils import tree_flatten
from reference_cases import CLIPS, STARFLOW, TARFLOW, converted_flow

from mlx_starflow.flow import Flow
from mlx_starflow.flow.grid import patchify
from mlx_starflow.training.parameters import FIXED

GRADIENTS = DATA / "gradients"
NUMBERS = 8  # of each weight's gradient


def places(name: str, size: int) -> np.ndarray:
    """Which numbers of a weight's gradient are stored, by its name."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    return rng.integers(size, size=NUMBERS)


def clean(name: str) -> tuple[np.ndarray, np.ndarray | None]:
    """The data of a case, channels last, and its context: text of captions, or labels."""
    arrays = case_tensors(name)
    x = np.moveaxis(arrays["image" if name in TARFLOW else "latent"], -3, -1)
    if name in TARFLOW:
        return x, None if name == "tarflow_uncond" else arrays["label"].astype(np.int32)
    return x, arrays["text"][: len(x)]


def batch(name: str, noise_std: float) -> tuple[np.ndarray, np.ndarray | None]:
    """The data with the noise of a training, and the context, whose last row is the null one."""
    x, context = clean(name)
    noise = np.random.default_rng(15).standard_normal(x.shape).astype(np.float32)
    if context is not None:
        context = context.copy()
        context[-1] = -1 if name in TARFLOW else case_tensors(name)["text"][-1]
    return x + np.float32(noise_std) * noise, context


def main() -> None:
    import torch
    import torch_flow

    GRADIENTS.mkdir(exist_ok=True)
    for case in (*STARFLOW, *TARFLOW, *CLIPS):
        with tempfile.TemporaryDirectory() as folder:
            flow = converted_flow(case, Path(folder) / case)
            weights = {n: torch.tensor(np.array(a)).double()
                       for n, a in tree_flatten(flow.parameters())}  # fmt: skip
        x, context = (None if a is None else torch.tensor(a) for a in clean(case))
        context = context.double() if context is not None and context.ndim > 1 else context
        z, _ = torch_flow.to_noise(flow.config, weights, x.double(), context)
        wanted = _tokens(flow, case)
        error = np.abs(z.numpy() - wanted).max() / np.abs(wanted).max()
        if error > 1e-5:
            raise SystemExit(f"{case}: the noise is off by {error:.1e} of the published numbers.")
        for name, w in weights.items():
            w.requires_grad_(name not in FIXED)
        x, context = (None if a is None else torch.tensor(a)
                      for a in batch(case, flow.config.noise_std))  # fmt: skip
        context = context.double() if context is not None and context.ndim > 1 else context
        loss = -torch_flow.log_prob(flow.config, weights, x.double(), context).sum() / x.numel()
        loss.backward()
        slopes = {n: w.grad.reshape(-1).numpy() for n, w in weights.items() if w.grad is not None}
        np.savez_compressed(
            GRADIENTS / f"{case}.npz",
            loss=np.array(loss.item()),
            names=np.array(list(slopes)),
            norms=np.array([np.linalg.norm(g) for g in slopes.values()]),
            numbers=np.stack([g[places(n, g.size)] for n, g in slopes.items()]).astype(np.float32),
        )
        print(f"{case}: {len(slopes)} gradients; the noise is within {error:.0e}.")


def _tokens(flow: Flow, case: str) -> np.ndarray:
    """The published noise of a case as tokens (B, T, D)."""
    z = case_tensors(case)["forward.z"]
    if case in TARFLOW:
        return z
    return np.array(patchify(mx.array(np.moveaxis(z, -3, -1)), flow.config))


if __name__ == "__main__":
    main()
