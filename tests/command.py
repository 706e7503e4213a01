"""Running the command in this process: exit status, standard output and standard error."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from mlx_starflow.cli import app as cli


@dataclass(frozen=True)
class Outcome:
    status: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


@pytest.fixture
def run(capfd, monkeypatch, tmp_path):
    """A function that runs a command, as run("generate", "red", ...), in tmp_path."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments) -> Outcome:
        capfd.readouterr()
        status = cli.run([str(a) for a in arguments])
        return Outcome(status, *capfd.readouterr())

    return call
