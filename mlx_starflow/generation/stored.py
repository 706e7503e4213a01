"""The settings stored in or beside a picture, as arguments to draw it again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..bundle.dtypes import DTYPES
from ..errors import UsageError
from ..files.fields import Fields, shown
from .settings import read_options, read_pictures

# Keys in a picture's settings that are not options of Pipeline.generate: facts about the run.
FACTS = frozenset(
    {
        *("generator", "version", "mlx_version", "created_at", "device", "blas", "tf32"),
        *("model", "model_name", "weights", "dtype", "quantize", "precision", "low_ram"),
        "adapters",
        *(
            "residual",
            "converged",
            "accuracy",
            "blocks",
            "warnings",
            "seconds",
            "peak_memory_bytes",
        ),
        *("prompt", "prompts", "seed", "seeds", "batch", "noise", "width", "height"),
        *("frames", "fps", "extend", "given_frames", "given", "window", "context_frames"),
        *("best_of", "varied", "command", "path", "log_prob_gain", "resized"),
    }
)


MAX_ADAPTERS = 16


@dataclass(frozen=True)
class StoredAdapter:
    """An adapter that was on the flow."""

    path: str
    scale: float
    weights: str  # fingerprint


@dataclass(frozen=True)
class StoredSettings:
    """The settings stored in a picture, with checked types and ranges."""

    prompts: tuple[str, ...]  # of the batch in which it was drawn
    seeds: tuple[int, ...]  # of the batch
    index: int  # of the picture in the batch
    options: dict[str, Any]  # the arguments of Pipeline.generate that were stored
    model: str | None
    dtype: str | None
    quantize: int | str | None
    weights: str | None  # fingerprint
    adapters: tuple[StoredAdapter, ...]
    noise: dict[str, Any] | None  # record of noise that was given instead of seeds
    best_of: dict[str, Any] | None  # of --best-of and --auto-seeds
    varied: dict[str, Any] | None  # about the picture that this one was made from
    command: str | None  # None: generate
    unknown: tuple[str, ...]  # keys that this version does not know

    @classmethod
    def from_dict(cls, data: Any, where: str) -> StoredSettings:
        """Read and check settings. Errors: UsageError naming ``where``, the key and the value."""
        fields = Fields(data, where, UsageError)
        options, known = read_options(fields)
        prompts, seeds, index = read_pictures(fields)
        noise, best_of = fields.fields("noise", None), fields.fields("best_of", None)
        varied = fields.fields("varied", None)
        return cls(
            prompts=prompts,
            seeds=seeds,
            index=index,
            options=options,
            model=fields.text("model", None, most=4096),
            dtype=fields.text("dtype", None, one_of=tuple(DTYPES)),
            quantize=_quantize(fields),
            weights=fields.text("weights", None, most=200),
            adapters=read_stored_adapters(fields),
            noise=noise.data if noise else None,
            best_of=best_of.data if best_of else None,
            varied=varied.data if varied else None,
            command=fields.text("command", None, most=100),
            unknown=tuple(sorted(shown(name) for name in set(data) - known - FACTS)),
        )


def read_stored_adapters(fields: Fields) -> tuple[StoredAdapter, ...]:
    """The adapters that settings name. Errors: as the fields have them."""
    return tuple(
        StoredAdapter(
            one.text("path", most=4096),
            one.number("scale", 1.0, low=-1e4, high=1e4),
            one.text("weights", most=200),
        )
        for one in fields.many("adapters", (), items=MAX_ADAPTERS)
    )


def _quantize(fields: Fields) -> int | str | None:
    value = fields.data.get("quantize")
    if value not in (None, 4, 8, "mixed"):
        raise fields.refuse("quantize", "4, 8 or 'mixed'")
    return value
