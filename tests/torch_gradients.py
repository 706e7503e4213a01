"""The gradient of -log p by PyTorch, for tests/test_train_gradient.py: run where PyTorch is.

    PYTHONPATH=.:tests python tests/torch_gradients.py

writes tests/data/t2i_tiny/gradients.npz: for a batch with the training's noise, of which one
caption is dropped, the loss, the gradient's length and some of its numbers for every weight.
"""

from __future__ import annotations

import math
import zlib
from pathlib import Path

import numpy as np

CASE = Path(__file__).parent / "data" / "t2i_tiny"
NUMBERS = 48  # of each weight's gradient
NOISE_STD = 0.3


def places(name: str, size: int) -> np.ndarray:
    """Which numbers of a weight's gradient are stored, by its published name."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    return rng.integers(size, size=min(NUMBERS, size))


def batch() -> tuple[np.ndarray, np.ndarray]:
    """Noised latents (2, C, H, W) and text (2, L, D), the second without its caption."""
    with np.load(CASE / "tensors.npz") as arrays:
        latent, text = arrays["latent"], arrays["text"]
    noise = np.random.default_rng(15).standard_normal(latent.shape).astype(np.float32)
    return latent + np.float32(NOISE_STD) * noise, np.stack([text[0], text[-1]])


def main() -> None:
    import torch

    from recipes.default_model.flow import FlowShape, STARFlow, log_prob

    held = torch.load(CASE / "checkpoint.pth", map_location="cpu", weights_only=True)
    shape = FlowShape(
        grid=8, channel_size=4, patch_size=1, channels=128, head_dim=64,
        layers_per_block=(1, 1, 3), text_size=12, text_width=32,
    )  # fmt: skip
    flow = STARFlow(shape).double()
    own = flow.state_dict()
    flow.load_state_dict({n: held[n].reshape(own[n].shape).double() for n in own})
    x, text = (torch.from_numpy(a).double() for a in batch())
    loss = -log_prob(flow, x, text).sum() / x.numel()
    loss.backward()
    found = {"loss": np.array(loss.item()), "bits": np.array(loss.item() / math.log(2))}
    for name, p in flow.named_parameters():
        gradient = p.grad.reshape(-1).numpy()
        found[f"norm.{name}"] = np.array(np.linalg.norm(gradient))
        found[f"numbers.{name}"] = gradient[places(name, gradient.size)].astype(np.float32)
    np.savez_compressed(CASE / "gradients.npz", **found)


if __name__ == "__main__":
    main()
