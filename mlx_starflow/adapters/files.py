"""Adapters on disk: DIR/adapters.safetensors and DIR/adapter_config.json, named as in mlx-lm.

Arrays are named PATH.lora_a (in, r), PATH.lora_b (r, out) and, for DoRA, PATH.m (out,); an adapter
of kind "full" holds whole weights under their names in the flow. No other files of the directory
are read, and no other formats.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx

from ..bundle.load import evaluate, load_arrays
from ..bundle.safetensors import read_header
from ..config import FlowConfig
from ..errors import (
    ConfigError,
    ModelNotFoundError,
    StarflowError,
    UsageError,
    WeightsError,
)
from ..files.fields import Fields, shown
from ..files.json import read_json
from ..files.regular import is_regular, open_regular
from .changes import LEAVES
from .targets import DEFAULT_KEYS, MAX_RANK, targets

WEIGHTS, CONFIG = "adapters.safetensors", "adapter_config.json"
KINDS = ("lora", "dora", "full")
FLOATS = ("F32", "F16", "BF16")


@dataclass(frozen=True)
class Base:
    """The flow that an adapter was made for."""

    name: str  # name in the configuration of its bundle
    weights: str  # fingerprint of its files
    source: str = ""  # SHA-256 of the checkpoint it was converted from; "" if unknown

    def is_one_with(self, other: Base) -> bool:
        """Whether both have the same weights or were converted from the same checkpoint, possibly
        in different precisions."""
        return self.weights == other.weights or bool(self.source and self.source == other.source)


@dataclass(frozen=True)
class AdapterConfig:
    """The content of adapter_config.json."""

    base: Base
    fine_tune_type: str = "lora"  # one of KINDS
    num_layers: int = -1  # number of adapted layers, counted from the last; -1: all
    rank: int = 16
    scale: float = 1.0  # factor of the low-rank product
    dropout: float = 0.0
    keys: tuple[str, ...] = DEFAULT_KEYS

    def to_dict(self) -> dict[str, Any]:
        base = {"name": self.base.name, "weights": self.base.weights, "source": self.base.source}
        own: dict[str, Any] = {"fine_tune_type": self.fine_tune_type, "num_layers": self.num_layers}
        if self.fine_tune_type != "full":
            own["lora_parameters"] = {
                "rank": self.rank, "scale": self.scale, "dropout": self.dropout,
                "keys": list(self.keys),
            }  # fmt: skip
        return {**own, "base": base}

    @classmethod
    def from_dict(cls, data: Any, where: str) -> AdapterConfig:
        """Read and range-check. Errors: ConfigError that names the file and the key."""
        fields = Fields(data, where)
        base = fields.fields("base", None)
        if base is None:
            raise ConfigError(
                f"{where}: 'base' is missing, so this is not an adapter of mlx-starflow (adapters "
                "of language models have the same file names)."
            )
        kind = fields.text("fine_tune_type", "lora", one_of=KINDS)
        lora = fields.fields("lora_parameters", None) or Fields({}, where)
        if kind != "full" and "rank" not in lora:
            raise ConfigError(f"{where}: 'lora_parameters' with a 'rank' is missing.")
        return cls(
            base=Base(
                base.text("name", "", most=500),
                base.text("weights", most=200),
                base.text("source", "", most=200),
            ),
            fine_tune_type=kind,
            num_layers=fields.whole("num_layers", -1, low=-1, high=1000),
            rank=lora.whole("rank", 16, low=1, high=MAX_RANK),
            scale=lora.number("scale", 1.0, low=-1e4, high=1e4),
            dropout=lora.number("dropout", 0.0, low=0, high=0.99),
            keys=lora.texts("keys", DEFAULT_KEYS, most=100, items=50),
        )


@dataclass(frozen=True)
class Adapter:
    """An adapter on disk whose headers were checked against a flow; ``arrays`` reads its arrays."""

    path: str  # as given by the user
    file: Path
    config: AdapterConfig
    weights: str  # fingerprint of the file

    def arrays(self) -> dict[str, mx.array]:
        """All arrays, evaluated. Errors: WeightsError if one is damaged or not finite."""
        found = load_arrays(self.file)
        evaluate(found, self.file)
        for name, array in found.items():
            if not mx.isfinite(array).all().item():
                raise WeightsError(f"{self.file}: {name!r} holds NaN or infinity; it is damaged.")
        return found


def read_adapter(place: str | Path, flow: FlowConfig, base: Base) -> Adapter:
    """The adapter in a directory, or in one of its .safetensors files, checked against a flow.

    Errors: ModelNotFoundError if there is none, ConfigError if it belongs to another base model
    (the message names both), WeightsError if files are damaged or contradict the configuration.
    """
    path = Path(place).expanduser()
    file = path / WEIGHTS if path.is_dir() else path
    directory = path if path.is_dir() else path.parent
    if not is_regular(file):
        raise ModelNotFoundError(f"{place} holds no adapter: {file} is missing.")
    if file.suffix != ".safetensors":
        raise WeightsError(f"{place}: adapters are read from .safetensors files only.")
    config = read_adapter_config(directory)
    if not base.is_one_with(config.base):
        raise ConfigError(
            f"{place} was made for the model {shown(config.base.name)} (weights "
            f"{shown(config.base.weights)}) and does not fit {shown(base.name)} (weights "
            f"{base.weights}). Name its own model with --model."
        )
    _check_arrays(file, config, flow)
    return Adapter(str(place), file, config, file_fingerprint(file))


def check_stored_adapter(path: str, weights: str, where: str) -> None:
    """Raise UsageError unless the adapter that the settings in a file name exists on this disk and
    has the recorded fingerprint. The settings in a picture from someone else can thus not select
    another adapter, nor download one."""
    place = Path(path).expanduser()
    file = place / WEIGHTS if place.is_dir() else place
    known = is_regular(file) and file.suffix == ".safetensors"
    if not known or file_fingerprint(file) != weights:
        raise UsageError(
            f"{where} was made with the adapter {shown(path, 200)} ({shown(weights)}), which no "
            "longer exists or has changed. Name the adapter to use with --lora DIR SCALE."
        )


def read_adapter_config(directory: Path) -> AdapterConfig:
    """Read DIR/adapter_config.json. Errors: ModelNotFoundError, ConfigError."""
    path = directory / CONFIG
    try:
        return AdapterConfig.from_dict(read_json(path), str(path))
    except FileNotFoundError:
        raise ModelNotFoundError(f"{directory} holds no adapter: {CONFIG} is missing.") from None


def expected(config: AdapterConfig, flow: FlowConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the arrays of a LoRA or DoRA adapter. Errors: UsageError for unknown
    keys."""
    shapes: dict[str, tuple[int, ...]] = {}
    for target in targets(flow, config.keys, config.num_layers):
        own = {
            "lora_a": (target.inputs, config.rank),
            "lora_b": (config.rank, target.outputs),
            "m": (target.outputs,),
        }
        shapes |= {f"{target.name}.{leaf}": own[leaf] for leaf in LEAVES[config.fine_tune_type]}
    return shapes


