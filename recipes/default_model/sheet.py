"""Pictures from the PyTorch flow, to look at during training (shipped ones are drawn by MLX)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from .flow import STARFlow, denoise
from .sampler import invert
from .text import encode, null_ids, tokenize

SHEET_PROMPTS = (
    "a fox in snow",
    "two red birds over the sea at night",
    "a small house in the mountains, sunset",
    "a black cat in a city",
    "a blue fish in the sea",
    "a white rabbit in a meadow",
    "a red car in the desert",
    "a rocket in the night sky",
    "a star in a night sky",
    "a dog on the beach",
    "a big green tree in the forest",
    "three mushrooms in the forest",
    "a yellow flower in a meadow",
    "a boat on the sea at sunset",
    "a purple car in the city at night",
    "a green dog in the snow",
    "a cat in the mountains in the rain",
    "an orange fish on the beach",
)


@torch.no_grad()
def sample_latents(
    flow: STARFlow,
    encoder,
    tokenizer,
    prompts: list[str],
    seed: int,
    guidance: float,
    noise_std: float,
    length: int,
    denoised: bool = True,
) -> torch.Tensor:
    """Samples for the prompts: scaled latents (N, C, h, w), optionally denoised with the score."""
    text = encode(encoder, tokenize(tokenizer, prompts, length))
    null = encode(encoder, null_ids(length, len(prompts)))
    side = flow.shape.grid * flow.shape.patch_size
    shape = (len(prompts), flow.shape.channel_size, side, side)
    z = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    x = invert(flow, z, torch.cat([text, null]), guidance)[-1]
    return denoise(flow, x, text, noise_std) if denoised else x


@torch.no_grad()
def decode_latents(vae, latents: torch.Tensor) -> np.ndarray:
    """uint8 pictures (N, H, W, 3)."""
    y = vae.decode(latents / vae.config.scaling_factor).sample
    return ((y.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()


def save_sheet(pictures: np.ndarray, columns: int, path: Path, gap: int = 2) -> None:
    """Paste pictures (N, H, W, 3) row by row into one PNG."""
    n, height, width, _ = pictures.shape
    rows = -(-n // columns)
    sheet = Image.new("RGB", (columns * (width + gap) - gap, rows * (height + gap) - gap), "white")
    for i, picture in enumerate(pictures):
        place = (i % columns * (width + gap), i // columns * (height + gap))
        sheet.paste(Image.fromarray(picture), place)
    sheet.save(path)
