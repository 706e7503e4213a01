"""The components of a model, each read from disk when first needed and dropped when told to."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from ..bundle.fingerprint import fingerprint
from ..bundle.load import load_component, read_bundle_config, read_component_config
from ..config import COMPONENTS, FlowConfig, ModelConfig, VAEConfig, check_together
from ..errors import UsageError
from ..flow import Flow
from ..hub.acquire import acquire_component
from ..hub.download import Tell
from ..hub.integrity import check_component
from ..vae import AutoencoderKL


class Stages:
    """Loads the components of one bundle. Not safe for several threads at once by itself."""

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
        self.flow_config = FlowConfig.from_dict(*self._settings("flow"))
        self.vae_config: VAEConfig | None = None
        if "vae" in self.config.components:
            self.vae_config = VAEConfig.from_dict(*self._settings("vae"))
        check_together(self.config, self.flow_config, self.vae_config)
        self._loaded: dict[str, Any] = {}

    def _settings(self, component: str) -> tuple[dict, str]:
        path = self.path(component)
        return read_component_config(path), f"{path.name}/config.json"

    def path(self, component: str) -> Path:
        """Directory of a component, inside the bundle or wherever its reference leads."""
        reference = self.config.components[component]
        return acquire_component(self.directory, reference, component, self._tell)

    @property
    def factor(self) -> int:
        """Pixels per number of the flow's picture along one side."""
        return self.vae_config.factor if self.vae_config else 1

    def has(self, component: str) -> bool:
        return component in self.config.components

    def loaded(self, component: str) -> bool:
        return component in self._loaded

    def get(self, component: str) -> Any:
        """The component, loaded strictly if it is not in memory."""
        if component not in self._loaded:
            if self.has(component):
                check_component(self.path(component))
            loaded = getattr(self, f"_load_{component}")()
            if isinstance(loaded, nn.Module):
                mx.eval(loaded.parameters())  # an unevaluated array is tied to this thread
            self._loaded[component] = loaded
        return self._loaded[component]

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
        if prompt.isdecimal() and int(prompt) < classes:
            return int(prompt)
        raise UsageError(
            f"{prompt!r} is no class of this model: give a number from 0 to {classes - 1}."
        )

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the flow's weights as stored."""
        return fingerprint(self.path("flow"))

    def _load_flow(self) -> Flow:
        def build(config: dict[str, Any]) -> Flow:
            return Flow(FlowConfig.from_dict(config, "flow/config.json"))

        return load_component(self.path("flow"), build, self.dtype, self.quantize)

    def _load_vae(self) -> AutoencoderKL:
        def build(config: dict[str, Any]) -> AutoencoderKL:
            return AutoencoderKL(VAEConfig.from_dict(config, "vae/config.json"))

        return load_component(self.path("vae"), build)

    def _load_text_encoder(self) -> Any:
        from ..text import load_encoder

        if self.config.text is None:
            raise UsageError("This model has no text encoder: it takes labels or nothing.")
        directory = self.path("text_encoder") if self.has("text_encoder") else None
        return load_encoder(directory, self.config.text)


def precision(module: nn.Module) -> str:
    """How the large matrices are stored, for people: "float32", "bfloat16", "4-bit", ..."""
    kinds: dict[str, int] = {}
    for _, leaf in tree_flatten(module.leaf_modules(), is_leaf=nn.Module.is_module):
        weight = leaf.get("weight")
        if weight is None or weight.ndim < 2:
            continue
        kind = f"{leaf.bits}-bit" if "scales" in leaf else str(weight.dtype).split(".")[-1]
        kinds[kind] = kinds.get(kind, 0) + weight.nbytes
    return max(kinds, key=kinds.__getitem__) if kinds else "float32"
