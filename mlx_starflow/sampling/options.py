"""What a sampler is asked and what it answers."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx

from ..errors import UsageError


@dataclass(frozen=True)
class SampleOptions:
    """How noise is turned into data. The noise and the context are given beside it."""

    guidance: float = 0.0  # weight w of classifier-free guidance, 0 = none
    sampler: str = "auto"  # a name in mlx_starflow.sampling.SAMPLERS, or "auto"
    tolerance: float | None = None  # None: the sampler's own (see its module)
    block_size: int | None = None  # tokens solved at a time, None: the sampler's own
    max_sweeps: int | None = None  # most passes over one window, None: the sampler's own
    windows: tuple[int, ...] | None = None  # "auto": tokens at a time for every block, 1 = one
    compile: bool | None = None  # compile steps of fixed shape, None: on a GPU
    secants: bool | None = None  # "sliding": carry corrections forward, None: in the deep block
    certify: bool = True  # measure the residual of every block with one more pass
    guide: str = "ab"  # TarFlow: which outputs are guided, "ab" | "a" | "b"
    annealed: bool = False  # TarFlow: guidance grows from 0 at the first token to w at the last
    attention_temperature: float = 1.0  # divides the attention scale (TarFlow: null branch only)

    def __post_init__(self) -> None:
        if not self.guidance >= 0:
            raise UsageError(f"guidance is {self.guidance}; expected 0 (none) or more.")
        if self.guide not in ("ab", "a", "b"):
            raise UsageError(f"guide is {self.guide!r}; expected 'ab', 'a' or 'b'.")
        if not self.attention_temperature > 0:
            raise UsageError(
                f"attention_temperature is {self.attention_temperature}; expected more than 0."
            )
        if self.tolerance is not None and not self.tolerance > 0:
            raise UsageError(f"tolerance is {self.tolerance}; expected more than 0.")
        if self.windows is not None and any(w != int(w) or w < 1 for w in self.windows):
            raise UsageError(f"windows is {self.windows}; expected whole numbers of 1 or more.")
        for name in ("block_size", "max_sweeps"):
            value = getattr(self, name)
            if value is not None and (value != int(value) or value < 1):
                raise UsageError(f"{name} is {value}; expected a whole number of 1 or more.")


@dataclass(frozen=True)
class BlockReport:
    """What one inverted block cost and how exact it is."""

    block: int  # index in the flow; the last is the deep block
    sampler: str  # the sampler that did the work
    tokens: int  # T
    window: int  # tokens solved at a time
    weight_reads: int  # passes over the block's weights; text prefix and certificate apart
    evaluations: int  # tokens put through the network, guidance halves not counted twice
    sweeps: dict[int, int] = field(default_factory=dict)  # histogram, see Outcome
    bytes_read: int = 0  # bytes of weights that these passes read
    certificate_reads: int = 0  # passes spent on the residual
    host_syncs: int = 0  # times the host waited for the device to decide something
    residual: float | None = None  # max |b + sigma v - u| of a parallel pass, None: not asked
    converged: bool = True  # False: max_sweeps ended a window above its tolerance
    # "tolerance": the residual is within it; "rounding": as low as the arithmetic in use can bring
    # it, though above what was asked; "sweeps": max_sweeps ended a window; "above": none of these.
    accuracy: str = "tolerance"
    floor: float = 0.0  # rounding seen between two groupings of the same tokens, 0: none looked for
    seconds: float = 0.0

    @property
    def evaluations_per_token(self) -> float:
        return self.evaluations / self.tokens

    def to_dict(self) -> dict[str, Any]:
        data = dataclasses.asdict(self)
        data["sweeps"] = {str(k): v for k, v in self.sweeps.items()}
        data["evaluations_per_token"] = round(self.evaluations_per_token, 3)
        return data


@dataclass(frozen=True)
class Step:
    """A unit of work is done; the iteration can be left here."""

    block: int
    tokens_done: int
    tokens_total: int


@dataclass(frozen=True)
class BlockResult:
    """A block is inverted: x (B, H, W, C) float32 is the picture so far."""

    block: int
    x: mx.array
    report: BlockReport
