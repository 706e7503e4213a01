"""Comparison of samplers in one interleaved run.

First, every sampler inverts every noise once, without timing but with residuals: this warms it up
and gives its counts, samples and pictures. The windows of the sampler "auto" are measured before,
as ``generate`` does once per device. The timed rounds then run the samplers in turn, A B C A B C
..., so that changes in the speed of the machine affect all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import mlx.core as mx

from ..device.clock import Clock
from ..device.machine import this_machine
from ..device.typed import scalar
from ..errors import NumericsError, UsageError
from ..flow import Context, Flow
from ..flow.grid import grid_of
from ..sampling import SampleOptions, check_options
from ..sampling.calibrate import calibrate
from .finish import Finish, psnr
from .results import BenchmarkResult, SamplerResult, Spread
from .runs import Run, block_bytes, run_once, weighted_reads, work_of
from .specs import REFERENCE, SamplerSpec

Progress = Callable[[str, float], None]  # receives what is running, and the fraction done


@dataclass(frozen=True)
class BenchmarkOptions:
    """Options of ``compare``."""

    guidance: float = 0.0
    repeat: int = 3  # timed rounds over all cases
    one_too: bool = True  # for batches of several pictures, also measure the first one alone

    def __post_init__(self) -> None:
        if self.repeat != int(self.repeat) or self.repeat < 1:
            raise UsageError(f"repeat is {self.repeat}; expected a whole number of 1 or more.")


@dataclass(frozen=True)
class _Variant:
    """A sampler at a batch size."""

    spec: SamplerSpec
    batch: int


def compare(
    flow: Flow,
    contexts: Sequence[Context],
    noises: Sequence[mx.array],
    specs: Sequence[SamplerSpec],
    options: BenchmarkOptions | None = None,
    finish: Finish | None = None,
    progress: Progress | None = None,
) -> BenchmarkResult:
    """Measure samplers on the same noises (B, h, w, c) and contexts (as for ``invert``).

    ``finish``: turns samples into pictures, which are then compared too; None: compare latents
    only. ``progress``: is called before every inversion. Errors: UsageError, NumericsError.
    """
    options = options or BenchmarkOptions()
    if not noises or len(noises) != len(contexts):
        raise UsageError(
            f"{len(noises)} noises and {len(contexts)} contexts; expected one of each per case."
        )
    if len({noise.shape for noise in noises}) > 1:
        raise UsageError("The noises differ in shape; compare batches of one shape at a time.")
    for spec in specs:
        check_options(flow, spec.options(options.guidance, certify=True))
    return _Comparison(flow, contexts, noises, specs, options, finish, progress).result()


class _Comparison:
    """The state of one call of ``compare``."""

    def __init__(
        self,
        flow: Flow,
        contexts: Sequence[Context],
        noises: Sequence[mx.array],
        specs: Sequence[SamplerSpec],
        options: BenchmarkOptions,
        finish: Finish | None,
        progress: Progress | None,
    ) -> None:
        self.flow, self.options, self.finish = flow, options, finish
        self.progress = progress or (lambda what, share: None)
        self.machine, self.clock = this_machine(), Clock()
        self.sizes = block_bytes(flow)
        size = noises[0].shape[0]
        batches = [1, size] if size > 1 and options.one_too else [size]
        self.cases = {
            b: [_rows(n, c, b) for n, c in zip(noises, contexts, strict=True)] for b in batches
        }
        self.variants = [_Variant(spec, b) for spec in specs for b in batches]
        # All samples are compared with the sequential one, even if it is not among the specs.
        self.references = [_Variant(SamplerSpec(REFERENCE), b) for b in batches]
        self.examined = list(dict.fromkeys([*self.references, *self.variants]))
        self.windows = {b: self._plan(b) for b in batches if any(s.planned for s in specs)}
        count = len(noises)
        self.todo = count * (len(self.examined) + options.repeat * len(self.variants))
        self.done = 0

    def _plan(self, batch: int) -> tuple[int, ...]:
        self.progress("measuring windows", 0.0)
        grid = grid_of(self.cases[batch][0][0], self.flow.config)
        return calibrate(self.flow, grid, batch, SampleOptions(guidance=self.options.guidance))

    def result(self) -> BenchmarkResult:
        looked = {v: self._examine(v) for v in self.examined}
        pictures = {v: self._pictures(v, looked[v]) for v in self.examined}
        timed: dict[_Variant, list[Run]] = {v: [] for v in self.variants}
        for _ in range(self.options.repeat):
            for case in range(len(next(iter(self.cases.values())))):
                for variant in self.variants:
                    timed[variant].append(self._run(variant, case, variant.spec.certifies))
        noise = next(iter(self.cases.values()))[0][0]
        return BenchmarkResult(
            machine=self.machine,
            guidance=self.options.guidance,
            tokens=grid_of(noise, self.flow.config).tokens,
            cases=len(next(iter(self.cases.values()))),
            repeat=self.options.repeat,
            weight_bytes=sum(self.sizes.values()),
            samplers=tuple(self._summary(v, looked, pictures, timed) for v in self.variants),
            finishing={
                phase: {"seconds": seconds, "peak_memory": self.clock.peaks[phase]}
                for phase, seconds in self.clock.seconds.items()
            },
            load_average_after=this_machine().load_average,
        )

    def _examine(self, variant: _Variant) -> list[Run]:
        runs = [self._run(variant, i, True) for i in range(len(self.cases[variant.batch]))]
        for run in runs:
            if not mx.isfinite(run.latents).all().item():
                raise NumericsError(
                    f"The sample of {variant.spec} holds NaN or infinity; nothing is compared."
                )
        return runs

    def _run(self, variant: _Variant, case: int, certify: bool) -> Run:
        several = f", {variant.batch} pictures" if variant.batch > 1 else ""
        self.progress(f"{variant.spec}{several}", self.done / self.todo)
        self.done += 1
        noise, context = self.cases[variant.batch][case]
        windows = self.windows[variant.batch] if variant.spec.planned else None
        options = variant.spec.options(self.options.guidance, certify, windows)
        return run_once(self.flow, noise, context, options)

    def _pictures(self, variant: _Variant, runs: list[Run]) -> list[mx.array] | None:
        if self.finish is None:
            return None
        found = []
        for run, (noise, context) in zip(runs, self.cases[variant.batch], strict=True):
            own = None if context is None else context[: noise.shape[0]]
            self.clock.start()
            found.append(self.finish.picture(self.flow, run.latents, own, self.clock))
        return found

    def _summary(
        self,
        variant: _Variant,
        looked: dict[_Variant, list[Run]],
        pictures: dict[_Variant, list[mx.array] | None],
        timed: dict[_Variant, list[Run]],
    ) -> SamplerResult:
        base = _Variant(SamplerSpec(REFERENCE), variant.batch)
        one = _Variant(variant.spec, 1)
        runs, times = looked[variant], [r.total for r in timed[variant]]
        reads, certificates = weighted_reads(runs, self.sizes)
        shallow = work_of(runs, self.sizes, deep=False)
        deep = work_of(runs, self.sizes, deep=True)
        if deep is None:
            raise UsageError(
                "This flow's deep block has no layers, so there is nothing to measure."
            )
        mse = _mse(pictures[variant], pictures[base])
        return SamplerResult(
            spec=str(variant.spec),
            sampler=variant.spec.sampler,
            batch=variant.batch,
            seconds=Spread.of(times),
            seconds_deep=Spread.of([r.part(deep=True) for r in timed[variant]]),
            seconds_shallow=Spread.of([r.part(deep=False) for r in timed[variant]])
            if shallow
            else None,
            cpu_seconds=Spread.of([r.cpu_seconds for r in timed[variant]]),
            speedup=_ratio(timed.get(base), timed[variant]),
            batch_cost=_ratio(timed[variant], timed[one])
            if variant.batch > 1 and one in timed
            else None,
            deep=deep,
            shallow=shallow,
            weighted_reads=reads,
            weighted_certificate_reads=certificates,
            reads_of_sequential=reads / weighted_reads(looked[base], self.sizes)[0],
            bytes_read=(reads + certificates) * sum(self.sizes.values()),
            residual=max(r.residual or 0.0 for run in runs for r in run.reports),
            converged=all(r.converged for run in runs for r in run.reports),
            distance=max(
                scalar(mx.abs(a.latents - b.latents).max() / mx.std(b.latents))
                for a, b in zip(runs, looked[base], strict=True)
            ),
            image_mse=mse,
            image_psnr=None if mse is None else psnr(mse),
            peak_memory=_peaks(runs, len(self.flow.blocks)),
        )


def _rows(noise: mx.array, context: Context, batch: int) -> tuple[mx.array, Context]:
    """Noise and context of the first ``batch`` pictures of a case, with their null captions."""
    whole = noise.shape[0]
    if batch == whole or context is None:
        return noise[:batch], context
    if context.shape[0] == 2 * whole:
        context = mx.concatenate([context[:batch], context[whole : whole + batch]])
    else:
        context = context[:batch]
    return noise[:batch], context


def _ratio(above: list[Run] | None, below: list[Run]) -> Spread | None:
    """The ratios of the times of runs in the same round."""
    if above is None:
        return None
    return Spread.of([a.total / b.total for a, b in zip(above, below, strict=True)])


def _mse(pictures: list[mx.array] | None, reference: list[mx.array] | None) -> float | None:
    """Mean squared error of the worst picture."""
    if pictures is None or reference is None:
        return None
    return max(
        scalar(mx.square(a - b).mean(axis=(1, 2, 3)).max())
        for a, b in zip(pictures, reference, strict=True)
    )


def _peaks(runs: list[Run], blocks: int) -> dict[str, int]:
    peaks: dict[str, int] = {}
    for run in runs:
        for block, peak in run.peaks.items():
            name = "deep block" if block == blocks - 1 else f"shallow {block + 1}"
            peaks[name] = max(peaks.get(name, 0), peak)
    return peaks
