"""What to convert and how, and what came of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mlx_starflow.bundle.dtypes import dtype_named
from mlx_starflow.bundle.quantize import Recipe, check_recipe
from mlx_starflow.errors import UsageError


@dataclass(frozen=True)
class ConvertOptions:
    """Errors: UsageError for a value that makes no sense."""

    checkpoint: Path  # .pth, .safetensors, an index of shards, or a directory
    output: Path  # directory of the bundle
    config: Path | None = None  # published YAML; None: the one beside the checkpoint
    settings: dict[str, Any] | None = None  # the YAML's keys and values, instead of a file
    vae: str | None = None  # directory or hub repository of a diffusers AutoencoderKL
    text_encoder: str | None = None  # directory or hub repository of a T5 or Gemma
    dtype: str | None = None  # None: as stored, or bfloat16 when quantized
    quantize: Recipe | None = None  # 4, 8 or "mixed"
    noise_std: float | None = None  # where neither YAML nor file name tells it
    weights_key: str | None = None  # which dictionary of a checkpoint that holds several
    ignore_keys: tuple[str, ...] = ()  # YAML settings to pass over
    name: str = ""  # of the model; "" = the checkpoint's file name
    licence: str = ""
    attribution: str = ""
    overwrite: bool = False
    verify: bool = False

    def __post_init__(self) -> None:
        if self.dtype is not None:
            dtype_named(self.dtype, "--dtype")
        if self.quantize is not None:
            check_recipe(self.quantize)
        if self.noise_std is not None and not 0 <= self.noise_std < 1e3:
            raise UsageError(f"--noise-std is {self.noise_std}; expected a number from 0.")


@dataclass(frozen=True)
class ConvertProgress:
    """How far the conversion is."""

    phase: str  # "flow" | "vae" | "text_encoder" | "verify"
    done: int  # source bytes
    total: int


@dataclass(frozen=True)
class ConvertReport:
    """What was written."""

    output: Path
    model_type: str
    parameters: int  # numbers in the flow
    source_bytes: int
    written_bytes: int
    sha256: str  # of the checkpoint
    seconds: float
    components: dict[str, str]  # as in config.json
    dropped: tuple[str, ...]  # checkpoint keys left out by rule
    unquantized: tuple[str, ...]  # matrices whose width groups of 64 do not divide
    notes: tuple[str, ...]
    verified: dict[str, float] | None = None  # what --verify found

    @property
    def written(self) -> tuple[str, ...]:
        """The components that lie in the bundle; the others are references to a hub."""
        return tuple(k for k, place in self.components.items() if not place.startswith("hub:"))

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "output": str(self.output), "written": self.written}
