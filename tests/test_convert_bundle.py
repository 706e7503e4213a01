"""From checkpoint to bundle: what is written, and in which types."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch_files as tf
from conftest import case_dir
from converting import convert, flow_of, small, types
from hostile import small_model

from convert.bundle import convert_checkpoint, convert_steps
from convert.options import ConvertOptions, ConvertProgress, ConvertReport
from mlx_starflow.bundle.load import read_bundle_config, read_json
from mlx_starflow.bundle.safetensors import read_header
from mlx_starflow.errors import WeightsError

MATRICES = ("qkv.weight", "attention.proj.weight", "up.weight", "gate.weight", "down.weight")


def test_the_whole_pipeline(tmp_path):
    output = tmp_path / "bundle"
    report = convert(
        output,
        vae=str(case_dir("vae_tiny")),
        text_encoder=str(case_dir("t5_tiny")),
        verify=True,
    )
    config = read_bundle_config(output)
    assert config.components == {n: n for n in ("flow", "vae", "text_encoder")}
    data = (case_dir("t2i_tiny") / "checkpoint.pth").read_bytes()
    assert config.source.sha256 == report.sha256 == hashlib.sha256(data).hexdigest()
    assert (config.image_size, config.text.channels) == (64, 32)
    assert report.verified["weight_error"] == 0.0
    assert report.verified["round_trip_error"] < 1e-4
    names = {p.name for p in (output / "text_encoder").iterdir()}
    weights = {"config.json", "model.safetensors", "SHA256SUMS"}
    assert names == {*weights, "tokenizer.json", "tokenizer_config.json"}
    assert not any(n.startswith("decoder.") for n in types(output / "text_encoder"))
    source = read_header(case_dir("vae_tiny") / "diffusion_pytorch_model.safetensors")
    shapes = {t.name: t.shape for t in source if len(t.shape) == 4}
    for tensor in read_header(output / "vae" / "model.safetensors"):
        if tensor.name in shapes:
            o, i, h, w = shapes[tensor.name]
            assert tensor.shape == (o, h, w, i)
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]


def test_without_companions_the_yaml_names_them(tmp_path):
    convert(tmp_path / "bundle")
    assert read_bundle_config(tmp_path / "bundle").components == {
        "flow": "flow",
        "vae": "hub:stabilityai/sd-vae-ft-ema",
        "text_encoder": "hub:google/flan-t5-xl",
    }


@pytest.mark.parametrize(("dtype", "code"), [("bfloat16", "BF16"), ("float16", "F16")])
def test_types(tmp_path, dtype, code):
    """Layer matrices and proj_txt have the type; projections, norms and biases stay float32."""
    convert(tmp_path / "bundle", dtype=dtype, verify=True)
    for name, found in types(tmp_path / "bundle" / "flow").items():
        cast = name.endswith((*MATRICES, "proj_txt.weight"))
        assert found == (code if cast else "F32"), name


@pytest.mark.parametrize("recipe", [4, 8, "mixed"])
def test_quantization(tmp_path, recipe):
    report = convert(tmp_path / "bundle", quantize=recipe, verify=True)
    found = types(tmp_path / "bundle" / "flow")
    for name, kind in found.items():
        if name.endswith(MATRICES):
            assert kind == "U32" and found[name[: -len("weight")] + "scales"] == "BF16", name
        elif "layers" not in name and not name.endswith("proj_txt.weight"):
            assert kind == "F32", name
    assert report.unquantized == ()
    assert report.verified["weight_error"] <= 2 / (15 if recipe != 8 else 255) + 2**-8
    block = read_json(tmp_path / "bundle" / "flow" / "config.json")["quantization"]
    flow = flow_of(tmp_path / "bundle")
    bits = {
        f"blocks.{i}.layers.{j}": layer.attention.qkv.bits
        for i, b in enumerate(flow.blocks)
        for j, layer in enumerate(b.layers)
    }
    if recipe == "mixed":  # layers per block 1, 1, 3: four bits inside the deep block only
        assert [b for b in bits.values()] == [8, 8, 8, 4, 8] and block["bits"] == 8
    else:
        assert set(bits.values()) == {recipe} == {block["bits"]}


def test_what_does_not_divide_is_left_and_named(tmp_path):
    report = convert(tmp_path / "bundle", "gqa_swiglu", quantize=8)
    named = {n.removesuffix(".weight") for n in report.unquantized}
    assert named and all(n.endswith(("qkv", "up", "gate")) for n in named)  # width 96
    found = types(tmp_path / "bundle" / "flow")
    assert all(found[n + ".weight"] == "BF16" for n in named)
    assert found["blocks.0.layers.0.attention.proj.weight"] == "U32"  # width 128
    flow_of(tmp_path / "bundle")


def test_float16_that_overflows_is_refused(tmp_path):
    arrays = small_model.arrays()
    arrays["blocks.0.attn_blocks.0.mlp.main.0.weight"][3, 3] = 7e4
    path = tf.save(tmp_path / small_model.FILE_NAME, arrays)
    with pytest.raises(WeightsError, match="main.0.weight.*too large for float16.*bfloat16"):
        convert_checkpoint(ConvertOptions(path, tmp_path / "out", dtype="float16"))
    assert not (tmp_path / "out").exists()
    convert_checkpoint(ConvertOptions(path, tmp_path / "out", dtype="bfloat16"))


def test_views_arrive_as_they_are(tmp_path):
    """A transposed weight over a shared storage comes out as its own numbers."""
    arrays = small_model.arrays()
    name = "blocks.0.attn_blocks.0.attention.proj.weight"
    pushed = {
        key: tf.tensor(str(i), a.shape, strides=(1, 64) if key == name else None)
        for i, (key, a) in enumerate(arrays.items())
    }
    data = {str(i): a.tobytes() for i, a in enumerate(arrays.values())}
    path = tf.archive(tmp_path / small_model.FILE_NAME, tf.state_dict(pushed), data)
    convert_checkpoint(ConvertOptions(path, tmp_path / "out", verify=True))
    weight = flow_of(tmp_path / "out").blocks[0].layers[0].attention.proj.weight
    np.testing.assert_array_equal(np.array(weight), arrays[name].T)


def test_a_bundle_is_cut_into_shards(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "mlx_starflow.bundle.safetensors.ShardWriter.__init__.__defaults__", (100_000,)
    )
    small(tmp_path)
    convert_checkpoint(ConvertOptions(tmp_path / small_model.FILE_NAME, tmp_path / "out"))
    flow = tmp_path / "out" / "flow"
    assert len(list(flow.glob("model-0*.safetensors"))) > 1
    assert all(p.stat().st_size < 110_000 for p in flow.glob("*.safetensors"))
    weight = flow_of(tmp_path / "out").blocks[0].proj_in.weight
    expected = small_model.arrays()["blocks.0.proj_in.weight"]
    np.testing.assert_array_equal(np.array(weight), expected)
    next(flow.glob("model-00002*")).unlink()
    with pytest.raises(WeightsError, match="model-00002.*missing"):
        flow_of(tmp_path / "out")


def test_progress_reaches_the_end(tmp_path):
    path = small(tmp_path)
    events = list(convert_steps(ConvertOptions(path, tmp_path / "out")))
    progress = [e for e in events if isinstance(e, ConvertProgress)]
    assert isinstance(events[-1], ConvertReport) and progress[-1].done == progress[-1].total
    assert [e.done for e in progress] == sorted(e.done for e in progress)


def test_licences_come_along(tmp_path):
    path = small(tmp_path)
    (tmp_path / "LICENSE").write_text("be kind")
    (tmp_path / "LICENSE_MODEL.txt").write_text("research only")
    convert_checkpoint(ConvertOptions(path, tmp_path / "out"))
    assert (tmp_path / "out" / "LICENSE").read_text() == "be kind"
    assert (tmp_path / "out" / "LICENSE_MODEL.txt").read_text() == "research only"
    assert read_bundle_config(tmp_path / "out").licence == "see LICENSE"
