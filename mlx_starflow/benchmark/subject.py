"""The inputs of a benchmark: noise and context, for a model or for random weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx

from ..config import FlowConfig, TextConfig
from ..device.clock import Clock
from ..errors import UsageError
from ..exact.noise import seeded_noise
from ..flow import Context, Flow
from ..pipeline import Pipeline
from .finish import Finish
from .prompts import PROMPTS
from .random_flow import RandomShape, random_context

RANDOM_GUIDANCE = 3.6  # default for random weights, as in the published sampler


@dataclass(frozen=True)
class Subject:
    """The cases of a benchmark, each with a noise and a context."""

    noises: tuple[mx.array, ...]  # (B, h, w, c) each
    contexts: tuple[Context, ...]  # as for ``invert``
    guidance: float
    finish: Finish | None  # turns samples into pictures; None: they are not pictures
    prompts: tuple[str, ...] = ()  # one per case
    text: dict[str, float] | None = None  # seconds and peak bytes of encoding the prompts

    def joined(self) -> tuple[mx.array, Context]:
        """Noise and context of the first picture of every case, as one batch."""
        noise = mx.concatenate([n[:1] for n in self.noises])
        contexts = [c for c in self.contexts if c is not None]
        if not contexts:
            return noise, None
        # Rows [caption, null] or [caption] of each case -> [captions, nulls] or [captions].
        apart = [c[:: n.shape[0]] for c, n in zip(contexts, self.noises, strict=True)]
        rows = [[c[i : i + 1] for c in apart] for i in range(apart[0].shape[0])]
        return noise, mx.concatenate([mx.concatenate(row) for row in rows])


def model_subject(
    pipe: Pipeline,
    count: int,
    batch: int = 1,
    guidance: float | None = None,
    prompts: Sequence[str] | None = None,
) -> Subject:
    """``count`` cases, one prompt each, with ``batch`` pictures each; seeds are 0, 1, ... in order.

    prompts: None for built-in scenes, or the classes of a model with classes. guidance: None for
    the model's default. Errors: UsageError.
    """
    flow: Flow = pipe.flow
    conditional = bool(flow.config.text_channels or flow.config.num_classes)
    if guidance and not conditional:
        raise UsageError("guidance needs a prompt or a class; this model is unconditional.")
    if guidance is None:
        guidance = pipe.config.defaults.guidance if conditional else 0.0
    prompts = prompts or _own_prompts(flow.config, pipe.config.text)
    chosen = tuple(prompts[i % len(prompts)] for i in range(count))
    contexts, clock = [], Clock()
    if flow.config.text_channels:
        pipe.encode_prompts([""])  # loads the encoder before the time is measured
    clock.start()
    for prompt in chosen:
        context = pipe.prompt_rows([prompt]).for_sampling([prompt] * batch, guidance)
        if context is not None:
            mx.eval(context)
        contexts.append(context)
    seconds = clock.lap("text") / count
    side = flow.config.grid_size * flow.config.patch_size
    text = {"seconds": seconds, "peak_memory": clock.peaks["text"]}
    return Subject(
        noises=_noises(count, batch, (side, side, flow.config.in_channels)),
        contexts=tuple(contexts),
        guidance=guidance,
        finish=Finish(pipe.vae, pipe.config.defaults.denoise),
        prompts=chosen if conditional else (),
        text=text if flow.config.text_channels else None,
    )


def random_subject(
    shape: RandomShape, count: int, batch: int = 1, guidance: float | None = None
) -> Subject:
    """``count`` cases with random text features, with ``batch`` pictures each."""
    guidance = RANDOM_GUIDANCE if guidance is None else guidance
    contexts = [random_context(shape, batch, guidance > 0, seed=i + 1) for i in range(count)]
    mx.eval(contexts)
    noises = _noises(count, batch, (shape.grid, shape.grid, shape.token_channels))
    return Subject(noises, tuple(contexts), guidance, finish=None)


def _noises(count: int, batch: int, shape: tuple[int, ...]) -> tuple[mx.array, ...]:
    """The noise of ``generate`` for the same seeds."""
    rows = seeded_noise(shape, range(count * batch))
    noises = [rows[i : i + batch] for i in range(0, count * batch, batch)]
    mx.eval(noises)
    return tuple(noises)


def _own_prompts(flow: FlowConfig, text: TextConfig | None) -> Sequence[str]:
    if flow.num_classes:
        return [str(i) for i in range(flow.num_classes)]
    if not flow.text_channels:
        return [""]
    if text is not None and text.encoder == "labels":
        return text.labels or [str(i) for i in range(text.channels - 1)]
    return PROMPTS
