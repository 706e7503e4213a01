"""Compress and decompress pictures with a pipeline."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass

import mlx.core as mx
import numpy as np
from PIL import Image

from ..config import COMPONENTS
from ..device.machine import this_machine
from ..device.wired import wired
from ..editing.inputs import contexts_of, latents_of, picture_sizes, prepared
from ..errors import CodecError, NumericsError, UsageError
from ..exact.codec import (
    Code,
    Decoded,
    before_deep_block,
    before_shallow_blocks,
    decode_tokens,
    encode_tokens,
    ideal_bits,
)
from ..exact.codec_integers import MARGIN
from ..exact.denoise import denoise as remove_noise
from ..flow import Context, Flow
from ..flow.grid import Grid, grid_of, patchify, unpatchify
from ..generation.components import precision
from ..pictures.read import Picture
from ..pipeline import Pipeline
from . import file
from .quality import DEFAULT_STEP, UNITS, step_units
from .weights import step_weights

SEEDS = 32  # number of seeds that are tried for a file that other machines can decode
_LEAST_HEADER, _COARSEST = 23, 8.0  # smallest header in bytes; largest step that is tried
PER_OCTAVE = 16  # number of steps per factor of 2 that target_bytes considers
_LARGEST_SEED = 2**32 - 1


@dataclass(frozen=True)
class Compressed:
    """A compressed picture, with its size, settings and symbols."""

    data: bytes  # the file
    header_bytes: int
    code_bytes: int
    ideal_bytes: float  # -sum log2 p / 8 of the symbols under the flow, without header
    step: float
    seed: int
    portable: bool  # no parameter is close to a rounding boundary: other machines can decode it
    prompt: str | None
    symbols: np.ndarray  # (T, D), the coded integers
    tokens: mx.array  # (1, T, D), what the decoder restores


def compress(
    pipe: Pipeline,
    image: Picture | Image.Image | str,
    step: float = DEFAULT_STEP,
    prompt: str | None = None,
    *,
    seed: int | None = None,
    target_bytes: int | None = None,
    fit: str = "refuse",
) -> bytes:
    """Compress a picture. Returns the bytes of the file; see ``compress_picture``."""
    return compress_picture(
        pipe, image, step, prompt, seed=seed, target_bytes=target_bytes, fit=fit
    ).data


@wired()
def compress_picture(
    pipe: Pipeline,
    image: Picture | Image.Image | str,
    step: float = DEFAULT_STEP,
    prompt: str | None = None,
    *,
    seed: int | None = None,
    target_bytes: int | None = None,
    fit: str = "refuse",
) -> Compressed:
    """Compress a picture with the flow as entropy model.

    image: a picture or its file, see ``fit``.
    step: width of the quantiser's cells in units of the deep block's input; rounded to 1/1024. It
    is multiplied by the model's step weights, see ``measured_step_weights``.
    prompt: a caption of the picture; it is stored in the file. None or "": no prompt.
    seed: of the quantiser's grids. None: the first seed for which no parameter is close to a
    rounding boundary, so that machines whose arithmetic differs in the last digits decode the same
    symbols.
    target_bytes: largest size of the file; a step is then chosen instead of ``step``.
    fit: what to do with a picture of another size, see ``mlx_starflow.pictures.read.fitted``.
    Errors: UsageError, ImageError, NumericsError.
    """
    if seed is not None and not 0 <= seed <= _LARGEST_SEED:
        raise UsageError(f"seed is {seed}; expected a number from 0 to {_LARGEST_SEED}.")
    prompt = prompt or None
    if prompt and len(prompt.encode()) > file.LONGEST_PROMPT:
        raise UsageError(f"The prompt is longer than {file.LONGEST_PROMPT} bytes.")
    units = step_units(step)
    picture, ratio = prepared(pipe, image, fit)
    context = contexts_of(pipe, [prompt or ""], ratio)
    x = latents_of(pipe, [picture.image])
    flow, grid = pipe.flow, grid_of(x, pipe.flow.config)
    u = before_deep_block(flow, patchify(x, flow.config), grid, context)
    mx.eval(u)

    weights = step_weights(pipe)

    def at(units: int) -> Compressed:
        code, used = _coded(flow, u, grid, context, units / UNITS * weights, seed)
        return _assembled(pipe, code, grid, units, used, prompt)

    if target_bytes is None:
        return at(units)
    return _within(target_bytes, at, lambda s: ideal_bits(flow, u, grid, context, s * weights) / 8)


@wired()
def decompress(pipe: Pipeline, data: bytes, *, denoise: bool = False) -> Image.Image:
    """The picture in a file that ``compress`` made.

    denoise: remove the quantisation noise from the latents, as if it were Gaussian. Errors:
    CodecError if the file is damaged, was made with another model, or does not decode to the right
    symbols on this machine. A wrong picture is never returned.
    """
    header = file.read(data)[0]
    found, grid, context = _decoded(pipe, data)
    return restored_pictures(pipe, found.tokens, grid, context, header.step, denoise)[0]


@wired()
def decoded_symbols(pipe: Pipeline, data: bytes) -> np.ndarray:
    """The symbols (T, D) in a file that ``compress`` made. Errors: CodecError."""
    return _decoded(pipe, data)[0].symbols


def _decoded(pipe: Pipeline, data: bytes) -> tuple[Decoded, Grid, Context]:
    header, code = file.read(data)
    _check_model(pipe, header)
    grid, ratio = _grid(pipe, header)
    context = contexts_of(pipe, [header.prompt or ""], ratio)
    step = header.step * step_weights(pipe)
    found = decode_tokens(pipe.flow, code, header.extent, grid, context, step, header.seed)
    if not file.matches(header, code, found.symbols):
        raise CodecError(_differs(header))
    return found, grid, context


def restored_pictures(
    pipe: Pipeline, u: mx.array, grid: Grid, context: Context, step: float, denoise: bool = False
) -> list[Image.Image]:
    """The pictures of decoded tokens u (B, T, D), with one row of context per picture."""
    flow = pipe.flow
    x = unpatchify(before_shallow_blocks(flow, u, grid, context), grid, flow.config)
    # Quantisation adds noise of standard deviation step / sqrt(12) or less. The flow's score is
    # that of data with noise of noise_std, so no more noise than this can be removed with it.
    std = min(step / math.sqrt(12), flow.config.noise_std)
    if denoise and std > 0:
        x = remove_noise(flow, x, context, noise_std=std, method="score")
    return pipe.decode(x)


def inspect(data: bytes) -> file.Header:
    """The header of a file; needs no model. Errors: CodecError."""
    return file.read(data)[0]


def _assembled(
    pipe: Pipeline, code: Code, grid: Grid, units: int, seed: int, prompt: str | None
) -> Compressed:
    header = file.Header(
        model=model_fingerprint(pipe),
        arithmetic=arithmetic_fingerprint(),
        precision=_precision(pipe),
        step_units=units,
        extent=code.extent,
        seed=seed,
        rows=grid.height,
        columns=grid.width,
        prompt=prompt,
    )
    data = file.write(header, code.symbols, code.data)
    return Compressed(
        data,
        header_bytes=len(data) - len(code.data),
        code_bytes=len(code.data),
        ideal_bytes=code.ideal_bits / 8,
        step=units / UNITS,
        seed=seed,
        portable=code.margin >= MARGIN,
        prompt=prompt,
        symbols=code.symbols,
        tokens=code.tokens,
    )


def _coded(
    flow: Flow, u: mx.array, grid: Grid, context: Context, step: np.ndarray, seed: int | None
) -> tuple[Code, int]:
    """The code, and the seed of its grids."""
    for attempt in range(SEEDS) if seed is None else ():
        code = encode_tokens(flow, u, grid, context, step, attempt, MARGIN)
        if code is not None:
            return code, attempt
    code = encode_tokens(flow, u, grid, context, step, seed or 0)
    if code is None:
        raise NumericsError("The flow computed a number that is NaN or infinite.")
    return code, seed or 0


def _within(
    target: int, at: Callable[[int], Compressed], estimate: Callable[[float], float]
) -> Compressed:
    """A file of at most ``target`` bytes, such that the next smaller step gives more. Steps are on
    a grid with PER_OCTAVE per factor of 2; the search begins where the estimated size fits."""
    steps = sorted({round(2 ** (i / PER_OCTAVE)) for i in range(15 * PER_OCTAVE)})
    low, high = 0, len(steps) - 1
    while low < high:
        middle = (low + high) // 2
        if estimate(steps[middle] / UNITS) <= target - _LEAST_HEADER:
            high = middle
        else:
            low = middle + 1
    made = at(steps[low])
    while len(made.data) > target:
        low += 1
        if low == len(steps) or steps[low] > UNITS * _COARSEST:
            raise UsageError(
                f"target_bytes is {target}, but even with the largest step the file of this "
                f"picture has {len(made.data)} bytes."
            )
        made = at(steps[low])
    while low and len((finer := at(steps[low - 1])).data) <= target:
        made, low = finer, low - 1
    return made


def model_fingerprint(pipe: Pipeline) -> bytes:
    """A hash of the stored weights of all components and of the step weights, 4 bytes."""
    parts = [f"{name} {pipe.fingerprint_of(name)}" for name in COMPONENTS]
    parts.append(f"step weights {step_weights(pipe).tolist()}")
    return hashlib.sha256("\n".join(parts).encode()).digest()[:4]


def arithmetic_fingerprint() -> int:
    """A 16-bit hash of what determines the last digits of float32 results: device, BLAS and MLX's
    version."""
    m = this_machine()
    parts = (m.system, m.architecture, m.device, m.device_name, m.blas, m.mlx)
    return int.from_bytes(hashlib.sha256("\n".join(parts).encode()).digest()[:2], "big")


def _precision(pipe: Pipeline) -> str:
    name = precision(pipe.flow)
    return name if name in file.PRECISIONS else "other"


def _check_model(pipe: Pipeline, header: file.Header) -> None:
    own = model_fingerprint(pipe)
    if header.model != own:
        raise CodecError(
            f"The file was made with another model: its weights have the hash "
            f"{header.model.hex()}, those of {pipe.config.name or 'this model'} {own.hex()}. "
            "Choose the model it was made with (--model)."
        )
    if header.precision != _precision(pipe):
        raise CodecError(
            f"The file was made with weights in {header.precision}; here they are in "
            f"{_precision(pipe)}. Load the model in {header.precision} (--dtype, --quantize)."
        )


def _grid(pipe: Pipeline, header: file.Header) -> tuple[Grid, str]:
    config, vae = pipe.flow.config, pipe.vae
    side = config.patch_size * (1 if vae is None else vae.config.factor)
    size = (header.columns * side, header.rows * side)
    for ratio, known in picture_sizes(pipe).items():
        if known == size:
            return Grid(header.rows, header.columns), ratio
    raise CodecError(
        f"The file has a picture of {size[0]}x{size[1]} pixels, which this model does not make."
    )


def _differs(header: file.Header) -> str:
    if header.arithmetic == arithmetic_fingerprint():
        return "The checksum of the decoded numbers is wrong: the file is damaged."
    return (
        "The checksum of the decoded numbers is wrong: the file was made on another device or with "
        "other libraries, whose arithmetic differs too much. Decompress it on a machine like the "
        "one that made it."
    )
