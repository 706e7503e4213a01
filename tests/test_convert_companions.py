"""Text encoders and autoencoders for the converter: all supported forms, and unsuitable ones."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch_files as tf
from conftest import case_dir
from converting import convert, types

from convert.bundle import convert_checkpoint
from convert.options import ConvertOptions
from convert.read.sources import open_checkpoint
from mlx_starflow.bundle.load import read_bundle_config, read_json
from mlx_starflow.errors import StarflowError, TextError
from mlx_starflow.text import load_encoder


def test_a_text_encoder_of_the_wrong_width(tmp_path):
    folder = tmp_path / "t5"
    shutil.copytree(case_dir("t5_tiny"), folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"d_model": 64}))
    with pytest.raises(TextError, match="64 wide, but the flow was trained with 32"):
        convert(tmp_path / "out", text_encoder=str(folder))
    for change, reason in (
        ({"num_layers": 10**9}, "num_layers is 1000000000"),
        ({"d_kv": None}, "d_kv is null"),
        ({"d_ff": 81}, "shape"),
        ({"num_layers": 2}, "block.2.*does not belong"),
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
        ({"layers_per_block": 10**9}, "layers_per_block is 1000000000"),
        ({"latent_channels": True}, "latent_channels is True"),
        ({"block_out_channels": [32, -64]}, "block_out_channels is -64"),
        ({"block_out_channels": "32"}, "block_out_channels must be a list"),
        ({"norm_num_groups": 31}, r"norm_num_groups \(31\)"),
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
