"""Estimate the memory that a training needs, before anything is loaded, and suggest what would fit.

Weights, gradients and the optimizer's moments are counted exactly; activations are estimated from
the shapes, and the estimate is slightly too high.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from ..adapters.files import AdapterConfig, expected
from ..adapters.shares import pieces
from ..adapters.targets import DEFAULT_KEYS as MATRICES
from ..adapters.targets import targets
from ..bundle.load import read_json
from ..config import FlowConfig
from ..device.activations import on_gpu
from ..errors import OutOfMemoryError
from ..flow.shards import flow_cuts
from ..generation.components import Components
from ..generation.memory import Budget, device_budget
from ..generation.memory_need import component_bytes, layer_bytes, share_of
from .copies import Copies
from .options import TrainOptions

GIGABYTE = 1e9


@dataclass(frozen=True)
class TrainingNeed:
    """The memory that one training needs, in bytes."""

    weights: int  # of the flow, as loaded
    trained: int  # trained arrays other than these, gradients, optimizer moments, moving average
    activations: int  # of one forward and backward pass
    pictures: int  # latents and text features
    vae: int  # weights, for encoding and previews

    @property
    def total(self) -> int:
        return self.weights + self.trained + self.activations + self.pictures + self.vae


@dataclass(frozen=True)
class TrainingPlan:
    """The memory that a training needs, compared with that of the device."""

    need: TrainingNeed
    sentence: str  # to show to the user
    warning: bool  # the need is above the working set that the device recommends


def plan_training(
    components: Components,
    config: AdapterConfig,
    options: TrainOptions,
    pictures: int,
    budget: Budget | None = None,
) -> TrainingPlan:
    """Compare the memory that a training needs with that of the device. ``pictures``: approximate
    number of pictures.

    Errors: OutOfMemoryError if the need exceeds the physical memory; the message names options with
    which the training would fit.
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
    """The memory that a training needs. ``quantize``: compute it for a flow that is quantized to
    so many bits."""
    share = None if components.split is None else components.split.share
    ranks = 1 if share is None else share.size
    flow, path = share_of(components.flow_config, ranks), components.path("flow")
    recipe = quantize if quantize is not None else components.quantize
    weights = component_bytes(path, components.dtype, recipe, ranks)
    quantized = recipe is not None or "quantization" in read_json(path / "config.json")
    count = trained_numbers(components, config)
    copies = 4 + (config.fine_tune_type != "full") + (options.ema > 0)
    # Always the gradient, both moments and the updated arrays; for an adapter also its arrays,
    # which are not part of the weights; and the moving average, if there is one.
    batch, tokens = options.batch_size, flow.grid_size**2
    activations = activation_bytes(flow, tokens, batch, options.grad_checkpoint)
    if quantized and not options.grad_checkpoint:
        matrices = targets(flow, MATRICES)  # dequantized to 16 bits and kept for the backward pass
        activations += 2 * sum(t.inputs * t.outputs for t in matrices)
    numbers = tokens * flow.token_channels * Copies(options.flip, options.shifts).count
    return TrainingNeed(
        weights=weights,
        trained=4 * copies * count,
        activations=activations,
        pictures=4 * pictures * (numbers + flow.text_length * flow.text_channels),
        vae=component_bytes(components.path("vae")) if components.has("vae") else 0,
    )


def trained_numbers(components: Components, config: AdapterConfig) -> int:
    """The number of trained parameters on each rank."""
    flow, split = components.flow_config, components.split
    share = None if split is None else split.share
    if config.fine_tune_type == "full":
        ranks = 1 if share is None else share.size
        return component_bytes(components.path("flow"), "float32", None, ranks) // 4
    shapes = expected(config, flow)
    cut = {} if share is None else pieces(config, flow, flow_cuts(flow, share), shapes)
    total = 0
    for name, shape in shapes.items():
        whole = _size(shape)
        if name in cut:
            whole = whole // shape[cut[name].axis] * cut[name].length()
        total += whole
    return total


def activation_bytes(flow: FlowConfig, tokens: int, batch: int, checkpoint: bool) -> int:
    """Bytes kept for the backward pass of a batch: the activations of every layer, or with
    ``checkpoint`` the input of every layer and the activations of one layer at a time."""
    kept = inputs = largest = 0
    for block in flow.blocks:
        length = tokens + (flow.text_length if block.conditioned else 0)
        layer = layer_bytes(block, length, length, gradient=True)
        kept += block.layers * layer
        inputs += (block.layers + 1) * length * block.channels * 4
        largest = max(largest, layer)
    # In the backward pass of a layer that is computed again, its activations and their gradients
    # exist together; on a CPU also what the activation function computes in between.
    again = (2 if on_gpu() else 3) * largest
    return batch * (inputs + again if checkpoint else kept + largest)


def what_fits(
    components: Components,
    config: AdapterConfig,
    options: TrainOptions,
    pictures: int,
    budget: Budget,
) -> str:
    """A sentence that names the first of several ways to save memory with which the training fits
    on the device, or else the one that needs the least."""
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
    return f"It needs at least {_gb(least[0])} ({least[1]}), which this device does not have."


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for side in shape:
        size *= side
    return size


def _gb(size: int) -> str:
    return f"{size / GIGABYTE:.1f} GB" if size >= 0.05 * GIGABYTE else f"{size / 1e6:.0f} MB"
