"""Measuring one inversion, and means over several."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx

from ..device.clock import Clock
from ..device.typed import parameters_of
from ..flow import Context, Flow
from ..sampling import BlockReport, BlockResult, SampleOptions, invert_steps
from .results import Work


@dataclass(frozen=True)
class Run:
    """The measurements of one inversion of a batch."""

    latents: mx.array  # (B, h, w, c) float32
    reports: tuple[BlockReport, ...]  # of the blocks with layers, the deep block first
    seconds: dict[int, float]  # by block
    peaks: dict[int, int]  # peak memory in bytes, by block
    cpu_seconds: float  # of all threads of this process

    @property
    def total(self) -> float:
        """Seconds of all blocks."""
        return sum(self.seconds.values())

    def part(self, deep: bool) -> float:
        """Seconds of the deep block, or of all other blocks."""
        first = self.reports[0].block
        return sum(s for block, s in self.seconds.items() if (block == first) == deep)


def run_once(flow: Flow, noise: mx.array, context: Context, options: SampleOptions) -> Run:
    """Invert noise (B, h, w, c) and measure every block."""
    clock, reports, x = Clock(), [], noise
    mx.eval(noise, *([] if context is None else [context]))
    clock.start()
    cpu = time.process_time()
    for event in invert_steps(flow, noise, context, options):
        if isinstance(event, BlockResult):
            x = event.x
            mx.eval(x)
            clock.lap(str(event.block))
            if event.report.weight_reads:  # 0 for an identity block
                reports.append(event.report)
    cpu = time.process_time() - cpu
    seconds = {int(b): s for b, s in clock.seconds.items()}
    peaks = {int(b): p for b, p in clock.peaks.items()}
    return Run(x, tuple(reports), seconds, peaks, cpu)


def block_bytes(flow: Flow) -> dict[int, int]:
    """Block index -> bytes of its weights in memory."""
    return {
        index: sum(value.nbytes for _, value in parameters_of(block))
        for index, block in enumerate(flow.blocks)
    }


def work_of(runs: Sequence[Run], sizes: dict[int, int], deep: bool) -> Work | None:
    """The cost of the deep block, or of all other blocks together; None if there are none."""
    reports = [r for run in runs for r in (run.reports[:1] if deep else run.reports[1:])]
    if not reports:
        return None
    blocks = [r.block for r in (runs[0].reports[:1] if deep else runs[0].reports[1:])]
    sweeps: Counter[int] = Counter()
    for report in reports:
        sweeps.update(report.sweeps)
    mean = 1 / len(runs)
    return Work(
        blocks=len(blocks),
        weight_bytes=sum(sizes[b] for b in blocks),
        windows=tuple(r.window for r in reports[: len(blocks)]),
        samplers=tuple(r.sampler for r in reports[: len(blocks)]),
        weight_reads=mean * sum(r.weight_reads for r in reports),
        reads_by_block=tuple(
            mean * sum(r.weight_reads for r in reports if r.block == b) for b in blocks
        ),
        certificate_reads=mean * sum(r.certificate_reads for r in reports),
        evaluations_per_token=sum(r.evaluations for r in reports) / sum(r.tokens for r in reports),
        host_syncs=mean * sum(r.host_syncs for r in reports),
        bytes_read=mean
        * sum((r.weight_reads + r.certificate_reads) * sizes[r.block] for r in reports),
        sweeps=dict(sorted(sweeps.items())),
    )


def weighted_reads(runs: Sequence[Run], sizes: dict[int, int]) -> tuple[float, float]:
    """Mean reads of the whole flow's weights per batch: of the sampler, and of certificates."""
    whole = sum(sizes.values()) * len(runs)
    reports = [r for run in runs for r in run.reports]
    return (
        sum(r.weight_reads * sizes[r.block] for r in reports) / whole,
        sum(r.certificate_reads * sizes[r.block] for r in reports) / whole,
    )
