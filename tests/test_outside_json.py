"""Untrusted JSON and files: limits hold, wrong values are named, no call blocks forever."""

from __future__ import annotations

import json
import os
import time

import pytest

from mlx_starflow.errors import ConfigError, ImageError
from mlx_starflow.files.fields import Fields
from mlx_starflow.files.json import JSONError, parse_json, parse_object, read_json
from mlx_starflow.files.regular import NotRegular, TooLarge, inside, open_regular, read_regular
from mlx_starflow.files.visible import visible

REFUSED = {
    "too deep": "[" * 40 + "]" * 40,
    "much too deep": '{"a":' * 100_000 + "1" + "}" * 100_000,
    "deep and unfinished": "[" * 3_000_000,
    "many values": "[" + "0," * 600_000 + "0]",
    "5,000 digits": "[" + "9" * 5000 + "]",
    "5,000 decimals": "[0." + "9" * 5000 + "]",
    "NaN": "[NaN]",
    "infinity": "[-Infinity]",
    "a number without end": "[1e999]",
    "one key twice": '{"a": 1, "a": 2}',
    "not UTF-8": b'["\xff"]',
    "nothing": "",
    "quotes without end": '"' + '\\"' * 1_000_000,
    "a backslash at the end": '["\\',
}


@pytest.mark.parametrize("name", REFUSED)
def test_json_is_refused_quickly(name):
    began = time.monotonic()
    with pytest.raises(JSONError):
        parse_json(REFUSED[name])
    assert time.monotonic() - began < 3


def test_honest_json_comes_through():
    value = {"a": [1, -2.5, 1e-30, None, True, '[[[[{{{{ \\ " é \U0001f98a'], "b": {"c": {}}}
    assert parse_json(json.dumps(value)) == value
    assert parse_json(json.dumps(value, ensure_ascii=False).encode()) == value
    assert parse_json('["' + "[" * 1000 + '"]') == ["[" * 1000]  # brackets in a text
    with pytest.raises(JSONError, match="a list instead of an object"):
        parse_object("[1]")
    with pytest.raises(JSONError, match="more than 10"):
        parse_json("[" + " " * 20 + "]", most_bytes=10)


def test_a_file_is_named_and_only_regular_ones_are_read(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("{")
    with pytest.raises(ConfigError, match=r"a\.json is not valid JSON"):
        read_json(path)
    with pytest.raises(ImageError, match="it is a directory"):
        read_json(tmp_path, error=ImageError)
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "none")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_json("a\0b")
    os.mkfifo(tmp_path / "pipe")
    began = time.monotonic()
    with pytest.raises(ConfigError, match="named pipe"):
        read_json(tmp_path / "pipe")
    with pytest.raises(NotRegular, match="device"):
        open_regular("/dev/zero")
    assert time.monotonic() - began < 1
    (tmp_path / "link").symlink_to("/dev/zero")
    with pytest.raises(NotRegular):
        read_regular(tmp_path / "link", 100)
    path.write_bytes(bytes(101))
    with pytest.raises(TooLarge, match="more than 100 bytes"):
        read_regular(path, 100)
    assert len(read_regular(path, 101)) == 101


def test_inside_follows_links(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "out").symlink_to("/etc/hostname")
    (tmp_path / "a" / "in").symlink_to("x")
    (tmp_path / "a" / "circle").symlink_to("circle")
    assert inside(tmp_path / "a" / "in", tmp_path / "a")
    assert not inside(tmp_path / "a" / "out", tmp_path / "a")
    assert not inside(tmp_path / "a" / ".." / "b", tmp_path / "a")


GOOD = {
    "text": "fox", "whole": 3, "number": 2, "switch": False, "texts": ["a"], "wholes": [1, 2.0],
    "inner": {"deep": 1}, "many": [{"deep": 2}], "null": None,
}  # fmt: skip


def test_typed_values():
    f = Fields(GOOD, "a.json")
    assert f.text("text") == "fox" and f.text("none", "x") == "x" and f.text("null", None) is None
    assert f.whole("whole", low=1, high=3) == 3 and isinstance(f.number("number"), float)
    assert f.switch("switch") is False and f.texts("texts") == ("a",)
    assert f.wholes("wholes") == (1, 2) and f.fields("inner").whole("deep") == 1
    assert [m.whole("deep") for m in f.many("many")] == [2] and f.many("none", ()) == ()
    assert "text" in f and "null" not in f and "none" not in f


@pytest.mark.parametrize(
    ("take", "said"),
    [
        (lambda f: f.text("whole"), "whole is 3; expected a text"),
        (lambda f: f.text("text", most=2), "text is 'fox'"),
        (lambda f: f.text("text", one_of=("cat", "dog")), "expected one of 'cat', 'dog'"),
        (lambda f: f.whole("text"), "text is 'fox'; expected a whole number"),
        (lambda f: f.whole("whole", low=0, high=2), "from 0 to 2"),
        (lambda f: f.whole("switch"), "switch is False"),
        (lambda f: f.number("switch"), "expected a number"),
        (lambda f: f.number("number", low=3), "3 or more"),
        (lambda f: f.switch("whole"), "expected true or false"),
        (lambda f: f.texts("wholes"), "wholes is a list"),
        (lambda f: f.texts("text"), "a list of at most"),
        (lambda f: f.wholes("texts"), "whole numbers"),
        (lambda f: f.wholes("wholes", items=1), "at most 1"),
        (lambda f: f.fields("text"), "an object of settings"),
        (lambda f: f.many("texts"), "objects"),
        (lambda f: f.whole("none"), "'none' is missing"),
        (lambda f: f.text("null"), "'null' is missing"),
        (lambda f: f.fields("inner").whole("deep", high=0), "inner.deep is 1"),
        (lambda f: f.many("many")[0].text("deep"), r"many\[0\].deep is 2"),
        (lambda f: f.only(["text"]), "unknown key 'whole'"),
        (lambda f: Fields([], "a.json"), "found a list"),
        (lambda f: Fields({"a": "x\0y"}, "a.json").text("a"), "a is"),
        (lambda f: Fields({"a": "\ud800"}, "a.json").text("a"), "ud800"),
        (lambda f: Fields({"a": 10**5000}, "a.json").whole("a"), "digits"),
        (lambda f: Fields({"a": 10**400}, "a.json").number("a"), "digits"),
        (lambda f: Fields({"a": float("nan")}, "a.json").whole("a"), "nan"),
    ],
)
def test_a_wrong_value_is_named(take, said):
    with pytest.raises(ConfigError, match=said) as caught:
        take(Fields(GOOD, "a.json"))
    assert "a.json" in str(caught.value) and len(str(caught.value)) < 400


def test_nothing_in_a_shown_text_reaches_the_terminal():
    hostile = "a\x1b]0;title\x07\x1b[2J\r\x9b1m\u202egnp.exe\u2028\ud800 é\t\n"
    assert visible(hostile) == (
        "a\\x1b]0;title\\x07\\x1b[2J\\r\\x9b1m\\u202egnp.exe\\u2028\\ud800 é\t\n"
    )
    family = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
    assert visible(family) == family
