"""The README names only commands and flags that exist; test_docs.py runs what it shows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer

from mlx_starflow.cli import app as cli

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def commands() -> dict:
    return typer.main.get_command(cli.build()).commands


def test_its_table_has_every_command():
    table = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| `.*? \|", README, re.MULTILINE))))
    assert table == set(commands())


WHOLE = re.findall(r"^mlx-starflow (.*)$", README.replace("\\\n", " "), re.MULTILINE)
LINES = [part for line in WHOLE for part in line.split("&& mlx-starflow ")]


@pytest.mark.parametrize("line", LINES)
def test_every_flag_it_shows_exists(line):
    line = re.sub(r'"[^"]*"', "TEXT", line.split(" #")[0])
    command, *rest = commands()[line.split()[0]], *line.split()[1:]
    if hasattr(command, "commands") and rest:
        command = command.commands[rest[0]]
    known = {name for param in command.params for name in param.opts}
    shown = {word for word in line.split() if re.match(r"--?[a-zA-Z]", word)}
    assert shown <= known | {"--help"}
    assert "generate" in " ".join(LINES)
