"""Measure how well a small network can distinguish a bundle's samples from paintings (50 %: not).

The network is trained on half of the pictures and tested on the other half, then the other way
round; the two accuracies are averaged. Samples and paintings have the same captions.

python -m recipes.default_model.two_samples [BUNDLE] [--count 400] [--output FILE]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .data import write_json
from .known import paint_all, read_vocabulary, scenes_and_captions
from .optimizer import build_optimizers, cosine, set_rates
from .sharpness import BUNDLE, SEED
from .vae import to_tensor

_STEPS = 160
_BATCH = 32


def _network(widths: tuple[int, ...] = (16, 32, 64, 96)) -> nn.Module:
    layers: list[nn.Module] = []
    before = 3
    for width in widths:
        layers += [nn.Conv2d(before, width, 3, 2, 1), nn.GroupNorm(8, width), nn.SiLU()]
        before = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * before, 1))


def _answers(network: nn.Module, x: Tensor) -> Tensor:
    return torch.cat([network(part)[:, 0] for part in x.split(64)])


def _share_right(x: Tensor, y: Tensor, asked: Tensor, truth: Tensor, steps: int, seed: int):
    torch.manual_seed(seed)
    network = _network().to(memory_format=torch.channels_last)
    optimizers = build_optimizers(
        list(network.named_parameters()),
        lambda name, p: p.ndim == 4 and min(p.shape[:2]) >= 8,
        2e-3,
        2e-3,
        0.1,
    )
    generator = torch.Generator().manual_seed(seed)
    for step in range(steps):
        set_rates(optimizers, cosine(step, steps, warm_up=20))
        rows = torch.randint(len(x), (_BATCH,), generator=generator)
        batch = x[rows]
        flip = torch.rand(_BATCH, generator=generator) < 0.5
        batch = torch.where(flip[:, None, None, None], batch.flip(-1), batch)
        loss = F.binary_cross_entropy_with_logits(network(batch)[:, 0], y[rows])
        network.zero_grad(set_to_none=True)
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
    network.eval()
    with torch.no_grad():
        return float(((_answers(network, asked) > 0) == (truth > 0.5)).float().mean())


def told_apart(
    pictures: np.ndarray, paintings: np.ndarray, steps: int = _STEPS, seed: int = 5
) -> float:
    """Accuracy on pictures that the network was not trained on. Both sets are uint8."""
    half = len(pictures) // 2
    folds = []
    for part in (slice(0, half), slice(half, 2 * half)):
        x = to_tensor(np.concatenate([pictures[part], paintings[part]]))
        folds.append((x, torch.cat([torch.ones(half), torch.zeros(half)])))
    (x1, y1), (x2, y2) = folds
    shares = [
        _share_right(x1, y1, x2, y2, steps, seed),
        _share_right(x2, y2, x1, y1, steps, seed + 1),
    ]
    return float(np.mean(shares))


def main() -> None:
    import mlx_starflow as sf

    from .evaluate import draw

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", nargs="?", type=Path, default=BUNDLE)
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--pictures", type=Path, required=True, help="folder for the pictures")
    parser.add_argument("--output", type=Path, help="also write the number here, as JSON")
    options = parser.parse_args()
    scenes, captions = scenes_and_captions(options.count, read_vocabulary(options.bundle), SEED)
    with sf.load(options.bundle) as pipe:
        pictures = draw(pipe, captions, options.pictures)
        paintings = paint_all(scenes, pipe.config.image_size)
    found = {"pictures": options.count, "told_apart": told_apart(pictures, paintings)}
    print(found)
    if options.output:
        write_json(options.output, found)


if __name__ == "__main__":
    main()
