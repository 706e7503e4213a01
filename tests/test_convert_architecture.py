"""The architecture of a checkpoint, from shapes and YAML, and contradictions between the two."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch_files as tf
from conftest import case_dir, case_info
from hostile import small_model
from mlx.utils import tree_flatten
from reference_cases import STARFLOW, TARFLOW

from convert.options import ConvertOptions
from convert.read.sources import open_checkpoint
from convert.rules.architecture import Architecture
from convert.rules.families import read_architecture
from convert.rules.layout import account, flow_layout
from mlx_starflow.errors import ConfigError, StarflowError, WeightsError
from mlx_starflow.flow import Flow


def architecture(path: Path, **options) -> Architecture:
    checkpoint = open_checkpoint(path)
    result = read_architecture(ConvertOptions(path, Path("unused"), **options), checkpoint, None)
    account(checkpoint.tensors, flow_layout(result.flow), result.dropped, str(path))
    return result


def of_case(name: str) -> Architecture:
    noise = case_info(name)["noise_std"] if name in TARFLOW else None
    return architecture(case_dir(name) / "checkpoint.pth", noise_std=noise)


@pytest.mark.parametrize("name", STARFLOW + TARFLOW)
def test_the_table_is_the_flow(name):
    """The tensors of the file are exactly those of the flow."""
    found = of_case(name).flow
    layout = {t.name: t.shape for t in flow_layout(found).values()}
    assert layout == {k: v.shape for k, v in tree_flatten(Flow(found).parameters())}


@pytest.mark.parametrize("name", STARFLOW)
def test_the_published_cases(name):
    info, found = case_info(name), of_case(name)
    assert found.flow.grid_size == (6 if name == "patch2_r2l" else 8)
    assert len(found.flow.blocks) == info["blocks"]
    assert found.flow.noise_std == info["noise_std"]
    assert (found.text.length, found.text.channels) == tuple(info["text"])
    deep = found.flow.blocks[-1]
    for key, value in info.get("top_block", {}).items():
        ours = {
            "num_heads": deep.heads,
            "num_kv_heads": deep.kv_heads,
            "head_dim": deep.head_dim,
            "channels": deep.channels,
            "expansion": deep.mlp_channels // deep.channels,
            "num_layers": deep.layers,
            "use_proj_txt": deep.project_text,
            "norm_type": deep.norm,
            "use_qk_norm": deep.qk_norm,
            "use_post_norm": deep.post_norm,
            "use_final_norm": deep.final_norm,
            "use_bias": deep.bias,
            "use_swiglu": deep.gated_mlp,
            "use_rope": deep.position != "table",
            "hf_style_rope": deep.position == "sequence",
        }
        assert ours[key] == value, key


@pytest.mark.parametrize("name", TARFLOW)
def test_the_published_tarflows(name):
    info, found = case_info(name), of_case(name)
    flow = found.flow
    assert (flow.patch_size, flow.in_channels) == (info["patch_size"], info["in_channels"])
    assert found.image_size == info["img_size"] and flow.num_classes == info["num_classes"]
    assert (flow.scale == "exp") == info["nvp"]
    assert [b.flip for b in flow.blocks] == [i % 2 == 1 for i in range(info["num_blocks"])]


def test_text_settings_follow_the_yaml():
    assert of_case("labels").text.encoder == "labels"
    tokens = of_case("gemma_top").text
    assert (tokens.encoder, tokens.masked, tokens.chat_template) == ("gemma_tokens", False, True)
    wide = of_case("wide_top")
    assert wide.text.noise_level == 0.5 and wide.flow.denoiser.conditioned
    assert of_case("t2i_aspect").text.aspect_ratio
    tiny = of_case("t2i_tiny")
    assert (tiny.text.encoder, tiny.text.masked) == ("t5", True)
    assert (tiny.vae, tiny.text_encoder) == ("stabilityai/sd-vae-ft-ema", "google/flan-t5-xl")


# Edits of t2i_tiny's YAML, and what the error must name: the setting, and both values.
QUARRELS = {
    "channels: 128": ("channels: 64", ("channels", "64", "128")),
    "layers_per_block: 1 1 3": ("layers_per_block: 1 1 4", ("layers_per_block", "4", "3")),
    "layers_per_block: 1 1 3 ": ("layers_per_block: 1 3", ("layers_per_block", "2", "3")),
    "patch_size: 1": ("patch_size: 2", ("patch_size", "16", "4")),
    "channel_size: 4": ("channel_size: 16", ("channel_size", "16", "4")),
    "txt_size: 12": ("txt_size: 77", ("txt_size", "77", "12")),
    "img_size: 64": ("img_size: 100", ("img_size", "100", "64 tokens")),
    "sos: 1": ("sos: 0", ("sos", "0", "1")),
    "rope: 1": ("rope: 0", ("rope", "0", "1")),
    "cond_top_only: 1": ("cond_top_only: 0", ("cond_top_only", "0", "1")),
    "use_final_norm: 1": ("use_final_norm: 0", ("use_final_norm", "0", "1")),
    "vae: stabilityai/sd-vae-ft-ema": ("head_dim: 32", ("head_dim", "32", "64")),
    "soft_clip: 4": ("norm_type: rms_norm", ("norm_type", "rms_norm", "layer_norm")),
    "use_softplus: 1": ("use_swiglu: 1", ("use_swiglu", "1", "0")),
    "cfg: 2.5": ("use_bias: 0", ("use_bias", "0", "1")),
    "wds: 1": ("use_qk_norm: 1", ("use_qk_norm", "1", "0")),
    "nvp: 1": ("use_post_norm: 1", ("use_post_norm", "1", "0")),
    "adaln: 0": ("num_heads: 4", ("num_heads", "4", "2")),
    "lr: 6.4e-05": ("num_kv_heads: 1", ("num_kv_heads", "1", "2")),
    "fsdp: 1": ("learnable_self_denoiser: 1", ("learnable_self_denoiser", "1", "0")),
    "no_flip: 1": ("top_block_channels: 96", ("top_block_channels", "96", "128")),
    "batch_size: 1024": ("use_pretrained_lm: gemma3_1b", ("use_pretrained_lm", "gemma3_1b")),
}


def edited(tmp_path: Path, old: str, new: str) -> dict:
    text = (case_dir("t2i_tiny") / "config.yaml").read_text()
    old = old.strip()  # a space tells two edits of one line apart
    assert f"- {old}\n" in text
    path = tmp_path / "model.yaml"
    path.write_text(text.replace(f"- {old}\n", f"- {new}\n"))
    return {"config": path}


@pytest.mark.parametrize("old", QUARRELS)
def test_a_contradiction_names_both_values(tmp_path, old):
    new, named = QUARRELS[old]
    with pytest.raises(ConfigError) as caught:
        architecture(case_dir("t2i_tiny") / "checkpoint.pth", **edited(tmp_path, old, new))
    for part in named:
        assert re.search(rf"(?<!\w)(?:{part})(?!\w)", str(caught.value)), caught.value


@pytest.mark.parametrize(
    ("new", "reason"),
    [
        ("new_switch: 1", "'new_switch'.*--ignore-key"),
        ("channels: many", "channels is 'many'"),
        ("channels: -3", "channels"),
        ("channels: 1.5", "channels is '1.5'"),
        ("rope: perhaps", "rope is 'perhaps'; expected 0 or 1"),
        ("seq_order: up", "seq_order is 'up'"),
        ("norm_type: batch", "norm_type is 'batch'"),
        ("text: bert", "text is 'bert'"),
        ("noise_std: 3 apples", "noise_std"),
    ],
)
def test_a_setting_that_is_none(tmp_path, new, reason):
    key = new.split(":")[0]
    text = (case_dir("t2i_tiny") / "config.yaml").read_text()
    lines = [line for line in text.splitlines() if not line.startswith(f"- {key}:")]
    path = tmp_path / "model.yaml"
    path.write_text("\n".join([*lines, f"- {new}", ""]))
    checkpoint = case_dir("t2i_tiny") / "checkpoint.pth"
    with pytest.raises(StarflowError, match=reason):
        architecture(checkpoint, config=path)
    if key == "new_switch":
        assert architecture(checkpoint, config=path, ignore_keys=("new_switch",))


def test_training_settings_are_ignored(tmp_path):
    known = "gradient_checkpoint_block: 2\n- fsdp_offload: 1\n- eval_freq: 0\n- wandb_name: x"
    found = architecture(
        case_dir("t2i_tiny") / "checkpoint.pth", **edited(tmp_path, "wds: 1", known)
    )
    assert found.flow == of_case("t2i_tiny").flow


@pytest.mark.parametrize("blocks", ["1", "2", "7"])
def test_the_list_of_layers_says_how_many_blocks_there_are(tmp_path, blocks):
    """Published files have another number under ``blocks``; the list wins."""
    found = architecture(
        case_dir("t2i_tiny") / "checkpoint.pth",
        **edited(tmp_path, "blocks: 3", f"blocks: {blocks}"),
    )
    assert found.flow == of_case("t2i_tiny").flow


def test_one_number_of_layers_leaves_the_count_to_blocks(tmp_path):
    text = (case_dir("t2i_tiny") / "config.yaml").read_text()
    text = text.replace("layers_per_block: 1 1 3", "layers_per_block: 1")
    path = tmp_path / "model.yaml"
    path.write_text(text.replace("blocks: 3", "blocks: 2"))
    with pytest.raises(ConfigError, match="blocks is 2"):
        architecture(case_dir("t2i_tiny") / "checkpoint.pth", config=path)


def test_absent_settings_come_from_the_weights(tmp_path):
    """Settings that follow from shapes may be missing in the YAML."""
    text = (case_dir("t2i_tiny") / "config.yaml").read_text()
    told = r"- (channels|blocks|layers_per_block|txt_size|sos|rope|cond_top_only|use_final_norm):"
    lines = [line for line in text.splitlines() if not re.match(told, line)]
    path = tmp_path / "model.yaml"
    path.write_text("\n".join([*lines, "- blocks: 3", ""]))
    found = architecture(case_dir("t2i_tiny") / "checkpoint.pth", config=path)
    assert found.flow == of_case("t2i_tiny").flow


def test_a_starflow_needs_its_yaml(tmp_path):
    copy = tmp_path / "checkpoint.pth"
    copy.write_bytes((case_dir("t2i_tiny") / "checkpoint.pth").read_bytes())
    with pytest.raises(ConfigError, match="--config"):
        architecture(copy)
    text = (case_dir("t2i_tiny") / "config.yaml").read_text()
    (tmp_path / "one.yaml").write_text(text)
    assert architecture(copy).flow == of_case("t2i_tiny").flow
    (tmp_path / "two.yaml").write_text(text)
    with pytest.raises(ConfigError, match="several YAML files.*one.yaml, two.yaml"):
        architecture(copy)
    (tmp_path / "checkpoint.yaml").write_text(text)
    assert architecture(copy).flow == of_case("t2i_tiny").flow


def test_a_tarflow_takes_no_yaml():
    config = case_dir("t2i_tiny") / "config.yaml"
    with pytest.raises(ConfigError, match="TarFlow.*class_embed"):
        architecture(case_dir("tarflow_vp") / "checkpoint.pth", config=config)


def test_what_is_no_flow_at_all(tmp_path):
    path = tf.save(tmp_path / "a.pth", {"conv.weight": np.ones((3, 3), np.float32)})
    with pytest.raises(ConfigError, match="not a STARFlow or TarFlow.*conv.weight"):
        architecture(path)


NAMES = {
    "dots_model_2_64_1_1_0.1.pth": None,
    "dots_model_2_64_1_1_0.05.pth": None,
    "dots_model_2_65_1_1_0.1.pth": "channels in the file's name is 65, but 64",
    "dots_model_2_64_3_1_0.1.pth": "blocks in the file's name is 3, but 1",
    "dots_model_2_64_1_7_0.1.pth": "layers in the file's name is 7, but 1",
    "dots_model_3_64_1_1_0.1.pth": "patch in the file's name is 3, but 4",
    "checkpoint.pth": "--noise-std",
}


@pytest.mark.parametrize("name", NAMES)
def test_a_tarflow_name_carries_its_shape(tmp_path, name):
    path = tf.save(tmp_path / name, small_model.arrays())
    if NAMES[name] is not None:
        with pytest.raises(ConfigError, match=NAMES[name]):
            architecture(path)
        return
    flow = architecture(path).flow
    assert f"_{flow.noise_std:g}.pth" in name and (flow.patch_size, flow.in_channels) == (2, 1)
    with pytest.raises(ConfigError, match="0.3, but the file's name says"):
        architecture(path, noise_std=0.3)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("drop", "blocks.1.proj_in.bias"), "'blocks.1.proj_in.bias' is missing"),
        (("add", "blocks.1.surprise"), "'blocks.1.surprise' does not belong"),
        (("shape", "blocks.2.attn_blocks.2.mlp.main.2.weight"), "shape"),
        (("drop", "blocks.2.attn_blocks.1.attention.qkv.weight"), "qkv.weight' is missing"),
        (("drop", "blocks.2.proj_txt.bias"), "proj_txt.bias' is missing"),
    ],
)
def test_every_key_is_accounted_for(tmp_path, change, reason):
    kind, name = change
    tensors = open_checkpoint(case_dir("t2i_tiny") / "checkpoint.pth").tensors
    arrays = {k: t.view() for k, t in tensors.items()}
    if kind == "drop":
        del arrays[name]
    else:
        arrays[name] = np.ones((3, 5), np.float32)
    path = tf.save(tmp_path / "a.pth", arrays)
    with pytest.raises(WeightsError, match=re.escape(name)) as caught:
        architecture(path, config=case_dir("t2i_tiny") / "config.yaml")
    assert re.search(reason, str(caught.value))


def test_smaller_gemma_2_deep_block(tmp_path):
    """Without a query norm the number of heads comes from the table, the head size from it."""
    tensors = open_checkpoint(case_dir("gemma_top") / "checkpoint.pth").tensors
    arrays = {k: t.view() for k, t in tensors.items() if not k.endswith(("query_norm.weight",))}
    arrays = {k: a for k, a in arrays.items() if not k.endswith("key_norm.weight")}
    for k in list(arrays):
        if k.startswith("blocks.2.") and k.endswith("attention.qkv.weight"):
            arrays[k] = np.zeros((16 * (8 + 4 + 4), 80), np.float32)
        if k.startswith("blocks.2.") and k.endswith("attention.proj.weight"):
            arrays[k] = np.zeros((80, 16 * 8), np.float32)
    text = (case_dir("gemma_top") / "config.yaml").read_text()
    (tmp_path / "a.yaml").write_text(text.replace("gemma3_1b", "gemma2_2b"))
    deep = architecture(tf.save(tmp_path / "a.pth", arrays)).flow.blocks[-1]
    assert (deep.heads, deep.kv_heads, deep.head_dim, deep.qk_norm) == (8, 4, 16, False)
