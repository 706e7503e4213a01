"""What a report says of its own numbers is true, whatever the options are."""

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
            bound = TOLERANCE[mx.float32] * 2 * size
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


STORED = [[0, 0, 0], [1, 2], [1, 2, 3, 4], [-1, 1, 1], [1.5, 1, 1], [True, 1, 1], [1, 1, 10**9],
          ["1", 1, 1], "111", None, {}, 3, [[1], 1, 1]]  # fmt: skip


@pytest.mark.parametrize("stored", STORED, ids=str)
def test_windows_that_are_none_are_measured_anew(stored, tmp_path, monkeypatch):
    flow = random_flow(FAMILIES[GUIDED])
    monkeypatch.setattr(measured, "calibrate", lambda *_: (9, 9, 4))
    arguments = (flow, flow.training_grid(), 2, SampleOptions(), tmp_path)
    right = windows_for(*arguments)
    assert right.windows == (9, 9, 4)
    path = tmp_path / measured.FILE
    (key,) = json.loads(path.read_text())
    whole = {"windows": [9, 9, 4], "floor": right.floor, "tolerance": right.tolerance}
    for entry in (stored, {**whole, "windows": stored}, {**whole, "tolerance": stored}):
        path.write_text(json.dumps({key: entry}))
        assert windows_for(*arguments) == right
        assert json.loads(path.read_text()) == {key: whole}


TEXTS = {
    "deep": "[" * 100_000, "cut": "{", "nan": '{"a": NaN}', "digits": "9" * 5000, "latin": "\xff"
}  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
def test_a_windows_file_that_is_none_is_written_anew(text, tmp_path, monkeypatch):
    flow = random_flow(FAMILIES[GUIDED])
    monkeypatch.setattr(measured, "calibrate", lambda *_: (9, 9, 4))
    (tmp_path / measured.FILE).write_text(TEXTS[text], encoding="latin-1")
    arguments = (flow, flow.training_grid(), 2, SampleOptions(), tmp_path)
    assert windows_for(*arguments).windows == (9, 9, 4)
    (entry,) = json.loads((tmp_path / measured.FILE).read_text()).values()
    assert entry["windows"] == [9, 9, 4]
