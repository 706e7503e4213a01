"""The components of a model, each read from disk when first needed and dropped when told to."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar, cast

import mlx.core as mx
import mlx.nn as nn

from ..bundle.fingerprint import fingerprint
from ..bundle.load import load_component, read_bundle_config, read_component_config
from ..config import (
    COMPONENTS,
    FlowConfig,
    ModelConfig,
    VAEConfig,
    check_autoencoder,
    check_together,
)
from ..device.typed import layers_of, parameters_of
from ..errors import ConfigError, UsageError
from ..files.fields import shown
from ..flow import Flow
from ..hub.acquire import acquire_component
from ..hub.download import Tell
from ..hub.integrity import check_component
from ..text import TextEncoder
from ..vae import Autoencoder, build_vae, read_vae_config, vae_decoding_bytes

T = TypeVar("T")


class Components:
    """Loads the components of one bundle. Not safe for several threads at once by itself.

    A component may be a reference to a hub repository: it is resolved when the component itself is
    first used, so that a flow alone needs no network.
    """

    def __init__(
        self,
        directory: Path,
        name: str,
        dtype: str | None = None,
        quantize: int | str | None = None,
        tell: Tell | None = None,
    ) -> None:
        self.directory, self.name = directory, name
        self.config: ModelConfig = read_bundle_config(directory)
        self.dtype, self.quantize = dtype, quantize
        self._tell = tell
        self._loaded: dict[str, Any] = {}
        self._fingerprints: dict[str, str] = {}

    @property
    def flow(self) -> Flow:
        """The flow, loaded strictly if it is not in memory."""
        return self._once("flow", self._load_flow)

    @property
    def vae(self) -> Autoencoder | None:
        """The image autoencoder; None where the flow makes pixels."""
        return self._once("vae", self._load_vae) if self.has("vae") else None

    @property
    def text_encoder(self) -> TextEncoder | None:
        """The text encoder; None for a model without text."""
        if self.config.text is None or not self.flow_config.text_channels:
            return None
        return self._once("text_encoder", self._load_text_encoder)

    @cached_property
    def flow_config(self) -> FlowConfig:
        flow = FlowConfig.from_dict(*self._settings("flow"))
        check_together(self.config, flow)
        return flow

    @cached_property
    def vae_config(self) -> VAEConfig | None:
        if not self.has("vae"):
            return None
        vae = read_vae_config(*self._settings("vae"))
        check_autoencoder(vae, self.flow_config, self.config.clips)
        return vae

    @cached_property
    def factor(self) -> int:
        """Pixels per number of the flow's picture along one side. Where the autoencoder is
        elsewhere, the bundle's own image size tells it."""
        if not self.has("vae"):
            return 1
        if self.is_here("vae") and self.vae_config is not None:
            return self.vae_config.factor
        side = self.flow_config.grid_size * self.flow_config.patch_size
        factor, rest = divmod(self.config.image_size, side)
        if factor < 1 or rest:
            raise ConfigError(
                f"{self.directory / 'config.json'}: image_size is {self.config.image_size}, which "
                f"is no multiple of the flow's {side} numbers a side. Convert the model again."
            )
        return factor

    def decoding_bytes(self, height: int, width: int) -> int:
        """Most bytes that decoding a latent of height × width takes, 0 without a VAE."""
        if not self.has("vae"):
            return 0
        return vae_decoding_bytes(*self._settings("vae"), height, width)

    def _settings(self, component: str) -> tuple[dict[str, Any], str]:
        path = self.path(component)
        return read_component_config(path), f"{path.name}/config.json"

    def path(self, component: str) -> Path:
        """Directory of a component, inside the bundle or wherever its reference leads."""
        reference = self.config.components.get(component)
        if reference is None:
            raise ConfigError(
                f"{self.directory / 'config.json'}: 'components' has no {component!r}. "
                "Convert the model again."
            )
        return acquire_component(self.directory, reference, component, self._tell)

    def has(self, component: str) -> bool:
        return component in self.config.components

    def is_here(self, component: str) -> bool:
        """Whether a component lies inside the bundle: using it needs no network."""
        return (self.directory / self.config.components.get(component, "")).is_dir()

    def is_loaded(self, component: str) -> bool:
        return component in self._loaded

    def _once(self, component: str, load: Callable[[], T]) -> T:
        if component not in self._loaded:
            if self.has(component):
                check_component(self.path(component))
            loaded = load()
            if isinstance(loaded, nn.Module):
                mx.eval(parameters_of(loaded))  # an unevaluated array is tied to this thread
            self._loaded[component] = loaded
        return cast(T, self._loaded[component])

    def drop(self, component: str) -> None:
        """Forget a component and give its memory back."""
        if self._loaded.pop(component, None) is not None:
            mx.clear_cache()

    def drop_all(self) -> None:
        for component in COMPONENTS:
            self.drop(component)

    def label(self, prompt: str) -> int:
        """Class index that a prompt of a class-conditional TarFlow means: its name or number; -1
        for the empty prompt."""
        prompt, classes = prompt.strip(), self.flow_config.num_classes
        if not prompt:
            return -1
        if prompt.isdecimal() and len(prompt) < 10 and int(prompt) < classes:
            return int(prompt)
        raise UsageError(
            f"{shown(prompt)} is no class of this model: give a number from 0 to {classes - 1}."
        )

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the flow's weights as stored."""
        return fingerprint(self.path("flow"))

    def fingerprint_of(self, component: str) -> str:
        """Hash of a component's weights as stored, "" where the model has no such component."""
        if component == "flow":
            return self.fingerprint
        if component not in self._fingerprints:
            found = fingerprint(self.path(component)) if self.has(component) else ""
            self._fingerprints[component] = found
        return self._fingerprints[component]

    def _load_flow(self) -> Flow:
        def build(config: dict[str, Any]) -> Flow:
            return Flow(FlowConfig.from_dict(config, "flow/config.json"))

        return cast(Flow, load_component(self.path("flow"), build, self.dtype, self.quantize))

    def _load_vae(self) -> Autoencoder:
        def build(config: dict[str, Any]) -> nn.Module:
            return build_vae(config, "vae/config.json")

        vae = load_component(self.path("vae"), build)
        clips = self.config.clips
        check_autoencoder(vae.config, self.flow_config, clips)
        if clips is not None:  # the scale belongs to the flow: an autoencoder alone has none
            vae.config = dataclasses.replace(vae.config, temporal_scale=clips.temporal_scale)
        if not self.is_here("vae") and vae.config.factor != self.factor:
            raise ConfigError(
                f"{self.config.components['vae']} shrinks pictures {vae.config.factor} times; "
                f"this model was made for an autoencoder that does so {self.factor} times."
            )
        return vae

    def _load_text_encoder(self) -> TextEncoder:
        from ..text import load_encoder

        if self.config.text is None:
            raise UsageError("This model has no text encoder: it takes labels or nothing.")
        directory = self.path("text_encoder") if self.has("text_encoder") else None
        return load_encoder(directory, self.config.text)


def precision(module: nn.Module) -> str:
    """How the large matrices are stored, for people: "float32", "bfloat16", "4-bit", ..."""
    kinds: dict[str, int] = {}
    for _, leaf in layers_of(module):
        weight = leaf.get("weight")
        if weight is None or weight.ndim < 2:
            continue
        kind = f"{leaf.bits}-bit" if "scales" in leaf else str(weight.dtype).split(".")[-1]
        kinds[kind] = kinds.get(kind, 0) + weight.nbytes
    return max(kinds, key=kinds.__getitem__) if kinds else "float32"
