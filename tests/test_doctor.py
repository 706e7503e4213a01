"""``doctor`` on a CPU; every check fails when the fault that it looks for is present."""

from __future__ import annotations

import dataclasses
import json
import os
import time

import mlx.core as mx
import numpy as np
import pytest
from command import run  # noqa: F401
from noise import noisy_products

import mlx_starflow as sf
from mlx_starflow.benchmark import RandomShape, device_checks, doctor, model_checks, random_flow
from mlx_starflow.benchmark.checkup import OK, SKIPPED, SLOW, WRONG, Check
from mlx_starflow.benchmark.golden import FILE, REGENERATE, Golden
from mlx_starflow.cli import doctor as command
from mlx_starflow.flow import layers
from mlx_starflow.flow.cache import KVCache
from mlx_starflow.generation.components import Components
from mlx_starflow.sampling.conditional import Conditional
from mlx_starflow.sampling.tolerance import CONSTANT


@pytest.fixture(scope="module")
def subject(colours):
    with sf.load(colours) as pipe:
        yield model_checks.Subject(pipe)


def test_all_eleven_run_here(colours):
    *checks, report = doctor.examine(str(colours))
    assert len(checks) == 11 and report.checks == tuple(checks)
    expected = {"bandwidth": SKIPPED}
    if float(os.environ.get("MLX_STARFLOW_TEST_NOISE", 0)) >= device_checks.EXACT:
        expected["float32 is float32"] = WRONG
    assert {c.name: c.status for c in checks if c.status not in (OK, SLOW)} == expected
    data = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert set(data) >= {"checks", "device", "versions", "predictions"}
    assert set(data["checks"][0]) == {"name", "status", "measured", "expected", "meaning"}
    assert data["versions"]["mlx"] == mx.__version__ and data["predictions"] == {}
    assert data["checks"][0]["measured"]["tf32"] == "off"
    assert len(report.lines()) >= 12
    text = report.markdown()
    assert all(f"| {n} | {c.name} | {c.status} |" in text for n, c in enumerate(checks, start=1))


def test_the_stored_numbers_belong_to_the_embedded_weights():
    golden = Golden.read()
    with sf.load() as pipe:
        assert golden.weights == pipe.fingerprint, (
            f"mlx_starflow/assets/golden.npz was made with other weights than those in the "
            f"package. Make it again: {REGENERATE}"
        )
    assert FILE.stat().st_size <= 200_000


# One fault for each check. Without it they are fine: the test of all eleven.


def test_1_tf32_is_wrong_on_a_gpu(monkeypatch):
    assert device_checks.machine_check().status in (OK, SLOW)
    monkeypatch.setattr(device_checks, "on_gpu", lambda: True)
    assert device_checks.machine_check().status == OK
    monkeypatch.setenv("MLX_ENABLE_TF32", "1")
    check = device_checks.machine_check()
    assert check.status == WRONG and check.meaning.startswith("MLX_ENABLE_TF32 lets MLX round")
    report = doctor.Report((check,), "gpu (Apple M5)", {"mlx": "1"}, {}, 1.0)
    told = json.loads(json.dumps(report.to_dict()))["checks"][0]["measured"]["tf32"]
    assert told.startswith("allowed (MLX_ENABLE_TF32=1)")
    monkeypatch.setattr(device_checks, "on_gpu", lambda: False)
    slow = dataclasses.replace(device_checks.this_machine(), blas="reference, slow")
    assert device_checks.machine_check(slow).status == SLOW


def rounded(function):
    """As TensorFloat-32 does: factors with ten bits."""

    def short(a):
        return mx.array((np.array(a).view(np.uint32) & 0xFFFFE000).view(np.float32))

    return lambda a, b, **options: function(short(a), short(b), **options)


@pytest.mark.parametrize("name", ["matmul", "conv2d"])
def test_2_rounded_factors_are_seen(monkeypatch, name):
    monkeypatch.setattr(mx, name, rounded(getattr(mx, name)))
    assert device_checks.exactness_check().status == WRONG


def test_3_casts_of_matrices_are_seen(monkeypatch):
    flow = random_flow(RandomShape(width=64, layers=(1, 2), grid=3, text_length=2), "bfloat16")
    assert model_checks.types_check(flow).status == OK
    # What MLX does by itself: the widest type wins.
    monkeypatch.setattr(layers, "product", lambda layer, x: (layer(x.astype(mx.float32)), None))
    check = model_checks.types_check(flow)
    assert check.status == WRONG and check.measured["casts_of_matrices"]


def test_3_wide_keys_are_seen(monkeypatch):
    flow = random_flow(RandomShape(width=64, layers=(1, 2), grid=3, text_length=2), "float16")
    monkeypatch.setattr(layers, "kept_type", lambda layer: mx.float32)
    check = model_checks.types_check(flow)
    assert check.status == WRONG and check.measured["keys_and_values"] == ["float32"]


