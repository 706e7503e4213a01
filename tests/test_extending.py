"""What one adds to the project, as CONTRIBUTING.md describes it: each test registers one thing and
uses it through everything around it."""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
import types
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import pytest
from command import run  # noqa: F401
from mlx.utils import tree_flatten

import mlx_starflow as sf
from mlx_starflow.bundle.load import write_component, write_json
from mlx_starflow.cli import app
from mlx_starflow.cli import generate as generate_module
from mlx_starflow.cli import options as o
from mlx_starflow.cli import video as video_module
from mlx_starflow.cli.flags import with_flags
from mlx_starflow.config import FlowConfig, ModelConfig
from mlx_starflow.files.json import read_json
from mlx_starflow.generation.settings import Settings
from mlx_starflow.sampling import SAMPLERS, SampleOptions
from mlx_starflow.sampling.sequential import sequential
from mlx_starflow.text import registry as text_registry
from mlx_starflow.vae import registry as vae_registry

ROOT = Path(__file__).parents[1]
PLAIN = dict(
    prompts=("a",), seeds=(1,), width=8, height=8, aspect_ratio="1:1", denoise=False,
    noise_std=None, denoiser=None,
)  # fmt: skip
VALUES = {  # another value than the default for every option that people set
    "guidance": 2.5, "sampler": "jacobi", "max_sweeps": 3, "tolerance": 0.1, "block_size": 4,
    "windows": (2, 1), "attention_temperature": 0.7, "guide": "a", "annealed": True,
    "guidance_blocks": "deep", "window": 3, "context_frames": 2,
    "kv_bits": 8,
}  # fmt: skip


@pytest.mark.parametrize("field", SampleOptions.asked(), ids=lambda f: f.name)
def test_a_sampling_option_is_declared_once(field):
    """A field of SampleOptions with a help text is a flag, an argument, and a stored setting."""
    clips = field.metadata["clips"]
    command = video_module.video if clips else generate_module.generate
    assert field.name in inspect.signature(with_flags(command)).parameters
    value = VALUES.get(field.name, field.default)
    more = {"frames": 17, "fps": 16} if clips else {}
    settings = Settings(**PLAIN, **more, sample=SampleOptions(**{field.name: value}))
    stored = settings.to_dict()
    assert field.name in stored
    assert Settings.from_dict(stored) == settings
    for former in field.metadata["former"]:
        renamed = {**stored, former: stored.pop(field.name)}
        assert Settings.from_dict(renamed) == settings


def test_a_sampler_is_a_file_and_a_row(run, colours, monkeypatch):  # noqa: F811
    monkeypatch.setitem(SAMPLERS, "mine", lambda block, v, options: sequential(block, v, options))
    outcome = run("generate", "red", "-m", colours, "--seed", 1, "--sampler", "mine", "--json")
    assert outcome.status == 0, outcome.err
    assert '"sampler": "mine"' in outcome.out


@dataclasses.dataclass(frozen=True)
class HalfConfig:
    """The configuration of an autoencoder that halves both sides."""

    latent_channels: int
    factor: int = 2


class HalfVAE(nn.Module):
    """Keeps every second pixel, times a weight."""

    def __init__(self, config: HalfConfig) -> None:
        super().__init__()
        self.config = config
        self.gain = mx.ones((config.latent_channels,))

    def encode(self, image: mx.array) -> mx.array:
        return image[:, ::2, ::2] * self.gain

    def decode(self, latent: mx.array) -> mx.array:
        return mx.repeat(mx.repeat(latent / self.gain, 2, axis=1), 2, axis=2)


def with_vae(bundle: Path, folder: Path) -> Path:
    """The bundle with a component of the kind "half"."""
    config = ModelConfig.from_dict(read_json(bundle / "config.json"))
    flow = FlowConfig.from_dict(read_json(bundle / "flow" / "config.json"))
    vae = HalfVAE(HalfConfig(flow.in_channels))
    settings = {"kind": "half", "latent_channels": flow.in_channels}
    write_component(folder / "vae", settings, dict(tree_flatten(vae.parameters())))
    parts = {"flow": str(bundle / "flow"), "vae": "vae"}
    (folder / "flow").symlink_to(bundle / "flow")
    parts["flow"] = "flow"
    size = 2 * flow.grid_size * flow.patch_size
    config = dataclasses.replace(config, components=parts, image_size=size)
    write_json(folder / "config.json", config.to_dict())
    return folder


def test_a_vae_is_a_file_and_a_row(run, colours, monkeypatch, tmp_path):  # noqa: F811
    def settings(data: dict, where: str) -> HalfConfig:
        return HalfConfig(data["latent_channels"])

    kind = vae_registry.Kind(settings, HalfVAE, lambda config, height, width: 99 * height * width)
    monkeypatch.setitem(vae_registry.KINDS, "half", kind)
    bundle = with_vae(colours, tmp_path / "bundle")
    with sf.load(bundle) as pipe:
        result = pipe.generate("red", seed=1)
        assert result.images[0].size == (24, 24) and result.latents.shape[1:3] == (12, 12)
    outcome = run("vary", result.save(0, tmp_path / "a.png"), "-m", bundle)
    assert outcome.status == 0, outcome.err


def test_a_text_encoder_is_a_file_and_a_row(colours, monkeypatch, tmp_path):
    def load(directory: Path, settings: dict, dtype) -> text_registry.Embed:
        return lambda ids: mx.zeros((ids.size, 5))

    kind = text_registry.Kind(("mine",), "width", load)
    monkeypatch.setitem(text_registry.KINDS, "mine", kind)
    monkeypatch.setattr(text_registry, "PromptTokenizer", lambda directory: None)
    write_json(tmp_path / "config.json", {"model_type": "mine", "width": 5, "vocab_size": 9})
    config = dataclasses.replace(
        ModelConfig.from_dict(read_json(colours / "config.json")).text, encoder="mine", labels=()
    )
    encoder = text_registry.load_encoder(tmp_path, config)
    assert encoder.config.encoder == "mine"


def test_a_command_is_a_file_and_a_row(run, monkeypatch):  # noqa: F811
    module = types.ModuleType("mlx_starflow.cli.hello")

    def hello(*, messages: o.Messages) -> None:
        """Say whether there is to be JSON."""
        sys.stdout.write(f"json {messages.json_}\n")

    module.hello, module.EPILOG = hello, None
    monkeypatch.setitem(sys.modules, "mlx_starflow.cli.hello", module)
    monkeypatch.setitem(app.COMMANDS, "hello", ("hello", "hello", "EPILOG"))
    assert run("hello", "--json").out == "json True\n"


def test_contributing_names_files_that_exist():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:mlx_starflow|convert|tests|recipes|docs)/[\w/.]+\.(?:py|md))`", text)
    assert len(named) > 10
    assert not [name for name in named if "your_" not in name and not (ROOT / name).exists()]
