"""Long work in pieces, so that no single evaluation keeps a GPU for seconds.

macOS ends a command buffer that runs for some five seconds ("Caused GPU Timeout Error") and one
that keeps the screen from being drawn ("Impacting Interactivity"). MLX cuts buffers by the number
of operations and not by their arithmetic, so whoever knows the arithmetic evaluates in between.
"""

from __future__ import annotations

import mlx.core as mx

# Floating-point operations of one evaluation: about half a second on the slowest chip, an M1, whose
# GPU does some 2e12 a second in float32 products of these shapes.
LARGEST = 1e12


class Pieces:
    """Counts arithmetic and evaluates before there is too much of it in one evaluation."""

    def __init__(self, largest: float | None = None) -> None:
        self.largest = LARGEST if largest is None else largest
        self.waiting = 0.0

    def add(self, operations: float, *arrays: mx.array) -> None:
        """``arrays`` take this many more operations; they are evaluated where as many again would
        be too many at once. Inside a function that MLX traces nothing can be evaluated."""
        self.waiting += operations
        if self.waiting + operations > self.largest:
            _evaluate(arrays)
            self.waiting = 0.0

    def end(self, *arrays: mx.array) -> None:
        """The part ends here: what waits is evaluated if it is much, since the next part begins to
        count anew."""
        if self.waiting > self.largest / 8:
            _evaluate(arrays)
            self.waiting = 0.0


def evaluate(*arrays: mx.array) -> None:
    """Evaluate now where that is possible: not inside a function that MLX traces."""
    _evaluate(arrays)


def _evaluate(arrays: tuple[mx.array, ...]) -> None:
    try:
        mx.eval(*arrays)
    except ValueError as error:
        if "transformations" not in str(error):
            raise
