"""TensorFloat-32 is off in every entry point before MLX is there, and nothing else is changed."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import pytest
from command import run  # noqa: F401

from mlx_starflow.device.precision import VARIABLE, forbid_tf32, tf32_allowed, tf32_in_use

# Runs an entry point, and notes the variable at the moment at which mlx.core is imported: the end.
WATCH = """
import os, runpy, sys
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "mlx.core" and not seen:
            seen.append(os.environ.get("MLX_ENABLE_TF32"))
            raise SystemExit
seen = []
sys.meta_path.insert(0, Watch())
try:
    {run}
except SystemExit:
    pass
sys.stderr.write("seen " + repr(seen))
"""
ENTRIES = {
    "library": "import mlx_starflow; import mlx.core",
    "a name of the library": "from mlx_starflow import invert",
    "a deep module": "import mlx_starflow.flow.layers",
    "command": "sys.argv = ['mlx-starflow', 'info']; from mlx_starflow.cli.app import main; main()",
    "python -m mlx_starflow": "sys.argv = ['mlx-starflow', 'generate', '--help']; "
    "runpy.run_module('mlx_starflow', run_name='__main__')",
    "cli.py": "sys.argv = ['cli.py', 'info']; runpy.run_path('cli.py', run_name='__main__')",
    "converter": "sys.argv = ['x', '--help']; "
    "runpy.run_module('convert.from_torch', run_name='__main__')",
    "a module of the converter": "import convert.bundle",
}


def python(program: str, **variables: str) -> subprocess.CompletedProcess:
    environment = {k: v for k, v in os.environ.items() if k != VARIABLE} | variables
    return subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )


@pytest.mark.parametrize("entry", ENTRIES)
def test_it_is_off_before_mlx_is_imported(entry):
    done = python(WATCH.format(run=ENTRIES[entry]))
    assert done.stderr.endswith("seen ['0']"), done.stderr


def test_a_choice_of_the_user_stays():
    program = "import mlx_starflow, os; print(os.environ['MLX_ENABLE_TF32'])"
    assert python(program).stdout == "0\n"
    assert python(program, MLX_ENABLE_TF32="1").stdout == "1\n"
    found = {VARIABLE: "1"}
    forbid_tf32(found)
    assert found == {VARIABLE: "1"}


def test_a_host_program_may_import_mlx_first():
    """What MLX will read, in C, at its first product on a GPU: on a CPU it never asks."""
    program = """
import ctypes, mlx.core as mx
waiting = mx.ones((2, 2)) @ mx.ones((2, 2))
import mlx_starflow
getenv = ctypes.CDLL(None).getenv
getenv.restype = ctypes.c_char_p
print(getenv(b"MLX_ENABLE_TF32"))
"""
    assert python(program).stdout == "b'0'\n"
    assert python(program, MLX_ENABLE_TF32="1").stdout == "b'1'\n"


def test_mlx_asks_for_the_variable_no_earlier_than_at_a_product():
    """By the header of the installed MLX: in a function, when it is called for the first time."""
    header = Path(mx.__file__).parent / "include" / "mlx" / "utils.h"
    places = re.findall(r"^.*\n.*MLX_ENABLE_TF32.*$", header.read_text(), re.MULTILINE)
    assert len(places) == 1
    assert re.fullmatch(r"inline bool \w+\(\) {\n +static bool \w+ = get_var\(.*\);", places[0])


def test_importing_changes_nothing_else():
    program = """
import json, os, random, signal, sys, threading, warnings
def state():
    return [dict(os.environ), signal.getsignal(signal.SIGINT) is signal.default_int_handler,
            sys.getrecursionlimit(), warnings.filters[:], threading.active_count(),
            random.getstate()[1][:3], os.getcwd()]
before = state()
import mlx_starflow
after = state()
changed = {k: v for k, v in after[0].items() if before[0].get(k) != v}
assert before[1:] == after[1:] and not set(before[0]) - set(after[0])
heavy = [m for m in ("mlx", "mlx.core", "numpy", "PIL", "typer", "mlx_lm") if m in sys.modules]
print(json.dumps([changed, heavy]))
"""
    changed, heavy = json.loads(python(program).stdout)
    assert changed == {VARIABLE: "0"} and heavy == []


def test_every_public_name_is_found_when_it_is_used():
    program = """
import mlx_starflow as sf
missing = [name for name in sf.__all__ if getattr(sf, name, None) is None]
assert not missing and set(sf.__all__) <= set(dir(sf)), missing
assert sf.invert is sf.sampling.invert and sf.errors.StarflowError is sf.StarflowError
try:
    sf.nothing
except AttributeError as error:
    assert "nothing" in str(error)
"""
    python(program)


@pytest.mark.parametrize(
    ("value", "allowed"), [("0", False), ("1", True), (None, True), ("", False), ("2", True)]
)
def test_what_mlx_makes_of_the_variable(monkeypatch, value, allowed):
    monkeypatch.delenv(VARIABLE, raising=False)
    if value is not None:
        monkeypatch.setenv(VARIABLE, value)
    assert tf32_allowed() is allowed
    assert ("off" == tf32_in_use()) is not allowed


def test_info_and_settings_tell(run, colours):  # noqa: F811
    import mlx_starflow as sf

    assert json.loads(run("info", "--json").out)["tf32"] == tf32_in_use()
    with sf.load(colours) as pipe:
        assert pipe.generate("red", seed=1).metadata["tf32"] == tf32_in_use()
