"""The loss curve of the recipe's training in PyTorch, for tests/test_train_scratch.py.

    PYTHONPATH=.:tests python tests/torch_curve.py

writes tests/data/toy_curve.json. Initial weights, pictures, their order, noise and captions are
drawn by numpy, the same for both engines; the flow, the optimizers, the schedule, clipping and the
moving average are the recipe's, at its toy sizes, in float32.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np

STEPS, BATCH, PICTURES, SEED = 120, 16, 64, 3
SIDE, CHANNELS, LENGTH, WIDTH = 8, 4, 16, 32  # of latents and of text features
RATE, MATRIX_RATE, DECAY, WARM_UP, NOISE_STD, EMA = 1e-3, 2e-3, 0.01, 10, 0.25, 0.995
LAYERS, MODEL_WIDTH = (1, 2), 32
FILE = Path(__file__).parent / "data" / "toy_curve.json"


def weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """An initial weight by its published name: as PyTorch draws them, norms 1, outputs 0."""
    rng = np.random.default_rng([SEED, zlib.crc32(name.encode())])
    if "proj_out" in name or "final_norm" in name:
        return np.zeros(shape, np.float32)
    if ".norm." in name:
        return (np.ones if name.endswith("weight") else np.zeros)(shape, np.float32)
    bound = 0.02 if name.endswith("sos_embed") else max(shape[-1], 16) ** -0.5
    return rng.uniform(-bound, bound, shape).astype(np.float32)


def material() -> tuple[np.ndarray, np.ndarray]:
    """Smooth latents (N, C, H, W) and text features (N, L, W) that tell something of them."""
    rng = np.random.default_rng(SEED)
    coarse = rng.standard_normal((PICTURES, CHANNELS, 2, 2)).astype(np.float32)
    latents = np.kron(coarse, np.ones((1, 1, SIDE // 2, SIDE // 2), np.float32))
    latents += 0.2 * rng.standard_normal(latents.shape).astype(np.float32)
    way = rng.standard_normal((CHANNELS * 4, LENGTH * WIDTH)).astype(np.float32)
    return latents, (coarse.reshape(PICTURES, -1) @ way / 4).reshape(PICTURES, LENGTH, WIDTH)


def batch(step: int) -> tuple[np.ndarray, np.ndarray]:
    """What a step sees: noised latents (B, C, H, W) and text; one caption in ten is left out."""
    latents, text = material()
    epoch, place = divmod(step, PICTURES // BATCH)
    order = np.random.default_rng([SEED, 0, epoch]).permutation(PICTURES)
    rows = order[place * BATCH : (place + 1) * BATCH]
    rng = np.random.default_rng([SEED, 1, step])
    noise = rng.standard_normal(latents[rows].shape).astype(np.float32)
    kept = (rng.random(BATCH) >= 0.1).astype(np.float32)[:, None, None]
    return latents[rows] + np.float32(NOISE_STD) * noise, text[rows] * kept


def main() -> None:
    import torch

    from recipes.default_model import optimizer as rules
    from recipes.default_model.flow import FlowShape, STARFlow
    from recipes.default_model.train import nats_per_dimension, to_bits

    rules.half_precision = lambda device: False
    shape = FlowShape(
        grid=SIDE // 2, channel_size=CHANNELS, patch_size=2, channels=MODEL_WIDTH, head_dim=32,
        layers_per_block=LAYERS, text_size=LENGTH, text_width=WIDTH,
    )  # fmt: skip
    flow = STARFlow(shape)
    named = list(flow.named_parameters())
    with torch.no_grad():
        for name, p in named:
            p.copy_(torch.from_numpy(weight(name, tuple(p.shape))))
    average = [p.detach().clone() for _, p in named]
    optimizers = rules.build_optimizers(
        named, lambda name, p: p.ndim == 2 and "attn_blocks" in name, RATE, MATRIX_RATE, DECAY
    )
    bits = []
    for step in range(STEPS):
        rules.set_rates(optimizers, rules.cosine(step, STEPS, WARM_UP))
        x, text = (torch.from_numpy(a) for a in batch(step))
        loss = nats_per_dimension(*flow(x, text)).mean()
        flow.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for _, p in named], 1.0)
        for one in optimizers:
            one.step()
        decay = min(EMA, (step + 1) / (step + 11))
        torch._foreach_lerp_(average, [p.detach() for _, p in named], 1 - decay)
        bits.append(to_bits(loss.item()))
    with torch.no_grad():
        for (_, p), held in zip(named, average, strict=True):
            p.copy_(held)
        x, text = (torch.from_numpy(a) for a in batch(STEPS))
        last = to_bits(nats_per_dimension(*flow(x, text)).mean().item())
    FILE.write_text(json.dumps({"bits": [round(b, 6) for b in bits], "averaged": last}) + "\n")


if __name__ == "__main__":
    main()
