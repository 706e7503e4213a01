"""``mlx-starflow benchmark``: runs the comparisons of samplers, batch sizes and precisions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..benchmark import (
    BenchmarkOptions,
    BenchmarkResult,
    RandomShape,
    SamplerSpec,
    compare,
    random_flow,
)
from ..benchmark.quantization_cost import (
    CostOptions,
    Precision,
    QuantizationResult,
    quantization_cost,
)
from ..benchmark.subject import Subject, model_subject, random_subject
from ..editing.inputs import contexts_of, latents_of
from ..flow import Flow
from ..pipeline import Pipeline, load
from .console import Console
from .fetch import Fetching
from .picture_options import Fit, take_picture
from .prompts import tell_prompts


@dataclass(frozen=True)
class Job:
    """What is measured, apart from samplers and precisions."""

    shape: RandomShape | None  # of random weights; None: use ``model``
    model: str | None
    dtype: str | None
    quantize: int | str | None
    prompts: Sequence[str] | None  # None: the built-in ones
    count: int  # number of prompts, or of random text features
    batch: int  # pictures per prompt
    guidance: float | None
    adapters: tuple[tuple[str, float], ...] = ()

    def open(self, console: Console) -> Pipeline:
        """Load the model."""
        console.say("Loading the model and encoding the prompts ...")
        return load(
            self.model, self.dtype, self.quantize, tell=Fetching(console), adapters=self.adapters
        )

    def subject(self, pipe: Pipeline, console: Console) -> Subject:
        """The contexts and noises to measure with; warns about unknown words."""
        tell_prompts(pipe, self.prompts or (), console)
        return model_subject(pipe, self.count, self.batch, self.guidance, self.prompts)

    def about(self, subject: Subject) -> dict[str, Any]:
        """A description of what was measured, for the head of a table and for JSON."""
        name = f"Model {self.model or 'default'}"
        if self.shape is not None:
            layers = " ".join(map(str, self.shape.layers))
            text = f"{self.shape.text_length}x{self.shape.text_channels}"
            name = f"Random weights: width {self.shape.width}, layers {layers}, text {text}"
        return {
            "subject": name,
            "dtype": self.dtype,
            "quantize": self.quantize,
            "prompts": list(subject.prompts),
            "text_encoding": subject.text,
        }


def compare_samplers(
    job: Job, specs: Sequence[SamplerSpec], repeat: int, console: Console
) -> tuple[dict[str, Any], BenchmarkResult]:
    """Compare samplers on a model or on random weights. Returns a description and the results."""

    def run(flow: Flow, subject: Subject) -> tuple[dict[str, Any], BenchmarkResult]:
        options = BenchmarkOptions(guidance=subject.guidance, repeat=repeat)
        given = (subject.contexts, subject.noises, specs, options, subject.finish)
        return job.about(subject), compare(flow, *given, progress=_progress(console))

    if job.shape is not None:
        subject = random_subject(job.shape, job.count, job.batch, job.guidance)
        return run(random_flow(job.shape, job.dtype, job.quantize), subject)
    with job.open(console) as pipe:
        return run(pipe.flow, job.subject(pipe, console))


def compare_precisions(
    job: Job, pictures: Sequence[Path], fit: Fit, console: Console
) -> tuple[dict[str, Any], QuantizationResult]:
    """Compare precisions on a batch of ``job.count`` samples and on given pictures. Returns a
    description and the results."""

    def run(
        flow_in: Callable[[Precision], Flow], subject: Subject, **scored: Any
    ) -> tuple[dict[str, Any], QuantizationResult]:
        noise, context = subject.joined()
        options = CostOptions(guidance=subject.guidance)
        return job.about(subject), quantization_cost(
            flow_in, context, noise, finish=subject.finish, options=options,
            progress=_progress(console), **scored,
        )  # fmt: skip

    if job.shape is not None:
        shape, subject = job.shape, random_subject(job.shape, job.count, 1, job.guidance)
        return run(lambda p: random_flow(shape, p.dtype, p.quantize), subject)

    def model_in(precision: Precision) -> Flow:
        with load(job.model, precision.dtype, precision.quantize, adapters=job.adapters) as own:
            return own.flow

    with job.open(console) as pipe:
        scored: dict[str, Any] = {}
        if pictures:
            images = [take_picture(pipe, path, fit, console)[0].image for path in pictures]
            scored["latents"] = latents_of(pipe, images)
            scored["latent_context"] = contexts_of(pipe, [""] * len(images))
        return run(model_in, job.subject(pipe, console), **scored)


def _progress(console: Console) -> Callable[[str, float], None]:
    return lambda what, share: console.draw("benchmark", what, share, None)
