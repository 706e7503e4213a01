"""Painted clips on disk, and their latents and captions for the training of the flow."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from ..default_model.data import open_pictures, read_json, store_split
from ..default_model.latents import store_latents, store_tokens
from ..default_model.painter.shards import spread
from ..default_model.parallel import rank, world
from .captions import LEXICON, clip_caption
from .painting import paint_clip
from .scenes import Clip, from_row, mirrored, random_clip, to_row
from .settings import DataSettings

# Held-out clips have seeds that are not used for training.
_HELD_OUT_SEED = 1_000_000
_JOB = 32  # clips that a process paints at a time
_CHUNK = 512


def clip_of(seed: int, index: int) -> Clip:
    """A clip of the series of a seed; each has a random stream of its own."""
    return random_clip(np.random.default_rng([seed, index]))


def _paint_range(job: tuple[int, int, int, int, int]) -> np.ndarray:
    seed, start, stop, size, frames = job
    return np.stack([paint_clip(clip_of(seed, i), size, frames) for i in range(start, stop)])


def paint_clips(folder: Path, split: str, settings: DataSettings, say=lambda text: None) -> None:
    """Paint one split chunk by chunk; a later call continues after the last finished chunk."""
    held_out = split == "held_out"
    count = settings.held_out if held_out else settings.train
    seed = settings.seed + (_HELD_OUT_SEED if held_out else 0)
    size, frames = settings.size, settings.frames

    def paint_rows(start: int, stop: int) -> tuple[np.ndarray, list[dict]]:
        jobs = [(seed, i, min(i + _JOB, stop), size, frames) for i in range(start, stop, _JOB)]
        rows = []
        for i in range(start, stop):
            clip, rng = clip_of(seed, i), np.random.default_rng([seed, i, 1])
            captions = [clip_caption(clip, rng) for _ in range(settings.captions)]
            rows.append({**to_row(clip), "captions": captions})
        return np.concatenate(list(spread(_paint_range, jobs, settings.workers))), rows

    store_split(folder, split, (count, frames, size, size, 3), paint_rows, say, _CHUNK)


def read_clips(folder: Path, split: str) -> tuple[list[Clip], list[list[str]]]:
    """The clips of a split and, for each, its captions."""
    rows = [json.loads(line) for line in (folder / f"{split}.jsonl").read_text().splitlines()]
    return [from_row(row) for row in rows], [row["captions"] for row in rows]


def encode_clips(folder: Path, paint: Path, encode, say=lambda text: None) -> None:
    """Write the latents (n, N, C, h, w) of both splits in float16; those of the training clips also
    mirrored. Every process of the recipe encodes a part of them.

    ``encode(clips, flip)``: latents of uint8 clips, as the flow reads them.
    """
    jobs = [("train", "train", False), ("train.flipped", "train", True)]
    jobs.append(("held_out", "held_out", False))
    for name, split, flip in jobs[rank() :: world()]:
        clips = open_pictures(paint, split)
        store_latents(folder, name, clips, lambda part, f=flip: encode(part, f), say, _CHUNK)


def tokenize_clips(folder: Path, paint: Path, split: str, tokenizer, length: int, fps: int) -> None:
    """Write SPLIT.tokens.npy for the captions of a split."""
    captions = [[told(text, fps) for text in own] for own in read_clips(paint, split)[1]]
    store_tokens(folder, split, captions, tokenizer, length)


def told(caption: str, fps: int) -> str:
    """The caption with the words around it that the engine adds for a clip."""
    from mlx_starflow.config import TextConfig
    from mlx_starflow.text.templates import prompt_text

    return prompt_text(caption, TextConfig("gemma", length=1, channels=1, fps=True), fps=fps)


def token_id(token: str) -> int:
    """The id of a token of ``LEXICON``; the first ones are padding and the like."""
    specials = 4
    return specials + LEXICON.tokens.index(token)


def swap_sides(tokens: np.ndarray) -> np.ndarray:
    """The captions' ids of mirrored clips: "left" becomes "right", and the reverse."""
    table = np.arange(tokens.max() + len(LEXICON.tokens) + 4, dtype=tokens.dtype)
    for side in ("left", "right"):
        table[token_id(side)] = token_id(mirrored(side))
    return table[tokens]


def open_latents(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Latents (n or 2n rows: unchanged, then mirrored) and tokens of as many rows."""
    latents = np.load(folder / f"{split}.npy")
    tokens = np.load(folder / f"{split}.tokens.npy")
    if not (folder / f"{split}.flipped.npy").exists():
        return latents, tokens
    flipped = np.load(folder / f"{split}.flipped.npy")
    return np.concatenate([latents, flipped]), np.concatenate([tokens, swap_sides(tokens)])


def temporal_scale(vae_folder: Path) -> float:
    """The factor of latent frames after the first."""
    return read_json(vae_folder / "report.json")["temporal_scale"]
