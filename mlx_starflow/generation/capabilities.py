"""What this installation and a model can do, as one JSON object for programs."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from ..bundle.vocabulary import read_vocabulary
from ..device.blas import blas_in_use
from ..device.machine import device_name
from ..sampling import AUTO, SAMPLERS
from ..version import __version__
from .components import Components
from .settings import MAX_SEED, sizes

EXTRAS = {  # extra of the package -> modules that it installs
    "server": ("starlette", "uvicorn", "python_multipart"),
    "mcp": ("mcp",),
    "codec": ("constriction",),
    "video": ("av",),
}
MOST_WORDS = 5000  # of a vocabulary in the list


def capabilities(components: Components | None) -> dict[str, Any]:
    """Version, device, samplers and installed extras; for a model also sizes, defaults, vocabulary
    and limits. Values are those that JSON can hold. Reads configurations only, no weights.
    ``components``: of the model; None: no model."""
    found: dict[str, Any] = {
        "mlx-starflow": __version__,
        "device": device_name(),
        "blas": blas_in_use(),
        "extras": {name: installed(name) for name in EXTRAS},
        "samplers": [AUTO, *SAMPLERS],
    }
    if components is None:
        return found | {"model": None}
    config, flow = components.config, components.flow_config
    return found | {
        "model": {
            "name": components.name,
            "model_name": config.name,
            "model_type": config.model_type,
            "licence": config.licence,
            "attribution": config.attribution,
            "weights": components.fingerprint,
            "adapters": components.adapter_records(),
        },
        "sizes": {ratio: f"{w}x{h}" for ratio, (w, h) in sizes(flow, components.factor).items()},
        "clips": None if config.clips is None else config.clips.to_dict(),
        "defaults": config.defaults.to_dict(),
        "prompt": prompt_kind(components),
        "vocabulary": vocabulary(components),
        "limits": {
            "seed": [0, MAX_SEED - 1],
            "prompt_tokens": flow.text_length or None,
            "classes": flow.num_classes or None,
            "blocks": len(flow.blocks),
            "tokens": flow.grid_size**2,
        },
        "learned_denoiser": flow.denoiser is not None,
        "noise_std": flow.noise_std,
    }


def prompt_kind(components: Components) -> str:
    """The kind of prompt that the model takes: "text", "class" (a name or a number) or "none"."""
    text = components.config.text
    if components.flow_config.text_channels:
        return "class" if text is not None and text.encoder == "labels" else "text"
    return "class" if components.flow_config.num_classes else "none"


def vocabulary(components: Components) -> dict[str, Any] | None:
    """The words of a model with a small vocabulary, in total and by kind; None if the model takes
    any word."""
    text, known = components.config.text, read_vocabulary(components.directory)
    if known is not None:
        kinds = {kind: list(values) for kind, values in known.kinds.items()}
        return {"words": sorted(known.words)[:MOST_WORDS], "kinds": kinds}
    if text is not None and text.labels:
        return {"words": [], "kinds": {"class": list(text.labels)[:MOST_WORDS]}}
    return None


def installed(extra: str) -> bool:
    """Whether the modules of an extra of this package can be imported."""
    return all(find_spec(module) is not None for module in EXTRAS[extra])
