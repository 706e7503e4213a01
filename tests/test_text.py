"""Templates, labels, sizes and tokens: everything around a text encoder."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import numpy as np
import pytest
from conftest import case_dir, case_info, case_tensors

from mlx_starflow.config import ASPECT_RATIOS, TextConfig
from mlx_starflow.errors import TextError, UsageError
from mlx_starflow.generation.aspect import image_size
from mlx_starflow.text import load_encoder, prompt_text
from mlx_starflow.text.tokenizer import PromptTokenizer


def text_config(**changes) -> TextConfig:
    return TextConfig(**{"encoder": "t5", "length": 12, "channels": 32, **changes})


# Templates


def test_the_released_model_gets_the_prompt_as_it_is():
    assert prompt_text("a fox", text_config(), "16:9") == "a fox"
    assert prompt_text("", text_config()) == ""


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"fps": True}, "An image:\na fox\n"),
        ({"noise_level": 0.3}, "Noise Level 300:\na fox"),
        ({"noise_level": 0.0}, "Noise Level 0:\na fox"),
        ({"aspect_ratio": True}, "a fox\n in a 16:9 aspect ratio.\n"),
        (
            {"chat_template": True},
            "<start_of_turn>user\nPlease generate an image about: a fox<end_of_turn>\n"
            "<start_of_turn>model\n",
        ),
        (
            {"fps": True, "noise_level": 0.1, "aspect_ratio": True, "chat_template": True},
            "<start_of_turn>user\nPlease generate an image about: Noise Level 100:\nAn image:\n"
            "a fox\n\n in a 16:9 aspect ratio.\n<end_of_turn>\n<start_of_turn>model\n",
        ),
    ],
)
def test_each_step_of_the_template_in_its_order(changes, expected):
    assert prompt_text("a fox", text_config(**changes), "16:9") == expected


def test_the_null_caption_goes_through_the_same_steps():
    config = text_config(noise_level=0.3, aspect_ratio=True)
    assert prompt_text("", config) == "Noise Level 300:\n\n in a 1:1 aspect ratio.\n"


# Sizes


@pytest.mark.parametrize(("size", "multiple"), [(256, 8), (512, 16), (64, 8), (768, 32)])
def test_sizes_keep_the_area_and_the_ratio(size, multiple):
    for aspect in ASPECT_RATIOS:
        width, height = image_size(aspect, size, multiple)
        w, h = map(int, aspect.split(":"))
        assert width % multiple == height % multiple == 0
        assert abs(width - size * math.sqrt(w / h)) <= multiple / 2
        assert abs(height - size * math.sqrt(h / w)) <= multiple / 2
    assert image_size("1:1", size, multiple) == (size, size)


def test_sizes_of_known_models():
    assert image_size("16:9", 256, 8) == (344, 192)
    assert image_size("9:16", 256, 8) == (192, 344)
    assert image_size("2:3", 512, 16) == (416, 624)
    with pytest.raises(UsageError, match="7:5.*1:1, 2:3"):
        image_size("7:5", 256, 8)


# Labels


def label_config(**changes) -> TextConfig:
    names = ("cat", "Tabby dog", "7", "fox")
    return text_config(
        **{"encoder": "labels", "length": 1, "channels": 5, "labels": names} | changes
    )


def test_labels_are_one_hot_rows_with_null_last():
    encoder = load_encoder(None, label_config())
    found = encoder.encode(["fox", "tabby DOG", "0", "7", "", " cat "])
    assert found.cuts == ()
    assert np.array_equal(np.array(found.features)[:, 0], np.eye(5)[[3, 1, 0, 2, 4, 0]])
    assert encoder.encode([]).features.shape == (0, 1, 5)


def test_labels_of_the_reference_case():
    reference = case_tensors("labels")["text"]
    config = label_config(labels=(), channels=reference.shape[-1])
    indices = reference[:2, 0].argmax(-1)
    features = load_encoder(None, config).encode([*map(str, indices), "", ""]).features
    assert np.array_equal(np.array(features), reference)


def test_unknown_labels_are_refused_with_a_hint():
    encoder = load_encoder(None, label_config())
    with pytest.raises(TextError, match="'fix' is not a class.*0 to 3.*Did you mean 'fox'"):
        encoder.encode(["fix"])
    for label in ("4", "-1", "1.5"):
        with pytest.raises(TextError, match="is not a class"):
            encoder.encode([label])
    with pytest.raises(TextError, match="4 names are given"):
        load_encoder(None, label_config(channels=9))
    with pytest.raises(TextError, match="one token"):
        load_encoder(None, label_config(length=3))


# Tokens


@pytest.mark.parametrize("case", ["t5_tiny", "gemma2_tiny", "gemma3_tiny"])
def test_tokens_are_those_of_transformers(case):
    info, tensors = case_info(case), case_tensors(case)
    tokenizer = PromptTokenizer(case_dir(case))
    length = info["max_length"]
    assert tokenizer.pad_left == (info.get("padding_side") == "left")
    for i, prompt in enumerate(info["prompts"]):
        tokens = tokenizer.encode(prompt, length)
        mask = np.zeros(length)
        mask[tokenizer.place(len(tokens.ids), length)] = 1
        assert np.array_equal(tokenizer.pad(tokens.ids, length), tensors["input_ids"][i])
        assert np.array_equal(mask, tensors["attention_mask"][i])
        assert prompt.endswith(tokens.cut) and bool(tokens.cut) == (i == 1)


@pytest.mark.parametrize("case", ["t5_tiny", "gemma3_tiny"])
def test_what_was_cut_is_the_rest_of_the_prompt(case):
    tokenizer = PromptTokenizer(case_dir(case))
    prompt = "a fox in snow at night"
    whole = tokenizer.encode(prompt, 1000)
    assert whole.cut == ""
    assert tokenizer.encode(prompt, len(whole.ids)) == whole
    for length in range(2, len(whole.ids)):
        tokens = tokenizer.encode(prompt, length)
        assert len(tokens.ids) == length
        assert prompt.endswith(tokens.cut) and tokens.cut
        kept = tokenizer.encode(prompt[: len(prompt) - len(tokens.cut)], 1000)
        # A cut inside a word may tokenise differently on its own, but never into more.
        assert len(kept.ids) <= length + 1
    # T5 keeps its end token, Gemma its beginning.
    one = tokenizer.encode(prompt, 1).ids
    assert one == (whole.ids[-1] if case == "t5_tiny" else whole.ids[0],)


@pytest.mark.parametrize("case", ["t5_tiny", "gemma3_tiny"])
def test_what_the_tokenizer_does_not_know_is_named(case):
    tokenizer = PromptTokenizer(case_dir(case))
    assert tokenizer.encode("a fox in snow", 100).unread == ()
    found = tokenizer.encode("a \U0001f98a in snow, \u96ea \U0001f98a", 100)
    assert found.unread == ("\U0001f98a", "\u96ea")
    assert tokenizer.encode("a fox in snow " * 50 + "\u96ea", 8).unread == ("\u96ea",)


def edited_tokenizer(folder, case: str, **settings) -> PromptTokenizer:
    source = case_dir(case)
    config = json.loads((source / "tokenizer_config.json").read_text())
    config |= settings
    kept = {k: v for k, v in config.items() if v is not None}
    (folder / "tokenizer_config.json").write_text(json.dumps(kept))
    (folder / "tokenizer.json").write_bytes((source / "tokenizer.json").read_bytes())
    return PromptTokenizer(folder)


def test_settings_of_the_tokenizer_are_honoured(tmp_path):
    plain = edited_tokenizer(tmp_path, "gemma3_tiny").encode("a fox", 9).ids
    left = edited_tokenizer(tmp_path, "gemma3_tiny", padding_side="left")
    assert left.pad((5, 6), 4) == (0, 0, 5, 6) and left.place(2, 4) == slice(2, 4)
    # Gemma's own class pads left where the file does not say.
    unsaid = {"padding_side": None, "tokenizer_class": "GemmaTokenizer"}
    assert edited_tokenizer(tmp_path, "gemma3_tiny", **unsaid).pad_left
    assert not edited_tokenizer(tmp_path, "t5_tiny", padding_side=None).pad_left
    bare = edited_tokenizer(tmp_path, "gemma3_tiny", add_bos_token=False)
    assert bare.encode("a fox", 9).ids == plain[1:] and bare.encode("", 9).ids == ()
    both = edited_tokenizer(tmp_path, "gemma3_tiny", add_bos_token=True, add_eos_token=True)
    assert both.encode("a fox", 9).ids == (*plain, 1)
    as_object = edited_tokenizer(tmp_path, "gemma3_tiny", pad_token={"content": "<eos>"})
    assert as_object.pad_id == 1
    from_left = edited_tokenizer(tmp_path, "gemma3_tiny", truncation_side="left")
    cut = from_left.encode("a fox in snow", 4)
    assert cut.ids[0] == plain[0] and len(cut.ids) == 4 and "a fox in snow".startswith(cut.cut)


def test_text_that_is_no_text_is_refused():
    tokenizer = PromptTokenizer(case_dir("t5_tiny"))
    with pytest.raises(TextError, match=r"position 3.*'a \\udcff'"):
        tokenizer.encode("a \udcff fox", 9)
    assert tokenizer.encode("na\u00efve caf\u00e9 \u6771", 30).ids
    encoder = load_encoder(None, label_config())
    with pytest.raises(TextError, match="expected a list of strings"):
        encoder.encode("fox")
    with pytest.raises(TextError, match="expected a list of strings"):
        encoder.encode([3])


def test_a_missing_or_broken_tokenizer_is_named(tmp_path):
    with pytest.raises(TextError, match=r"tokenizer\.json is missing"):
        PromptTokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(TextError, match="is not a tokenizer"):
        PromptTokenizer(tmp_path)
    with pytest.raises(TextError, match="padding token '<none>'"):
        edited_tokenizer(tmp_path, "t5_tiny", pad_token="<none>")
    (tmp_path / "tokenizer_config.json").write_text("[]")
    with pytest.raises(TextError, match="expected an object"):
        PromptTokenizer(tmp_path)


def test_importing_the_package_does_not_import_encoders():
    code = (
        "import sys, mlx_starflow, mlx_starflow.text\n"
        "heavy = {'transformers', 'mlx_lm', 'tokenizers', 'huggingface_hub'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
