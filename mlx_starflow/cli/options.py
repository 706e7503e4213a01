"""Options that several commands share."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from ..bundle.dtypes import DTYPES
from .arguments import Lora, Seeds, read_lora, read_seeds

WHAT, HOW, OUTPUT, MEMORY, TALK = (
    "What to draw",
    "How to sample",
    "Output and replay",
    "Model and memory",
    "Messages",
)


DType = StrEnum("DType", {name: name for name in DTYPES})  # type: ignore[misc]


class Bits(StrEnum):
    """Values of --quantize."""

    four = "4"
    eight = "8"
    mixed = "mixed"

    @property
    def recipe(self) -> int | str:
        """The value for ``sf.load``."""
        return self.value if self is Bits.mixed else int(self.value)


class Denoiser(StrEnum):
    """Values of --denoiser."""

    score = "score"
    learned = "learned"


def option(*names: str, panel: str, help: str, **more: Any) -> Any:
    """A Typer option in a section of the help; the default is not shown by Typer."""
    return typer.Option(*names, rich_help_panel=panel, help=help, show_default=False, **more)


def model_names(incomplete: str) -> list[str]:
    """Names for shell completion of --model and MODEL: the known models, and models in the current
    directory."""
    from ..hub.known import KNOWN
    from ..hub.locate import embedded

    names = [*embedded(), *(name for model in KNOWN for name in (model.name, *model.aliases))]
    here = [str(config.parent) for config in Path().glob("*/config.json")]
    return [name for name in [*names, *sorted(here)] if name.startswith(incomplete)]


Model = Annotated[
    str | None,
    option(
        "--model", "-m", panel=MEMORY, metavar="NAME|DIR|REPO", autocompletion=model_names,
        help="The directory of a converted model, a known name or a hub repository. "
        "Default: the model inside the package.",
    ),
]  # fmt: skip
Precision = Annotated[
    DType | None,
    option("--dtype", panel=MEMORY, help="Precision of the flow's large matrices. Default: "
            "float32 on a CPU, else chosen by model and device."),
]  # fmt: skip
Quantize = Annotated[
    Bits | None,
    option(
        "--quantize", "-q", panel=MEMORY, help="Quantize the flow to so many bits while loading it."
    ),
]
AdapterPath = Annotated[
    Path | None,
    option("--adapter-path", panel=MEMORY, metavar="DIR", help="An adapter made by train, on the "
            "flow at its full scale."),
]  # fmt: skip
LoraAdapters = Annotated[
    list[Lora] | None,
    option("--lora", panel=MEMORY, metavar="DIR [SCALE]", parser=read_lora, help="An adapter at a "
            "scale (0: without it, 1: as it was trained); several times for several. "
            "Default scale: 1."),
]  # fmt: skip
LowRam = Annotated[
    bool,
    option("--low-ram", panel=MEMORY, help="Free each part of the model as soon as its work is "
            "done, and read it again for the next batch."),
]  # fmt: skip
CacheLimit = Annotated[
    float | None,
    option("--cache-limit-gb", "--mlx-cache-limit-gb", panel=MEMORY, metavar="GB", min=0.0,
            help="Limit on the memory that MLX keeps for reuse."),
]  # fmt: skip
Seed = Annotated[
    list[Seeds] | None,
    option("--seed", panel=WHAT, metavar="N ...", parser=read_seeds, help="One or more seeds: "
            "--seed 1 2 3, or --seed several times. One picture is drawn per seed. Default: a "
            "random one."),
]  # fmt: skip
Json = Annotated[
    bool, option("--json", panel=TALK, help="Print one JSON object to standard output.")
]
Quiet = Annotated[bool, option("--quiet", panel=TALK, help="No progress and no messages.")]
Verbose = Annotated[
    bool, option("--verbose", panel=TALK, help="Show passes, time and residual of every block.")
]
Debug = Annotated[bool, option("--debug", panel=TALK, help="Show the traceback of an error.")]


@dataclass(frozen=True)
class ModelChoice:
    """The flags of every command that loads a model: which one, and in which precision."""

    model: Model = None
    dtype: Precision = None
    quantize: Quantize = None
    adapter_path: AdapterPath = None
    lora: LoraAdapters = None

    @property
    def adapters(self) -> tuple[tuple[str, float], ...]:
        """As ``sf.load`` takes ``adapters``."""
        whole = [] if self.adapter_path is None else [(str(self.adapter_path), 1.0)]
        return (*whole, *((place, scale) for place, scale in self.lora or ()))

    @property
    def type_name(self) -> str | None:
        """``dtype`` for ``sf.load``."""
        return self.dtype.value if self.dtype else None

    @property
    def recipe(self) -> int | str | None:
        """``quantize`` for ``sf.load``."""
        return self.quantize.recipe if self.quantize else None


@dataclass(frozen=True)
class Messages:
    """The flags of every command for what it prints."""

    json_: Json = False
    quiet: Quiet = False
    debug: Debug = False  # handled by ``app.run``


Open = Annotated[
    bool, option("--open", panel=OUTPUT, help="Open the result in the system's viewer.")
]
Output = Annotated[
    Path | None,
    option(
        "--output", "-o", panel=OUTPUT, metavar="FILE",
        help="File name of the picture: .png, .jpg or .webp. Missing directories are made. Never "
        "overwritten (_1, _2 is added). Default: image.png.",
    ),
]  # fmt: skip
