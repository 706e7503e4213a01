"""Reports describe their numbers correctly, with all options."""

from __future__ import annotations

import json
import math

import mlx.core as mx
import pytest
from families import FAMILIES, example, random_flow

from mlx_starflow.sampling import BlockResult, SampleOptions, invert_steps
from mlx_starflow.sampling import windows as measured
from mlx_starflow.sampling.sliding import TOLERANCE
from mlx_starflow.sampling.windows import windows_for

GUIDED = "released"


def reports(**options):
    flow = random_flow(FAMILIES[GUIDED])
    z, context = example(flow.config, guided=options.get("guidance", 0) > 0)
    steps = invert_steps(flow, z, context, SampleOptions(**options))
    return [(e.report, e.x) for e in steps if isinstance(e, BlockResult)]


@pytest.mark.parametrize("guidance", [0.0, 2.0, 1000.0, 1e6])
@pytest.mark.parametrize(
    "options",
    [
        {"sampler": "jacobi"},
        {"sampler": "jacobi", "tolerance": 1e6},
        {"sampler": "sequential"},
        {"sampler": "sliding"},
        {"sampler": "auto", "windows": (1, 1, 1)},
    ],
    ids=str,
)
def test_converged_means_a_small_residual(options, guidance):
    for report, x in reports(guidance=guidance, **options):
        size = max(1.0, mx.abs(x).max().item())
        if options["sampler"] == "jacobi":
            bound = math.sqrt(options.get("tolerance", 1e-3)) * size
        else:
            bound = max(TOLERANCE[mx.float32] * size, report.floor) * 2
        assert not report.converged or report.residual <= bound, report


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
