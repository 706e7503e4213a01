"""The checks of ``doctor`` that need a model: dtypes, rounding, KV cache, memory, a picture."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, cast

import mlx.core as mx
import numpy as np

from ..device.activations import on_gpu
from ..device.products import kept_type
from ..device.typed import parameters_of, scalar
from ..exact.denoise import denoise
from ..flow import Block, Flow
from ..flow.grid import Grid
from ..generation.components import precision
from ..generation.memory_need import denoising_bytes
from ..pipeline import Pipeline, load
from ..sampling import SampleOptions
from ..sampling.calibrate import reachable_tolerance
from ..sampling.conditional import Conditional
from .checkup import OK, SKIPPED, SLOW, WRONG, Check, casts_in, judged
from .golden import REGENERATE, Golden, deviations, difference, drawn_by

STEPS = 20
FLOORS = {mx.float32: 2e-4, mx.float16: 3e-2, mx.bfloat16: 2.5e-1}  # largest allowed floor
HALVES = ("float16", "bfloat16")
# Allowed differences of the embedded picture. Between devices, rounding changes a sample by about
# 1e-3 standard deviations.
CLOSE = {"latents": 1e-2, "denoised": 1e-2, "picture_db": 50.0, "log_prob": 1e-4}


class Subject:
    """A pipeline's flow, with a prompt, context and options to run it."""

    def __init__(self, pipe: Pipeline) -> None:
        self.pipe, self.flow = pipe, pipe.flow
        config = self.flow.config
        self.grid: Grid = self.flow.training_grid()
        conditional = bool(config.text_channels or config.num_classes)
        self.guidance = pipe.config.defaults.guidance if conditional else 0.0
        self.prompt = _prompt(pipe)
        prompts = cast(list[str], [self.prompt])  # [None] for an unconditional model
        rows = pipe.prompt_rows(prompts)
        self.context = rows.for_sampling(prompts, self.guidance)
        self.own = rows.own(prompts)
        self.options = SampleOptions(guidance=self.guidance)

    @property
    def deep(self) -> Block:
        """The last block with layers."""
        return next(b for b in reversed(self.flow.blocks) if isinstance(b, Block))

    def noise(self) -> mx.array:
        """Noise (1, h, w, c) of the size that the model was trained on."""
        side, config = self.flow.config.grid_size * self.flow.config.patch_size, self.flow.config
        return mx.random.normal((1, side, side, config.in_channels), key=mx.random.key(0))

    def conditional(self) -> Conditional:
        """The deep block with an empty KV cache, ready for steps of one token."""
        return Conditional(self.deep, self.grid, self.context, 1, self.options, steps_of=1)


def types_check(flow: Flow) -> Check:
    """Check 3: the dtypes in a step. No matrix may be converted, and the KV cache must have the
    dtype of the weights."""
    block = next(b for b in reversed(flow.blocks) if isinstance(b, Block))
    grid, config = flow.training_grid(), flow.config
    context = None
    if config.text_channels:
        context = mx.zeros((1, config.text_length, config.text_channels))
    state = block.begin(grid, context)
    previous = mx.zeros((1, 1, config.token_channels))
    mx.eval(block.conditionals(state, previous, 0, grid), state.arrays())
    layer = block.layers[0]
    kept = kept_type(layer.attention.qkv)
    stored = {str(a.dtype).removeprefix("mlx.core.") for a in state.arrays()}
    size = block.config.channels**2
    casts = casts_in(lambda p: block.conditionals(state, p, 2, grid), previous, at_least=size)
    residual = layer(mx.zeros((1, 1, block.config.channels)), None, None)
    measured = {
        "weights": precision(flow),
        "keys_and_values": sorted(stored),
        "layer_output": str(residual.dtype).removeprefix("mlx.core."),
        "casts_of_matrices": casts,
    }
    good = stored == {str(kept).removeprefix("mlx.core.")} and not casts
    return judged(
        "types",
        good and residual.dtype == mx.float32,
        measured,
        "KV cache in the dtype of the weights, residual stream in float32, no casts of matrices",
        "Each pass reads every weight once, without conversion.",
        "Weights are converted in every pass, or the KV cache has too many bits: sampling is "
        "slower and needs more memory than necessary.",
    )