def _check_arrays(file: Path, config: AdapterConfig, flow: FlowConfig) -> None:
    found = {tensor.name: tensor for tensor in read_header(file)}
    for name, tensor in found.items():
        if tensor.dtype not in FLOATS:
            raise WeightsError(
                f"{file}: {shown(name)} is of type {tensor.dtype}; expected {', '.join(FLOATS)}."
            )
    if config.fine_tune_type == "full":
        return  # compared with the flow's arrays when the adapter is attached
    shapes = expected(config, flow)
    for name, shape in shapes.items():
        if name not in found:
            raise WeightsError(f"{file}: the array {name!r} of shape {shape} is missing.")
        if found[name].shape != shape:
            raise WeightsError(
                f"{file}: {name!r} has shape {found[name].shape}; {CONFIG} requires {shape}."
            )
    extra = next((name for name in found if name not in shapes), None)
    if extra is not None:
        raise WeightsError(f"{file}: this model has no place for the array {shown(extra)}.")


def file_fingerprint(file: Path) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of a file."""
    digest = hashlib.sha256()
    with open_regular(file) as stream:
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()[:16]


def adapters_below(directory: Path) -> Iterator[tuple[Path, AdapterConfig]]:
    """The complete adapters in a directory and in its immediate subdirectories."""
    for place in (directory, *sorted(p for p in directory.iterdir() if p.is_dir())):
        try:
            if is_regular(place / WEIGHTS):
                yield place, read_adapter_config(place)
        except (StarflowError, OSError):
            continue
