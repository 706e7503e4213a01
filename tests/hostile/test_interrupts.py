"""Ctrl-C at any moment of the start ends the command without a traceback of our own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# The command, interrupted by itself while one of its imports is going on.
PROGRAM = """
import os, signal, sys
sys.argv = [{name!r}, "info"]
signal.signal(signal.SIGINT, signal.default_int_handler)

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupting())
from mlx_starflow.cli.app import main
main()
"""
MODULES = ["mlx_starflow.device", "mlx.core", "typer", "mlx_starflow.cli.info"]
MORE = ["mlx_starflow.device.blas", "mlx_starflow.cli.app", "mlx_starflow.files"]


@pytest.mark.parametrize(
    "module", [*MODULES, *(pytest.param(m, marks=pytest.mark.slow) for m in MORE)]
)
def test_an_interrupted_import_is_one_line(module, tmp_path):
    program = PROGRAM.format(name="/usr/bin/mlx-starflow", module=module)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment
    )
    assert done.returncode in (130, -signal.SIGINT), done.stderr
    assert done.stderr.strip() == "mlx-starflow: Interrupted."


def test_other_programs_keep_their_tracebacks():
    program = PROGRAM.format(name="/usr/bin/other", module="mlx_starflow.device.blas")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert "Traceback" in done.stderr


@pytest.mark.slow
def test_interrupts_at_any_moment(tmp_path):
    """Only Python's own start, before the package is reached, may show one."""
    for i in range(60):
        child = subprocess.Popen(
            [sys.executable, "-m", "mlx_starflow", "info"],
            cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )  # fmt: skip
        time.sleep(0.1 + i / 60)
        child.send_signal(signal.SIGINT)
        said = child.communicate(timeout=60)[1]
        assert "Traceback" not in said or "mlx_starflow" not in said, said
