"""The BLAS behind matrix products on a CPU: on Linux, OpenBLAS if it is installed.

The mlx wheels for Linux link the netlib reference BLAS, which is about fifty times slower than
OpenBLAS on large float32 products. If OpenBLAS is loaded before ``mlx.core``, its symbols are
found first and MLX uses it. If ``mlx.core`` was imported before this package, MLX uses the
reference BLAS, and ``blas_in_use`` reports it. ``MLX_STARFLOW_OPENBLAS=0`` in the environment turns
this off.

By default OpenBLAS's threads wait for the next product in a busy loop and take CPU time from MLX.
Here they are set to sleep after the shortest time, which makes sampling token by token about 10 %
faster. If ``OPENBLAS_THREAD_TIMEOUT`` is in the environment, its value is kept.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator

VARIABLE = "MLX_STARFLOW_OPENBLAS"
_TIMEOUT = ("OPENBLAS_THREAD_TIMEOUT", "4")  # 2^4 turns of the busy loop, the smallest value
_LIBRARIES = ("libopenblas.so.0", "libopenblas.so")


def load_openblas() -> bool:
    """Load the system's OpenBLAS before ``mlx.core``; returns whether MLX will use it.

    Does nothing outside Linux, with ``MLX_STARFLOW_OPENBLAS=0``, if ``mlx.core`` is already
    loaded, or if OpenBLAS is not installed (Debian, Ubuntu: ``apt install libopenblas0-pthread``).
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
    """Set the thread timeout in the environment while OpenBLAS is loaded, then restore it."""
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
    """The name of the BLAS behind CPU matrix products, with the reason and remedy if it is the
    reference BLAS."""
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
    """Whether the symbol ``cblas_sgemm``, which MLX calls, resolves to OpenBLAS's."""
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
    """Path of the shared library that contains an address, "" if unknown."""
    info = _DlInfo()
    found = ctypes.CDLL(None).dladdr(ctypes.c_void_p(address), ctypes.byref(info))
    return os.path.realpath(info.file_name.decode()) if found and info.file_name else ""
