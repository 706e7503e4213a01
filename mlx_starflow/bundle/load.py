"""Loading and writing the components of a bundle.

A component is a directory with config.json and safetensors files, in mlx-lm's format. Loading is
strict: a tensor that is missing, unexpected, of the wrong shape or not finite is an error that
names it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn

from ..config import ModelConfig
from ..device.shared import Cut
from ..device.typed import parameters_of
from ..errors import ConfigError, ModelNotFoundError, WeightsError
from ..files import json as files_json
from ..files.fields import Fields
from ..files.regular import is_regular
from .dtypes import CODES, dtype_named
from .quantize import Recipe, component_kind, quantize_module, stored_bits, takes_type
from .safetensors import INDEX_NAME, ShardWriter, TensorInfo, TensorPlan, read_header
from .shares import read_share
from .types import default_type, settle_half

Build = Callable[[dict[str, Any]], nn.Module]
MAX_INDEX_BYTES = 64 << 20


def read_json(path: Path) -> dict[str, Any]:
    """Parse a JSON file that must hold an object. Errors: ModelNotFoundError, ConfigError."""
    try:
        data = files_json.read_json(path)
    except FileNotFoundError:
        raise ModelNotFoundError(
            f"{path} is missing. Convert or download the model again."
        ) from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected an object of settings.")
    return data


def read_bundle_config(directory: Path) -> ModelConfig:
    """The configuration in a bundle's config.json. Errors: ModelNotFoundError, ConfigError."""
    path = Path(directory) / "config.json"
    return ModelConfig.from_dict(read_json(path), str(path))


def read_component_config(directory: Path) -> dict[str, Any]:
    """A component's config.json without its "quantization" block. Errors: ModelNotFoundError,
    ConfigError."""
    config = read_json(Path(directory) / "config.json")
    config.pop("quantization", None)
    return config


def write_json(path: Path, data: dict[str, Any]) -> None:
    """Write an object as indented JSON in UTF-8."""
    path.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_component(directory: Path, config: dict[str, Any], weights: dict[str, mx.array]) -> None:
    """Write a component's config.json and its weights (name -> array) to a directory."""
    directory.mkdir(parents=True, exist_ok=True)
    plans = [TensorPlan(n, CODES[a.dtype], a.shape) for n, a in weights.items()]
    writer = ShardWriter(directory, plans)
    try:
        for name, array in weights.items():
            writer.write(name, array_bytes(array))
    except BaseException:
        writer.abort()
        raise
    writer.close()
    write_json(directory / "config.json", config)


def array_bytes(array: mx.array) -> memoryview:
    """The array's elements in row-major order, as a buffer of bytes."""
    flat = mx.contiguous(array).reshape(-1)
    if array.dtype == mx.bfloat16:  # which the buffer protocol does not know
        flat = flat.view(mx.uint16)
    return memoryview(flat).cast("B")  # type: ignore[arg-type]


def load_component(
    directory: Path,
    build: Build,
    dtype: str | mx.Dtype | None = None,
    quantize: Recipe | None = None,
    cuts: Mapping[str, Cut] | None = None,
) -> nn.Module:
    """Load a component: returns its module with all weights in memory.

    build: makes the module from config.json (without its "quantization" block).
    dtype: for the tensors that quantize.py lists under "takes the chosen dtype"; None: the default
    for this device (types.py).
    quantize: 4, 8 or "mixed" bits for matrices that are stored unquantized; None: as stored.
    cuts: of linear layers, by their paths, of which only a rank's share is read (device/shared.py);
    the caller says so to the module.
    Errors: ModelNotFoundError, ConfigError, WeightsError naming file and tensor, UsageError.
    """
    directory = Path(directory)
    config = read_json(directory / "config.json")
    block = config.pop("quantization", None)
    module = build(config)
    tensors = _tensors(directory)
    if block is not None:
        _shape_quantized(module, block, tensors, directory)
    expected = dict(parameters_of(module))
    _check_names(directory, expected, tensors)
    kind, target = component_kind(config), _resolve(dtype)
    if target is None:
        numbers = sum(array.size for array in expected.values())
        target = default_type(kind, 4 * numbers, block is not None or quantize is not None)
    weights = []
    for path in sorted({path for path, _ in tensors.values()}):
        arrays = load_arrays(path)
        for name in sorted(arrays):
            # One tensor at a time, so that at most one is in memory in two dtypes.
            array, cut = arrays.pop(name), (cuts or {}).get(name.rpartition(".")[0])
            if cut is not None:
                array = read_share(path, tensors[name][1], cut)
            weights.append((name, _finished(array, name, path, kind, target)))
    module.load_weights(weights, strict=cuts is None)  # names and shapes are checked above
    del weights, expected  # otherwise quantizing could not free them
    module.eval()
    if quantize is not None:
        quantize_module(module, config, quantize)
    if dtype is None and target is None:
        settle_half(module, kind, config)
    return module


def load_arrays(path: Path) -> dict[str, mx.array]:
    """The arrays of a safetensors file whose header has been checked. MLX reads an array's data
    when it is first used. Errors: WeightsError."""
    try:
        return cast("dict[str, mx.array]", mx.load(str(path)))
    except (RuntimeError, ValueError, OSError) as error:
        raise WeightsError(f"{path} cannot be read ({str(error)[:200]}).") from None


