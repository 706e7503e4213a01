"""The settings stored in a picture or beside it, as the arguments that draw it again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..bundle.dtypes import DTYPES
from ..errors import UsageError
from ..files.fields import Fields, shown
from .settings import read_options, read_pictures

# What a picture's settings hold beside the options of Pipeline.generate: facts about the run.
FACTS = frozenset(
    {
        *("generator", "version", "mlx_version", "created_at", "device", "blas", "tf32"),
        *("model", "model_name", "weights", "dtype", "quantize", "precision", "low_ram"),
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


@dataclass(frozen=True)
class StoredSettings:
    """What a picture says of its making, checked."""

    prompts: tuple[str, ...]  # of the whole batch that it was drawn in
    seeds: tuple[int, ...]
    index: int  # its place in that batch
    options: dict[str, Any]  # arguments of Pipeline.generate: those that were stored
    model: str | None
    dtype: str | None
    quantize: int | str | None
    weights: str | None  # fingerprint
    noise: dict[str, Any] | None  # a noise that was given in place of the seeds'
    best_of: dict[str, Any] | None
    varied: dict[str, Any] | None  # the picture that this one started from
    command: str | None  # None: made by generate
    unknown: tuple[str, ...]  # keys that this version does not know

    @classmethod
    def from_dict(cls, data: Any, where: str) -> StoredSettings:
        """Read and range-check settings. Errors: UsageError naming ``where``, key and value."""
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
            noise=noise.data if noise else None,
            best_of=best_of.data if best_of else None,
            varied=varied.data if varied else None,
            command=fields.text("command", None, most=100),
            unknown=tuple(sorted(shown(name) for name in set(data) - known - FACTS)),
        )


def _quantize(fields: Fields) -> int | str | None:
    value = fields.data.get("quantize")
    if value not in (None, 4, 8, "mixed"):
        raise fields.refuse("quantize", "4, 8 or 'mixed'")
    return value
