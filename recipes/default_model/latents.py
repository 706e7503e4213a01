"""Paintings as latents and token ids, so that the training of the flow needs no VAE."""

from __future__ import annotations

from collections.abc import Callable
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
    pictures, scale = open_pictures(paint, split), model.config.scaling_factor
    if split == "train":
        pictures = pictures[: settings.encoded]
    for name, flip in ((split, False), (f"{split}.flipped", True)):
        if flip and (split == "held_out" or not settings.flipped):
            continue

        def encode(rows: np.ndarray, flip: bool = flip) -> Tensor:
            return encode_pictures(model, rows, device, flip) * scale

        store_latents(folder, name, pictures, encode, say)


def store_latents(
    folder: Path,
    name: str,
    pictures: np.ndarray,
    encode: Callable[[np.ndarray], Tensor],
    say=lambda text: None,
    length: int = _CHUNK,
) -> None:
    """Write NAME.npy, the latents of pictures or clips in float16, in chunks of ``length`` rows. A
    later call continues after the last finished chunk."""
    folder.mkdir(parents=True, exist_ok=True)
    path, partial = folder / f"{name}.npy", folder / f"{name}.partial.npy"
    if path.exists():
        return
    parts = []
    for start in range(0, len(pictures), length):
        chunk = folder / f"{name}.{start}.part.npy"
        if not chunk.exists():
            latents = encode(pictures[start : start + length])
            np.save(partial, latents.half().numpy())
            partial.replace(chunk)
            say(f"encoded {name} {min(start + length, len(pictures))}/{len(pictures)}")
        parts.append(chunk)
    np.save(partial, np.concatenate([np.load(part) for part in parts]))
    partial.replace(path)
    for part in parts:
        part.unlink()


def tokenize_split(folder: Path, paint: Path, split: str, tokenizer, length: int) -> None:
    """Write SPLIT.tokens.npy for the captions of a split."""
    store_tokens(folder, split, read_scenes(paint, split)[1], tokenizer, length)


def store_tokens(
    folder: Path, split: str, captions: list[list[str]], tokenizer, length: int
) -> None:
    """Write SPLIT.tokens.npy (n, captions, length) uint16; a few training captions have <unk>."""
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


def write_latent_report(folder: Path, split: str, latents: np.ndarray | None = None) -> None:
    """Write the deviation and the mean of the channels of latents (n, ..., C, h, w)."""
    if latents is None:
        latents, _ = open_latents(folder, split)
    sample = latents[:: max(1, len(latents) // 4000)].astype(np.float32)
    sample = sample.reshape(-1, *sample.shape[-3:])
    write_json(
        folder / "report.json",
        {
            "std": float(sample.std()),
            "channel_std": sample.std((0, 2, 3)).round(3).tolist(),
            "channel_mean": sample.mean((0, 2, 3)).round(3).tolist(),
        },
    )
