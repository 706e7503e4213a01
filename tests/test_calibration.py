"""The windows of the default sampler: chosen by cost, measured once."""

import time

import mlx.core as mx
import pytest
from families import FAMILIES, ROUNDING, example, random_flow

from mlx_starflow import SampleOptions, invert
from mlx_starflow.sampling import calibrate as module
from mlx_starflow.sampling import windows as calibration
from mlx_starflow.sampling.calibrate import COMMITTED_PER_SWEEP, best_window, calibrate
from mlx_starflow.sampling.tolerance import CONSTANT
from mlx_starflow.sampling.windows import windows_for


def test_cheap_wide_passes_choose_a_wide_window_and_dear_ones_a_narrow():
    rates = COMMITTED_PER_SWEEP
    flat = dict.fromkeys(rates, 1.0)  # bound by reading weights
    assert best_window(flat, rates) == max(rates)
    linear = {n: float(n) for n in rates}  # bound by arithmetic
    assert best_window(linear, rates) == 1
    assert best_window({1: 1.0, 4: 1.1, 8: 1.1, 16: 2.4, 32: 4.8, 64: 9.6}, rates) == 8
    close = {n: r * (0.95 if n == 64 else 1.0) for n, r in rates.items()}
    assert best_window(close, rates) == 1  # a tie goes to the fewest evaluations


@pytest.mark.parametrize("family", FAMILIES)
def test_measured_windows_give_the_same_sample(family):
    flow = random_flow(FAMILIES[family])
    z, context = example(flow.config, guided=True)
    options = SampleOptions(guidance=2.0)
    windows = calibrate(flow, flow.training_grid(), 2, options)
    assert len(windows) == len(flow.blocks)
    assert all(1 <= w <= flow.training_grid().tokens for w in windows)
    expected = invert(flow, z, context, guidance=2.0, sampler="sequential")
    x = invert(flow, z, context, guidance=2.0, windows=windows, tolerance=ROUNDING * 1e-5)
    assert abs(x - expected).max().item() < ROUNDING * 1e-4


def test_measured_once_and_read_back(tmp_path, monkeypatch):
    flow = random_flow(FAMILIES["released"])
    calls = []

    def counted(*args):
        calls.append(args)
        return (9, 9, 4)

    monkeypatch.setattr(calibration, "calibrate", counted)
    # A CPU may compute one and several tokens alike, with a measured floor of 0.
    monkeypatch.setattr(module, "measure_floor", lambda block, v: 3e-5)
    arguments = (flow, flow.training_grid(), 2, SampleOptions(guidance=2.0), tmp_path / "cache")
    assert windows_for(*arguments).windows == (9, 9, 4)
    assert windows_for(*arguments).windows == (9, 9, 4)
    assert len(calls) == 1
    windows_for(flow, flow.training_grid(), 3, SampleOptions(guidance=2.0), tmp_path / "cache")
    assert len(calls) == 2  # another batch is another measurement
    first = windows_for(*arguments)
    assert first.floor == 3e-5 and first.tolerance == 6e-5 > CONSTANT[mx.float32]
    (tmp_path / "cache" / "windows.json").write_text("{ not json")
    assert windows_for(*arguments).windows == (9, 9, 4)
    assert len(calls) == 3


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path):
    flow = random_flow(FAMILIES["released"])
    blocked = tmp_path / "file"
    blocked.write_text("")
    found = windows_for(flow, flow.training_grid(), 1, SampleOptions(), blocked / "cache")
    assert len(found.windows) == 3


def test_windows_wider_than_a_hopeless_one_are_not_tried(monkeypatch):
    flow = random_flow(FAMILIES["released"])
    passes = module._passes

    def slow(block, tokens, t, count):
        passes(block, tokens, t, count)
        if tokens.shape[1] > 1:
            time.sleep(0.2)

    monkeypatch.setattr(module, "_passes", slow)
    rates = {1: 1.0, 2: 1.2, 4: 1.5, 8: 2.0}
    costs = module.window_costs(flow, 2, flow.training_grid(), 1, SampleOptions(2.0), rates)
    assert list(costs) == [1, 2]
    assert best_window(costs, rates) == 1
