"""Training from scratch: a bundle with a new flow of a given shape and the other components of an
existing bundle."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlx.core as mx
from mlx.utils import tree_unflatten

from ..adapters.files import WEIGHTS
from ..bundle import vocabulary
from ..bundle.copying import copy_beside, copy_component
from ..bundle.load import (
    evaluate,
    load_arrays,
    read_bundle_config,
    read_component_config,
    write_component,
    write_json,
)
from ..bundle.staging import new_directory
from ..config import BlockConfig, FlowConfig
from ..device.typed import parameters_of
from ..errors import UsageError
from ..flow import Flow
from ..flow.grid import spatial_pairs
from ..generation.components import Components
from .checkpoint import STATE

HEADS = (64, 32, 16)  # channels per attention head: the first of which the width is a multiple
SMALL = 0.02  # standard deviation of initial embeddings


def begin_bundle(
    template: Path, place: Path, shape: str | None, noise_std: float | None, seed: int, resume: bool
) -> Path:
    """Create the bundle of a new model with random weights at ``place`` and return its path. With
    ``resume`` the bundle exists already and nothing is written.

    Picture size, channels and text settings are those of the bundle ``template``, whose autoencoder
    and text encoder are copied. Errors: UsageError for an invalid ``shape`` or if ``place`` exists;
    CheckpointError if a file cannot be copied or is a link that leads outside the bundle.
    """
    if resume:
        return place
    if place.exists():
        raise UsageError(f"--save-path {place} already exists; name a new directory.")
    model = read_bundle_config(template)
    old = FlowConfig.from_dict(read_component_config(template / "flow"), "flow/config.json")
    config = new_config(old, shape or "", noise_std)
    with new_directory(place) as staged:
        for name, reference in model.components.items():
            if name != "flow" and (template / reference).is_dir():
                copy_component(template, reference, staged)
        flow = new_flow(config, seed)
        write_component(staged / "flow", config.to_dict(), dict(parameters_of(flow)))
        if os.path.lexists(template / vocabulary.FILE):
            copy_beside(template / vocabulary.FILE, staged)
        about = dataclasses.replace(
            model, name=place.name, source=None, licence="", attribution="",
            components={**model.components, "flow": "flow"},
        )  # fmt: skip
        write_json(staged / "config.json", about.to_dict())
    return place


@contextmanager
def removed_on_failure(place: Path, training: Path) -> Iterator[None]:
    """Within this context, an error removes the bundle at ``place``, unless the directory
    ``training`` has a state from which the training can be resumed."""
    try:
        yield
    except BaseException:
        if not (training / STATE).exists():
            shutil.rmtree(place, ignore_errors=True)
        raise


def finish_bundle(components: Components, directory: Path) -> None:
    """Write the best weights of the training in ``directory`` into the flow of its bundle."""
    place = components.path("flow")
    arrays = load_arrays(directory / WEIGHTS)
    evaluate(arrays, directory / WEIGHTS)
    flow = components.flow
    own = {**dict(parameters_of(flow)), **arrays}
    staged, old = place.with_name(".flow.part"), place.with_name(".flow.old")
    shutil.rmtree(staged, ignore_errors=True)
    write_component(staged, flow.config.to_dict(), own)
    os.replace(place, old)
    os.replace(staged, place)
    shutil.rmtree(old)


def new_config(like: FlowConfig, shape: str, noise_std: float | None = None) -> FlowConfig:
    """The configuration of a flow for the same data as ``like``, with a shape such as "1,1,5x256":
    layers of each block and their width. Errors: UsageError."""
    match = re.fullmatch(r"(\d{1,3}(?:,\d{1,3})*)x(\d{1,5})", shape.replace(" ", ""))
    if match is None:
        raise UsageError(
            f"--shape {shape!r}: expected the number of layers of each block and their width, such "
            "as 1,1,5x256."
        )
    layers, width = [int(n) for n in match[1].split(",")], int(match[2])
    starflow = like.model_type == "starflow"
    # Rotary positions need a few angles in every head; beside those of the text, 16 have none left.
    known = [h for h in HEADS if not starflow or spatial_pairs(h, like.text_channels > 0) >= 2]
    head = next((h for h in known if width % h == 0), None)
    if head is None:
        raise UsageError(f"--shape {shape!r}: the width must be a multiple of {known[-1]}.")
    text = bool(like.text_channels or like.num_classes)
    blocks = tuple(
        BlockConfig(
            layers=count, channels=width, heads=width // head, kv_heads=width // head,
            head_dim=head, mlp_channels=4 * width, final_norm=starflow,
            position="spatial" if starflow else "table",
            conditioned=text and (i == len(layers) - 1 or not starflow),
            project_text=True,
            flip=(i % 2 == 0) if starflow else (i % 2 == 1),
        )
        for i, count in enumerate(layers)
    )  # fmt: skip
    std = like.noise_std if noise_std is None else noise_std
    return dataclasses.replace(like, blocks=blocks, noise_std=std, denoiser=None)


def new_flow(config: FlowConfig, seed: int) -> Flow:
    """A flow that is initially the identity: matrices are initialized like those of ``mlx.nn`` but
    depend only on ``seed``, and the output projections are zero."""
    flow = Flow(config)
    found = parameters_of(flow)
    drawn = []
    for (name, value), key in zip(found, mx.random.split(mx.random.key(seed), len(found)),
                                  strict=True):  # fmt: skip
        if ".proj_out." in name:
            value = mx.zeros_like(value)
        elif name.endswith(("_embed",)):
            value = SMALL * mx.random.normal(value.shape, key=key)
        elif value.ndim == 2 and name != "prior_var":
            bound = value.shape[1] ** -0.5
            value = mx.random.uniform(-bound, bound, value.shape, key=key)
        elif name.endswith(".bias") and "norm" not in name:
            value = mx.zeros_like(value)
        drawn.append((name, value))
    flow.update(tree_unflatten(drawn))
    mx.eval(parameters_of(flow))
    return flow
