"""Reports describe their numbers correctly, with all options."""

from __future__ import annotations

import dataclasses
import json
import math

import mlx.core as mx
import numpy as np
import pytest
from families import FAMILIES, example, example_clip, random_flow

from mlx_starflow.sampling import BlockResult, SampleOptions, invert_steps
from mlx_starflow.sampling import windows as measured
from mlx_starflow.sampling.sliding import TOLERANCE
from mlx_starflow.sampling.windows import windows_for

GUIDED = "released"
OPTIONS = [
    {"sampler": "jacobi"},
    {"sampler": "jacobi", "tolerance": 1e6},
    {"sampler": "sequential"},
    {"sampler": "sliding"},
    {"sampler": "auto"},
]


def with_heads_of_32(config):
    """Heads of 24 cannot be stored in 8 or 4 bits."""
    head = dict(channels=32, heads=1, kv_heads=1, head_dim=32)
    return dataclasses.replace(
        config, blocks=tuple(dataclasses.replace(block, **head) for block in config.blocks)
    )


def reports(family=GUIDED, **options):
    flow = random_flow(with_heads_of_32(FAMILIES[family]))
    guided = options.get("guidance", 0) > 0 and flow.config.model_type == "starflow"
    make = example_clip if flow.config.frames > 1 else example
    z, context = make(flow.config, guided=guided)
    if options["sampler"] == "auto":
        options["windows"] = (1,) * len(flow.blocks)
    with np.errstate(all="ignore"):  # a TarFlow overflows with such guidance
        steps = list(invert_steps(flow, z, context, SampleOptions(**options)))
    return [(e.report, e.x) for e in steps if isinstance(e, BlockResult)]


CASES = (GUIDED, "clips", "tarflow_classes")


@pytest.mark.parametrize(
    ("family", "bits"),
    [
        *((family, None) for family in CASES),
        (GUIDED, 8),
        *(pytest.param(f, b, marks=pytest.mark.slow) for f in CASES for b in (16, 8, 4)
          if (f, b) != (GUIDED, 8)),
    ],
)  # fmt: skip
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_converged_means_a_small_residual(options, family, bits):
    for guidance in (2.0, 1000.0) if bits else (0.0, 2.0, 1000.0, 1e6):
        for report, x in reports(family, guidance=guidance, kv_bits=bits, **options):
            size = max(1.0, mx.abs(x).max().item())
            if options["sampler"] == "jacobi":
                bound = math.sqrt(options.get("tolerance", 1e-3)) * size
            else:
                bound = max(TOLERANCE[mx.float32] * size, report.floor) * 2
            assert not report.converged or report.residual <= bound, report
            assert report.converged == (report.accuracy in ("tolerance", "rounding"))


@pytest.mark.parametrize("sampler", ["sequential", "sliding"])
def test_fewer_bits_are_above_the_tolerance_of_float32(sampler):
    """The residual is measured with exact keys and values, whatever the sampler stored."""
    for bits in (16, 8, 4):
        found = reports(guidance=2.0, kv_bits=bits, sampler=sampler)
        assert [r.accuracy for r, _ in found].count("above") >= 2
        large = reports(guidance=2.0, kv_bits=bits, sampler=sampler, tolerance=1.0)
        assert all(r.converged and r.residual > 2e-5 for r, _ in large)


def test_a_large_residual_is_not_converged(monkeypatch):
    """The same token values, measured by a pass that disagrees."""
    from mlx_starflow.sampling.conditional import Conditional

    honest = Conditional.all_at_once
    monkeypatch.setattr(
        Conditional, "all_at_once", lambda self, u: (honest(self, u)[0], honest(self, u)[1] + 0.3)
    )
    for sampler in ("sequential", "jacobi"):
        assert not any(report.converged for report, _ in reports(sampler=sampler))


WINDOWS = [[0, 0, 0], [1, 2], [1, 2, 3, 4], [-1, 1, 1], [1.5, 1, 1], [True, 1, 1], [1, 1, 10**9],
           ["1", 1, 1], "111", None, {}, 3, [[1], 1, 1]]  # fmt: skip
STORED = [
    *({"windows": w} for w in WINDOWS),
    {"floor": -1.0},
    {"floor": "small"},
    {"floor": 1e300},
    {"tolerance": None},
    {"more": 1},
]


@pytest.fixture
def stored_windows(tmp_path, monkeypatch):
    """A function that asks for the windows, and the file that they are stored in."""
    flow = random_flow(FAMILIES[GUIDED])
    monkeypatch.setattr(measured, "calibrate", lambda *_: (9, 9, 4))
    monkeypatch.setattr(measured, "reachable_tolerance", lambda *_: (0.0, 2e-5))
    arguments = (flow, flow.training_grid(), 2, SampleOptions(), tmp_path)
    return lambda: windows_for(*arguments).windows, tmp_path / measured.FILE


@pytest.mark.parametrize("change", STORED, ids=str)
def test_windows_that_are_none_are_measured_anew(change, stored_windows):
    windows, path = stored_windows
    assert windows() == (9, 9, 4)
    ((key, honest),) = json.loads(path.read_text()).items()
    path.write_text(json.dumps({key: {**honest, **change}}))
    assert windows() == (9, 9, 4)
    assert json.loads(path.read_text())[key]["windows"] == [9, 9, 4]
    for entry in ([0, 0, 0], None, "x", []):
        path.write_text(json.dumps({key: entry}))
        assert windows() == (9, 9, 4)


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, "{", '{"a": NaN}', "9" * 5000, "\xff"],
    ids=["deep", "cut", "nan", "digits", "latin"],
)
def test_a_windows_file_that_is_none_is_written_anew(text, stored_windows):
    windows, path = stored_windows
    path.write_text(text, encoding="latin-1")
    assert windows() == (9, 9, 4)
    (entry,) = json.loads(path.read_text()).values()
    assert entry["windows"] == [9, 9, 4]
