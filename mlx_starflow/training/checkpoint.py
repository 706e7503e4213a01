"""The files of a training. Every file is written atomically: it is complete or absent.

    adapter_config.json           the settings of the adapter, written first
    adapters.safetensors          the arrays with the fewest held-out bits per dimension so far (the
                                  latest arrays if no pictures are held out)
    0000100_adapters.safetensors  numbered copies of the latest arrays
    training_state.safetensors    arrays, optimizer, step and history, which --resume needs
    loss.csv, loss.png            the loss curve
    latents.safetensors           encoded pictures
    previews/                     pictures drawn from fixed seeds

The state is one file, so its arrays and its counters always belong to the same step.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ..adapters.files import CONFIG, WEIGHTS, AdapterConfig
from ..adapters.saving import write_arrays, write_object
from ..bundle.load import evaluate, load_arrays
from ..bundle.safetensors import read_strings
from ..errors import StarflowError, UsageError
from ..files.fields import Fields, is_number
from ..files.json import JSONError, parse_object
from ..files.regular import is_regular
from .parameters import Arrays

STATE = "training_state.safetensors"
_KEY = "mlx-starflow"
# Temporary names of ``write_whole`` for the files above.
_LEFTOVER = re.compile(
    r"\.(adapter_config|(\d{7}_)?adapters|training_state|loss|latents)-[0-9a-f]{8}\.part"
)


@dataclass(frozen=True)
class Progress:
    """Step counters and history of a training."""

    step: int = 0
    best_bits: float | None = None
    best_step: int = 0
    worse: int = 0  # number of evaluations since the best one
    since: tuple[float, ...] = ()  # bits per dimension of the steps since the last evaluation
    rows: tuple[tuple[int, float | None, float | None, float | None], ...] = field(default=())
    # rows of the loss curve: step, training bits per dimension, held-out bits per dimension and
    # their standard error

    def with_row(
        self, step: int, train: float | None, valid: float | None, error: float | None
    ) -> Progress:
        return replace(self, rows=(*self.rows, (step, train, valid, error)))


class Checkpoint:
    """The directory of a training, with methods that read and write its files."""

    def __init__(self, directory: Path, config: AdapterConfig) -> None:
        self.directory, self.config = directory, config
        for left in directory.glob(".*.part"):  # from a training killed while writing
            if _LEFTOVER.fullmatch(left.name) and is_regular(left):
                left.unlink(missing_ok=True)

    def begin(self) -> None:
        """Create the directory and write adapter_config.json. Errors: UsageError if the directory
        already holds a training or an adapter."""
        if (self.directory / STATE).exists():
            raise UsageError(
                f"{self.directory} already holds a training ({STATE}). Continue it with --resume, "
                "or give another --adapter-path."
            )
        if (self.directory / WEIGHTS).exists():
            raise UsageError(
                f"{self.directory} already holds an adapter ({WEIGHTS}) and no state from which "
                "its training could continue. Give another --adapter-path."
            )
        write_object(self.directory / CONFIG, self.config.to_dict())

    def save_best(self, arrays: Arrays, step: int) -> None:
        write_arrays(self.directory / WEIGHTS, arrays, {"step": str(step)})

    def save_numbered(self, arrays: Arrays, step: int) -> Path:
        return write_arrays(self.directory / f"{step:07d}_{WEIGHTS}", arrays, {"step": str(step)})

    def save_state(self, state: Arrays, progress: Progress, identity: str) -> None:
        about = json.dumps({"identity": identity, **asdict(progress)})
        write_arrays(self.directory / STATE, state, {_KEY: about})

    def read_state(self, identity: str) -> tuple[Arrays, Progress]:
        """The last saved state. Errors: UsageError if there is none or if it belongs to a training
        with other options, pictures or base model; StarflowError if it is damaged."""
        path = self.directory / STATE
        if not is_regular(path):
            raise UsageError(f"{self.directory} holds no training to resume: {STATE} is missing.")
        try:
            fields = Fields(parse_object(read_strings(path).get(_KEY, "{}"), 64 << 20), str(path))
        except JSONError as error:
            raise StarflowError(f"{path}: its header is damaged ({error}).") from None
        if fields.text("identity", "") != identity:
            raise UsageError(
                f"{path} was written by a training with other options, pictures or base model, so "
                "it cannot be resumed. Give the same options, pictures and model, or start a new "
                f"training from its weights with --resume-adapter-file {self.directory / WEIGHTS}."
            )
        progress = Progress(
            fields.whole("step"),
            fields.number("best_bits", None),
            fields.whole("best_step"),
            fields.whole("worse"),
            tuple(_number(v, path) for v in _list(fields.data.get("since", []), path)),
            tuple(_row(row, path) for row in _list(fields.data.get("rows", []), path)),
        )
        arrays = load_arrays(path)
        evaluate(arrays, path)
        return arrays, progress


def _row(row: Any, path: Path) -> tuple[int, float | None, float | None, float | None]:
    if len(_list(row, path)) != 4:
        raise _damaged(path)
    step, *values = row
    train, valid, error = (None if v is None else _number(v, path) for v in values)
    return int(_number(step, path)), train, valid, error


def _list(value: Any, path: Path) -> list[Any]:
    if not isinstance(value, list):
        raise _damaged(path)
    return value


def _number(value: Any, path: Path) -> float:
    if not is_number(value):
        raise _damaged(path)
    return float(value)


def _damaged(path: Path) -> StarflowError:
    return StarflowError(f"{path}: its history is damaged. Start a new training.")
