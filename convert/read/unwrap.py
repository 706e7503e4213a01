"""From a saved object to one flat dictionary of tensors.

Training scripts save state dicts inside dictionaries ({"model": ..., "ema": ..., "step": ...}) and
add prefixes to the keys (``module.``, ``_orig_mod.``). The rules:

- a dictionary with tensors is the state dict; else the search goes on in its entry with tensors;
- if several entries have tensors, optimizers and the like are ignored. If one averaged copy (a name
  with "ema") and one raw copy are left, the averaged one is used, since it gives better samples.
  Anything else is ambiguous, and the error lists the choices;
- ``_orig_mod``, ``_fsdp_wrapped_module`` and ``_checkpoint_wrapped_module`` are removed everywhere
  in a key, and ``module``, ``model`` and the like if all keys begin with it.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from mlx_starflow.errors import CheckpointError

from .tensor_file import SourceTensor

MAX_DEPTH = 4
MAX_NAME, MAX_PARTS = 500, 40  # characters and dots in a tensor's name
_TRAINING = ("optim", "scheduler", "scaler", "rng", "loss", "args", "config", "hparams")
_ANYWHERE = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
_LEADING = ("module", "model", "ema_model", "ema", "flow")


def state_dict_of(
    saved: Any, where: str, key: str | None = None
) -> tuple[dict[str, SourceTensor], list[str]]:
    """The tensors by name, and notes for the user on what was unwrapped.

    ``key``: selects one of several dictionaries; "a.b" is the entry b of the entry a. Errors:
    CheckpointError if there is no state dict, or more than one.
    """
    notes: list[str] = []
    if key is not None:
        for part in key.split("."):
            if not isinstance(saved, dict) or part not in saved:
                raise CheckpointError(f"{where}: there is no {key!r} in it.")
            saved = saved[part]
    path = []
    for _ in range(MAX_DEPTH):
        if not isinstance(saved, dict):
            raise CheckpointError(
                f"{where}: expected a state dict (tensors by name), found a "
                f"{'tensor' if isinstance(saved, SourceTensor) else type(saved).__name__}."
            )
        if any(isinstance(v, SourceTensor) for v in saved.values()):
            break
        chosen = _choose(saved, where)
        path.append(chosen)
        saved = saved[chosen]
    else:
        raise CheckpointError(f"{where}: no tensors within {MAX_DEPTH} nested dictionaries.")
    if path:
        notes.append(f"used the state dict {'.'.join(path)!r} of the checkpoint")
    tensors, other = {}, []
    for name, value in saved.items():
        if isinstance(value, SourceTensor) and isinstance(name, str):
            check_name(name, where)
            tensors[name] = value
        elif isinstance(value, (int, float, str, type(None))):
            other.append(str(name)[:80])
        else:
            raise CheckpointError(
                f"{where}: {str(name)[:200]!r} in the state dict is a "
                f"{type(value).__name__}, not a tensor."
            )
    if other:
        notes.append(f"ignored entries that are not tensors: {', '.join(other[:10])}")
    return _rename(tensors, where), notes


def check_name(name: str, where: str) -> None:
    """Raise a CheckpointError if a tensor's name is too long."""
    if len(name) > MAX_NAME or name.count(".") > MAX_PARTS:
        raise CheckpointError(
            f"{where}: {name[:80]!r}... is too long for the name of a tensor "
            f"({len(name)} characters)."
        )


def _choose(saved: dict[Any, Any], where: str) -> str:
    holders = [
        k for k, v in saved.items() if isinstance(k, str) and _holds_tensors(v, MAX_DEPTH, set())
    ]
    if not holders:
        raise CheckpointError(f"{where}: there are no tensors in it.")
    models = [k for k in holders if not any(word in k.lower() for word in _TRAINING)]
    averaged = [k for k in models if "ema" in k.lower() or "averag" in k.lower()]
    if len(models) == 1:
        return models[0]
    if len(averaged) == 1 and len(models) == 2:
        return averaged[0]
    names = ", ".join(repr(k[:80]) for k in (models or holders)[:20])
    raise CheckpointError(
        f"{where}: it has several sets of weights: {names}. Choose one with --weights-key."
    )


def _holds_tensors(value: Any, depth: int, seen: set[int]) -> bool:
    """Whether there is a tensor inside. Shared dictionaries are searched only once."""
    if not isinstance(value, dict) or depth == 0 or id(value) in seen:
        return False
    seen.add(id(value))
    return any(
        isinstance(v, SourceTensor) or _holds_tensors(v, depth - 1, seen) for v in value.values()
    )


def _rename(tensors: dict[str, SourceTensor], where: str) -> dict[str, SourceTensor]:
    parts = {name: [p for p in name.split(".") if p not in _ANYWHERE] for name in tensors}
    while True:
        first = {p[0] for p in parts.values() if p}
        if len(first) != 1 or not first <= set(_LEADING) or any(len(p) < 2 for p in parts.values()):
            break
        parts = {name: p[1:] for name, p in parts.items()}
    result: dict[str, SourceTensor] = {}
    origin: dict[str, str] = {}
    for name, tensor in tensors.items():
        short = ".".join(parts[name])
        if short in result:
            raise CheckpointError(
                f"{where}: {origin[short]!r} and {name!r} are the same tensor without wrappers."
            )
        origin[short] = name
        result[short] = dataclasses.replace(tensor, name=name)
    return result