def evaluate(arrays: Any, path: Path) -> None:
    """Read the data of arrays of ``load_arrays`` into memory. Errors: WeightsError if the file was
    shortened after its header was checked."""
    try:
        mx.eval(arrays)
    except RuntimeError as error:
        raise WeightsError(
            f"{path} cannot be read ({str(error)[:200]}). It may have been changed while it was "
            "read; copy or download it again."
        ) from None


def _resolve(dtype: str | mx.Dtype | None) -> mx.Dtype | None:
    if isinstance(dtype, str):
        return dtype_named(dtype)
    return dtype


def _finished(
    array: mx.array, name: str, path: Path, kind: str, target: mx.Dtype | None
) -> mx.array:
    """The tensor read and converted to its dtype. Errors: WeightsError if it cannot be read or is
    not finite."""
    evaluate(array, path)
    if not mx.issubdtype(array.dtype, mx.floating):
        return array
    if not takes_type(kind, name):
        # The affine part of a flow reaches the result directly, and MLX's convolutions need inputs
        # and weights of one dtype.
        target = mx.float32
    result = array if target is None else array.astype(target)
    if not mx.isfinite(result).all().item():
        cause = "does not fit " + str(target) if mx.isfinite(array).all().item() else "is damaged"
        raise WeightsError(f"{path}: {name!r} holds NaN or infinity; it {cause}.")
    return result


def weight_files(directory: Path) -> list[Path]:
    """The files with a component's weights: model.safetensors, or the shards in its index. Other
    files in the directory are ignored. Errors: WeightsError, ConfigError."""
    index = directory / INDEX_NAME
    if not is_regular(index):
        path = directory / "model.safetensors"
        if not is_regular(path):
            raise WeightsError(f"{path} is missing. Convert or download the model again.")
        return [path]
    shards = sorted(shards_of(files_json.read_json(index, MAX_INDEX_BYTES)))
    if not shards:
        raise WeightsError(f"{index}: 'weight_map' does not name files beside it.")
    paths = [directory / name for name in shards]
    for path in paths:
        if not is_regular(path):
            raise WeightsError(f"{index}: the shard {path.name} is missing. Download it again.")
    return paths


def shards_of(index: Any) -> dict[str, list[str]]:
    """File name -> tensor names, from a parsed safetensors index; {} if it is malformed."""
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weight_map, dict):
        return {}
    shards: dict[str, list[str]] = {}
    for name, shard in weight_map.items():
        if not isinstance(shard, str) or not re.fullmatch(r"\w[\w.-]{0,200}", shard):
            return {}
        shards.setdefault(shard, []).append(name)
    return shards


def _tensors(directory: Path) -> dict[str, tuple[Path, TensorInfo]]:
    """Tensor name -> its file and position. Headers are checked before MLX reads the files."""
    found: dict[str, tuple[Path, TensorInfo]] = {}
    for path in weight_files(directory):
        for tensor in read_header(path):
            if tensor.name in found:
                raise WeightsError(
                    f"{path}: {tensor.name!r} is also in {found[tensor.name][0].name}."
                )
            if tensor.dtype not in CODES.values():
                raise WeightsError(
                    f"{path}: {tensor.name!r} is of type {tensor.dtype}; expected one of "
                    f"{', '.join(CODES.values())}."
                )
            found[tensor.name] = (path, tensor)
    return found


def _shape_quantized(
    module: nn.Module,
    block: dict[str, Any],
    tensors: dict[str, tuple[Path, TensorInfo]],
    directory: Path,
) -> None:
    """Replace the modules whose scales are stored by quantized ones of the stored bits."""
    if not any(name.endswith(".scales") for name in tensors):
        return
    check_quantization(block, str(directory / "config.json"))
    settings = stored_bits(block)
    try:
        nn.quantize(
            module,
            class_predicate=lambda path, leaf: (
                settings(path) if f"{path}.scales" in tensors else False
            ),
        )
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"{directory / 'config.json'}: 'quantization': {error}") from None


def check_quantization(block: Any, where: str) -> None:
    """Raise a ConfigError if a "quantization" block, or an entry for a module in it, has bits or a
    group size that MLX does not support."""
    fields = Fields(block, where, ConfigError, "quantization")
    own = [fields.fields(k) for k, v in fields.data.items() if isinstance(v, dict)]
    for part in (fields, *own):
        if part.whole("bits", 4) not in (2, 3, 4, 5, 6, 8):
            raise part.refuse("bits", "2, 3, 4, 5, 6 or 8")
        if part.whole("group_size", 64) not in (32, 64, 128):
            raise part.refuse("group_size", "32, 64 or 128")
        part.text("mode", "affine", one_of=("affine",))


def _check_names(
    directory: Path,
    expected: dict[str, mx.array],
    tensors: dict[str, tuple[Path, TensorInfo]],
) -> None:
    for name, array in expected.items():
        if name not in tensors:
            raise WeightsError(
                f"{directory}: the tensor {name!r} of shape {array.shape} is missing. "
                "Convert or download the model again."
            )
        path, tensor = tensors[name]
        if (tensor.dtype == "U32") != (array.dtype == mx.uint32):
            raise WeightsError(
                f"{path}: {name!r} is of type {tensor.dtype}, but the configuration says it is "
                f"{'' if array.dtype == mx.uint32 else 'not '}quantized."
            )
        if tensor.shape != array.shape:
            raise WeightsError(
                f"{path}: {name!r} has shape {tensor.shape}; the configuration says {array.shape}."
            )
    for name, (path, _) in tensors.items():
        if name not in expected:
            raise WeightsError(f"{path}: the tensor {name!r} does not belong to this model.")
