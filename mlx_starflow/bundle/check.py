"""Whether a model directory is complete, checked from file headers without reading weights."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..config import is_reference
from ..errors import ConfigError, WeightsError
from ..files.json import MAX_BYTES, read_json
from ..files.regular import is_regular
from .load import MAX_INDEX_BYTES, shards_of
from .safetensors import read_header


def problem_in_bundle(directory: Path) -> str | None:
    """Why a converted model is incomplete or unusable, as a sentence; None if it is complete."""
    config, problem = _read_json(directory / "config.json")
    if problem:
        return problem
    components = config.get("components")
    if not isinstance(components, dict) or "flow" not in components:
        return f"{directory / 'config.json'} has no flow among its components."
    for name, reference in components.items():
        if not isinstance(reference, str) or not is_reference(reference):
            return f"{directory / 'config.json'}: the path of {name!r} is outside of the bundle."
        if name == "flow" and reference.startswith("hub:"):
            return f"{directory / 'config.json'}: the flow is not inside of the bundle."
        if reference.startswith("hub:"):
            continue  # checked when the repository is resolved
        problem = problem_in_component(directory / reference)
        if problem:
            return problem
    return None


def problem_in_component(directory: Path, stem: str = "model") -> str | None:
    """Why a component is incomplete, as a sentence: a missing file or shard, a tensor missing from
    its shard, a truncated file. None if it is complete.

    ``stem``: start of the weights' file names ("diffusion_pytorch_model" in diffusers directories).
    """
    _, problem = _read_json(directory / "config.json")
    if problem:
        return problem
    index_path = directory / f"{stem}.safetensors.index.json"
    single = directory / f"{stem}.safetensors"
    if not is_regular(index_path):
        return _problem_in_file(single, None)
    index, problem = _read_json(index_path, MAX_INDEX_BYTES)
    if problem:
        return problem
    shards = shards_of(index)
    if not shards:
        return f"{index_path} has no weight_map."
    for shard, names in shards.items():
        problem = _problem_in_file(directory / shard, names)
        if problem:
            return problem
    return None


def bytes_in(directory: Path) -> int:
    """Total size of all files below a directory. Links are followed, since the hub's cache uses
    them."""
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def _problem_in_file(path: Path, names: Iterable[str] | None) -> str | None:
    if not is_regular(path):
        return f"{path} is missing."
    try:
        found = {tensor.name for tensor in read_header(path)}
    except WeightsError as error:
        return str(error)
    missing = sorted(set(names or ()) - found)
    return f"{path} lacks the tensor {missing[0]!r} that its index names." if missing else None


def _read_json(path: Path, most: int = MAX_BYTES) -> tuple[dict[str, Any], str | None]:
    try:
        data = read_json(path, most)
    except FileNotFoundError:
        return {}, f"{path} is missing."
    except ConfigError as error:
        return {}, str(error)
    return (data, None) if isinstance(data, dict) else ({}, f"{path} is not a JSON object.")
