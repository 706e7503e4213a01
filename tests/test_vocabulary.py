"""The embedded model's card and vocabulary, and unknown words."""

import subprocess
import sys
from pathlib import Path

import pytest

from mlx_starflow.bundle.vocabulary import FILE, read_vocabulary
from mlx_starflow.errors import ConfigError
from mlx_starflow.hub.locate import EMBEDDED

ROOT = Path(__file__).parents[1]


def command(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, ROOT / "cli.py", *arguments], capture_output=True, text=True, timeout=120
    )


def test_unknown_words():
    vocabulary = read_vocabulary(EMBEDDED)
    assert vocabulary.unknown("A Fox, in snow") == []
    assert vocabulary.unknown("a zebra juggles 42 foxes, a zebra") == ["zebra", "juggles", "42"]
    assert "fox" in vocabulary.kinds["subject"] and "night sky" in vocabulary.kinds["place"]


def test_a_bundle_may_have_none_but_no_broken_one(tmp_path):
    assert read_vocabulary(tmp_path) is None
    (tmp_path / FILE).write_text("[1]")
    with pytest.raises(ConfigError, match="vocabulary"):
        read_vocabulary(tmp_path)


def test_the_command_says_who_draws_and_what_is_unknown(tmp_path):
    done = command("generate", "a zebra in snow", "--seed", "1", "-o", str(tmp_path / "z.png"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / "z.png")
    warning, *who = done.stderr.splitlines()
    assert not who or ("embedded model" in who[0] and "apple/starflow" in who[0])  # said once
    assert "never seen 'zebra'" in warning
    quiet = command("generate", "a fox", "--quiet", "-o", str(tmp_path / "q.png"))
    assert quiet.stderr == ""


def test_models_show_the_card_and_the_vocabulary():
    shown = command("models", "show", "default").stdout
    assert "mushroom" in shown and "#" in shown