def floor_check(model: str | None) -> Check:
    """Check 4: the rounding floor of every precision (see sampling/tolerance.py)."""
    measured, wrong = {}, []
    for name, options in _precisions().items():
        with load(model, **options) as pipe:
            subject = Subject(pipe)
            floor, promised = reachable_tolerance(
                subject.flow, subject.grid, 1, subject.options, subject.context
            )
            kind = kept_type(subject.deep.layers[0].attention.qkv)
        measured[name] = {"floor": floor, "tolerance": promised}
        if not floor <= FLOORS[kind]:
            wrong.append(name)
    return judged(
        "residual floor",
        not wrong,
        measured,
        ", ".join(f"{str(k).removeprefix('mlx.core.')} below {v:g}" for k, v in FLOORS.items()),
        "Tokens computed one by one and together agree within rounding errors.",
        f"{', '.join(wrong)}: tokens computed one by one and together differ by more than rounding "
        "errors.",
    )


def _precisions() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {"float32": {"dtype": "float32"}}
    if on_gpu():  # on a CPU 16-bit products take minutes
        found |= {name: {"dtype": name} for name in HALVES}
    return found | {f"{bits}-bit": {"quantize": bits} for bits in (8, 4)}


def cache_check(subject: Subject) -> Check:
    """Check 5: the KV cache is updated in place, without a second copy of it."""
    block = subject.conditional()
    previous = mx.zeros((1, 1, subject.flow.config.token_channels))
    mx.eval(block.affine(previous, 0))
    cache = sum(a.nbytes for a in block.state.arrays())
    _steps(block, previous, 1, 3)
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    _steps(block, previous, 4, min(STEPS, block.tokens - 4))
    more = mx.get_peak_memory() - before
    return judged(
        "cache in place",
        more < cache,
        {"cache_mb": round(cache / 1e6, 2), "more_at_peak_mb": round(more / 1e6, 2)},
        f"less additional memory than one cache, over {STEPS} steps",
        "The KV cache is updated in place.",
        "Every step copies the KV cache, which is slow and needs twice its memory.",
    )


def _steps(block: Conditional, tokens: mx.array, start: int, count: int) -> None:
    for t in range(start, start + max(count, 0)):
        sigma, b = block.affine(tokens, t)
        tokens = sigma * tokens + b
        mx.eval(tokens)


def host_check(subject: Subject) -> Check:
    """Check 8: the share of the host's time in sequential sampling."""
    block = subject.conditional()
    tokens, host = mx.zeros((1, 1, subject.flow.config.token_channels)), 0.0
    mx.eval(block.affine(tokens, 0))
    count = min(2 * STEPS, block.tokens - 1)
    for timed in (False, True):  # the first round compiles
        began = time.perf_counter()
        for t in range(1, 1 + count):
            sent = time.perf_counter()
            sigma, b = block.affine(tokens, t)
            tokens = sigma * tokens + b
            if timed:
                host += time.perf_counter() - sent
            mx.async_eval(tokens)
        mx.eval(tokens)
        wall = time.perf_counter() - began
    share = host / wall
    measured = {"host_ms": 1e3 * host / count, "wall_ms": 1e3 * wall / count, "share": share}
    slow = on_gpu() and share > 0.8
    meaning = "The host is the bottleneck: close other programs." if slow else ""
    measured = {k: round(v, 3) for k, v in measured.items()}
    return Check("host time", SLOW if slow else OK, measured, "share below 0.8", meaning)


def low_ram_check(model: str | None) -> Check:
    """Check 9: with ``low_ram`` memory does not grow from picture to picture."""
    held = []
    with load(model, low_ram=True) as pipe:
        prompt = _prompt(pipe)
        for seed in range(3):
            pipe.generate(prompt, seed=seed, sampler="sequential", denoise=False)
            mx.clear_cache()
            held.append(mx.get_active_memory())
        whole = sum(v.nbytes for _, v in parameters_of(pipe.flow))
    growth = held[-1] - held[0]
    return judged(
        "low-ram",
        growth < 0.2 * whole,
        {"held_mb": [round(h / 1e6, 1) for h in held], "flow_mb": round(whole / 1e6, 1)},
        "memory does not grow from picture to picture",
        "Dropped components are freed.",
        "Dropped components stay in memory: --low-ram does not help.",
    )


