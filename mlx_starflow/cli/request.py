"""Combine the command line and the settings stored in a picture or clip into batches and options.

The command line takes precedence over the stored settings, and these over defaults.
"""

from __future__ import annotations

import dataclasses
import secrets
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ..adapters import check_stored_adapter
from ..errors import StarflowError, UsageError
from ..generation.noise_file import read_noise, recorded_noise
from ..generation.settings import MAX_PICTURES, MAX_SEED
from ..generation.stored import StoredAdapter, StoredSettings
from ..hub.acquire import check_stored_model
from .job import Batch, Work
from .outputs import check_array_path

W = TypeVar("W", bound=Work)
MAX_AUTO_SEEDS = 100_000
MAX_PROMPTS = 16 << 20  # bytes of a file of prompts
# Option on the command line -> options in a picture's settings that are then ignored.
RULES = {
    "sampler": ("tolerance", "block_size", "windows", "max_sweeps"),
    "block_size": ("windows",),
    "windows": ("block_size",),
    "denoise": ("noise_std", "denoiser"),
    "denoiser": ("noise_std",),
    "width": ("aspect_ratio",),
    "height": ("aspect_ratio",),
}


def merged(given: dict[str, Any], stored: StoredSettings | None) -> dict[str, Any]:
    """The options of ``Pipeline.generate``: those given, else those in a picture's settings."""
    options = {k: v for k, v in given.items() if v is not None}
    if stored is None:
        return options
    aside = {name for flag in options for name in RULES.get(flag, ())}
    for name, value in stored.options.items():
        if name not in options and name not in aside:
            options[name] = value
    if options.get("denoiser") == "learned":
        options.pop("noise_std", None)
    return options


def stored_adapters(adapters: Sequence[StoredAdapter], where: str) -> tuple[tuple[str, float], ...]:
    """(path, scale) of the adapters that the settings in a file name. Errors: UsageError if one is
    not on this disk."""
    for adapter in adapters:
        check_stored_adapter(adapter.path, adapter.weights, where)
    return tuple((adapter.path, adapter.scale) for adapter in adapters)


def with_stored_model(work: W, stored: StoredSettings, where: str) -> W:
    """The work with model, adapters and precision from the settings in the file ``where``, unless
    the command line chose them. Errors: UsageError for a model that the settings may not choose,
    or an adapter that is not on this disk."""
    if work.model is None:
        check_stored_model(stored.model, where)
    return dataclasses.replace(
        work,
        model=stored.model if work.model is None else work.model,
        dtype=stored.dtype if work.dtype is None else work.dtype,
        quantize=stored.quantize if work.quantize is None else work.quantize,
        adapters=work.adapters or stored_adapters(stored.adapters, where),
        expected_weights=stored.weights if work.model in (None, stored.model) else None,
    )


def replayed(work: W, stored: StoredSettings, changed: bool, where: str) -> W:
    """The work with the model, adapters and precision of ``with_stored_model`` and the records in
    the settings of a picture or clip. ``changed``: the command line has options that change it; the
    records of how it was chosen are then left out. ``where``: the file. Errors: UsageError for an
    adapter that does not exist."""
    noise = stored.noise or {}
    history = {"best_of": stored.best_of, "varied": stored.varied}
    return dataclasses.replace(
        with_stored_model(work, stored, where),
        noise_file=work.noise_file or str(noise.get("file", "")),
        carried={} if changed else {k: v for k, v in history.items() if v},
    )


def batches(
    prompts: list[str | None],
    seeds: list[int] | None,
    auto_seeds: int | None,
    num_images: int,
    stored: StoredSettings | None,
) -> list[Batch]:
    """The batches to draw, in order. To repeat a picture exactly, its whole batch is drawn again,
    since rounding depends on the number of rows of a product. Errors: UsageError."""
    if stored is not None and not prompts and not seeds and not auto_seeds and num_images == 1:
        keep = (stored.index,) if len(stored.prompts) > 1 else None
        return [Batch(stored.prompts, stored.seeds, None, keep)]
    if stored is not None:
        prompts = prompts or [stored.prompts[stored.index]]
        seeds = seeds or (None if auto_seeds else [stored.seeds[stored.index]])
    if auto_seeds:
        if seeds:
            raise UsageError(
                "--auto-seeds chooses the seeds; give --seed or --auto-seeds, not both."
            )
        if auto_seeds > MAX_AUTO_SEEDS:
            raise UsageError(f"--auto-seeds is {auto_seeds}; expected at most {MAX_AUTO_SEEDS}.")
        seeds = [secrets.randbelow(MAX_SEED) for _ in range(auto_seeds)]
    return list(_each(prompts or [None], seeds, num_images))


def _each(prompts: list[str | None], seeds: list[int] | None, num_images: int) -> Iterator[Batch]:
    if num_images > MAX_PICTURES:
        raise UsageError(
            f"--num-images is {num_images}; expected at most {MAX_PICTURES}. For more pictures "
            "give several seeds."
        )
    for number, prompt in enumerate(prompts, start=1):
        for seed in seeds or [secrets.randbelow(MAX_SEED - num_images)]:
            row = tuple(range(seed, seed + num_images))
            yield Batch((prompt,) * num_images, row, number if len(prompts) > 1 else None)


def read_prompts(file: Path) -> list[str]:
    """The prompts in a file, one per line, without blank lines; ``-`` is standard input. Errors:
    UsageError, StarflowError."""
    try:
        text = _prompt_text(file)
    except FileNotFoundError:
        raise UsageError(f"--prompt-file {file}: there is no such file.") from None
    except UnicodeDecodeError:
        raise StarflowError(f"--prompt-file {file}: this is not UTF-8 text.") from None
    except OSError as error:
        raise StarflowError(f"--prompt-file {file}: {error.strerror}.") from None
    prompts = [line.strip() for line in text.splitlines() if line.strip()]
    if not prompts:
        raise StarflowError(f"--prompt-file {file} is empty; write one prompt per line.")
    return prompts


def _prompt_text(file: Path) -> str:
    """The text of the file. It may also be a pipe, since the user named it."""
    if str(file) == "-":
        text = sys.stdin.read(MAX_PROMPTS + 1)
    else:
        with file.open(encoding="utf-8") as stream:
            text = stream.read(MAX_PROMPTS + 1)
    if len(text) > MAX_PROMPTS:
        raise UsageError(f"--prompt-file {file} has more than {MAX_PROMPTS >> 20} MB of prompts.")
    return text


def given_noise(file: Path | None, stored: dict[str, Any] | None) -> np.ndarray | None:
    """The noise in the file of --noise, or in the record that is stored in a picture, or None."""
    if file is not None:
        return noise_in(file, "--noise")
    return None if stored is None else recorded_noise(stored, "the settings")


def noise_in(file: Path, flag: str) -> np.ndarray:
    """The noise (B, h, w, c), of clips (B, N, h, w, c), in a file. ``flag``: for messages.
    Errors: UsageError if the file does not exist, else StarflowError."""
    with content_of(file):
        check_array_path(file, flag)
        return read_noise(file)


@contextmanager
def content_of(file: Path) -> Iterator[None]:
    """Turn a UsageError about the content of a file into a StarflowError (exit status 1), unless
    the file does not exist."""
    try:
        yield
    except UsageError as error:
        if not file.exists():
            raise UsageError(f"{file}: there is no such file.") from None
        raise StarflowError(str(error)) from error
