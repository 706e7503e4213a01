"""T5 and Gemma give the numbers of transformers, from components as conversion writes them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from conftest import case_dir, case_info, case_tensors

from mlx_starflow.config import TextConfig
from mlx_starflow.errors import ConfigError, TextError, WeightsError
from mlx_starflow.text import load_encoder
from mlx_starflow.text.gemma import GemmaHidden, build_gemma, build_with_mlx_lm
from mlx_starflow.text.gemma_layers import Gemma
from mlx_starflow.text.t5 import T5Config, T5Encoder, relative_buckets

TOLERANCE = 1e-4  # of the largest absolute value
CASES = ("t5_tiny", "gemma2_tiny", "gemma3_tiny")


def component(case: str, folder: Path, changes: dict | None = None) -> Path:
    """The reference encoder in the form of a bundle's component: names and settings only."""
    source = case_dir(case)
    config = json.loads((source / "config.json").read_text())
    rope = config.pop("rope_parameters", {})
    if "full_attention" in rope:
        config["rope_theta"] = rope["full_attention"]["rope_theta"]
        config["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
    weights: dict[str, mx.array] = {}
    for path in source.glob("*.safetensors"):
        weights |= mx.load(str(path))
    if case == "t5_tiny":
        weights = {k: v for k, v in weights.items() if not k.startswith("decoder.")}
    elif case == "gemma2_tiny":
        weights = {f"model.{k}": v for k, v in weights.items()}
    folder.mkdir(parents=True, exist_ok=True)
    mx.save_safetensors(str(folder / "model.safetensors"), weights, {"format": "mlx"})
    (folder / "config.json").write_text(json.dumps(config | (changes or {})))
    for path in source.glob("tokenizer*"):
        shutil.copyfile(path, folder / path.name)
    return folder


@pytest.fixture(scope="module")
def components(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("encoders")
    return {case: component(case, folder / case) for case in CASES}


def text_config(case: str, **changes) -> TextConfig:
    tensors = case_tensors(case)["hidden"]
    kind = "t5" if case == "t5_tiny" else "gemma"
    base = {"encoder": kind, "length": tensors.shape[1], "channels": tensors.shape[2]}
    return TextConfig(**(base | changes))


def relative_error(found: mx.array, expected: np.ndarray) -> float:
    assert found.shape == expected.shape and found.dtype == mx.float32
    return float(np.abs(np.array(found) - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("case", CASES)
def test_hidden_states_are_those_of_transformers(components, case):
    info, tensors = case_info(case), case_tensors(case)
    found = load_encoder(components[case], text_config(case)).encode(info["prompts"])
    assert relative_error(found.features, tensors["hidden"]) < TOLERANCE
    assert [cut.prompt for cut in found.cuts] == [1]
    assert info["prompts"][1].endswith(found.cuts[0].text)


def test_t5_at_length_200(components):
    info, tensors = case_info("t5_tiny"), case_tensors("t5_tiny")
    encoder = load_encoder(components["t5_tiny"], text_config("t5_tiny", length=200))
    found = encoder.encode(info["prompts"])
    assert relative_error(found.features, tensors["hidden_200"]) < TOLERANCE
    assert found.cuts == ()


@pytest.mark.parametrize("case", ["gemma2_tiny", "gemma3_tiny"])
def test_scaled_token_table_with_the_chat_template(components, case):
    info, tensors = case_info(case), case_tensors(case)
    config = text_config(case, encoder="gemma_tokens", masked=False, chat_template=True)
    found = load_encoder(components[case], config).encode(info["prompts"])
    assert relative_error(found.features, tensors["template_embeddings"]) < 1e-6
    wide = TextConfig("gemma_tokens", 300, config.channels, masked=False, chat_template=True)
    encoder = load_encoder(components[case], wide)
    features = np.array(encoder.encode(["a fox"]).features)[0]
    pad = np.array(
        mx.load(str(components[case] / "model.safetensors"))["model.embed_tokens.weight"]
    )
    pad = pad[0] * np.sqrt(config.channels, dtype=np.float32)
    place = 0 if case == "gemma2_tiny" else -1
    assert np.allclose(features[place], pad, atol=1e-6)  # padding keeps its embedding


@pytest.mark.parametrize("case", CASES)
def test_a_prompt_does_not_depend_on_its_neighbours(components, case):
    encoder = load_encoder(components[case], text_config(case))
    prompts = case_info(case)["prompts"]
    together = np.array(encoder.encode(prompts).features)
    for i, prompt in enumerate(prompts):
        assert np.array_equal(np.array(encoder.encode([prompt]).features)[0], together[i])
    assert encoder.encode([]).features.shape == (0, *together.shape[1:])


@pytest.mark.parametrize("case", CASES)
def test_padding_is_zero_and_stands_where_the_tokenizer_pads(components, case):
    encoder = load_encoder(components[case], text_config(case))
    features = np.array(encoder.encode(case_info(case)["prompts"]).features)
    zero = np.abs(features).max(-1) == 0
    assert np.array_equal(zero, case_tensors(case)["attention_mask"] == 0)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", [mx.bfloat16, mx.float16])
def test_half_precision_stays_near(components, case, dtype):
    encoder = load_encoder(components[case], text_config(case), dtype=dtype)
    features = encoder.encode(case_info(case)["prompts"]).features
    error = relative_error(features, case_tensors(case)["hidden"])
    assert error < 0.06, f"{case} in {dtype}: off by {error:.3g} of the largest value"


def test_gemma_scales_its_embeddings_exactly_at_any_width():
    """The square root of 48 is not exact in bfloat16; mlx-lm would have an error of 0.1 %."""
    config = {
        "model_type": "gemma3_text",
        "hidden_size": 48,
        "num_hidden_layers": 0,
        "intermediate_size": 64,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 24,
        "vocab_size": 10,
    }
    model = build_gemma(config)
    model.model.norm = nn.Identity()
    rows = GemmaHidden(model, 0)(mx.array([3, 7]))
    table = np.array(model.model.embed_tokens.weight)
    assert np.allclose(np.array(rows), table[[3, 7]] * np.sqrt(48), rtol=1e-6)


@pytest.mark.parametrize("case", ["gemma2_tiny", "gemma3_tiny"])
@pytest.mark.parametrize(("window", "layers", "reach"), [(3, 1, 3), (0, 1, 99), (3, 2, 99)])
def test_sliding_layers_see_their_window_only(components, case, window, layers, reach):
    """The first layer slides and the second does not: a token moves what lies within reach."""
    config = json.loads((components[case] / "config.json").read_text())
    model = GemmaHidden(build_gemma(config | {"num_hidden_layers": layers}), window)
    before = np.array(model(mx.array([5, 6, 7, 8, 9, 10])))
    after = np.array(model(mx.array([30, 6, 7, 8, 9, 10])))
    moved = np.abs(after - before).max(-1) > 1e-6
    assert list(moved) == [position < reach for position in range(6)]


def test_a_quantized_table_is_read(components, tmp_path):
    source = components["gemma3_tiny"]
    folder = shutil.copytree(source, tmp_path / "quantized")
    weights = mx.load(str(source / "model.safetensors"))
    parts = mx.quantize(weights.pop("model.embed_tokens.weight"), group_size=32, bits=8)
    for name, part in zip(("weight", "scales", "biases"), parts, strict=True):
        weights[f"model.embed_tokens.{name}"] = part
    mx.save_safetensors(str(folder / "model.safetensors"), weights)
    config = json.loads((folder / "config.json").read_text())
    config["quantization"] = {"group_size": 64, "bits": 4}
    config["quantization"]["model.embed_tokens"] = {"group_size": 32, "bits": 8}
    (folder / "config.json").write_text(json.dumps(config))
    text = text_config("gemma3_tiny", encoder="gemma_tokens", masked=False, chat_template=True)
    prompts = case_info("gemma3_tiny")["prompts"]
    found = load_encoder(folder, text).encode(prompts).features
    assert relative_error(found, case_tensors("gemma3_tiny")["template_embeddings"]) < 0.01
    del config["quantization"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="'quantization' is missing"):
        load_encoder(folder, text)


def test_the_wrong_encoder_is_refused(components, tmp_path):
    with pytest.raises(TextError, match="features are 32 wide.*trained with 48"):
        load_encoder(components["t5_tiny"], text_config("t5_tiny", channels=48))
    with pytest.raises(TextError, match="type 't5'; this model needs gemma2 or gemma3_text"):
        load_encoder(components["t5_tiny"], text_config("t5_tiny", encoder="gemma"))
    with pytest.raises(TextError, match="names none"):
        load_encoder(None, text_config("t5_tiny"))
    with pytest.raises(ConfigError, match="'masked' is false"):
        load_encoder(components["t5_tiny"], text_config("t5_tiny", masked=False))
    with pytest.raises(TextError, match="is missing"):
        load_encoder(tmp_path, text_config("t5_tiny"))


def test_damaged_components_are_refused(components, tmp_path):
    config = text_config("gemma3_tiny")
    nested = {"rope_parameters": {"rope_type": "default"}}
    with pytest.raises(ConfigError, match="'rope_parameters' is nested"):
        load_encoder(component("gemma3_tiny", tmp_path / "nested", nested), config)
    both = {"use_bidirectional_attention": True}
    with pytest.raises(ConfigError, match="bidirectional"):
        load_encoder(component("gemma3_tiny", tmp_path / "both", both), config)
    missing = component("t5_tiny", tmp_path / "missing")
    weights = mx.load(str(missing / "model.safetensors"))
    del weights["encoder.final_layer_norm.weight"]
    mx.save_safetensors(str(missing / "model.safetensors"), dict(weights))
    with pytest.raises(WeightsError, match=r"encoder\.final_layer_norm\.weight"):
        load_encoder(missing, text_config("t5_tiny"))
    tokens = text_config("gemma3_tiny", encoder="gemma_tokens", masked=False)
    small = component("gemma3_tiny", tmp_path / "small", {"vocab_size": 100})
    with pytest.raises(WeightsError, match=r"embed_tokens\.weight has shape \(128, 64\)"):
        load_encoder(small, tokens)
    (missing / "config.json").write_text("{")
    with pytest.raises(ConfigError, match="not valid JSON"):
        load_encoder(missing, text_config("t5_tiny"))


@pytest.mark.parametrize("projection", ["gated-gelu", "gated-silu", "relu", "gelu"])
def test_every_form_of_t5_feed_forward(projection):
    config = T5Config.from_dict(
        {
            "d_model": 16,
            "d_kv": 4,
            "d_ff": 24,
            "num_heads": 2,
            "num_layers": 2,
            "vocab_size": 9,
            "feed_forward_proj": projection,
        }
    )
    assert config.gated == projection.startswith("gated")
    model = T5Encoder(config)
    layer = model.encoder.block[1].layer[1].DenseReluDense
    assert ("wi" in layer) != config.gated
    found = model(mx.array([[1, 2, 3]]))
    assert found.shape == (1, 3, 16) and mx.all(mx.isfinite(found)).item()


def test_t5_settings_are_checked():
    with pytest.raises(ConfigError, match="'d_model' is missing"):
        T5Config.from_dict({})
    sizes = {k: 8 for k in ("d_model", "d_kv", "d_ff", "num_heads", "num_layers", "vocab_size")}
    with pytest.raises(ConfigError, match="activation 'swish'"):
        T5Config.from_dict(sizes | {"dense_act_fn": "swish"})


@pytest.mark.parametrize(("buckets", "distance"), [(32, 128), (16, 64), (8, 20)])
def test_relative_buckets(buckets, distance):
    table = np.array(relative_buckets(200, buckets, distance))
    half = buckets // 2
    query, key = np.arange(200)[:, None], np.arange(200)[None, :]
    assert np.array_equal(table, np.where(key > query, half, 0) + table.T % half)  # symmetric
    exact = half // 2
    assert np.array_equal(table[:exact, 0], np.arange(exact))
    assert np.all(np.diff(table[:, 0]) >= 0) and table[:, 0].max() == half - 1
    assert np.all(table[distance:, 0] == half - 1)


@pytest.mark.parametrize("case", ["gemma2_tiny", "gemma3_tiny"])
def test_our_gemma_layers_are_mlx_lms(components, case):
    """In float32, with every weight a number of its own."""
    config = json.loads((components[case] / "config.json").read_text())
    ours, theirs = build_gemma(config), build_with_mlx_lm(config)
    assert isinstance(ours, Gemma) and not isinstance(theirs, Gemma)
    weights = list(mx.load(str(components[case] / "model.safetensors")).items())
    ours.load_weights(weights, strict=True)
    theirs.load_weights(weights, strict=True)
    ids = mx.array([2, 5, 7, 11, 3, 8])
    window = config.get("sliding_window") or 0
    mine, other = GemmaHidden(ours, window)(ids), GemmaHidden(theirs, window)(ids)
    assert mx.abs(mine - other).max().item() < 1e-5 * mx.abs(other).max().item()


def test_a_small_gemma_needs_no_mlx_lm():
    program = (
        "import sys, mlx_starflow as sf\n"
        "sf.load().encode_prompts(['a fox'])\n"
        "print([m for m in ('mlx_lm', 'transformers', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr
