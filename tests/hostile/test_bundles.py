"""Malicious bundles and tokenizers: nothing is built from what was not checked, no foreign
memory is read, and what nobody listed is not looked at."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import mlx.core as mx
import pytest
from conftest import case_dir

import mlx_starflow as sf
from convert.from_hub import convert_component
from hostile.refusing import refused
from mlx_starflow.bundle.check import problem_in_bundle
from mlx_starflow.bundle.fingerprint import fingerprint
from mlx_starflow.bundle.load import read_bundle_config
from mlx_starflow.config import FlowConfig, TextConfig, VAEConfig
from mlx_starflow.errors import ConfigError, TextError, UsageError
from mlx_starflow.text import load_encoder
from mlx_starflow.text.labels import LabelEncoder
from mlx_starflow.text.t5 import T5Config, relative_buckets
from mlx_starflow.text.tokenizer import PromptTokenizer

DEEP = '{"a":' * 100_000 + "1" + "}" * 100_000


def edit(path: Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


# Sizes


def test_a_million_layers(bundle):
    path = bundle / "flow" / "config.json"
    blocks = json.loads(path.read_text())["blocks"]
    for layers in (10**6, 10**8, -1, 1.5, "1", True, None, [1]):
        edit(path, blocks=[blocks[0] | {"layers": layers}, *blocks[1:]])
        assert "layers" in refused(lambda: sf.load(bundle).flow)
    edit(path, blocks=blocks * 1000)
    assert "layers" in refused(lambda: sf.load(bundle).flow)


FLOW = {
    "in_channels": [0, -1, 10**6], "patch_size": [0, 10**4], "grid_size": [0, 10**9, "6"],
    "noise_std": [-1, "x", 1e300], "text_channels": [10**9, -5], "text_length": [10**9],
    "num_classes": [-1, 10**12], "soft_clip": [-1], "scale": ["tanh", 3], "sos": ["yes", 1],
    "blocks": [[], {}, "x", [3]], "denoiser": [3, {}],
}  # fmt: skip


@pytest.mark.parametrize("key", FLOW)
def test_a_flow_of_impossible_numbers(key, bundle):
    honest = (bundle / "flow" / "config.json").read_text()
    for value in FLOW[key]:
        (bundle / "flow" / "config.json").write_text(honest)
        edit(bundle / "flow" / "config.json", **{key: value})
        assert key in refused(lambda: sf.load(bundle).flow)


def test_an_autoencoder_of_impossible_numbers():
    good = {"block_out_channels": [32, 64]}
    VAEConfig.from_dict(good)
    for key, value in (
        ("layers_per_block", 10**8), ("block_out_channels", [32, 10**9]),
        ("block_out_channels", [32] * 100), ("block_out_channels", []), ("norm_num_groups", 31),
        ("latent_channels", 0), ("scaling_factor", 0), ("scaling_factor", -1),
        ("use_quant_conv", 1), ("mid_block_add_attention", None),
    ):  # fmt: skip
        assert key in refused(lambda k=key, v=value: VAEConfig.from_dict(good | {k: v}))


def test_a_text_of_impossible_numbers():
    good = {"encoder": "labels", "length": 1, "channels": 3}
    TextConfig.from_dict(good)
    for key, value in (("length", 0), ("channels", 10**12), ("noise_level", -1), ("labels", [3]),
                       ("masked", "no"), ("encoder", 3)):  # fmt: skip
        assert key in refused(lambda k=key, v=value: TextConfig.from_dict(good | {k: v}))
    # One row of a label, and not the square of all of them.
    many = LabelEncoder(TextConfig("labels", 1, 1 << 20))
    assert mx.argmax(many.encode(["7"]).features).item() == 7


def test_parts_that_do_not_fit_each_other(bundle):
    edit(bundle / "config.json", model_type="tarflow")
    assert "model_type" in refused(lambda: sf.load(bundle).generate("red"))
    edit(bundle / "config.json", model_type="starflow", text=None)
    assert "text" in refused(lambda: sf.load(bundle).generate("red"))


@pytest.mark.parametrize("name", ["config.json", "flow/config.json", "vocabulary.json"])
def test_deep_json_in_a_bundle(name, bundle):
    (bundle / name).write_text(DEEP)

    def use() -> None:
        from mlx_starflow.bundle.vocabulary import read_vocabulary

        read_vocabulary(bundle)
        assert sf.load(bundle).flow is not None

    assert "nested" in refused(use)


# Places


@pytest.mark.parametrize(
    "reference", ["../elsewhere", "/etc", "flow/../../x", "hub:../x", "hub:a/b/c", "", ".", 3, None]
)
def test_a_component_may_not_leave_its_bundle(reference, bundle):
    edit(bundle / "config.json", components={"flow": reference})
    assert "components" in refused(lambda: read_bundle_config(bundle))
    assert problem_in_bundle(bundle) is not None


def test_a_flow_that_lies_elsewhere(bundle):
    """Other components may be in a hub repository; for a flow there is nothing that converts it."""
    edit(bundle / "config.json", components={"flow": "hub:some/flow"})
    assert "flow must be a directory" in refused(lambda: read_bundle_config(bundle))
    assert "flow" in problem_in_bundle(bundle)
    assert "flow" in refused(lambda: sf.load(bundle).flow)


def test_files_that_nobody_listed_are_not_read(bundle):
    expected = fingerprint(bundle / "flow")
    for name in ("model-stray.safetensors", "a.safetensors", "deep/b.safetensors"):
        (bundle / "flow" / name).parent.mkdir(exist_ok=True)
        (bundle / "flow" / name).symlink_to("/dev/zero")
    os.mkfifo(bundle / "flow" / "model-pipe.safetensors")
    began = time.monotonic()
    assert fingerprint(bundle / "flow") == expected
    with sf.load(bundle) as pipe:
        pipe.generate("red", seed=1)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("name", ["flow/model.safetensors", "flow/config.json", "config.json"])
def test_pipes_in_the_place_of_files(name, bundle):
    (bundle / name).unlink()
    os.mkfifo(bundle / name)
    began = time.monotonic()
    refused(lambda: sf.load(bundle).flow, seconds=15)
    assert problem_in_bundle(bundle) is not None
    assert time.monotonic() - began < 10


def test_an_index_that_leads_outside(bundle):
    index = bundle / "flow" / "model.safetensors.index.json"
    for shard in ("../../x.safetensors", "/etc/passwd", "", "a/b", 3, "."):
        index.write_text(json.dumps({"weight_map": {"w": shard}}))
        refused(lambda: sf.load(bundle).flow, seconds=15)


# Tokens


TEXT = TextConfig("gemma", 16, 128)


@pytest.mark.parametrize("kind", ["gemma", "gemma_tokens"])
def test_a_token_beyond_the_table(kind, encoder):
    config = TextConfig(kind, 16, 128, masked=kind == "gemma")
    assert load_encoder(encoder, config).encode(["fox"]).features.shape == (1, 16, 128)
    path = encoder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    tokenizer["model"]["vocab"]["fox"] = 10**8
    path.write_text(json.dumps(tokenizer))
    with pytest.raises(TextError, match="the token 100000000"):
        load_encoder(encoder, config).encode(["fox"])


def test_a_token_of_t5_beyond_the_table(tmp_path):
    text, folder = TextConfig("t5", 12, 32), tmp_path / "t5"
    convert_component(case_dir("t5_tiny"), "text_encoder", folder, text)
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    words = tokenizer["model"]["vocab"]
    rows = json.loads((folder / "config.json").read_text())["vocab_size"]
    words += [[f"filler{i}", -99.0] for i in range(len(words), rows)]
    load_encoder(folder, text).encode(["fox"])
    words.append(["\u2581fox", 10.0])
    path.write_text(json.dumps(tokenizer))
    with pytest.raises(TextError, match=f"the token {rows}"):
        load_encoder(folder, text).encode(["fox"])


def test_a_padding_token_beyond_the_table(encoder):
    path = encoder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    tokenizer["model"]["vocab"]["<pad>"] = 90000
    for token in tokenizer["added_tokens"]:
        if token["content"] == "<pad>":
            token["id"] = 90000
    path.write_text(json.dumps(tokenizer))
    with pytest.raises(TextError, match="90000"):
        load_encoder(encoder, TextConfig("gemma_tokens", 16, 128, masked=False)).encode(["fox"])


SIZES = {k: 8 for k in ("d_model", "d_kv", "d_ff", "num_heads", "num_layers", "vocab_size")}


@pytest.mark.parametrize(
    ("buckets", "distance"),
    [(32, 7.9999999), (32, 8), (32, 7), (32, 0), (32, -1), (31, 128), (0, 128), (2, 128),
     (1e9, 2e9), ("32", 128), (32, True), (32, float("nan"))],
)  # fmt: skip
def test_relative_positions_that_read_beyond_their_table(buckets, distance):
    config = {
        "relative_attention_num_buckets": buckets,
        "relative_attention_max_distance": distance,
    }
    with pytest.raises(ConfigError, match="relative_attention"):
        T5Config.from_dict(SIZES | config)
    with pytest.raises(ConfigError, match="layer_norm_epsilon"):
        T5Config.from_dict(SIZES | {"layer_norm_epsilon": -1})


def test_the_least_relative_positions_stay_within_their_table():
    for buckets, distance in ((4, 2), (32, 9), (8, 3)):
        T5Config.from_dict(
            SIZES
            | {
                "relative_attention_num_buckets": buckets,
                "relative_attention_max_distance": distance,
            }
        )
        table = relative_buckets(300, buckets, distance)
        assert 0 <= table.min().item() and table.max().item() < buckets


def replacing(content: str, times: int, pattern: dict | None = None) -> dict:
    step = {"type": "Replace", "pattern": pattern or {"String": "a"}, "content": content}
    return {"normalizer": {"type": "Sequence", "normalizers": [step] * times}}


TOKENIZERS = {
    "a thousand letters for one, three times": replacing("a" * 1000, 3),
    "two letters for one, thirty times": replacing("aa", 30),
    "something at every place": replacing("b" * 100, 1, {"Regex": ""}),
    "a thousand steps and more": replacing("b", 1001),
    "a text twice": {"post_processor": {
        "type": "TemplateProcessing", "special_tokens": {},
        "single": [{"Sequence": {"id": "A", "type_id": 0}}] * 2,
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
    }},
    "a table of characters that is none": {
        "normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}
    },
    "a regular expression without end": {"normalizer": None, "pre_tokenizer": {
        "type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False,
    }},
    "no unknown token": {"model": {"type": "WordLevel", "vocab": {"<pad>": 0}, "unk_token": "?"}},
}  # fmt: skip


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_tokenizer_is_refused(name, encoder, capfd):
    path = encoder / "tokenizer.json"
    edit(path, **TOKENIZERS[name])

    def use() -> None:
        PromptTokenizer(encoder).encode("a" * 2000 + "!", 16)

    refused(use)
    capfd.readouterr()  # a panic is written to standard error by the library itself


def test_a_panic_is_one_of_our_errors(encoder, monkeypatch):
    class PanicException(BaseException):  # as the library's, which cannot be imported
        pass

    tokenizer = PromptTokenizer(encoder)

    class Broken:
        def encode(self, *_, **__):
            raise PanicException("index out of bounds")

    tokenizer._tokenizer = Broken()
    with pytest.raises(TextError, match="index out of bounds"):
        tokenizer.encode("a fox", 16)

    class Interrupted(Broken):
        def encode(self, *_, **__):
            raise KeyboardInterrupt

    tokenizer._tokenizer = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        tokenizer.encode("a fox", 16)


def test_prompts_of_megabytes(encoder):
    tokenizer = PromptTokenizer(encoder)
    with pytest.raises(TextError, match="at most 100000"):
        tokenizer.encode("a" * 5_000_000, 16)


def test_honest_tokenizers_pass(encoder):
    for directory in (encoder, case_dir("t5_tiny"), case_dir("gemma3_tiny")):
        assert PromptTokenizer(directory).encode("a fox in snow", 16).ids


def test_labels_of_thousands_of_digits(colours, classes):
    for bundle in (colours, classes):
        with sf.load(bundle) as pipe, pytest.raises((UsageError, TextError)) as caught:
            pipe.generate("9" * 5000, seed=1)
        assert len(str(caught.value)) < 500


def test_a_honest_flow_is_read_as_before(colours):
    data = json.loads((colours / "flow" / "config.json").read_text())
    config = FlowConfig.from_dict(data)
    assert FlowConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
