"""The checks of ``doctor`` that need no model: products, convolutions, attention, bandwidth."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from typing import Any, cast

import mlx.core as mx
import numpy as np

from ..device.activations import on_gpu
from ..device.machine import Machine, this_machine
from ..device.precision import tf32_allowed
from ..generation.memory import device_budget
from .checkup import OK, SKIPPED, SLOW, WRONG, Check, judged, largest, seconds

EXACT = 1e-6  # allowed error of a float32 product, relative to its largest number
ROWS = (1, 2, 4, 8, 16, 32, 64, 128)
MATRIX = (12288, 3072)  # as in the MLP of the published 3B model
SMALL_ROWS, SMALL_MATRIX = (1, 8), (512, 256)  # on a CPU, whose 16-bit products are slow
PRECISIONS = ("float16", "bfloat16", "8-bit", "4-bit")
FUSED_ERROR = {mx.float32: 1e-5, mx.float16: 4e-3}  # allowed error of fused attention


def machine_check(machine: Machine | None = None) -> Check:
    """Check 1: the machine. Wrong if MLX may round float32 products, slow with a slow BLAS."""
    machine = machine or this_machine()
    budget = device_budget()
    facts = dataclasses.asdict(machine) | {
        "macos": _macos(),
        "architecture_gpu": str(mx.device_info().get("architecture", "")),
        "memory_gb": round(budget.physical / 1e9, 1),
        "recommended_working_set_gb": round(budget.bytes / 1e9, 1),
    }
    if on_gpu() and tf32_allowed():
        meaning = "MLX_ENABLE_TF32 lets MLX round float32 products; unset it or set it to 0."
        return Check("machine", WRONG, facts, "TF32 off", meaning)
    slow = not on_gpu() and machine.blas.startswith("reference")
    meaning = "MLX uses its slow BLAS; install a fast one: apt install libopenblas0-pthread."
    meaning = meaning if slow else ""
    return Check("machine", SLOW if slow else OK, facts, "TF32 off, a fast BLAS", meaning)


def exactness_check() -> Check:
    """Check 2: a product and a convolution in float32, compared with float64 on the CPU."""
    random = np.random.default_rng(0)
    a, b = (random.standard_normal((512, 512)).astype(np.float32) for _ in range(2))
    picture = random.standard_normal((1, 12, 12, 352)).astype(np.float32)
    kernel = random.standard_normal((352, 3, 3, 352)).astype(np.float32)
    product = _error(mx.matmul(mx.array(a), mx.array(b)), a.astype(np.float64) @ b)
    convolved = mx.conv2d(mx.array(picture), mx.array(kernel), padding=1)
    convolution = _error(convolved, _convolution(picture, kernel))
    measured = {"product": product, "convolution": convolution}
    return judged(
        "float32 is float32",
        max(product, convolution) < EXACT,
        measured,
        f"largest error below {EXACT:g} of the largest number",
        "Products and convolutions have the precision of float32.",
        "MLX rounds float32 products or convolutions on this device: pictures and likelihoods "
        "may be wrong. Is MLX_ENABLE_TF32 set? Please report this with the version of mlx.",
    )


def _error(found: mx.array, expected: np.ndarray) -> float:
    return float(np.abs(np.array(found) - expected).max() / np.abs(expected).max())


def _convolution(picture: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """A 3x3 convolution with padding 1, in float64."""
    _, height, width, _ = picture.shape
    padded = np.pad(picture.astype(np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    parts = (
        padded[:, i : i + height, j : j + width] @ kernel[:, i, j].T.astype(np.float64)
        for i in range(3)
        for j in range(3)
    )
    return cast(np.ndarray, sum(parts))


def bandwidth_check() -> tuple[Check, dict[str, dict[int, float]]]:
    """Check 6: products of few rows with a large matrix. Returns the check, and a table from
    precision and number of rows to milliseconds."""
    rows, shape = (ROWS, MATRIX) if on_gpu() else (SMALL_ROWS, SMALL_MATRIX)
    table: dict[str, dict[int, float]] = {}
    rates = {}
    for precision in PRECISIONS:
        product, size = _product(precision, shape)
        table[precision] = {n: 1e3 * seconds(_evaluated(product, n)) for n in rows}
        rates[precision] = round(size / table[precision][1] / 1e6, 1)
    measured = {
        "matrix": list(shape),
        "milliseconds": {
            p: {str(n): round(t, 4) for n, t in ts.items()} for p, ts in table.items()
        },
        "gigabytes_per_second": rates,
    }
    if not on_gpu():
        return Check("bandwidth", SKIPPED, measured, "", "Only meaningful on a GPU."), table
    # Fewer bytes must not take longer than more.
    slow = [p for p, of in (("8-bit", "float16"), ("4-bit", "8-bit"), ("bfloat16", "float16"))
            if table[p][1] > 1.3 * table[of][1]]  # fmt: skip
    meaning = f"{', '.join(slow)}: slower than weights with more bits on this chip." if slow else ""
    expected = "with one row: the fewer bytes, the faster"
    return Check("bandwidth", SLOW if slow else OK, measured, expected, meaning), table


def _evaluated(function: Callable[..., mx.array], *arguments: Any) -> Callable[[], None]:
    return lambda: mx.eval(function(*arguments))


def _product(precision: str, shape: tuple[int, int]) -> tuple[Callable[[int], mx.array], int]:
    weight = mx.random.normal(shape, key=mx.random.key(0))
    if precision.endswith("bit"):
        bits = int(precision[0])
        packed = mx.quantize(weight.astype(mx.float16), 64, bits)
        mx.eval(packed)

        def product(rows: int) -> mx.array:
            x = mx.ones((rows, shape[1]), mx.float16)
            return mx.quantized_matmul(x, *packed, transpose=True, group_size=64, bits=bits)

        return product, sum(a.nbytes for a in packed)
    weight = weight.astype(getattr(mx, precision))
    mx.eval(weight)
    return lambda rows: mx.ones((rows, shape[1]), weight.dtype) @ weight.T, weight.nbytes


def attention_check() -> Check:
    """Check 7: the fused attention compared with its definition, in accuracy and speed."""
    errors, times = {}, {}
    for dtype, most in FUSED_ERROR.items():
        for queries in (1, 8, 64):
            q, k, v = (
                mx.random.normal((2, 8, n, 64), key=mx.random.key(i)).astype(dtype)
                for i, n in enumerate((queries, 192, 192))
            )
            mask = mx.arange(192) <= (192 - queries + mx.arange(queries))[:, None]
            fused, plain = _fused(q, k, v, mask), _unfused(q, k, v, mask)
            name = f"{str(dtype).removeprefix('mlx.core.')}, {queries} queries"
            errors[name] = largest(fused - plain) / most
            times[name] = round(
                seconds(_evaluated(_unfused, q, k, v, mask))
                / seconds(_evaluated(_fused, q, k, v, mask)), 2
            )  # fmt: skip
    wrong = [name for name, error in errors.items() if not error <= 1]
    slow = on_gpu() and min(times.values()) < 0.67
    return Check(
        "attention",
        WRONG if wrong else SLOW if slow else OK,
        {"times_faster": times, "error_of_allowed": {k: round(e, 3) for k, e in errors.items()}},
        "the fused kernel gives the same result as the definition, as fast or faster",
        f"Fused attention is wrong for {', '.join(wrong)}: please report it." if wrong
        else "Fused attention is slower than unfused attention on this chip." if slow else "",
    )  # fmt: skip


def _fused(q: mx.array, k: mx.array, v: mx.array, mask: mx.array) -> mx.array:
    return mx.fast.scaled_dot_product_attention(q, k, v, scale=0.125, mask=mask)


def _unfused(q: mx.array, k: mx.array, v: mx.array, mask: mx.array) -> mx.array:
    scores = (q.astype(mx.float32) * 0.125) @ k.astype(mx.float32).swapaxes(-1, -2)
    weights = mx.softmax(mx.where(mask, scores, -mx.inf), axis=-1)
    return weights @ v.astype(mx.float32)


def _macos() -> str:
    import platform

    return platform.mac_ver()[0] if os.name == "posix" else ""


def predictions(table: dict[str, dict[int, float]]) -> dict[str, Any]:
    """Predicted seconds for one guided picture of the published 3B model, by precision and window.

    ``table``: precision -> rows -> milliseconds, from ``bandwidth_check``.
    """
    from ..sampling.calibrate import COMMITTED_PER_SWEEP, SHALLOW_SWEEPS

    tokens, per_layer, deep, shallow = 1024, 3, 24, 10  # a layer is three such matrices
    found: dict[str, Any] = {}
    for precision, times in table.items():
        most = max(times)
        per_row = times[most] / most  # ms per row, with many rows
        by_window = {}
        for window, committed in COMMITTED_PER_SWEEP.items():
            rows = 2 * window  # with guidance
            if rows <= most:
                ms = times[rows] if rows in times else per_row * rows
                by_window[window] = 1e-3 * tokens / committed * deep * per_layer * ms
        # Parallel passes: shallow blocks, the residual of all blocks, and three for denoising.
        rows = shallow * tokens * (SHALLOW_SWEEPS + 1 + 3) + deep * (tokens + 128) * (2 + 3)
        whole = 1e-3 * per_layer * per_row * rows
        found[precision] = {
            "seconds_by_window": {str(w): round(s + whole, 1) for w, s in by_window.items()},
            "of_it_whole_passes": round(whole, 1),
            "best_window": min(by_window, key=by_window.__getitem__),
        }
    return found