def finishing_check(subject: Subject) -> Check:
    """Check 10: denoising and decoding give finite numbers and need no more memory than
    estimated."""
    flow, pipe = subject.flow, subject.pipe
    x, config = subject.noise(), flow.config
    said = {"denoise": denoising_bytes(config, subject.grid, 1, config.denoiser is not None)}
    work: dict[str, Callable[[], mx.array]] = {"denoise": lambda: denoise(flow, x, subject.own)}
    if pipe.vae is not None:
        said["decode"] = pipe.decoding_bytes(x.shape[1], x.shape[2])
        work["decode"] = lambda: cast(Any, pipe.vae).decode(x)
    measured, finite, fits = {}, True, True
    for name, run in work.items():
        mx.eval(run())
        mx.clear_cache()
        before, began = mx.get_active_memory(), time.perf_counter()
        mx.reset_peak_memory()
        result = run()
        mx.eval(result)
        taken = mx.get_peak_memory() - before
        measured[name] = {
            "seconds": round(time.perf_counter() - began, 3),
            "peak_mb": round(taken / 1e6, 1),
            "said_mb": round(said[name] / 1e6, 1),
        }
        finite = finite and bool(scalar(mx.isfinite(result).all()))
        fits = fits and taken < 1.15 * said[name] + (4 << 20)
    meaning = "" if finite else "Denoising or decoding gives NaN or infinity on this device."
    if finite and not fits:
        meaning = "More memory is needed than estimated, so warnings about memory may be missing."
    status = WRONG if not finite else OK if fits else SLOW
    return Check("denoise and decode", status, measured, "finite, memory as estimated", meaning)


def picture_check(golden: Golden | None = None) -> Check:
    """Check 11: a picture of the embedded model, by the samplers "sequential" and "auto", and on a
    GPU also on the CPU, compared with stored results."""
    golden = golden or Golden.read()
    with load(dtype="float32") as pipe:
        if pipe.fingerprint != golden.weights:
            return Check(
                "embedded picture", SKIPPED, {"weights": pipe.fingerprint}, golden.weights,
                f"The stored results are of other weights; to make new ones: {REGENERATE}",
            )  # fmt: skip
        found, times = {}, {}
        for name in ("sequential", "auto"):
            began = time.perf_counter()
            found[name] = difference(drawn_by(pipe, name), golden)
            times[name] = round(time.perf_counter() - began, 2)
        if on_gpu():
            with mx.stream(mx.cpu):
                result = _on_cpu(pipe)
            found["CPU"] = {"latents": deviations(result, golden.latents)}
    wrong = [name for name, values in found.items() if not _is_close(values)]
    return judged(
        "embedded picture",
        not wrong,
        {**found, "seconds": times},
        "as stored: latents within 0.01 standard deviations, picture PSNR above 50 dB",
        "This machine draws the same picture as others.",
        f"{', '.join(wrong)}: not the same picture as on other machines. Please report this.",
    )


def _is_close(values: dict[str, float]) -> bool:
    return all(
        value > CLOSE[name] if name.endswith("_db") else value < CLOSE[name]
        for name, value in values.items()
    )


def _on_cpu(pipe: Pipeline) -> np.ndarray:
    from ..sampling import invert
    from .golden import PROMPT, SEED

    guidance = pipe.config.defaults.guidance
    context = pipe.prompt_rows([PROMPT]).for_sampling([PROMPT], guidance)
    side, config = pipe.flow.config.grid_size * pipe.flow.config.patch_size, pipe.flow.config
    noise = mx.random.normal((side, side, config.in_channels), key=mx.random.key(SEED))[None]
    x = invert(pipe.flow, noise, context, guidance=guidance, sampler="sequential", compile=False)
    return np.array(x[0])


def _prompt(pipe: Pipeline) -> str | None:
    config = pipe.flow.config
    if config.num_classes:
        return "0"
    if not config.text_channels:
        return None
    labels = pipe.config.text.labels if pipe.config.text else ()
    return labels[0] if labels else "a fox in snow"
