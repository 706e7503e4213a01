"""The results of benchmarks as aligned text tables."""

from __future__ import annotations

import math

from ..benchmark import BenchmarkResult, Machine, SamplerResult, Spread, Work
from ..benchmark.quantization_cost import QuantizationResult
from .tables import aligned

MOST_BINS = 8  # of a histogram in a line of text; the JSON output has all values


def comparison_tables(result: BenchmarkResult) -> str:
    """Tables of time, work, accuracy and sweeps of every sampler."""
    rows = result.samplers
    head = (
        f"{result.tokens} tokens, guidance {result.guidance:g}, {_count(result.cases, 'case')}, "
        f"{_count(result.repeat, 'timed round')}, weights {result.weight_bytes / 1e6:.1f} MB"
    )
    parts = [
        f"{_machine(result.machine)}, load {_load(result)}\n{head}",
        "Seconds from noise to sample: median (range)\n" + aligned(_time(rows)),
        "Work: means per batch; reads are passes over the weights\n" + aligned(_work(rows)),
        "Accuracy: the worst case, compared with the sequential sample\n"
        + aligned(_accuracy(rows)),
        "Sweeps x how often (per window; sliding: per token)\n"
        + aligned(_sweeps(rows), left=range(6)),
    ]
    if result.finishing:
        lines = [["phase", "seconds", "peak MB"]]
        for phase, facts in result.finishing.items():
            lines.append([phase, f"{facts['seconds']:.3f}", _mega(facts["peak_memory"])])
        parts.append("Other phases of drawing a picture\n" + aligned(lines))
    return "\n\n".join(parts)


def quantization_table(result: QuantizationResult) -> str:
    """A table of the accuracy of every precision."""
    rows = [
        ["weights", "MB", "nats/dim", "change", "largest", "sample max", "rms", "PSNR dB"],
    ]
    for i, row in enumerate(result.rows):
        error = "" if row.change_error is None else f" ± {row.change_error:.1g}"
        rows.append(
            [
                row.precision,
                f"{row.megabytes:.1f}",
                f"{row.nats_per_dim:.5f}",
                "" if i == 0 else f"{row.change:+.2g}{error}",
                "" if i == 0 else f"{row.largest_change:.2g}",
                "" if i == 0 else f"{row.distance:.2g}",
                "" if i == 0 else f"{row.rms_distance:.2g}",
                "" if row.image_psnr is None else f"{row.image_psnr:.1f}",
            ]
        )
    head = (
        f"{_machine(result.machine)}\n"
        f"Likelihood of {_count(result.scored, 'noisy picture')} of {result.numbers} dimensions; "
        f"{_count(result.sampled, 'sample')} at guidance {result.guidance:g}\n"
        "change: nats per dimension compared with float32, mean ± standard error, and largest of\n"
        "any picture; sample: difference from the float32 sample of the same noise, largest and\n"
        "rms, in standard deviations; PSNR: of the worst picture"
    )
    return f"{head}\n\n{aligned(rows)}"


def _time(rows: tuple[SamplerResult, ...]) -> list[list[str]]:
    table = [
        [
            "sampler",
            "pictures",
            "seconds",
            "deep",
            "shallow",
            "CPU s",
            "speed-up",
            "of one",
            "peak MB",
        ]
    ]
    for r in rows:
        table.append(
            [
                r.spec,
                str(r.batch),
                _spread(r.seconds),
                f"{r.seconds_deep.median:.3f}",
                "" if r.seconds_shallow is None else f"{r.seconds_shallow.median:.3f}",
                f"{r.cpu_seconds.median:.3f}",
                "" if r.speedup is None else _spread(r.speedup, ".2f"),
                "" if r.batch_cost is None else f"x{r.batch_cost.median:.2f}",
                _mega(max(r.peak_memory.values())),
            ]
        )
    return table


def _work(rows: tuple[SamplerResult, ...]) -> list[list[str]]:
    table = [
        ["sampler", "pictures", "reads deep", "shallow", "weighted", "of seq.", "certif.",
         "evals/token", "shallow", "GB read", "syncs"]
    ]  # fmt: skip
    for r in rows:
        table.append(
            [
                r.spec,
                str(r.batch),
                f"{r.deep.weight_reads:.0f}",
                _of(r.shallow, "weight_reads", ".0f"),
                f"{r.weighted_reads:.1f}",
                f"{r.reads_of_sequential:.1%}",
                f"{r.weighted_certificate_reads:.1f}",
                f"{r.deep.evaluations_per_token:.2f}",
                _of(r.shallow, "evaluations_per_token", ".2f"),
                f"{r.bytes_read / 1e9:.3g}",
                f"{r.deep.host_syncs + (r.shallow.host_syncs if r.shallow else 0):.0f}",
            ]
        )
    return table


def _accuracy(rows: tuple[SamplerResult, ...]) -> list[list[str]]:
    table = [["sampler", "pictures", "residual", "distance", "PSNR dB", "converged"]]
    for r in rows:
        decibel = "" if r.image_psnr is None else f"{r.image_psnr:.1f}"
        if r.image_mse == 0:
            decibel = "identical"
        table.append(
            [
                r.spec,
                str(r.batch),
                f"{r.residual:.1e}",
                f"{r.distance:.1e}",
                decibel,
                "yes" if r.converged else "no",
            ]
        )
    return table


def _sweeps(rows: tuple[SamplerResult, ...]) -> list[list[str]]:
    table = [["sampler", "pictures", "blocks", "window", "reads", "sweeps"]]
    for r in rows:
        for name, work in (("deep", r.deep), ("shallow", r.shallow)):
            if work is None or work.sweeps == {1: sum(work.sweeps.values())}:
                continue  # one sweep per token: sequential sampling
            windows = "/".join(map(str, work.windows))
            reads = "/".join(f"{n:.0f}" for n in work.reads_by_block)
            table.append([r.spec, str(r.batch), name, windows, reads, histogram(work.sweeps)])
    return table


def histogram(counts: dict[int, int]) -> str:
    """Counts by increasing value, such as "1x4  2-3x16"; many values are grouped into ranges."""
    values = sorted(counts)
    size = math.ceil(len(values) / MOST_BINS)
    bins = [values[i : i + size] for i in range(0, len(values), size)]
    return "  ".join(
        f"{b[0]}{f'-{b[-1]}' if len(b) > 1 else ''}x{sum(counts[v] for v in b)}" for b in bins
    )


def _machine(machine: Machine) -> str:
    device = f"{machine.device} ({machine.device_name})" if machine.device_name else machine.device
    return (
        f"{machine.date}  {machine.system} {machine.architecture}, {_count(machine.cpus, 'CPU')}, "
        f"{device}, BLAS {machine.blas}\n"
        f"Python {machine.python}, mlx {machine.mlx}, mlx-starflow {machine.mlx_starflow}"
    )


def _load(result: BenchmarkResult) -> str:
    before, after = result.machine.load_average, result.load_average_after
    return "unknown" if before is None else f"{before:g} before, {after:g} after"


def _spread(spread: Spread, form: str = ".3f") -> str:
    return f"{spread.median:{form}} ({spread.low:{form}}-{spread.high:{form}})"


def _of(work: Work | None, name: str, form: str) -> str:
    return "" if work is None else f"{getattr(work, name):{form}}"


def _mega(size: float) -> str:
    return f"{size / 1e6:.0f}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
