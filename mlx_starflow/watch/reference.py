"""The reference: measurements of a collection of ordinary pictures, and its JSON file."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..editing.inputs import contexts_of
from ..errors import ConfigError, UsageError
from ..files.counted import counted
from ..files.fields import shown
from ..files.json import read_json
from ..pictures.arrays import write_whole
from ..pictures.read import Picture
from ..pipeline import Pipeline
from .measure import BATCH, Measured, measure
from .statistics import STATISTICS, scores

FORMAT, VERSION = "mlx-starflow watch", 1
FEWEST = 20  # pictures; with fewer, no p-value is 5 % or less
MOST = 10_000  # pictures
DRAWS, MOST_DRAWS = 4, 256  # noise draws: usual and largest number
LARGEST_FILE = 256 << 20  # bytes
MOST_VALUES = 64 << 20  # numbers and strings in the file
_DIGITS = 7  # significant digits in the file
# Largest magnitude of the numbers in each array; with larger ones, scores would overflow.
_LARGEST = {"parts": 1e9, "lost": 100.0, "detail": 100.0, "png": 1e9}


@dataclass(frozen=True)
class Reference:
    """Measurements of ordinary pictures, and the settings with which they were made."""

    model: str  # fingerprint of the flow's weights
    prompt: str
    draws: int
    seed: int
    aspect_ratio: str
    measured: Measured


def fit(
    pipe: Pipeline,
    pictures: Sequence[Picture],
    aspect_ratio: str,
    prompt: str = "",
    draws: int = DRAWS,
    seed: int = 0,
    progress: Callable[[int], None] = lambda done: None,
) -> Reference:
    """Make a reference from at least FEWEST ordinary pictures of one size.

    prompt: a prompt that describes all pictures. draws, seed: number and seed of the noise draws
    that are added to them. progress: is called with the number of pictures done. Errors:
    UsageError, NumericsError.
    """
    if len(pictures) < FEWEST:
        raise UsageError(
            f"There is only {counted(len(pictures), 'picture')}; at least {FEWEST} are needed for "
            "a false-alarm rate of 5 %."
        )
    if len(pictures) > MOST:
        raise UsageError(f"There are {len(pictures)} pictures; at most {MOST} are allowed.")
    if not 1 <= draws <= MOST_DRAWS:
        raise UsageError(f"draws is {draws}; expected 1 to {MOST_DRAWS}.")
    context = contexts_of(pipe, [prompt], aspect_ratio)
    whole: Measured | None = None
    for start in range(0, len(pictures), BATCH):
        images = [p.image for p in pictures[start : start + BATCH]]
        part = measure(pipe, images, context, draws, seed)
        whole = part if whole is None else whole.and_(part)
        progress(len(whole))
    if whole is None:
        raise UsageError("There are no pictures.")
    return Reference(pipe.fingerprint, prompt, draws, seed, aspect_ratio, whole)


def calibration(reference: Reference) -> dict[str, dict[str, float]]:
    """For each statistic, quantile -> score over the reference pictures, each scored against the
    others."""
    return {
        name: {f"{q:g}": float(np.quantile(values, q)) for q in (0.5, 0.9, 0.95, 0.99)}
        for name, values in scores(reference.measured).items()
    }


def write_reference(path: Path, reference: Reference) -> Path:
    """Write a reference as JSON. Returns the path that was written: an existing file is kept, and
    a free name is taken. Errors: ImageError if it cannot be written."""
    m = reference.measured
    data = {
        "format": FORMAT,
        "version": VERSION,
        "model": reference.model,
        "prompt": reference.prompt,
        "draws": reference.draws,
        "seed": reference.seed,
        "aspect_ratio": reference.aspect_ratio,
        "pictures": len(m),
        "grid": list(m.grid),
        "numbers": m.numbers,
        "statistics": STATISTICS,
        "calibration": calibration(reference),
        "parts": _short(m.parts),
        "lost": _short(m.lost),
        "detail": _short(m.detail),
        "png": _short(m.png),
    }
    text = json.dumps(data).encode()

    def write(file: BinaryIO) -> None:
        file.write(text)

    return write_whole(path, write, overwrite=False)


def read_reference(path: Path) -> Reference:
    """Read a file that ``write_reference`` made. Errors: UsageError if it is missing, ConfigError
    naming the file and key."""
    try:
        data = read_json(path, LARGEST_FILE, most_values=MOST_VALUES)
    except FileNotFoundError:
        raise UsageError(f"{path}: there is no such file; make it with watch fit.") from None
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise ConfigError(f"{path} is not a reference; make one with watch fit.")
    if data.get("version") != VERSION:
        raise ConfigError(
            f"{path}: version is {shown(data.get('version'))}; this program reads {VERSION}."
        )
    kinds = {"model": str, "prompt": str, "draws": int, "seed": int, "aspect_ratio": str}
    for key, kind in kinds.items():
        if not isinstance(data.get(key), kind):
            raise ConfigError(f"{path}: {key} is {shown(data.get(key))}; expected {kind.__name__}.")
    if not (1 <= data["draws"] <= MOST_DRAWS and 0 <= data["seed"] < 2**32):
        raise ConfigError(f"{path}: draws or seed is out of range.")
    return Reference(
        data["model"], data["prompt"], data["draws"], data["seed"], data["aspect_ratio"],
        _measured(path, data),
    )  # fmt: skip


def _measured(path: Path, data: dict[str, Any]) -> Measured:
    try:
        rows, columns = (int(v) for v in data["grid"])
        arrays = [np.array(data[k], dtype=np.float64) for k in _LARGEST]
        numbers = int(data["numbers"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ConfigError(f"{path} is damaged ({error!r}); make it again.") from None
    parts, lost, detail, png = arrays
    n = len(png) if png.ndim == 1 else 0
    fits = parts.ndim == 3 and parts.shape[:2] == (n, rows * columns) and parts.shape[2] >= 2
    fits = fits and lost.shape == detail.shape == (n, rows * columns) and numbers > 0
    if not fits or not FEWEST <= n <= MOST:
        raise ConfigError(f"{path} is damaged: its arrays do not fit together; make it again.")
    for (name, most), array in zip(_LARGEST.items(), arrays, strict=True):
        if not (np.abs(array) <= most).all():  # nor NaN
            raise ConfigError(
                f"{path} is damaged: {name} holds a number that is not between {-most:g} and "
                f"{most:g}; make it again."
            )
    return Measured(parts, lost, detail, png, (rows, columns), numbers)


def _short(values: np.ndarray) -> list[Any]:
    """Nested lists with _DIGITS significant digits."""
    if values.ndim > 1:
        return [_short(row) for row in values]
    return [float(f"{v:.{_DIGITS}g}") for v in values]
