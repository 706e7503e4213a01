"""What a training needs of the memory, before anything is loaded, and what would fit instead.

Weights, gradients and the optimizer's moments are counted exactly; activations are estimated from
the shapes, somewhat too high.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from ..adapters.files import AdapterConfig, expected
from ..adapters.targets import DEFAULT_KEYS as MATRICES
from ..adapters.targets import targets
from ..bundle.load import read_json
from ..config import FlowConfig
from ..errors import OutOfMemoryError
from ..generation.components import Components
from ..generation.memory import Budget, device_budget
from ..generation.memory_need import component_bytes, layer_bytes
from .options import TrainOptions

GIGABYTE = 1e9


@dataclass(frozen=True)
class TrainingNeed:
    """Bytes, for one training."""

    weights: int  # of the flow, as it is loaded
    trained: int  # what is trained beside them, gradients, the optimizer's moments, an average
    activations: int  # of one pass and its way back
    pictures: int  # latents and text features
    vae: int  # weights, for encoding and previews

    @property
    def total(self) -> int:
        return self.weights + self.trained + self.activations + self.pictures + self.vae


@dataclass(frozen=True)
class TrainingPlan:
    """The need against what the device has."""

    need: TrainingNeed
    sentence: str  # for people
    warning: bool  # above what the device recommends


def plan_training(
    components: Components,
    config: AdapterConfig,
    options: TrainOptions,
    pictures: int,
    budget: Budget | None = None,
) -> TrainingPlan:
    """Compare a training with the device. ``pictures``: how many there are, about.

    Errors: OutOfMemoryError where it needs more than all of the memory; it says what would fit.
    """
    budget = budget or device_budget()
    need = training_need(components, config, options, pictures)
    told = (
        f"Training needs about {_gb(need.total)} (weights {_gb(need.weights)}, gradients and "
        f"optimizer {_gb(need.trained)}, activations {_gb(need.activations)}, pictures "
        f"{_gb(need.pictures + need.vae)}); {budget.device} has {_gb(budget.bytes)}."
    )
    if need.total <= budget.bytes:
        return TrainingPlan(need, told, False)
    fits = what_fits(components, config, options, pictures, budget)
    if need.total > budget.physical:
        raise OutOfMemoryError(f"{told} {fits}")
    return TrainingPlan(need, f"{told} It may be very slow. {fits}", True)


def training_need(
    components: Components,
    config: AdapterConfig,
    options: TrainOptions,
    pictures: int,
    quantize: int | str | None = None,
) -> TrainingNeed:
    """Bytes that a training takes. ``quantize``: as if the flow were stored in so many bits."""
    flow, path = components.flow_config, components.path("flow")
    recipe = quantize if quantize is not None else components.quantize
    weights = component_bytes(path, components.dtype, recipe)
    quantized = recipe is not None or "quantization" in read_json(path / "config.json")
    count = trained_numbers(components, config)
    copies = 4 + (config.fine_tune_type != "full") + (options.ema > 0)
    # Gradient, both moments and the updated arrays; the arrays themselves and their average.
    batch, tokens = options.batch_size, flow.grid_size**2
    activations = activation_bytes(flow, tokens, batch, options.grad_checkpoint)
    if quantized and not options.grad_checkpoint:
        matrices = targets(flow, MATRICES)  # unpacked in 16 bits, and kept for the way back
        activations += 2 * sum(t.inputs * t.outputs for t in matrices)
    numbers = tokens * flow.token_channels * (1 + options.flip)
    return TrainingNeed(
        weights=weights,
        trained=4 * copies * count,
        activations=activations,
        pictures=4 * pictures * (numbers + flow.text_length * flow.text_channels),
        vae=component_bytes(components.path("vae")) if components.has("vae") else 0,
    )


def trained_numbers(components: Components, config: AdapterConfig) -> int:
    """How many numbers are trained."""
    flow = components.flow_config
    if config.fine_tune_type == "full":
        return component_bytes(components.path("flow"), "float32", None) // 4
    return sum(_size(shape) for shape in expected(config, flow).values())


def activation_bytes(flow: FlowConfig, tokens: int, batch: int, checkpoint: bool) -> int:
    """What the way back of a batch keeps: every layer's activations, or with ``checkpoint`` what
    goes into each and one layer's activations at a time."""
    kept = inputs = largest = 0
    for block in flow.blocks:
        length = tokens + (flow.text_length if block.conditioned else 0)
        layer = layer_bytes(block, length, length, gradient=True)
        kept += block.layers * layer
        inputs += (block.layers + 1) * length * block.channels * 4
        largest = max(largest, layer)
    # Gradients of a layer's activations stand beside them while it is computed.
    return batch * (inputs + 2 * largest if checkpoint else kept + largest)


def what_fits(
    components: Components,
    config: AdapterConfig,
    options: TrainOptions,
    pictures: int,
    budget: Budget,
) -> str:
    """A sentence: the first of the ways to save memory that brings the need below the device's."""
    least: tuple[int, str] | None = None
    for flags, kind, batch, bits in (
        ("--grad-checkpoint", config.fine_tune_type, options.batch_size, None),
        ("--grad-checkpoint --batch-size 1", config.fine_tune_type, 1, None),
        ("--fine-tune-type lora --grad-checkpoint --batch-size 1", "lora", 1, None),
        ("a model converted with --quantize 8, --grad-checkpoint --batch-size 1", "lora", 1, 8),
        ("a model converted with --quantize 4, --grad-checkpoint --batch-size 1", "lora", 1, 4),
    ):
        own = dataclasses.replace(
            options, grad_checkpoint=True, batch_size=batch, fine_tune_type=kind,
            ema=options.ema if kind == "full" else 0.0,
            optimizer=options.optimizer if kind == "full" else "adamw",
        )  # fmt: skip
        like = dataclasses.replace(config, fine_tune_type=kind)
        total = training_need(components, like, own, pictures, bits).total
        if total <= budget.bytes:
            return f"What would fit: {flags} ({_gb(total)})."
        if least is None or total < least[0]:
            least = (total, flags)
    if least is None:
        return ""
    return f"The least it can do with is {_gb(least[0])} ({least[1]}): this device is too small."


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for side in shape:
        size *= side
    return size


def _gb(size: int) -> str:
    return f"{size / GIGABYTE:.1f} GB" if size >= 0.05 * GIGABYTE else f"{size / 1e6:.0f} MB"
