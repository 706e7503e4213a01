"""From checkpoint to bundle: what is written, in which types, and that it is all or nothing."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch_files as tf
from conftest import case_dir
from hostile import small_model

from convert import staging
from convert.bundle import convert_checkpoint, convert_steps
from convert.options import ConvertOptions, ConvertProgress, ConvertReport
from convert.sources import open_checkpoint
from convert.staging import staged_directory
from mlx_starflow.checkpoint import load_component, read_bundle_config, read_json
from mlx_starflow.config import FlowConfig
from mlx_starflow.errors import StarflowError, TextError, UsageError, WeightsError
from mlx_starflow.flow import Flow
from mlx_starflow.shards import read_header
from mlx_starflow.text import load_encoder

MATRICES = ("qkv.weight", "attention.proj.weight", "up.weight", "gate.weight", "down.weight")


def convert(output: Path, case: str = "t2i_tiny", **options) -> ConvertReport:
    checkpoint = case_dir(case) / "checkpoint.pth"
    return convert_checkpoint(ConvertOptions(checkpoint, output, **options))


def types(directory: Path) -> dict[str, str]:
    return {t.name: t.dtype for t in read_header(directory / "model.safetensors")}


def small(folder: Path) -> Path:
    return tf.save(folder / small_model.FILE_NAME, small_model.arrays())


def flow_of(bundle: Path) -> Flow:
    return load_component(bundle / "flow", lambda d: Flow(FlowConfig.from_dict(d)))


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
    assert names == {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
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
    """Layer matrices and proj_txt take the type; ends, norms and biases stay float32."""
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
    with pytest.raises(WeightsError, match="main.0.weight.*float16 cannot.*bfloat16"):
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
    monkeypatch.setattr("mlx_starflow.shards.ShardWriter.__init__.__defaults__", (100_000,))
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


# All or nothing


def test_an_existing_target_is_refused(tmp_path):
    path, target = small(tmp_path), tmp_path / "out"
    convert_checkpoint(ConvertOptions(path, target))
    before = (target / "config.json").read_bytes()
    with pytest.raises(UsageError, match="--overwrite"):
        convert_checkpoint(ConvertOptions(path, target, name="other"))
    assert (target / "config.json").read_bytes() == before
    convert_checkpoint(ConvertOptions(path, target, name="other", overwrite=True))
    assert read_bundle_config(target).name == "other"
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([path.name, "out"])


def test_an_empty_directory_is_no_target_yet(tmp_path, monkeypatch):
    path, target = small(tmp_path), tmp_path / "out [4 bits]"
    target.mkdir()
    convert_checkpoint(ConvertOptions(path, target))
    flow_of(target)
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    convert_checkpoint(ConvertOptions(path, Path(".")))
    flow_of(here)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([path.name, "here", target.name])


def test_overwrite_leaves_other_things_alone(tmp_path):
    path = small(tmp_path)
    precious = tmp_path / "thesis"
    precious.mkdir()
    (precious / "chapter1").write_text("x")
    link = tmp_path / "link"
    link.symlink_to(precious)
    for target in (precious, link, path):
        with pytest.raises(UsageError):
            convert_checkpoint(ConvertOptions(path, target, overwrite=True))
    assert (precious / "chapter1").read_text() == "x"


def test_a_failed_run_leaves_the_target_as_it_was(tmp_path):
    path, target = small(tmp_path), tmp_path / "out"
    convert_checkpoint(ConvertOptions(path, target))
    before = {p: p.read_bytes() for p in target.rglob("*") if p.is_file()}
    arrays = small_model.arrays()
    arrays["blocks.0.proj_out.bias"][0] = np.nan  # found while writing
    tf.save(path, arrays)
    with pytest.raises(WeightsError, match="NaN"):
        convert_checkpoint(ConvertOptions(path, target, overwrite=True))
    assert {p: p.read_bytes() for p in target.rglob("*") if p.is_file()} == before
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([path.name, "out"])


def test_closing_the_iterator_cancels(tmp_path):
    steps = convert_steps(ConvertOptions(small(tmp_path), tmp_path / "out"))
    assert isinstance(next(steps), ConvertProgress)
    assert any("partial" in p.name for p in tmp_path.iterdir())
    steps.close()
    assert [p.name for p in tmp_path.iterdir()] == [small_model.FILE_NAME]


def test_disk_space_is_checked_first(tmp_path, monkeypatch):
    path = small(tmp_path)
    usage = shutil.disk_usage(tmp_path)._replace(free=(16 << 20) + 1000)
    monkeypatch.setattr(staging.shutil, "disk_usage", lambda p: usage)
    with pytest.raises(StarflowError, match="are free there"):
        convert_checkpoint(ConvertOptions(path, tmp_path / "deep" / "out"))
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_disk_that_fills_up(tmp_path, monkeypatch):
    """Somebody else may take the space that was there at the start."""
    path, count = small(tmp_path), 0

    def pwrite(*arguments: object) -> int:
        nonlocal count
        count += 1
        if count > 5:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return original(*arguments)

    original = os.pwrite
    monkeypatch.setattr("mlx_starflow.shards.os.pwrite", pwrite)
    with pytest.raises(OSError, match="No space left"):
        convert_checkpoint(ConvertOptions(path, tmp_path / "out"))
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_what_a_killed_run_left_is_cleared_up(tmp_path):
    target = tmp_path / "out"
    dead = tmp_path / ".out.partial-work-dead"
    dead.mkdir()
    (dead / "model.safetensors").write_bytes(b"x")
    aside = tmp_path / ".out.partial-old-dead"
    (aside / "replaced").mkdir(parents=True)
    (aside / "replaced" / "config.json").write_text('{"format_version": 1}')
    with pytest.raises(UsageError, match="--overwrite"), staged_directory(target):
        pass  # the one that was being replaced is back, and is not overwritten unasked
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    with staged_directory(target, overwrite=True) as work:
        (work / "config.json").write_text('{"format_version": 1, "new": 1}')
        with staged_directory(tmp_path / "out2"):
            assert work.exists()
    assert "new" in (target / "config.json").read_text()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "out2"]


def test_two_runs_at_once_do_not_disturb_each_other(tmp_path):
    target = tmp_path / "out"
    first = staged_directory(target)
    work = first.__enter__()
    with staged_directory(target) as other:
        assert work.exists() and other.exists()
        (other / "config.json").write_text("{}")
    with pytest.raises(UsageError, match="--overwrite"):  # the other one was quicker
        first.__exit__(None, None, None)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


# Text encoders and autoencoders that do not belong


def test_a_text_encoder_of_the_wrong_width(tmp_path):
    folder = tmp_path / "t5"
    shutil.copytree(case_dir("t5_tiny"), folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"d_model": 64}))
    with pytest.raises(TextError, match="64 wide, the flow was trained with 32"):
        convert(tmp_path / "out", text_encoder=str(folder))
    for change, reason in (
        ({"num_layers": 10**9}, "num_layers is '1000000000'"),
        ({"d_kv": None}, "d_kv is 'None'"),
        ({"d_ff": 81}, "shape"),
        ({"num_layers": 2}, "block.2.*no place"),
        ({"feed_forward_proj": "relu", "is_gated_act": False}, "wi.weight.*missing"),
        ({"dense_act_fn": "sine"}, "'sine'"),
    ):
        (folder / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(StarflowError, match=reason):
            convert(tmp_path / "out", text_encoder=str(folder))
    with pytest.raises(TextError, match="gemma3_text.*'t5'"):
        convert(tmp_path / "out", text_encoder=str(case_dir("gemma3_tiny")))
    with pytest.raises(StarflowError, match="neither a directory nor a hub"):
        convert(tmp_path / "out", text_encoder="nowhere")
    assert not (tmp_path / "out").exists()


def test_an_autoencoder_that_does_not_belong(tmp_path):
    folder = tmp_path / "vae"
    shutil.copytree(case_dir("vae_tiny"), folder)
    original = json.loads((folder / "config.json").read_text())
    for change, reason in (
        ({"act_fn": "relu"}, "act_fn"),
        ({"shift_factor": 0.1}, "shift_factor"),
        ({"_class_name": "VQModel"}, "_class_name"),
        ({"block_out_channels": [32, 64]}, "img_size 64 with 2 pixels|no place|shape"),
        ({"layers_per_block": 2}, "missing"),
        ({"latent_channels": 8}, "latent_channels is 8"),
        ({"layers_per_block": 10**9}, "layers_per_block is '1000000000'"),
        ({"latent_channels": True}, "latent_channels is 'True'"),
        ({"block_out_channels": [32, -64]}, "block_out_channels is '-64'"),
        ({"block_out_channels": "32"}, "block_out_channels must be a list"),
        ({"norm_num_groups": 31}, "31 groups"),
        ({"scaling_factor": 0}, "scaling_factor must be"),
        ({"use_quant_conv": "no"}, "use_quant_conv must be"),
    ):
        (folder / "config.json").write_text(json.dumps(original | change))
        with pytest.raises(StarflowError, match=reason):
            convert(tmp_path / "out", vae=str(folder))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("case", ["gemma2_tiny", "gemma3_tiny"])
def test_gemma_comes_in_mlx_lms_own_form(tmp_path, case):
    """Prefix, flattened rotary settings, and the reference's hidden states at the end."""
    tokens = json.loads((case_dir(case) / "case.json").read_text())
    length = tokens["max_length"]
    tensors = open_checkpoint(case_dir("t2i_tiny") / "checkpoint.pth").tensors
    arrays = {k: t.view() for k, t in tensors.items() if "attn_mask" not in k and "freqs" not in k}
    arrays["blocks.2.proj_txt.weight"] = np.ones((128, 64), np.float32)
    path = tf.save(tmp_path / "flow.pth", arrays)
    text = (case_dir("t2i_tiny") / "config.yaml").read_text()
    text = text.replace("txt_size: 12", f"txt_size: {length}")
    (tmp_path / "flow.yaml").write_text(text.replace("google/flan-t5-xl", "gemma"))
    options = ConvertOptions(path, tmp_path / "out", text_encoder=str(case_dir(case)))
    convert_checkpoint(options)
    folder = tmp_path / "out" / "text_encoder"
    config = read_json(folder / "config.json")
    assert "rope_parameters" not in config and config["rope_theta"] > 0
    assert all(n.startswith("model.") for n in types(folder))
    if case == "gemma3_tiny":
        assert (config["rope_local_base_freq"], config["sliding_window_pattern"]) == (10000.0, 2)
    encoder = load_encoder(folder, read_bundle_config(tmp_path / "out").text)
    found = np.array(encoder.encode(tokens["prompts"]).features)
    with np.load(case_dir(case) / "tensors.npz") as arrays:
        hidden = arrays["hidden"]
    assert np.abs(found - hidden).max() <= 1e-4 * np.abs(hidden).max()


def test_autoencoders_of_older_releases(tmp_path):
    """Attention under its old names, as 1x1 convolutions and without newer settings."""
    folder = tmp_path / "vae"
    folder.mkdir()
    tensors = open_checkpoint(case_dir("vae_tiny")).tensors
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    arrays = {}
    for name, tensor in tensors.items():
        array = tensor.view()
        for new, before in old.items():
            if f".{new}." in name:
                name = name.replace(f".{new}.", f".{before}.")
                array = array[:, :, None, None] if array.ndim == 2 else array
        arrays[name] = array
    assert any(".query." in name for name in arrays)
    tf.save(folder / "diffusion_pytorch_model.bin", arrays)
    config = json.loads((case_dir("vae_tiny") / "config.json").read_text())
    keys = ("_class_name", "act_fn", "block_out_channels", "layers_per_block", "latent_channels")
    (folder / "config.json").write_text(json.dumps({k: config[k] for k in keys}))
    convert(tmp_path / "old", vae=str(folder))
    convert(tmp_path / "new", vae=str(case_dir("vae_tiny")))
    for name in ("config.json", "model.safetensors"):
        first, second = (tmp_path / b / "vae" / name for b in ("old", "new"))
        assert first.read_bytes() == second.read_bytes()
