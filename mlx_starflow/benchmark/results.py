"""The results of a comparison of samplers, as dataclasses with a JSON form."""

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
        """The spread of some values."""
        return cls(statistics.median(values), min(values), max(values), len(values))


@dataclass(frozen=True)
class Work:
    """The cost of some blocks: means over batches; histograms are sums."""

    blocks: int  # number of blocks
    weight_bytes: int  # total
    windows: tuple[int, ...]  # tokens solved at a time, per block in the order of the work
    samplers: tuple[str, ...]  # per block in the order of the work
    weight_reads: float  # passes over a block's weights, summed over the blocks
    reads_by_block: tuple[float, ...]  # the same per block, in the order of the work
    certificate_reads: float  # passes to measure the residual
    evaluations_per_token: float
    host_syncs: float
    bytes_read: float  # of weights, with certificates, without the pass over the text
    sweeps: dict[int, int]  # sweeps of a window (sliding: of a token) -> number of them


@dataclass(frozen=True)
class SamplerResult:
    """One sampler at one batch size."""

    spec: str
    sampler: str
    batch: int  # pictures in a batch
    seconds: Spread  # per batch, from noise to sample
    seconds_deep: Spread
    seconds_shallow: Spread | None  # None: the flow has one block
    cpu_seconds: Spread  # of all threads; on a busy machine steadier than the wall time
    speedup: Spread | None  # over sequential in the same round; None: sequential was not timed
    batch_cost: Spread | None  # time of a batch over that of one picture; None for one picture
    deep: Work
    shallow: Work | None
    weighted_reads: float  # of the whole flow: each block's reads weighted by its bytes
    weighted_certificate_reads: float
    reads_of_sequential: float  # weighted reads, without certificates, over those of sequential
    bytes_read: float  # of weights per batch, with certificates
    residual: float  # largest over blocks and batches
    converged: bool
    distance: float  # largest difference to the sequential sample, in its standard deviations
    image_mse: float | None  # to the sequential picture, the worst one; None: no pictures
    image_psnr: float | None  # dB; None: identical, or no pictures
    peak_memory: dict[str, int]  # bytes, by phase

    def to_dict(self) -> dict[str, Any]:
        """The fields as values for JSON."""
        return _json(dataclasses.asdict(self))


@dataclass(frozen=True)
class BenchmarkResult:
    """The results of ``compare``."""

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
        """The fields as values for JSON."""
        data = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        data["machine"] = dataclasses.asdict(self.machine)
        data["samplers"] = [s.to_dict() for s in self.samplers]
        return data


def _json(value: Any) -> Any:
    """A value with keys as strings and tuples as lists."""
    if isinstance(value, dict):
        return {str(k): _json(v) for k, v in value.items()}
    return [_json(v) for v in value] if isinstance(value, list | tuple) else value
