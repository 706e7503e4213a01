"""What a person asked of ``generate``: command line over a picture's settings over defaults."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UsageError
from ..generation.noise_file import read_noise, recorded_noise
from ..generation.settings import MAX_SEED
from .outputs import check_array_path

# Settings of a picture that become arguments of Pipeline.generate again, by their names there.
REPLAYED = (
    "guidance",
    "sampler",
    "tolerance",
    "block_size",
    "windows",
    "steps",
    "attention_temperature",
    "guide",
    "annealed",
    "denoise",
    "noise_std",
    "denoiser",
    "aspect_ratio",
)
# Choosing one of the first on the command line puts aside the picture's choice of the others.
RULES = {
    "sampler": ("tolerance", "block_size", "windows", "steps"),
    "block_size": ("windows",),
    "denoise": ("noise_std", "denoiser"),
    "denoiser": ("noise_std",),
    "width": ("aspect_ratio",),
    "height": ("aspect_ratio",),
}


@dataclass(frozen=True)
class Batch:
    """Pictures made together: one prompt and one seed each."""

    prompts: tuple[str | None, ...]
    seeds: tuple[int, ...]
    prompt_number: int | None = None  # counted from 1, where there are several prompts
    keep: tuple[int, ...] | None = None  # the pictures that are saved; None: all
    best_of: dict[str, Any] | None = None  # what the choice of the kept picture was made from


def merged(given: dict[str, Any], stored: dict[str, Any] | None) -> dict[str, Any]:
    """Arguments of ``Pipeline.generate``: those given, the others from a picture's settings."""
    options = {k: v for k, v in given.items() if v is not None and k != "model"}
    if stored is None:
        return options
    aside = {name for flag in given if given[flag] is not None for name in RULES.get(flag, ())}
    for name in REPLAYED:
        if name not in options and name not in aside and stored.get(name) is not None:
            options[name] = stored[name]
    if options.get("denoiser") == "learned":
        options.pop("noise_std", None)
    return options


def batches(
    prompts: list[str | None],
    seeds: list[int] | None,
    auto_seeds: int | None,
    num_images: int,
    stored: dict[str, Any] | None,
) -> list[Batch]:
    """Everything to draw, in order. A picture out of a batch is drawn again with its whole batch,
    since the last bits of a product depend on how many rows it has."""
    if stored is not None and not prompts and not seeds and not auto_seeds and num_images == 1:
        batch = stored.get("batch")
        if batch is None:
            return [Batch((stored["prompt"],), (stored["seed"],))]
        return [Batch(tuple(batch["prompts"]), tuple(batch["seeds"]), None, (batch["index"],))]
    if stored is not None:
        prompts = prompts or [stored["prompt"]]
        seeds = seeds or (None if auto_seeds else [stored["seed"]])
    if auto_seeds:
        if seeds:
            raise UsageError("--auto-seeds draws the seeds; leave --seed out, or leave it out.")
        seeds = [secrets.randbelow(MAX_SEED) for _ in range(auto_seeds)]
    return list(_each(prompts or [None], seeds, num_images))


def _each(prompts: list[str | None], seeds: list[int] | None, num_images: int) -> Iterator[Batch]:
    for number, prompt in enumerate(prompts, start=1):
        for seed in seeds or [secrets.randbelow(MAX_SEED - num_images)]:
            row = tuple(range(seed, seed + num_images))
            yield Batch((prompt,) * num_images, row, number if len(prompts) > 1 else None)


def read_prompts(file: Path) -> list[str]:
    """One prompt a line, blank lines left out; ``-`` is standard input."""
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UsageError(f"--prompt-file {file}: there is no such file.") from None
    except UnicodeDecodeError:
        raise UsageError(f"--prompt-file {file}: this is not UTF-8 text.") from None
    except OSError as error:
        raise UsageError(f"--prompt-file {file}: {error.strerror}.") from None
    prompts = [line.strip() for line in text.splitlines() if line.strip()]
    if not prompts:
        raise UsageError(f"--prompt-file {file} is empty; write one prompt a line.")
    return prompts


def given_noise(file: Path | None, stored: dict[str, Any] | None) -> np.ndarray | None:
    """The noise of --noise, or the one that a picture was made from."""
    if file is not None:
        check_array_path(file, "--noise")
        return read_noise(file)
    noise = (stored or {}).get("noise")
    if noise is None:
        return None
    return recorded_noise(noise, "the settings")
