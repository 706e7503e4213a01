"""Bundles are checked when loaded: missing, extra, misshapen or damaged tensors are named."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
import torch_files as tf
from hostile import small_model
from mlx.utils import tree_flatten

from convert.bundle import convert_checkpoint
from convert.options import ConvertOptions
from mlx_starflow.bundle.load import (
    array_bytes,
    load_component,
    read_bundle_config,
    read_component_config,
    write_component,
)
from mlx_starflow.bundle.quantize import GROUP_SIZE
from mlx_starflow.bundle.safetensors import ShardWriter, TensorPlan, read_header
from mlx_starflow.config import FlowConfig
from mlx_starflow.errors import ConfigError, ModelNotFoundError, UsageError, WeightsError
from mlx_starflow.flow import Flow


@pytest.fixture(scope="module")
def bundles(tmp_path_factory) -> dict[str, Path]:
    """The same small flow, converted three ways."""
    folder = tmp_path_factory.mktemp("bundles")
    path = tf.save(folder / small_model.FILE_NAME, small_model.arrays())
    result = {}
    for name, options in {
        "float32": {},
        "bfloat16": {"dtype": "bfloat16"},
        "4-bit": {"quantize": 4},
    }.items():
        convert_checkpoint(ConvertOptions(path, folder / name, **options))
        result[name] = folder / name
    return result


def load(bundle: Path, **options) -> Flow:
    return load_component(bundle / "flow", lambda d: Flow(FlowConfig.from_dict(d)), **options)


def output(flow: Flow) -> np.ndarray:
    x = mx.random.normal((2, 4, 4, 1), key=mx.random.key(0))
    return np.array(flow(x, None)[0])


def rewrite(bundle: Path, copy: Path, change: Callable[[dict[str, mx.array]], object]) -> Path:
    shutil.copytree(bundle, copy)
    weights = mx.load(str(bundle / "flow" / "model.safetensors"))
    change(weights)
    config = json.loads((bundle / "flow" / "config.json").read_text())
    (copy / "flow" / "model.safetensors").unlink()
    write_component(copy / "flow", config, weights)
    return copy


def test_what_is_written_is_read(bundles, tmp_path):
    """write_component and load_component are inverses, for every stored type."""
    for name, bundle in bundles.items():
        copy = rewrite(bundle, tmp_path / name, lambda weights: None)
        first, second = load(bundle), load(copy)
        for (key, a), (_, b) in zip(
            tree_flatten(first.parameters()), tree_flatten(second.parameters()), strict=True
        ):
            assert a.dtype == b.dtype and mx.array_equal(a, b), key


DAMAGE: dict[str, tuple[Callable[[dict], object], str]] = {
    "missing": (lambda w: w.pop("blocks.0.proj_in.bias"), "proj_in.bias.*missing"),
    "extra": (lambda w: w.update({"blocks.0.x": mx.zeros((2,))}), "blocks.0.x.*does not belong"),
    "misshapen": (
        lambda w: w.update({"blocks.0.proj_in.bias": mx.zeros((63,))}),
        r"proj_in.bias.*\(63,\).*\(64,\)",
    ),
    "NaN": (
        lambda w: w.update({"blocks.0.proj_in.bias": mx.full((64,), float("nan"))}),
        "proj_in.bias.*NaN",
    ),
    "infinite": (
        lambda w: w.update({"prior_var": mx.full((4, 4), float("inf"))}),
        "prior_var.*infinity",
    ),
    "integers": (
        lambda w: w.update({"blocks.0.proj_in.bias": mx.zeros((64,), mx.uint32)}),
        "proj_in.bias.*U32",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_named(bundles, tmp_path, name):
    change, reason = DAMAGE[name]
    copy = rewrite(bundles["float32"], tmp_path / "copy", change)
    with pytest.raises(WeightsError, match=reason):
        load(copy)


def test_infinity_in_scales_is_named(bundles, tmp_path):
    name = "blocks.0.layers.0.mlp.up.scales"
    copy = rewrite(
        bundles["4-bit"], tmp_path / "copy", lambda w: w.update({name: w[name] + mx.inf})
    )
    with pytest.raises(WeightsError, match=name):
        load(copy)


def test_a_truncated_file_is_named(bundles, tmp_path):
    copy = shutil.copytree(bundles["float32"], tmp_path / "copy")
    path = copy / "flow" / "model.safetensors"
    data = path.read_bytes()
    for end in (0, 7, 100, len(data) - 1):
        path.write_bytes(data[:end])
        with pytest.raises(WeightsError, match="model.safetensors"):
            load(copy)
    path.unlink()
    with pytest.raises(WeightsError, match="is missing"):
        load(copy)


def test_configurations_that_are_none(bundles, tmp_path):
    copy = shutil.copytree(bundles["float32"], tmp_path / "copy")
    path = copy / "flow" / "config.json"
    original = json.loads(path.read_text())
    path.write_text(json.dumps(original | {"colour": "red"}))
    with pytest.raises(ConfigError, match="'colour'"):
        load(copy)
    path.write_text(json.dumps(original | {"quantization": {"bits": 7, "group_size": 64}}))
    load(copy)  # nothing is stored quantized, so nothing is made so
    for text, error in (("{", ConfigError), ("[1]", ConfigError)):
        path.write_text(text)
        with pytest.raises(error, match="config.json"):
            load(copy)
    path.unlink()
    with pytest.raises(ModelNotFoundError, match="config.json is missing"):
        load(copy)
    with pytest.raises(ModelNotFoundError, match="config.json is missing"):
        read_bundle_config(tmp_path)


def test_a_quantization_block_that_lies(bundles, tmp_path):
    copy = shutil.copytree(bundles["4-bit"], tmp_path / "copy")
    path = copy / "flow" / "config.json"
    config = json.loads(path.read_text())
    for block in ({"bits": 8, "group_size": 64}, {"bits": 4, "group_size": 32}, {"bits": 99}):
        path.write_text(json.dumps(config | {"quantization": block}))
        with pytest.raises((WeightsError, ConfigError)):
            load(copy)
    del config["quantization"]
    path.write_text(json.dumps(config))
    with pytest.raises(WeightsError, match="quantized|does not belong"):
        load(copy)


def test_types_when_loading(bundles):
    """On a CPU 16-bit numbers become float32; a type that is asked for is given."""
    flow = load(bundles["bfloat16"], dtype="bfloat16")
    layer = flow.blocks[0].layers[0]
    assert layer.attention.qkv.weight.dtype == mx.bfloat16
    assert layer.attention.qkv.bias.dtype == layer.mlp.norm.weight.dtype == mx.float32
    assert flow.blocks[0].proj_in.weight.dtype == mx.float32
    upcast = load(bundles["bfloat16"], dtype=mx.float32)
    assert upcast.blocks[0].layers[0].attention.qkv.weight.dtype == mx.float32
    if mx.default_device() == mx.Device(mx.cpu):
        assert load(bundles["bfloat16"]).blocks[0].layers[0].mlp.up.weight.dtype == mx.float32
        assert load(bundles["4-bit"]).blocks[0].layers[0].mlp.up.scales.dtype == mx.float32
    down = load(bundles["float32"], dtype="float16")
    assert down.blocks[0].layers[0].mlp.up.weight.dtype == mx.float16
    with pytest.raises(UsageError, match="dtype is 'int8'"):
        load(bundles["float32"], dtype="int8")


def test_quantizing_while_loading(bundles):
    """The same numbers as quantizing while converting, up to the rounding of the scales."""
    whole = output(load(bundles["float32"]))
    stored = output(load(bundles["4-bit"]))
    loaded = output(load(bundles["float32"], quantize=4))
    assert 0 < np.abs(stored - whole).max() < 0.2 * np.abs(whole).max()
    np.testing.assert_allclose(loaded, stored, atol=0.02 * np.abs(whole).max())
    fine = output(load(bundles["float32"], quantize="8"))
    assert np.abs(fine - whole).max() < np.abs(loaded - whole).max() / 4
    assert load(bundles["4-bit"], quantize=4).blocks[0].layers[0].mlp.up.bits == 4
    with pytest.raises(UsageError, match="stored with 4-bit.*Convert"):
        load(bundles["4-bit"], quantize=8)
    with pytest.raises(UsageError, match="4, 8 or 'mixed'"):
        load(bundles["float32"], quantize=3)


def test_component_config_is_without_quantization(bundles):
    config = read_component_config(bundles["4-bit"] / "flow")
    assert FlowConfig.from_dict(config).num_classes == 0
    stored = json.loads((bundles["4-bit"] / "flow" / "config.json").read_text())
    assert stored["quantization"] == {"group_size": GROUP_SIZE, "bits": 4}


# The file format


def test_files_are_as_other_readers_expect(bundles):
    path = bundles["float32"] / "flow" / "model.safetensors"
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    assert header.pop("__metadata__") == {"format": "mlx"} and (8 + length) % 8 == 0
    assert list(header) == sorted(header)
    loaded = mx.load(str(path))
    assert set(loaded) == set(header)
    np.testing.assert_array_equal(
        np.array(loaded["blocks.0.proj_in.weight"]), small_model.arrays()["blocks.0.proj_in.weight"]
    )


def test_a_writer_holds_to_its_plan(tmp_path):
    def writer(name: str) -> ShardWriter:
        (tmp_path / name).mkdir()
        return ShardWriter(tmp_path / name, [TensorPlan("a", "F32", (2, 2))])

    first = writer("pieces")
    first.write("a", np.float32([3, 4]), 8)
    first.write("a", np.float32([1, 2]), 0)
    first.close()
    loaded = mx.load(str(tmp_path / "pieces" / "model.safetensors"))["a"]
    np.testing.assert_array_equal(np.array(loaded), [[1, 2], [3, 4]])
    late = writer("late")
    late.write("a", np.float32([1]))
    with pytest.raises(WeightsError, match="'a'.*not .*written"):
        late.close()
    with pytest.raises(WeightsError, match="more bytes"):
        writer("much").write("a", bytes(17))
    (tmp_path / "double").mkdir()
    with pytest.raises(WeightsError, match="twice"):
        ShardWriter(tmp_path / "double", [TensorPlan("a", "F32", (1,))] * 2)


def test_bytes_of_arrays():
    a = mx.arange(6, dtype=mx.float32).reshape(2, 3)
    assert bytes(array_bytes(a.T)) == np.arange(6, dtype="f4").reshape(2, 3).T.tobytes()
    assert bytes(array_bytes(mx.array([1.0], mx.bfloat16))) == b"\x80\x3f"


def test_headers_of_nothing(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", 2) + b"{}")
    assert read_header(tmp_path / "a.safetensors") == []
