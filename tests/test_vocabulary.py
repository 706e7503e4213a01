"""The embedded model's card and vocabulary, and unknown words."""

import pytest
from command import run  # noqa: F401

from mlx_starflow.bundle.vocabulary import FILE, read_vocabulary
from mlx_starflow.errors import ConfigError
from mlx_starflow.hub.locate import EMBEDDED


def test_unknown_words():
    vocabulary = read_vocabulary(EMBEDDED["default"])
    assert vocabulary.unknown("A Fox, in snow") == []
    assert vocabulary.unknown("a zebra juggles 42 foxes, a zebra") == ["zebra", "juggles", "42"]
    assert "fox" in vocabulary.kinds["subject"] and "night sky" in vocabulary.kinds["place"]


def test_a_bundle_may_have_none_but_no_broken_one(tmp_path):
    assert read_vocabulary(tmp_path) is None
    (tmp_path / FILE).write_text("[1]")
    with pytest.raises(ConfigError, match="vocabulary"):
        read_vocabulary(tmp_path)


def test_the_command_says_who_draws_and_what_is_unknown(run, tmp_path):  # noqa: F811
    quick = ("--guidance", 0, "--no-denoise")
    done = run("generate", "a zebra in snow", "--seed", 1, *quick, "-o", tmp_path / "z.png")
    assert done.status == 0, done.err
    assert done.out.strip() == str(tmp_path / "z.png")
    warning, *who = done.err.splitlines()
    assert not who or ("embedded model" in who[0] and "apple/starflow" in who[0])  # said once
    assert "never seen 'zebra'" in warning


def test_models_show_the_card_and_the_vocabulary(run):  # noqa: F811
    shown = run("models", "show", "default").out
    assert "mushroom" in shown and "#" in shown
