"""Paintings as latents and token ids, so that the training of the flow needs no VAE."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .data import open_pictures, read_scenes, write_json
from .settings import DataSettings
from .text import tokenize, with_unknown
from .vae import encode_pictures

_CHUNK = 2048
_UNKNOWN_SHARE = 0.05  # of the captions


def encode_split(
    folder: Path,
    paint: Path,
    split: str,
    model,
    settings: DataSettings,
    say=lambda text: None,
    device: str = "cpu",
) -> None:
    """Write SPLIT.npy (n, C, h, w) and, if `settings.flipped`, SPLIT.flipped.npy: the scaled means
    of the latents in float16. A later call continues after the last finished chunk.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pictures, scale = open_pictures(paint, split), model.config.scaling_factor
    if split == "train":
        pictures = pictures[: settings.encoded]
    for name, flip in ((split, False), (f"{split}.flipped", True)):
        if flip and (split == "held_out" or not settings.flipped):
            continue
        path = folder / f"{name}.npy"
        if path.exists():
            continue
        parts = []
        for start in range(0, len(pictures), _CHUNK):
            chunk = folder / f"{name}.{start}.part.npy"
            if not chunk.exists():
                latents = encode_pictures(model, pictures[start : start + _CHUNK], device, flip)
                partial = folder / "partial.npy"
                np.save(partial, (latents * scale).half().numpy())
                partial.replace(chunk)
                say(f"encoded {name} {min(start + _CHUNK, len(pictures))}/{len(pictures)}")
            parts.append(chunk)
        np.save(folder / "partial.npy", np.concatenate([np.load(part) for part in parts]))
        (folder / "partial.npy").replace(path)
        for part in parts:
            part.unlink()


def tokenize_split(folder: Path, paint: Path, split: str, tokenizer, length: int) -> None:
    """Write SPLIT.tokens.npy (n, captions, length) uint16; a few training captions have <unk>."""
    _, captions = read_scenes(paint, split)
    ids = tokenize(tokenizer, [text for texts in captions for text in texts], length)
    if split == "train":
        ids = with_unknown(ids, _UNKNOWN_SHARE, torch.Generator().manual_seed(0))
    ids = ids.numpy().astype(np.uint16)
    np.save(folder / f"{split}.tokens.npy", ids.reshape(len(captions), -1, length))


def open_latents(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Latents (n or 2n rows: unchanged, then flipped) and tokens (n, captions, length)."""
    parts = [np.load(folder / f"{split}.npy")]
    if (folder / f"{split}.flipped.npy").exists():
        parts.append(np.load(folder / f"{split}.flipped.npy"))
    # There may be more captions than encoded paintings.
    tokens = np.load(folder / f"{split}.tokens.npy")[: len(parts[0])]
    return np.concatenate(parts), tokens


def rows_of(
    latents: np.ndarray, tokens: np.ndarray, rows: np.ndarray, rng
) -> tuple[Tensor, Tensor]:
    """A batch: latents (B, C, h, w) float32 and, for each, one of its captions' ids (B, length)."""
    phrasing = rng.integers(tokens.shape[1], size=len(rows))
    ids = tokens[rows % len(tokens), phrasing].astype(np.int64)
    return torch.from_numpy(latents[rows].astype(np.float32)), torch.from_numpy(ids)


def write_latent_report(folder: Path, split: str) -> None:
    latents, _ = open_latents(folder, split)
    sample = latents[:: max(1, len(latents) // 4000)].astype(np.float32)
    write_json(
        folder / "report.json",
        {
            "std": float(sample.std()),
            "channel_std": sample.std((0, 2, 3)).round(3).tolist(),
            "channel_mean": sample.mean((0, 2, 3)).round(3).tolist(),
        },
    )
