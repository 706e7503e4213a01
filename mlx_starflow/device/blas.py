"""Which BLAS does the CPU's matrix products: on Linux, OpenBLAS where the system has it.

The mlx wheels for Linux link the netlib reference BLAS, some fifty times slower than OpenBLAS on
large float32 products. A library that is already in the process when ``mlx.core`` is loaded wins
the symbol look-up, so OpenBLAS is loaded first. It cannot be done later: if ``mlx.core`` was
imported before this package, the reference BLAS stays, and ``blas_in_use`` says so.
``MLX_STARFLOW_OPENBLAS=0`` in the environment leaves everything as it is.

OpenBLAS's threads wait for the next product in a busy loop, which takes the core that mlx needs
to prepare it: sampling token by token is a tenth faster when they go to sleep instead.
``OPENBLAS_THREAD_TIMEOUT`` in the environment keeps whatever waiting it asks for.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator

VARIABLE = "MLX_STARFLOW_OPENBLAS"
_TIMEOUT = ("OPENBLAS_THREAD_TIMEOUT", "4")  # 2^4 turns of the busy loop, the least there is
_LIBRARIES = ("libopenblas.so.0", "libopenblas.so")


def load_openblas() -> bool:
    """Load the system's OpenBLAS ahead of ``mlx.core``; True if mlx will use it.

    Does nothing outside Linux, when told not to, when ``mlx.core`` is already there, or when the
    system has no OpenBLAS (Debian, Ubuntu: ``apt install libopenblas0-pthread``).
    """
    if not sys.platform.startswith("linux") or os.environ.get(VARIABLE) == "0":
        return False
    if "mlx.core" in sys.modules:
        return _openblas_is_global()
    with _sleepy_threads():
        for name in _LIBRARIES:
            try:
                ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)
            except OSError:
                continue
            return True
    return False


@contextlib.contextmanager
def _sleepy_threads() -> Iterator[None]:
    """OpenBLAS reads its variables while it is loaded; afterwards the environment is as before."""
    name, value = _TIMEOUT
    if name in os.environ:
        yield
        return
    os.environ[name] = value
    try:
        yield
    finally:
        del os.environ[name]


def blas_in_use() -> str:
    """One phrase for people: the BLAS behind CPU matrix products, and why if it is the slow one."""
    if sys.platform == "darwin":
        return "Accelerate"
    if not sys.platform.startswith("linux"):
        return "unknown"
    if _openblas_is_global():
        return "OpenBLAS"
    if os.environ.get(VARIABLE) == "0":
        return f"as mlx was built (OpenBLAS left out: {VARIABLE}=0)"
    return "reference, slow (apt install libopenblas0-pthread, import mlx_starflow before mlx)"


def _openblas_is_global() -> bool:
    """Whether ``cblas_sgemm``, which mlx calls, is OpenBLAS's in the process's global look-up."""
    try:
        symbol = ctypes.CDLL(None).cblas_sgemm
    except (OSError, AttributeError):
        return False
    return "openblas" in _library_of(ctypes.cast(symbol, ctypes.c_void_p).value or 0)


class _DlInfo(ctypes.Structure):
    _fields_ = [
        ("file_name", ctypes.c_char_p),
        ("base", ctypes.c_void_p),
        ("symbol_name", ctypes.c_char_p),
        ("symbol", ctypes.c_void_p),
    ]


def _library_of(address: int) -> str:
    """Path of the shared library that holds an address ("" if unknown)."""
    info = _DlInfo()
    found = ctypes.CDLL(None).dladdr(ctypes.c_void_p(address), ctypes.byref(info))
    return os.path.realpath(info.file_name.decode()) if found and info.file_name else ""
