"""The entropy coder: range coding by the ``constriction`` package, as bytes without padding."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..errors import CodecError, UsageError
from .codec_integers import deviation_of

_WORD = 4  # bytes of the coder's words


def coder() -> Any:
    """The module ``constriction.stream``. Errors: UsageError if it is not installed."""
    try:
        import constriction
    except ImportError:
        raise UsageError(
            "Compressing needs the package constriction, which is not installed: "
            "pip install 'mlx-starflow[codec]', or pip install constriction."
        ) from None
    return constriction.stream


class Writer:
    """Codes symbols, one token after another."""

    def __init__(self, extent: int) -> None:
        """``extent``: symbols lie in -2^extent ... 2^extent."""
        self._model = _model(extent)
        self._encoder = coder().queue.RangeEncoder()
        self._calls: list[tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]] = []

    def put(self, q: np.ndarray, scale: np.ndarray) -> None:
        """Code symbols (n,) with Gaussians around zero of these scales (n,), see
        ``codec_integers``."""
        parameters = _gaussian(scale)
        self._encoder.encode(q, self._model, *parameters)
        self._calls.append((q, parameters))

    def code(self) -> bytes:
        """The code, without trailing bytes that the reader does not need (after the end it reads
        zeros)."""
        data = self._encoder.get_compressed().astype(">u4").tobytes()
        for length in range(max(0, len(data) - 2 * _WORD), len(data)):
            for shorter in _endings(data[:length]):
                if self._reads(shorter):
                    return shorter
        return data

    def _reads(self, data: bytes) -> bool:
        decoder = coder().queue.RangeDecoder(_words(data))
        try:
            return all(
                np.array_equal(decoder.decode(self._model, *parameters), q)
                for q, parameters in self._calls
            )
        except AssertionError:  # the package raises this for invalid data
            return False


class Reader:
    """Decodes the output of a ``Writer``. Other bytes give arbitrary symbols or an error."""

    def __init__(self, data: bytes, extent: int) -> None:
        self._model = _model(extent)
        self._decoder = coder().queue.RangeDecoder(_words(data))

    def take(self, scale: np.ndarray) -> np.ndarray:
        """The next symbols (n,) int32, for the scales of ``Writer.put``. Errors: CodecError."""
        try:
            return self._decoder.decode(self._model, *_gaussian(scale))
        except (AssertionError, ValueError) as error:  # raised by the package for invalid data
            raise CodecError(f"The code cannot be read ({error}); the file is damaged.") from None


def _model(extent: int) -> Any:
    return coder().model.QuantizedGaussian(-(1 << extent), 1 << extent)


def _gaussian(scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means and standard deviations in steps."""
    return np.zeros(len(scale)), deviation_of(scale)


def _words(data: bytes) -> np.ndarray:
    padded = data + bytes(-len(data) % _WORD + 2 * _WORD)
    return np.frombuffer(padded, ">u4").astype(np.uint32)


def _endings(data: bytes) -> Iterator[bytes]:
    """The bytes, and the bytes as a big-endian number plus one."""
    yield data
    if data:
        larger = int.from_bytes(data, "big") + 1
        if larger < 1 << (8 * len(data)):
            yield larger.to_bytes(len(data), "big")
