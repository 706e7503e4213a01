"""Traced functions and the files they are written to.

A file holds one function of MLX with several traces, which share the weights. MLX finds a trace by
the keywords and shapes it is called with, so the keywords carry the name of the trace.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlx.core as mx

from ..device.activations import for_export

Run = Callable[..., Sequence[mx.array]]
SUFFIX = ".mlxfn"


@dataclass(frozen=True)
class Array:
    """Name, shape and dtype of an input or output."""

    name: str
    shape: tuple[int, ...]
    dtype: mx.Dtype = mx.float32

    def to_dict(self) -> dict[str, Any]:
        """The fields as values that JSON can hold."""
        return {"name": self.name, "shape": list(self.shape), "dtype": dtype_name(self.dtype)}


@dataclass
class Function:
    """One function of an export. Its inputs are passed by keyword, ``name.input``."""

    name: str  # unique in the export
    inputs: tuple[Array, ...]
    outputs: tuple[str, ...]
    run: Run  # (**inputs) -> the outputs; called while MLX traces it
    # Traced for every length 1 ... n of the only axis of the only input, of which n is given.
    every_length: bool = False
    traced: list[Array] = field(default_factory=list)  # the outputs, known after tracing

    def keyword(self, array: str) -> str:
        """The keyword of an input."""
        return f"{self.name}.{array}"

    def to_dict(self, file: str) -> dict[str, Any]:
        """The function's entry in export.json."""
        entry: dict[str, Any] = {
            "file": file,
            "inputs": [a.to_dict() for a in self.inputs],
            "outputs": [a.to_dict() for a in self.traced],
        }
        if self.every_length:
            entry["every_length"] = True
        return entry


def dtype_name(dtype: mx.Dtype) -> str:
    """ "float32" for mx.float32."""
    return str(dtype).removeprefix("mlx.core.")


def write_functions(path: Path, functions: Sequence[Function]) -> dict[str, Any]:
    """Trace functions and write them to one file. Returns their entries in export.json, by name."""

    def dispatch(**given: mx.array) -> list[mx.array]:
        for function in functions:
            names = {function.keyword(a.name): a.name for a in function.inputs}
            if names.keys() == given.keys():
                with for_export():
                    made = list(function.run(**{names[k]: v for k, v in given.items()}))
                function.traced = [
                    Array(name, tuple(a.shape), a.dtype)
                    for name, a in zip(function.outputs, made, strict=True)
                ]
                return made
        raise KeyError(f"no function has the inputs {sorted(given)}")

    with mx.exporter(str(path), dispatch) as exporter:
        for function in functions:
            for shapes in _shapes(function):
                exporter(
                    **{
                        function.keyword(a.name): mx.zeros(shape, a.dtype)
                        for a, shape in zip(function.inputs, shapes, strict=True)
                    }
                )
    return {function.name: function.to_dict(path.name) for function in functions}


def _shapes(function: Function) -> list[list[tuple[int, ...]]]:
    if not function.every_length:
        return [[a.shape for a in function.inputs]]
    (most,) = function.inputs[0].shape
    return [[(n,)] for n in range(1, most + 1)]
