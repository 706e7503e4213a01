"""The options of a sampler, its report on each block, and the events of ``invert_steps``."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx

from ..errors import UsageError


def _asked(
    default: Any,
    help: str,
    *,
    metavar: str | None = None,
    flags: tuple[str, ...] = (),
    choices: tuple[str, ...] = (),
    former: tuple[str, ...] = (),
    clips: bool = False,
) -> Any:
    """A dataclass field that users can set.

    help: what it does. metavar: name of its value in ``--help``. flags: how the command line
    spells it. choices: allowed values. former: names under which older pictures store it. clips:
    whether it is for clips only.
    """
    about = {
        "help": help,
        "metavar": metavar,
        "flags": flags,
        "choices": choices,
        "former": former,
        "clips": clips,
    }
    return field(default=default, metadata=about)


@dataclass(frozen=True)
class SampleOptions:
    """How noise is turned into data; the noise and the context are separate arguments.

    Every sampling option is declared here. The flags of the command line, the settings stored in
    a picture and the arguments of ``Pipeline.generate`` are derived from the fields with a help
    text; the other fields can be set from Python only. Errors: UsageError for invalid values.
    """

    guidance: float = _asked(
        0.0,
        "Weight of classifier-free guidance, 0 for none. Default: the model's.",
        metavar="W",
    )
    sampler: str = _asked(  # a name in mlx_starflow.sampling.SAMPLERS, or "auto"
        "auto",
        "How tokens are solved: auto, sliding, sequential, jacobi. The result names the one used.",
        metavar="NAME",
    )
    max_sweeps: int | None = _asked(  # None: the sampler's own
        None,
        "Most sweeps of the parallel sampler over a window of tokens. (A flow has no denoising "
        "steps.) With too few, the result is less exact; it reports the sweeps and the largest "
        "residual.",
        metavar="N",
        flags=("--steps", "--max-sweeps"),
        former=("steps",),
    )
    tolerance: float | None = _asked(  # None: the sampler's own, see its module
        None, "Error at which the parallel sampler accepts a token.", metavar="T"
    )
    block_size: int | None = _asked(  # None: the sampler's own
        None, "Tokens in a window of the parallel sampler.", metavar="N"
    )
    windows: tuple[int, ...] | None = _asked(  # "auto" only; 1 = one token after another
        None,
        "Sampler auto: tokens solved at a time in every block, such as 16,16,1. Default: measured "
        "on this device.",
        metavar="N,...",
    )
    attention_temperature: float = _asked(
        1.0,
        "Divides the attention scale (not with jacobi; TarFlow: in the null half of guidance "
        "only).",
        metavar="T",
    )
    guide: str = _asked("ab", "TarFlow: which outputs guidance changes.", choices=("ab", "a", "b"))
    annealed: bool = _asked(False, "TarFlow: guidance grows along the tokens.")
    guidance_blocks: str = _asked(
        "all",
        "Models conditioned in every block: guide all blocks, or only the deep one.",
        choices=("all", "deep"),
    )
    kv_bits: int | None = _asked(  # None: as the keys and values are computed
        None,
        "Bits of the KV cache: 16, 8 or 4. Long clips need most of their memory for it. The "
        "residual in the result shows the loss of accuracy, and is usually above the tolerance. "
        "Default: as the weights.",
        metavar="N",
    )
    window: int | None = _asked(
        None,
        "Clips: most latent frames solved in one sequence; a longer clip is continued. Default: as "
        "many as the model was trained on.",
        metavar="N",
        clips=True,
    )
    context_frames: int = _asked(
        16,
        "Clips longer than the window: latent frames that each continuation sees of what came "
        "before; fewer take less time and memory.",
        metavar="K",
        flags=("--context", "--context-frames"),
        clips=True,
    )
    compile: bool | None = None  # compile steps of fixed shape; None: on a GPU only
    secants: bool | None = None  # "sliding": secant corrections; None: in the deep block only
    certify: bool = True  # measure the residual of every block with one more pass

    def __post_init__(self) -> None:
        for name in ("guidance", "attention_temperature", "tolerance"):
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                raise UsageError(f"{name} is {value}; expected a finite number.")
        if not self.guidance >= 0:
            raise UsageError(f"guidance is {self.guidance}; expected 0 (none) or more.")
        if self.guide not in ("ab", "a", "b"):
            raise UsageError(f"guide is {self.guide!r}; expected 'ab', 'a' or 'b'.")
        if self.guidance_blocks not in ("all", "deep"):
            raise UsageError(
                f"guidance_blocks is {self.guidance_blocks!r}; expected 'all' or 'deep'."
            )
        if not self.attention_temperature > 0:
            raise UsageError(
                f"attention_temperature is {self.attention_temperature}; expected more than 0."
            )
        if self.tolerance is not None and not 0 < self.tolerance <= 1e6:
            raise UsageError(f"tolerance is {self.tolerance}; expected more than 0, at most 1e6.")
        if self.windows is not None and any(w != int(w) or w < 1 for w in self.windows):
            raise UsageError(f"windows is {self.windows}; expected whole numbers of 1 or more.")
        if self.kv_bits not in (None, 16, 8, 4):
            raise UsageError(f"kv_bits is {self.kv_bits}; expected 16, 8 or 4.")
        if self.context_frames is None:
            raise UsageError("context_frames is None; a continuation needs 1 frame or more.")
        for name in ("block_size", "max_sweeps", "window", "context_frames"):
            value = getattr(self, name)
            if value is not None and (value != int(value) or value < 1):
                raise UsageError(f"{name} is {value}; expected a whole number of 1 or more.")

    def in_block(self, index: int, blocks: int) -> SampleOptions:
        """These options for block ``index`` of ``blocks``: guidance is 0 in the shallow blocks if
        ``guidance_blocks`` is "deep"."""
        if self.guidance_blocks == "all" or index == blocks - 1:
            return self
        return dataclasses.replace(self, guidance=0.0)

    @classmethod
    def asked(cls) -> tuple[dataclasses.Field[Any], ...]:
        """The fields with a help text, which users can set."""
        return tuple(f for f in dataclasses.fields(cls) if "help" in f.metadata)

    def to_dict(self) -> dict[str, Any]:
        """The fields that users can set, as values that JSON can hold."""
        values = {f.name: getattr(self, f.name) for f in self.asked()}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}


# Values of ``BlockReport.accuracy``, from best to worst.
ACCURACIES = (
    "tolerance",  # the residual is within the tolerance
    "rounding",  # it is larger, but not larger than rounding errors
    "sweeps",  # max_sweeps ended the work early
    "above",  # it is larger for another reason
)


@dataclass(frozen=True)
class BlockReport:
    """The cost and the accuracy of one inverted block."""

    block: int  # index in the flow; the last is the deep block
    sampler: str  # the sampler that did the work
    tokens: int  # T; F if the block reads each frame by itself
    window: int  # tokens solved at a time
    weight_reads: int  # passes over the block's weights; text prefix and certificate apart
    evaluations: int  # tokens evaluated by the network, with guidance counted once
    sweeps: dict[int, int] = field(default_factory=dict)  # histogram, see Outcome
    bytes_read: int = 0  # bytes of weights that these passes read
    certificate_reads: int = 0  # passes spent on the residual
    host_syncs: int = 0  # times the host waited for results of the device
    residual: float | None = None  # max |b + sigma v - u| of a parallel pass; None: not measured
    converged: bool = True  # False: residual above the tolerance, or max_sweeps reached
    # Why the residual is what it is. "tolerance": within the tolerance. "rounding": above it, but
    # no larger than rounding errors. "sweeps": max_sweeps was too small. "above": other reasons.
    accuracy: str = "tolerance"
    floor: float = 0.0  # measured rounding error, see sampling/tolerance.py; 0: not measured
    seconds: float = 0.0

    def joined(self, later: BlockReport) -> BlockReport:
        """This report and that of later frames as one: costs added, the worse accuracy."""
        sweeps = Counter(self.sweeps)
        sweeps.update(later.sweeps)
        residuals = [r for r in (self.residual, later.residual) if r is not None]
        worst = max(self.accuracy, later.accuracy, key=ACCURACIES.index)
        added = ("weight_reads", "evaluations", "bytes_read", "certificate_reads", "host_syncs")
        return dataclasses.replace(
            self,
            sweeps=dict(sweeps),
            residual=max(residuals, default=None),
            converged=self.converged and later.converged,
            accuracy=worst,
            floor=max(self.floor, later.floor),
            **{name: getattr(self, name) + getattr(later, name) for name in added},
        )

    @property
    def evaluations_per_token(self) -> float:
        """How often a token was evaluated on average; 1 in sequential sampling."""
        return self.evaluations / self.tokens

    def to_dict(self) -> dict[str, Any]:
        """The fields as values that JSON can hold."""
        data = dataclasses.asdict(self)
        data["sweeps"] = {str(k): v for k, v in self.sweeps.items()}
        data["evaluations_per_token"] = round(self.evaluations_per_token, 3)
        return data


@dataclass(frozen=True)
class Step:
    """Progress of ``invert_steps`` inside a block."""

    block: int  # index in the flow
    tokens_done: int
    tokens_total: int  # T


@dataclass(frozen=True)
class BlockResult:
    """The result of ``invert_steps`` for a block."""

    block: int  # index in the flow
    x: mx.array  # (B, H, W, C) or (B, N, H, W, C) float32, the picture or clip after this block
    report: BlockReport
