"""What the workflow of the repository runs, and on which machines."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
# Labels of GitHub's runners with Apple silicon end in the version of macOS or in "-xlarge"; those
# with Intel in "-large" or "-intel".
APPLE_SILICON = re.compile(r"macos-(1[5-9]|[2-9]\d)(-xlarge)?")


def jobs() -> dict[str, Any]:
    return yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))["jobs"]


def runners(job: dict[str, Any]) -> list[str]:
    assert job["runs-on"] == "${{ matrix.os }}"
    return job["strategy"]["matrix"]["os"]


def step_that(job: dict[str, Any], key: str, text: str) -> int:
    """The place of the only step whose ``key`` contains a text."""
    (place,) = [i for i, step in enumerate(job["steps"]) if text in step.get(key, "")]
    return place


@pytest.mark.parametrize("name", ["test", "doctor"])
def test_every_push_runs_on_apple_silicon_and_on_linux(name):
    job = jobs()[name]
    found = runners(job)
    assert any(APPLE_SILICON.fullmatch(label) for label in found)
    assert any(label.startswith("ubuntu-") for label in found)
    assert job["strategy"]["fail-fast"] is False  # one system's failure hides no other's
    assert "if" not in job


def test_the_tests_are_those_of_the_makefile():
    job = jobs()["test"]
    step = job["steps"][step_that(job, "run", ".ci/run")]
    assert step == {"run": ".ci/run"}
    commands = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert {"set -eu", "make --no-print-directory test"} <= set(commands)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    recipe = re.search(r"^test:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE).group(1)
    assert "-m pytest" in recipe


def test_the_report_of_doctor_is_kept_even_when_something_is_wrong():
    job = jobs()["doctor"]
    examined = step_that(job, "run", "mlx-starflow doctor --json")
    kept = step_that(job, "uses", "actions/upload-artifact@")
    assert examined < kept
    command = job["steps"][examined]["run"]
    files = {re.search(r"> (\S+)$", command).group(1)}
    files |= set(re.findall(r"--report (\S+)", command))
    upload = job["steps"][kept]
    assert upload["if"] == "always()" and "|| true" not in command
    assert files == set(upload["with"]["path"].split())
    assert "${{ matrix.os }}" in upload["with"]["name"]  # or one would replace another
