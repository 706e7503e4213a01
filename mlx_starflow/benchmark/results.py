"""What a comparison of samplers found, as frozen dataclasses with a JSON form."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..device.machine import Machine


@dataclass(frozen=True)
class Spread:
    """Median and range of a number over all timed runs."""

    median: float
    low: float
    high: float
    runs: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values), len(values))


@dataclass(frozen=True)
class Work:
    """What some blocks cost, means over the pictures' batches (histograms are sums)."""

    blocks: int
    weight_bytes: int  # of the blocks together
    windows: tuple[int, ...]  # tokens at a time, in the order of the work
    samplers: tuple[str, ...]  # that did the work, in the same order
    weight_reads: float  # passes over a block's weights, summed over the blocks
    reads_by_block: tuple[float, ...]  # the same apart, in the order of the work
    certificate_reads: float  # the same, spent on the residual
    evaluations_per_token: float
    host_syncs: float
    bytes_read: float  # of weights, certificates included, the text's pass not
    sweeps: dict[int, int]  # sweeps on a window (sliding: of a token) -> how many


@dataclass(frozen=True)
class SamplerResult:
    """One sampler at one batch size."""

    spec: str
    sampler: str
    batch: int  # pictures made together
    seconds: Spread  # of a batch, noise to sample
    seconds_deep: Spread
    seconds_shallow: Spread | None  # None: the flow has one block
    cpu_seconds: Spread  # of all threads: on a busy machine steadier than the wall's
    speedup: Spread | None  # over sequential in the same round; None: sequential was not timed
    batch_cost: Spread | None  # times the seconds of one picture; None for one picture
    deep: Work
    shallow: Work | None
    weighted_reads: float  # of the whole flow: each block's reads weighted by its bytes
    weighted_certificate_reads: float
    reads_of_sequential: float  # weighted reads, certificates apart, as a share of sequential's
    bytes_read: float  # of weights per batch, certificates included
    residual: float  # largest over blocks and batches
    converged: bool
    distance: float  # max abs from the sequential sample, in its standard deviations; the worst
    image_mse: float | None  # from the sequential picture, the worst batch; None: no pictures
    image_psnr: float | None  # dB; None: identical, or no pictures
    peak_memory: dict[str, int]  # bytes, by phase

    def to_dict(self) -> dict[str, Any]:
        return _json(dataclasses.asdict(self))


@dataclass(frozen=True)
class BenchmarkResult:
    """All samplers of one interleaved run."""

    machine: Machine
    guidance: float
    tokens: int
    cases: int  # different noises and prompts
    repeat: int  # timed rounds over all of them
    weight_bytes: int  # of all blocks
    samplers: tuple[SamplerResult, ...]
    finishing: dict[str, dict[str, float]]  # "denoise", "decode" -> seconds and peak bytes
    load_average_after: float | None

    def to_dict(self) -> dict[str, Any]:
        data = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        data["machine"] = dataclasses.asdict(self.machine)
        data["samplers"] = [s.to_dict() for s in self.samplers]
        return data


def _json(value: Any) -> Any:
    """Keys as strings, tuples as lists."""
    if isinstance(value, dict):
        return {str(k): _json(v) for k, v in value.items()}
    return [_json(v) for v in value] if isinstance(value, list | tuple) else value
