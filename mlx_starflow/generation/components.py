"""The components of a model, each read from disk when it is first used."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar, cast

import mlx.core as mx
import mlx.nn as nn

from ..adapters import Adapter, Attached, Base, read_adapter
from ..bundle.agreement import check_autoencoder, check_together
from ..bundle.fingerprint import fingerprint
from ..bundle.load import load_component, read_bundle_config, read_component_config
from ..config import COMPONENTS, FlowConfig, ModelConfig, VAEConfig
from ..device.typed import layers_of, parameters_of
from ..errors import ConfigError, UsageError
from ..files.fields import shown
from ..flow import Flow
from ..flow.shards import flow_cuts
from ..flow.split import Split
from ..hub.acquire import acquire_component
from ..hub.download import Tell
from ..hub.integrity import check_component
from ..text import TextEncoder
from ..vae import Autoencoder, build_vae, read_vae_config, vae_decoding_bytes

T = TypeVar("T")
Asked = str | Path | tuple[str | Path, float]  # an adapter's directory, alone or with its scale


class Components:
    """Loads the components of one bundle. Not thread-safe.

    A component may be a reference to a hub repository. It is resolved when the component is first
    used, so using only the flow needs no network.
    """

    def __init__(
        self,
        directory: Path,
        name: str,
        dtype: str | None = None,
        quantize: int | str | None = None,
        tell: Tell | None = None,
        adapters: Sequence[Asked] = (),
        split: Split | None = None,
    ) -> None:
        """``adapters``: directories of adapters, each alone or with its scale. ``split``: how the
        arithmetic is divided among ranks. Errors:
        ModelNotFoundError, ConfigError, WeightsError for one that does not fit this model."""
        self.directory, self.name = directory, name
        self.config: ModelConfig = read_bundle_config(directory)
        self.dtype, self.quantize = dtype, quantize
        self._tell, self.split = tell, split
        self._loaded: dict[str, Any] = {}
        self._fingerprints: dict[str, str] = {}
        self._attached: Attached | None = None
        self.adapters: tuple[tuple[Adapter, float], ...] = self._read_adapters(adapters)

    @property
    def flow(self) -> Flow:
        """The flow. Errors: ConfigError, WeightsError."""
        return self._once("flow", self._load_flow)

    @cached_property
    def base(self) -> Base:
        """What an adapter for this model names as its base."""
        source = self.config.source
        return Base(self.config.name, self._stored_fingerprint, source.sha256 if source else "")

    def set_adapters(self, adapters: Sequence[Asked]) -> None:
        """Put these adapters in the place of those that are on the flow, which is not read again.
        Errors as for a new one's; the flow then keeps what it has."""
        before, found = self.adapters, self._read_adapters(adapters)
        if self.is_loaded("flow"):
            self._take_off()
            try:
                self._attached = Attached(self.flow, found)
            except BaseException:
                self._attached = Attached(self.flow, before)
                raise
        self.adapters = found

    def adapter_records(self) -> list[dict[str, Any]]:
        """What a picture's settings say of the adapters: place, scale and fingerprint."""
        return [
            {"path": adapter.path, "scale": scale, "weights": adapter.weights}
            for adapter, scale in self.adapters
        ]

    def _read_adapters(self, asked: Sequence[Asked]) -> tuple[tuple[Adapter, float], ...]:
        found = []
        for one in asked:
            place, scale = one if isinstance(one, tuple) else (one, 1.0)
            if not (isinstance(scale, int | float) and math.isfinite(scale)):
                raise UsageError(f"The scale of the adapter {place} is {scale}; expected a number.")
            found.append((read_adapter(place, self.flow_config, self.base), float(scale)))
        return tuple(found)

    def _take_off(self) -> None:
        if self._attached is not None:
            self._attached.remove()
            self._attached = None

    @property
    def vae(self) -> Autoencoder | None:
        """The image autoencoder; None if the flow makes pixels."""
        return self._once("vae", self._load_vae) if self.has("vae") else None

    @property
    def text_encoder(self) -> TextEncoder | None:
        """The text encoder; None for a model without text."""
        if self.config.text is None or not self.flow_config.text_channels:
            return None
        return self._once("text_encoder", self._load_text_encoder)

    @cached_property
    def flow_config(self) -> FlowConfig:
        """The flow's configuration; reads no weights."""
        flow = FlowConfig.from_dict(*self._settings("flow"))
        check_together(self.config, flow)
        return flow

    @cached_property
    def vae_config(self) -> VAEConfig | None:
        """The autoencoder's configuration; reads no weights. None if the flow makes pixels."""
        if not self.has("vae"):
            return None
        vae = read_vae_config(*self._settings("vae"))
        check_autoencoder(vae, self.flow_config, self.config.clips)
        return vae

    @cached_property
    def factor(self) -> int:
        """Pixels per latent cell along one side; 1 without a VAE. If the VAE is not inside the
        bundle, it is computed from the bundle's image_size."""
        if not self.has("vae"):
            return 1
        if self.is_here("vae") and self.vae_config is not None:
            return self.vae_config.factor
        side = self.flow_config.grid_size * self.flow_config.patch_size
        factor, rest = divmod(self.config.image_size, side)
        if factor < 1 or rest:
            raise ConfigError(
                f"{self.directory / 'config.json'}: image_size is {self.config.image_size}; "
                f"expected a multiple of {side}, the side of the flow's latents. Convert the model "
                "again."
            )
        return factor

    def decoding_bytes(self, height: int, width: int, tiled: bool = False) -> int:
        """Estimated peak bytes of decoding one latent of height × width, 0 without a VAE.
        ``tiled``: in the tiles of ``vae_tiling``."""
        if not self.has("vae"):
            return 0
        return vae_decoding_bytes(*self._settings("vae"), height, width, tiled)

    def _settings(self, component: str) -> tuple[dict[str, Any], str]:
        path = self.path(component)
        return read_component_config(path), f"{path.name}/config.json"

    def path(self, component: str) -> Path:
        """The directory of a component. A reference to a hub repository is downloaded and converted
        if necessary. Errors: ConfigError if the model has no such component, HubError."""
        reference = self.config.components.get(component)
        if reference is None:
            raise ConfigError(
                f"{self.directory / 'config.json'}: 'components' has no {component!r}. "
                "Convert the model again."
            )
        return acquire_component(self.directory, reference, component, self._tell)

    def has(self, component: str) -> bool:
        """Whether the model has a component."""
        return component in self.config.components

    def is_here(self, component: str) -> bool:
        """Whether a component is inside the bundle, so that using it needs no network."""
        return (self.directory / self.config.components.get(component, "")).is_dir()

    def is_loaded(self, component: str) -> bool:
        """Whether a component is in memory."""
        return component in self._loaded

    def _once(self, component: str, load: Callable[[], T]) -> T:
        if component not in self._loaded:
            if self.has(component):
                check_component(self.path(component))
            loaded = load()
            if isinstance(loaded, nn.Module):
                mx.eval(parameters_of(loaded))  # unevaluated arrays are tied to this thread
            self._loaded[component] = loaded
        return cast(T, self._loaded[component])

    def drop(self, component: str) -> None:
        """Free the memory of a component; it is loaded again when it is used."""
        if component == "flow":
            self._attached = None
        if self._loaded.pop(component, None) is not None:
            mx.clear_cache()

    def drop_all(self) -> None:
        """Free the memory of all components."""
        for component in COMPONENTS:
            self.drop(component)

    def label(self, prompt: str) -> int:
        """The class of a class-conditional TarFlow from a prompt, which must be its number; -1 for
        the empty prompt. Errors: UsageError."""
        prompt, classes = prompt.strip(), self.flow_config.num_classes
        if not prompt:
            return -1
        if prompt.isdecimal() and len(prompt) < 10 and int(prompt) < classes:
            return int(prompt)
        raise UsageError(
            f"{shown(prompt)} is not a class of this model: give a number from 0 to {classes - 1}."
        )

    @property
    def fingerprint(self) -> str:
        """A hash of the flow's stored weights and of the adapters on it."""
        if not self.adapters:
            return self._stored_fingerprint
        own = [f"{a.weights} {scale!r}" for a, scale in self.adapters]
        whole = "\n".join([self._stored_fingerprint, *own])
        return hashlib.sha256(whole.encode()).hexdigest()[:16]

    @cached_property
    def _stored_fingerprint(self) -> str:
        return fingerprint(self.path("flow"))

    def fingerprint_of(self, component: str) -> str:
        """A hash of a component's stored weights, and of the adapters on the flow; "" if the model
        has no such component."""
        if component == "flow":
            return self.fingerprint
        if component not in self._fingerprints:
            found = fingerprint(self.path(component)) if self.has(component) else ""
            self._fingerprints[component] = found
        return self._fingerprints[component]

    def _load_flow(self) -> Flow:
        def build(config: dict[str, Any]) -> Flow:
            return Flow(FlowConfig.from_dict(config, "flow/config.json"))

        share = None if self.split is None else self.split.share
        cuts = None if share is None else flow_cuts(self.flow_config, share)
        flow = cast(Flow, load_component(self.path("flow"), build, self.dtype, self.quantize, cuts))
        if self.split is not None:
            self.split.settle(flow)
        self._attached = Attached(flow, self.adapters) if self.adapters else None
        return flow

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
                f"{self.config.components['vae']} reduces the sides of pictures by a factor of "
                f"{vae.config.factor}; this model needs an autoencoder with a factor of "
                f"{self.factor}."
            )
        return vae

    def _load_text_encoder(self) -> TextEncoder:
        from ..text import load_encoder

        if self.config.text is None:
            raise UsageError("This model has no text encoder: it takes class labels or no prompt.")
        directory = self.path("text_encoder") if self.has("text_encoder") else None
        share = None if self.split is None else self.split.share
        return load_encoder(directory, self.config.text, share=share)


def precision(module: nn.Module) -> str:
    """The precision of most of a module's matrices, for display: "float32", "bfloat16", "4-bit"."""
    kinds: dict[str, int] = {}
    for _, leaf in layers_of(module):
        weight = leaf.get("weight")
        if weight is None or weight.ndim < 2:
            continue
        kind = f"{leaf.bits}-bit" if "scales" in leaf else str(weight.dtype).split(".")[-1]
        kinds[kind] = kinds.get(kind, 0) + weight.nbytes
    return max(kinds, key=kinds.__getitem__) if kinds else "float32"
