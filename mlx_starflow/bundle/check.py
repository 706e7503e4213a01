"""Whether a model directory is all there, told from headers alone: no weight is read."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from ..errors import WeightsError
from .safetensors import read_header


def problem_in_bundle(directory: Path) -> str | None:
    """What keeps a converted model from being complete, in one sentence; None if nothing does."""
    config, problem = _read_json(directory / "config.json")
    if problem:
        return problem
    components = config.get("components")
    if not isinstance(components, dict) or "flow" not in components:
        return f"{directory / 'config.json'} names no flow."
    for reference in components.values():
        if str(reference).startswith("hub:"):
            continue  # another repository; checked where it is resolved
        problem = problem_in_component(directory / str(reference))
        if problem:
            return problem
    return None


def problem_in_component(directory: Path, stem: str = "model") -> str | None:
    """What keeps a component from being complete: a missing file, a shard that its index names and
    is not there, a tensor missing from its shard, a truncated file. None if nothing does.

    ``stem``: of the weights' file names ("diffusion_pytorch_model" for a diffusers directory).
    """
    _, problem = _read_json(directory / "config.json")
    if problem:
        return problem
    index_path = directory / f"{stem}.safetensors.index.json"
    single = directory / f"{stem}.safetensors"
    if not index_path.is_file():
        return _problem_in_file(single, None)
    index, problem = _read_json(index_path)
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


def shards_of(index: dict) -> dict[str, list[str]]:
    """File name -> tensor names, of a safetensors index; {} when it is malformed."""
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict):
        return {}
    shards: dict[str, list[str]] = {}
    for name, shard in weight_map.items():
        if not isinstance(shard, str) or Path(shard).name != shard:
            return {}
        shards.setdefault(shard, []).append(name)
    return shards


def bytes_in(directory: Path) -> int:
    """Size of all files below a directory, links followed: the hub's cache is made of them."""
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def _problem_in_file(path: Path, names: Iterable[str] | None) -> str | None:
    if not path.is_file():
        return f"{path} is missing."
    try:
        found = {tensor.name for tensor in read_header(path)}
    except WeightsError as error:
        return str(error)
    missing = sorted(set(names or ()) - found)
    return f"{path} lacks the tensor {missing[0]!r} that its index names." if missing else None


def _read_json(path: Path) -> tuple[dict, str | None]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        return {}, f"{path} is missing."
    except ValueError:
        return {}, f"{path} is not valid JSON."
    return (data, None) if isinstance(data, dict) else ({}, f"{path} is not a JSON object.")
