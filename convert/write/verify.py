"""Verifying a bundle: load it strictly, compare it with the checkpoint, run the flow."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import numpy as np

from mlx_starflow.bundle.load import load_component, read_bundle_config
from mlx_starflow.bundle.quantize import GROUP_SIZE
from mlx_starflow.config import FlowConfig, TextConfig
from mlx_starflow.device.typed import parameters_of, scalar
from mlx_starflow.errors import NumericsError, WeightsError
from mlx_starflow.exact.likelihood import log_prob
from mlx_starflow.flow import Flow
from mlx_starflow.flow.grid import grid_of, patchify, unpatchify
from mlx_starflow.sampling import invert
from mlx_starflow.text import load_encoder
from mlx_starflow.vae import build_vae

from ..options import ConvertProgress
from .storing import Store

# Allowed error of a number relative to the largest in its tensor, by dtype.
_ROUNDING = {"F32": 0.0, "BF16": 2.0**-8, "F16": 2.0**-10}
_QUANTIZED = ("weight", "scales", "biases")
_SIDE = 8  # tokens along one side of the picture in the round trip
# Allowed error of the round trip, relative to the largest number: with float32 weights, and with
# 16 bits, where encoding in one pass and decoding token by token round differently.
_ROUND_TRIP, _ROUND_TRIP_16 = 1e-2, 0.25


def verify_bundle(
    directory: Path, stores: list[Store]
) -> Generator[ConvertProgress, None, dict[str, float]]:
    """Load every component strictly, compare the flow with its source, encode and decode noise.

    Yields progress. Returns "weight_error" (largest relative error), "log_prob" (nats) and
    "round_trip_error". Errors: WeightsError, NumericsError.
    """
    bundle = read_bundle_config(directory)
    total = sum(s.source.nbytes for s in stores)
    yield ConvertProgress("verify", 0, total)
    loaded = load_component(directory / "flow", lambda data: Flow(FlowConfig.from_dict(data)))
    flow = cast(Flow, loaded)
    weights, worst, done = _Weights(flow), 0.0, 0
    for store in stores:
        worst = max(worst, _compare(weights, store))
        done += store.source.nbytes
        yield ConvertProgress("verify", done, total)
    found = {"weight_error": worst, **_run(flow)}
    del loaded, flow, weights
    mx.clear_cache()
    if (directory / "vae").is_dir():
        load_component(directory / "vae", lambda data: build_vae(data, "vae/config.json"))
    if (directory / "text_encoder").is_dir():
        load_encoder(directory / "text_encoder", cast(TextConfig, bundle.text))
    yield ConvertProgress("verify", total, total)
    return found


class _Weights:
    """Access to the weights of a loaded flow by name."""

    def __init__(self, flow: Flow) -> None:
        self.flow = flow

    def module(self, path: str) -> Any:
        node: Any = self.flow
        for part in path.split("."):
            node = node[int(part)] if part.isdecimal() else node[part]
        return node

    def rows(self, store: Store, first: int, count: int) -> np.ndarray:
        if store.bits is None:
            array = self.module(store.name)
            array = array[first : first + count] if array.ndim else array
            return np.array(array.astype(mx.float32))
        module = self.module(store.module)
        w, scales, biases = (module[k][first : first + count] for k in _QUANTIZED)
        values = mx.dequantize(w, scales, biases, group_size=GROUP_SIZE, bits=store.bits)
        return np.array(values.astype(mx.float32))


def _compare(weights: _Weights, store: Store) -> float:
    worst = 0.0
    exact = dataclasses.replace(store, bits=None, dtype="F32")
    for row, piece in store.source.pieces():
        values = np.array(exact.cast(exact.checked(piece)))
        rows = piece.shape[0] * (values.size // piece.size)
        if store.shape[:1] != store.source.shape[:1]:  # the source has more dimensions
            values = values.reshape(-1, *store.shape[1:])
            row, rows = 0, values.shape[0]
        there = weights.rows(store, row, rows).reshape(values.shape)
        largest = float(np.abs(values).max(initial=0.0)) or 1.0
        error = float(np.abs(there - values).max(initial=0.0)) / largest
        # The range of a group is at most twice its largest number, divided into 2^bits - 1 steps.
        allowed = _ROUNDING[store.dtype] + (2.0 / (2**store.bits - 1) if store.bits else 0.0)
        if not error <= allowed:
            raise WeightsError(
                f"{store.name!r} differs from the checkpoint's {store.source.name!r} by "
                f"{error:.2g} times its largest number; at most {allowed:.2g} is due to its type."
            )
        worst = max(worst, error)
    return worst


def _run(flow: Flow) -> dict[str, float]:
    """Likelihood and round trip of noise, on a small grid if the model allows it."""
    config = flow.config
    table = any(b.layers and b.position == "table" for b in config.blocks)
    side = config.patch_size * (config.grid_size if table else min(_SIDE, config.grid_size))
    key_x, key_text = mx.random.split(mx.random.key(0))
    x = mx.random.normal((1, side, side, config.in_channels), key=key_x)
    context = None
    if config.text_channels:
        shape = (1, config.text_length, config.text_channels)
        context = mx.random.normal(shape, key=key_text)
    likelihood = scalar(log_prob(flow, x, context))
    if not np.isfinite(likelihood):
        raise NumericsError("The converted flow computes a likelihood that is not finite.")
    z, _ = flow(x, context)
    if "prior_var" in flow:  # ``invert`` multiplies standard noise by its square root
        grid = grid_of(x, config)
        z = unpatchify(patchify(z, config) / mx.sqrt(flow.prior_var), grid, config)
    back = invert(flow, z, context, guidance=0.0, sampler="sequential")
    error = scalar(mx.abs(back - x).max() / mx.abs(x).max())
    if not error <= (_ROUND_TRIP if _exact(flow) else _ROUND_TRIP_16):
        raise NumericsError(
            f"The converted flow does not invert its own encoding (relative error {error:.2g})."
        )
    return {"log_prob": likelihood, "round_trip_error": error}


def _exact(flow: Flow) -> bool:
    """Whether all weights of the flow, except quantized ones, are float32."""
    kinds = {a.dtype for _, a in parameters_of(flow)}
    return not kinds & {mx.float16, mx.bfloat16}
