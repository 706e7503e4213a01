"""A flow of any size with random weights, to measure speed without a checkpoint.

The weights are scaled as in a newly initialised transformer with a small output layer. The time of
a sweep is that of a trained flow of the same size, but the number of sweeps is not.
"""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx

from ..bundle.dtypes import dtype_named
from ..bundle.quantize import Recipe, quantize_module, takes_type
from ..config import BlockConfig, FlowConfig
from ..device.typed import parameters_of
from ..errors import UsageError
from ..flow import Flow

HEAD_DIMS = (64, 32)
GAIN, OUT_GAIN, SMALL = 0.9, 0.35, 0.1  # standard deviation times sqrt(width of the input)


@dataclass(frozen=True)
class RandomShape:
    """Sizes of a random text-to-image flow."""

    width: int  # of the residual stream, the same in every block
    layers: tuple[int, ...]  # per block; the last one is the deep block, which has the text
    grid: int = 16  # tokens along one side
    text_length: int = 32
    text_channels: int = 256
    token_channels: int = 4

    def __post_init__(self) -> None:
        if self.width < 1 or self.width % HEAD_DIMS[-1]:
            raise UsageError(
                f"The width of a random flow is {self.width}; expected a multiple of "
                f"{HEAD_DIMS[-1]}."
            )
        if not self.layers or min(self.layers) < 1:
            raise UsageError(
                f"The layers of a random flow are {self.layers}; expected one or more per block."
            )
        for name in ("grid", "text_length", "text_channels", "token_channels"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; expected 1 or more.")

    @classmethod
    def parse(cls, text: str, grid: int = 16, words: str = "32x256") -> RandomShape:
        """Parse a text such as "512,2,2,2,8" (width, then layers per block) and ``words`` such as
        "32x256" (text tokens and their width). Errors: UsageError."""
        try:
            width, *layers = (int(part) for part in text.split(","))
        except ValueError:
            layers = []
        if not layers:
            raise UsageError(
                f"--random is {text!r}; expected WIDTH,LAYERS,..., such as 512,2,2,2,8."
            )
        try:
            length, channels = (int(part) for part in words.lower().split("x"))
        except ValueError:
            raise UsageError(
                f"--text is {words!r}; expected LENGTHxWIDTH, such as 32x256."
            ) from None
        return cls(width, tuple(layers), grid, length, channels)

    def config(self) -> FlowConfig:
        """The configuration of the published model with these sizes."""
        head_dim = next(d for d in HEAD_DIMS if self.width % d == 0)
        last = len(self.layers) - 1
        blocks = tuple(
            BlockConfig(
                layers=layers,
                channels=self.width,
                heads=self.width // head_dim,
                kv_heads=self.width // head_dim,
                head_dim=head_dim,
                mlp_channels=4 * self.width,
                final_norm=True,
                conditioned=i == last,
                flip=(last - i) % 2 == 1,
            )
            for i, layers in enumerate(self.layers)
        )
        return FlowConfig(
            model_type="starflow",
            in_channels=self.token_channels,
            patch_size=1,
            grid_size=self.grid,
            blocks=blocks,
            noise_std=0.3,
            text_channels=self.text_channels,
            text_length=self.text_length,
            sos=True,
            scale="softplus",
            soft_clip=4.0,
        )


def random_flow(
    shape: RandomShape, dtype: str | None = None, quantize: Recipe | None = None, seed: int = 0
) -> Flow:
    """A flow of this shape. The same seed gives the same weights, rounded to the precision.

    dtype, quantize: as for ``mlx_starflow.load``. Errors: UsageError.
    """
    target = None if dtype is None else dtype_named(dtype)
    config = shape.config()
    flow = Flow(config)
    names = sorted(name for name, _ in parameters_of(flow))
    shapes = {name: value.shape for name, value in parameters_of(flow)}
    keys = mx.random.split(mx.random.key(seed), len(names))
    weights = []
    for name, key in zip(names, keys, strict=True):
        value = _drawn(name, shapes[name], key)
        if dtype is not None and takes_type("flow", name):
            value = value.astype(target or value.dtype)
        mx.eval(value)  # one at a time, so that only one tensor is in memory in float32
        weights.append((name, value))
    flow.load_weights(weights, strict=True)
    flow.eval()
    if quantize is not None:
        quantize_module(flow, config.to_dict(), quantize)
    return flow


def random_context(shape: RandomShape, batch: int, guided: bool, seed: int = 1) -> mx.array:
    """Random text features (B, L, D); if ``guided`` (2B, L, D), with null captions in the second
    half. The null caption is the same for every seed."""
    size = (shape.text_length, shape.text_channels)
    captions = mx.random.normal((1, *size), key=mx.random.key(seed))
    captions = mx.repeat(captions, batch, axis=0)
    if not guided:
        return captions
    null = mx.random.normal((1, *size), key=mx.random.key(0))
    return mx.concatenate([captions, mx.repeat(null, batch, axis=0)])


def _drawn(name: str, shape: tuple[int, ...], key: mx.array) -> mx.array:
    noise = mx.random.normal(shape, key=key)
    if name.endswith("sos_embed"):
        return noise
    if name.endswith("norm.weight") and not name.endswith("final_norm.weight"):
        return 1 + SMALL * noise  # LayerNorm; the final RMSNorm stores its offset from 1
    if len(shape) < 2:
        return SMALL * noise
    gain = OUT_GAIN if name.endswith("proj_out.weight") else GAIN
    return gain / shape[-1] ** 0.5 * noise