def test_4_products_that_vary_are_seen(colours):
    with noisy_products(1e-2):
        assert model_checks.floor_check(str(colours)).status == WRONG


def test_4_floors_of_16_bits_are_measured_on_a_gpu(monkeypatch, wide):
    monkeypatch.setattr(model_checks, "on_gpu", lambda: True)
    check = model_checks.floor_check(str(wide))
    assert check.status == OK
    kinds = dict(float32=mx.float32, float16=mx.float16, bfloat16=mx.bfloat16)
    kinds |= {"8-bit": mx.float16, "4-bit": mx.float16}
    assert check.measured.keys() == kinds.keys()
    for name, kind in kinds.items():  # the floors of this small model are below the constants
        assert check.measured[name]["tolerance"] == CONSTANT[kind]
        assert check.measured[name]["floor"] <= CONSTANT[kind] / 2
    with noisy_products(0.2):
        assert "float16, bfloat16" in model_checks.floor_check(str(wide)).meaning


def test_5_a_copied_cache_is_seen(monkeypatch, subject):
    assert model_checks.cache_check(subject).status == OK
    held, update = [], KVCache.update

    def copying(self, keys, values, start):
        if self.keys is not None:  # somebody else looks at the old buffers
            held.extend((self.keys.reshape(-1), self.values.reshape(-1)))
            mx.eval(held)
        return update(self, keys, values, start)

    monkeypatch.setattr(KVCache, "update", copying)
    assert model_checks.cache_check(subject).status == WRONG


def test_6_slow_kernels_are_seen_and_seconds_are_predicted(monkeypatch):
    monkeypatch.setattr(device_checks, "on_gpu", lambda: True)
    monkeypatch.setattr(device_checks, "MATRIX", (128, 64))
    monkeypatch.setattr(device_checks, "ROWS", (1, 2, 128))
    times = iter([4.0, 4.0, 4.0] * 2 + [2.0, 2.0, 9.0] + [1.0, 1.0, 9.0])
    monkeypatch.setattr(device_checks, "seconds", lambda work: next(times) / 1e4)
    check, table = device_checks.bandwidth_check()
    assert check.status == OK and table["float16"] == {1: 0.4, 2: 0.4, 128: 0.4}
    times = iter([4.0, 4.0, 4.0] * 2 + [8.0, 8.0, 9.0] + [1.0, 1.0, 9.0])
    check, _ = device_checks.bandwidth_check()
    assert check.status == SLOW and "8-bit" in check.meaning


def test_predictions_follow_the_bandwidth():
    """5.4 GB a token at 400 GB/s are 13.6 ms, and 1024 of them 14 seconds."""
    ms = 75.5e6 / 400e9 * 1e3  # one matrix in 16 bits
    flat = {rows: ms for rows in device_checks.ROWS}
    told = device_checks.predictions({"float16": flat})["float16"]
    whole = told["of_it_whole_passes"]
    assert told["seconds_by_window"]["1"] - whole == pytest.approx(1024 * 72 * ms / 1e3, abs=0.1)
    assert told["best_window"] == 64
    linear = {rows: ms * rows for rows in device_checks.ROWS}
    assert device_checks.predictions({"float16": linear})["float16"]["best_window"] == 1


def test_a_report_with_predictions():
    """As on a GPU: a line and an item for every precision."""
    flat = {rows: 0.2 for rows in device_checks.ROWS}
    quarter = {rows: ms / 4 for rows, ms in flat.items()}
    told = device_checks.predictions({"float16": flat, "4-bit": quarter})
    check = Check("machine", OK, {"tf32": "off"}, "TF32 off", "")
    report = doctor.Report((check,), "gpu (Apple M4)", {"mlx": "1"}, told, 61.4)
    lines = report.lines()
    assert lines[0] == "gpu (Apple M4), mlx 1, 61 s" and len(lines) == 4
    for line, (name, values) in zip(lines[2:], told.items(), strict=True):
        one, best = (values["seconds_by_window"][w] for w in ("1", str(values["best_window"])))
        assert f"3B model in {name}: about {one:.0f} s token by token, {best:.0f} s" in line
    text = report.markdown()
    assert "Predicted seconds of the published 3B model:" in text and "No predictions" not in text
    for name, values in told.items():
        assert f"\n- {name}: `{json.dumps(values)}`\n" in text
    assert report.to_dict()["predictions"] == told


def test_7_a_wrong_kernel_is_seen(monkeypatch):
    assert device_checks.attention_check().status == OK
    fused = mx.fast.scaled_dot_product_attention
    monkeypatch.setattr(
        mx.fast, "scaled_dot_product_attention", lambda *a, **k: 1.01 * fused(*a, **k)
    )
    assert device_checks.attention_check().status == WRONG


