"""The options, progress and report of a conversion."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mlx_starflow.bundle.dtypes import dtype_named
from mlx_starflow.bundle.quantize import Recipe, check_recipe
from mlx_starflow.errors import UsageError


@dataclass(frozen=True)
class ConvertOptions:
    """The options of a conversion. Errors: UsageError for an invalid value."""

    checkpoint: Path  # .pth, .safetensors, an index of shards, or a directory
    output: Path  # directory of the bundle
    config: Path | None = None  # published YAML; None: the one beside the checkpoint
    settings: dict[str, Any] | None = None  # keys and values as in the YAML, instead of a file
    vae: str | None = None  # directory or hub repository of a diffusers AutoencoderKL
    text_encoder: str | None = None  # directory or hub repository of a T5 or Gemma
    dtype: str | None = None  # None: as in the checkpoint, or bfloat16 if quantized
    quantize: Recipe | None = None  # 4, 8 or "mixed"
    noise_std: float | None = None  # if it is neither in the YAML nor in the file name
    weights_key: str | None = None  # which weights, if the checkpoint has several sets
    ignore_keys: tuple[str, ...] = ()  # YAML settings to ignore
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
            raise UsageError(
                f"--noise-std is {self.noise_std}; expected a number from 0 to below 1000."
            )


@dataclass(frozen=True)
class ConvertProgress:
    """The progress of a conversion."""

    phase: str  # "flow" | "vae" | "text_encoder" | "verify"
    done: int  # bytes of the source
    total: int  # bytes of the source


@dataclass(frozen=True)
class ConvertReport:
    """The result of a conversion."""

    output: Path
    model_type: str
    parameters: int  # of the flow
    source_bytes: int
    written_bytes: int
    sha256: str  # of the checkpoint
    seconds: float
    components: dict[str, str]  # as in config.json
    dropped: tuple[str, ...]  # checkpoint keys that were dropped by a rule
    unquantized: tuple[str, ...]  # matrices that could not be quantized
    notes: tuple[str, ...]  # for the user
    verified: dict[str, float] | None = None  # results of --verify

    @property
    def written(self) -> tuple[str, ...]:
        """The components inside the bundle; the others are references to hub repositories."""
        return tuple(k for k, place in self.components.items() if not place.startswith("hub:"))

    def to_dict(self) -> dict[str, Any]:
        """The report as values for JSON."""
        return {**asdict(self), "output": str(self.output), "written": self.written}
