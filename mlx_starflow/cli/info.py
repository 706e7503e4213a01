"""``mlx-starflow info``: the settings of a picture, a model, or facts about this machine."""

from __future__ import annotations

import json
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import mlx.core as mx
import typer

from ..bundle.check import bytes_in
from ..device.blas import blas_in_use
from ..device.machine import device_name
from ..device.precision import tf32_in_use
from ..errors import ModelNotFoundError, UsageError
from ..generation.capabilities import capabilities
from ..generation.components import Components
from ..generation.settings import sizes
from ..hub.cache import cache_directory, cached_models
from ..hub.download import hub_cache
from ..hub.known import DEFAULT, known_model
from ..hub.locate import EMBEDDED, embedded, is_here
from ..hub.resolve import resolve
from ..pictures.metadata import read_metadata
from ..version import __version__
from . import options as o

EPILOG = """\b
Examples:
  mlx-starflow info                  this machine, versions, models
  mlx-starflow info --json           the same as JSON, with what the default model can do
  mlx-starflow info fox.png          all settings of a picture
  mlx-starflow info my-model         properties of a model
  mlx-starflow info fox.png --json   all settings of a picture, as JSON
"""
PACKAGES = ("mlx", "mlx-lm", "numpy", "pillow", "huggingface-hub", "tokenizers", "typer")
LONG = 200  # longer values are cut, except with --json

Subject = Annotated[
    str | None,
    typer.Argument(metavar="[IMAGE|MODEL]", help="A picture, its .json, or a model.",
                   show_default=False),
]  # fmt: skip


def info(subject: Subject = None, json_: o.Json = False, debug: o.Debug = False) -> None:
    """Print the settings of a picture, the properties of a model, or those of this machine."""
    if subject is None:
        facts = machine()
        if json_:  # as text it would be too long
            default = Components(EMBEDDED[DEFAULT], DEFAULT) if is_here(DEFAULT) else None
            facts |= capabilities(default)
    elif Path(subject).is_file():
        facts = read_metadata(subject)
    else:
        facts = model_facts(subject)
    if json_:
        typer.echo(json.dumps(facts))
        return
    if isinstance(facts.get("components"), dict):
        facts["components"] = {k: _place(v) for k, v in facts["components"].items()}
    typer.echo("\n".join(lines(facts)))


def machine() -> dict[str, Any]:
    """Facts about this machine: device, memory, BLAS, versions and the models on this disk."""
    device = mx.device_info()
    return {
        "mlx-starflow": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "device": device_name(),
        "memory_gb": round(_memory() / 2**30, 1),
        "recommended_working_set_gb": _gigabytes(device.get("max_recommended_working_set_size")),
        "blas": blas_in_use(),
        "tf32": tf32_in_use(),
        "versions": {name: _version(name) for name in PACKAGES},
        "model_cache": str(cache_directory()),
        "download_cache": str(hub_cache()),
        "models": {
            **{name: str(EMBEDDED[name]) for name in embedded()},
            **{f"{m.name} ({m.precision})": m.problem or str(m.path) for m in cached_models()},
        },
    }


def model_facts(name: str) -> dict[str, Any]:
    """Properties of a model. Downloads nothing and reads no weights. Errors: UsageError if the
    model is not on this disk."""
    try:
        components = Components(_directory(name), name)
    except ModelNotFoundError as error:
        raise UsageError(f"{error} (mlx-starflow info needs a picture or a model.)") from None
    config, flow = components.config, components.flow_config
    return {
        "name": config.name,
        "directory": str(components.directory),
        "model_type": config.model_type,
        "licence": config.licence,
        "attribution": config.attribution,
        "source": config.source.to_dict() if config.source else None,
        "sizes": {ratio: f"{w}x{h}" for ratio, (w, h) in sizes(flow, components.factor).items()},
        "tokens": flow.grid_size**2,
        "blocks": [b.layers for b in flow.blocks],
        "text": config.text.to_dict() if config.text else None,
        "classes": flow.num_classes or None,
        "noise_std": flow.noise_std,
        "learned_denoiser": flow.denoiser is not None,
        "defaults": config.defaults.to_dict(),
        "components": config.components,
        "weights": components.fingerprint,
        "gigabytes": round(bytes_in(components.directory) / 1e9, 3),
    }


def _place(reference: str) -> str:
    """The place of a component, for display."""
    if not str(reference).startswith("hub:"):
        return reference
    return f"{reference.removeprefix('hub:')} on the hub, downloaded at first use"


def _directory(name: str) -> Path:
    """The directory of a model on this disk; for a known model any complete copy."""
    known = known_model(name)
    copies = [m for m in cached_models() if known and m.name == known.name and not m.problem]
    return copies[0].path if copies else resolve(name)


def lines(facts: dict[str, Any], indent: str = "") -> list[str]:
    """Facts as lines "name: value"; nested ones are indented."""
    found = []
    for name, value in facts.items():
        if isinstance(value, dict) and value:
            found += [f"{indent}{name}:", *lines(value, indent + "  ")]
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            for i, part in enumerate(value, start=1):
                found += [f"{indent}{name} {i}:", *lines(part, indent + "  ")]
        elif value not in (None, "", {}, []):
            text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            found.append(f"{indent}{name}: {text[:LONG]}{'...' if len(text) > LONG else ''}")
    return found


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _memory() -> int:
    import os

    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _gigabytes(size: Any) -> float | None:
    return round(size / 2**30, 1) if isinstance(size, int) else None
