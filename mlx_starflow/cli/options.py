"""Options that several commands share, each spelled and explained once."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

WHAT, HOW, OUTPUT, MEMORY, TALK = (
    "What to draw",
    "How to sample",
    "Output and replay",
    "Model and memory",
    "Messages",
)


class DType(StrEnum):
    float32 = "float32"
    float16 = "float16"
    bfloat16 = "bfloat16"


class Bits(StrEnum):
    four = "4"
    eight = "8"
    mixed = "mixed"

    @property
    def recipe(self) -> int | str:
        """As ``sf.load`` takes it."""
        return self.value if self is Bits.mixed else int(self.value)


class Guide(StrEnum):
    ab = "ab"
    a = "a"
    b = "b"


class Denoiser(StrEnum):
    score = "score"
    learned = "learned"


def _option(*names: str, panel: str, help: str, **more):
    return typer.Option(*names, rich_help_panel=panel, help=help, show_default=False, **more)


Model = Annotated[
    str | None,
    _option(
        "--model", "-m", panel=MEMORY, metavar="NAME|DIR|REPO",
        help="A converted model's directory, a known name or a hub repository. "
        "Default: the model inside the package.",
    ),
]  # fmt: skip
Precision = Annotated[
    DType | None,
    _option("--dtype", panel=MEMORY, help="Type of the flow's large matrices. Default: as stored, "
            "float32 on a CPU."),
]  # fmt: skip
Quantize = Annotated[
    Bits | None,
    _option(
        "--quantize", "-q", panel=MEMORY, help="Quantize the flow while loading it: bits, or mixed."
    ),
]
LowRam = Annotated[
    bool,
    _option("--low-ram", panel=MEMORY, help="Drop each part of the model as soon as its work is "
            "done; it is read again for the next batch."),
]  # fmt: skip
CacheLimit = Annotated[
    float | None,
    _option("--cache-limit-gb", panel=MEMORY, metavar="GB", min=0.0,
            help="Most memory that MLX keeps for reuse."),
]  # fmt: skip
Seed = Annotated[
    list[int] | None,
    _option("--seed", panel=WHAT, metavar="N ...", help="One or more seeds: --seed 1 2 3, or "
            "--seed several times. Each makes its own picture. Default: one at random."),
]  # fmt: skip
Json = Annotated[
    bool, _option("--json", panel=TALK, help="Print one JSON object to standard output.")
]
Quiet = Annotated[bool, _option("--quiet", panel=TALK, help="No progress and no messages.")]
Verbose = Annotated[bool, _option("--verbose", panel=TALK, help="Say what every block cost.")]
Debug = Annotated[
    bool, _option("--debug", panel=TALK, help="Show the traceback of an error. Works anywhere.")
]
Output = Annotated[
    Path | None,
    _option(
        "--output", "-o", panel=OUTPUT, metavar="FILE",
        help="The picture: .png, .jpg or .webp. Directories are made, files never overwritten "
        "(_1, _2 is added). Default: image.png.",
    ),
]  # fmt: skip