def test_8_a_slow_host_is_seen(monkeypatch, subject):
    affine = Conditional.affine

    def slow(self, *arguments):
        time.sleep(0.3)
        return affine(self, *arguments)

    assert model_checks.host_check(subject).status == OK
    monkeypatch.setattr(model_checks, "on_gpu", lambda: True)
    monkeypatch.setattr(model_checks, "STEPS", 2)
    monkeypatch.setattr(Conditional, "affine", slow)
    assert model_checks.host_check(subject).status == SLOW


def test_9_what_is_kept_is_seen(monkeypatch, colours):
    kept, drop = [], Components.drop

    def leaking(self, component):
        kept.append(self._loaded.get(component))
        drop(self, component)

    monkeypatch.setattr(Components, "drop", leaking)
    assert model_checks.low_ram_check(str(colours)).status == WRONG


def test_10_nan_and_more_memory_than_said_are_seen(monkeypatch, subject):
    assert model_checks.finishing_check(subject).status == OK
    monkeypatch.setattr(model_checks, "denoise", lambda flow, x, own: x * mx.nan)
    assert model_checks.finishing_check(subject).status == WRONG
    monkeypatch.setattr(model_checks, "denoise", lambda flow, x, own: mx.ones((4000, 1000)) + 1)
    monkeypatch.setattr(model_checks, "denoising_bytes", lambda *_: 1)
    assert model_checks.finishing_check(subject).status == SLOW


@pytest.fixture
def wrong_attention(monkeypatch):
    """A function that makes attention wrong by one in a hundred from now on."""
    fused = mx.fast.scaled_dot_product_attention

    def put_in():
        monkeypatch.setattr(
            mx.fast, "scaled_dot_product_attention", lambda *a, **k: 1.01 * fused(*a, **k)
        )

    return put_in


def test_11_another_picture_is_seen(wrong_attention):
    """Drawn in earnest; without the fault it is by the test of all eleven."""
    wrong_attention()
    check = model_checks.picture_check()
    assert check.status == WRONG and "sequential, auto" in check.meaning


def test_11_on_a_gpu_the_picture_is_drawn_on_the_cpu_too(monkeypatch, wrong_attention):
    golden = Golden.read()
    monkeypatch.setattr(model_checks, "on_gpu", lambda: True)
    monkeypatch.setattr(model_checks, "drawn_by", lambda pipe, sampler: golden)
    check = model_checks.picture_check(golden)
    assert check.status == OK and 0 <= check.measured["CPU"]["latents"] < 1e-2
    wrong_attention()
    check = model_checks.picture_check(golden)
    assert check.status == WRONG and check.meaning.startswith("CPU:")


def test_11_differences_are_in_deviations(monkeypatch):
    """A picture that is off by 3 in a latent of deviation 500 is the same picture."""
    golden = Golden.read()
    wide = 500 / golden.latents.std()
    golden = dataclasses.replace(golden, latents=wide * golden.latents)
    moved = dataclasses.replace(golden, latents=golden.latents + 3)
    monkeypatch.setattr(model_checks, "on_gpu", lambda: True)
    monkeypatch.setattr(model_checks, "drawn_by", lambda pipe, sampler: moved)
    monkeypatch.setattr(model_checks, "_on_cpu", lambda pipe: moved.latents)
    check = model_checks.picture_check(golden)
    assert check.status == OK
    for name in ("sequential", "auto", "CPU"):
        assert check.measured[name]["latents"] == pytest.approx(3 / 500, rel=1e-3)


def test_11_results_of_other_weights_are_not_compared():
    check = model_checks.picture_check(dataclasses.replace(Golden.read(), weights="others"))
    assert check.status == SKIPPED and REGENERATE in check.meaning


def test_a_check_that_cannot_run_is_wrong_and_stops_no_other(monkeypatch, colours):
    for name in ("low_ram_check", "picture_check"):
        monkeypatch.setattr(model_checks, name, lambda *_: Check("x", OK, 1, "", ""))

    def broken():
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(device_checks, "attention_check", broken)
    monkeypatch.setattr(model_checks, "floor_check", lambda model: Check("x", OK, 1, "", ""))
    *checks, report = doctor.examine(str(colours))
    assert len(checks) == 11 and report.wrong
    assert "no such kernel" in next(c for c in checks if c.name == "attention").meaning


def test_the_command(monkeypatch, tmp_path, run):  # noqa: F811
    good = Check("machine", OK, {"a": 1}, "", "")
    bad = Check("types", WRONG, [], "none", "Weights are converted.")

    def examined(*checks):
        report = doctor.Report(checks, "cpu", {"mlx": "1"}, {}, 1.0)
        return lambda model: iter([*checks, report])

    monkeypatch.setattr(command, "examine", examined(good))
    done = run("doctor", "--report", tmp_path / "report.md")
    assert done.status == 0 and "machine" in done.out
    assert "| 1 | machine | ok |" in (tmp_path / "report.md").read_text()
    monkeypatch.setattr(command, "examine", examined(good, bad))
    done = run("doctor", "--json")
    assert done.status == 1 and json.loads(done.out)["checks"][1]["status"] == "wrong"
