"""The settings stored in a picture or beside it, as the arguments that draw it again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .reading import Reader
from .settings import read_options, read_pictures

# What a picture's settings hold beside the options of Pipeline.generate: facts about the run.
FACTS = frozenset(
    {
        *("generator", "version", "mlx_version", "created_at", "device", "blas", "tf32"),
        *("model", "model_name", "weights", "dtype", "quantize", "precision", "low_ram"),
        *("residual", "converged", "blocks", "warnings", "seconds", "peak_memory_bytes"),
        *("prompt", "prompts", "seed", "seeds", "batch", "noise", "width", "height"),
        *("best_of", "varied", "command", "path"),
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
    command: str | None  # None: made by generate
    unknown: tuple[str, ...]  # keys that this version does not know

    @classmethod
    def from_dict(cls, data: Any, where: str) -> StoredSettings:
        """Read and range-check settings. Errors: UsageError naming ``where``, key and value."""
        read = Reader(data, where)
        options, known = read_options(read)
        prompts, seeds, index = read_pictures(read)
        return cls(
            prompts=prompts,
            seeds=seeds,
            index=index,
            options=options,
            model=read("model", str | None),
            dtype=read("dtype", str | None),
            quantize=read("quantize", int | str | None),
            weights=read("weights", str | None),
            noise=read("noise", dict | None),
            best_of=read("best_of", dict | None),
            command=read("command", str | None),
            unknown=tuple(sorted(set(read.names()) - known - FACTS)),
        )
