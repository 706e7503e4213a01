"""Evaluation of long computations in pieces, so that no evaluation occupies a GPU for seconds.

macOS aborts a Metal command buffer that runs for about five seconds ("Caused GPU Timeout Error")
or that blocks the drawing of the screen ("Impacting Interactivity"). MLX limits the number of MLX
operations in a buffer, but not their floating-point operations, so code with long computations
counts these and calls ``mx.eval`` in between.
"""

from __future__ import annotations

import mlx.core as mx

# Most floating-point operations in one evaluation. An M1, the slowest chip, is assumed to do 2e12
# per second in float32 products of these shapes, so this takes it about half a second.
LARGEST = 1e12


def is_short(operations: float) -> bool:
    """Whether so many floating-point operations may be one evaluation."""
    return operations <= LARGEST


class Pieces:
    """Counts floating-point operations and evaluates before they exceed ``largest``."""

    def __init__(self, largest: float | None = None) -> None:
        self.largest = LARGEST if largest is None else largest
        self.waiting = 0.0
        self._last: tuple[mx.array, ...] = ()  # the results so far that wait to be evaluated

    def add(self, operations: float, *arrays: mx.array) -> None:
        """Count ``operations`` more, whose results are ``arrays``. Evaluates the results before
        them if the limit would be exceeded, and these if another step of the same size would
        exceed it. Does nothing more than count inside a function that MLX is tracing (compile,
        vjp), where evaluation is not possible."""
        if self._last and self.waiting + operations > self.largest:
            _evaluate(self._last)
            self.waiting = 0.0
        self.waiting, self._last = self.waiting + operations, arrays
        if self.waiting + operations > self.largest:
            _evaluate(arrays)
            self.waiting, self._last = 0.0, ()

    def end(self, *arrays: mx.array) -> None:
        """End a part of the computation: evaluates if an eighth of the limit has been counted. The
        next part counts from zero."""
        if self.waiting > self.largest / 8:
            _evaluate(arrays)
            self.waiting, self._last = 0.0, ()


def evaluate(*arrays: mx.array) -> None:
    """Evaluate arrays now. Does nothing inside a function that MLX is tracing."""
    _evaluate(arrays)


def _evaluate(arrays: tuple[mx.array, ...]) -> None:
    try:
        mx.eval(*arrays)
    except ValueError as error:
        if "transformations" not in str(error):
            raise
