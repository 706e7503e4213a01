"""All settings of the recipe: of the full model, and of a tiny model for tests."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from ..default_model.flow import FlowShape
from ..default_model.settings import FlowSettings, TextSettings


@dataclass(frozen=True)
class DataSettings:
    train: int = 12_000  # painted clips; each is also used mirrored
    held_out: int = 600  # clips that are not used for training, with other seeds
    size: int = 64  # pixels per side
    frames: int = 33  # painted frames; the model is trained on parts of them
    captions: int = 6  # phrasings kept per clip
    seed: int = 21
    workers: int = 2


@dataclass(frozen=True)
class Part:
    """A part of the autoencoder's training."""

    frames: int  # of a clip; 1: pictures
    batch: int  # clips per step
    steps: int


@dataclass(frozen=True)
class Round:
    """Parts that share a schedule of the learning rate and begin with new optimizers.

    The weights between frames have no gradient in a part with pictures. They stay as they are if
    the optimizers do not remember earlier gradients.
    """

    learning_rate: float
    parts: tuple[Part, ...]

    @property
    def steps(self) -> int:
        return sum(part.steps for part in self.parts)


@dataclass(frozen=True)
class VAESettings:
    base_dim: int = 24  # width of the encoder; the stages have 1, 1, 2, 2 times as many channels
    decoder_base_dim: int = 32
    widths: tuple[int, ...] = (1, 1, 2, 2)
    latent_channels: int = 48
    # Pictures first, because they show more scenes for the same cost; long clips last.
    rounds: tuple[Round, ...] = (
        Round(2e-3, (Part(1, 56, 2500), Part(5, 14, 2000), Part(17, 4, 1500))),
        Round(1e-3, (Part(1, 56, 4689),)),
        Round(1e-3, (Part(17, 4, 1500),)),
    )
    latent_noise: float = 0.1  # in training; relative to the channels' standard deviations
    kl_weight: float = 1e-6
    edge_weight: float = 0.1  # of the gradient term
    patch_weight: float = 0.03  # of the distance of patch statistics
    motion_weight: float = 0.1  # of the differences of neighbouring frames
    seed: int = 22

    @property
    def parts(self) -> tuple[Part, ...]:
        return tuple(part for round_ in self.rounds for part in round_.parts)

    @property
    def longest(self) -> int:
        """Frames of the longest clips of the training."""
        return max(part.frames for part in self.parts)


@dataclass(frozen=True)
class ClipFlowSettings(FlowSettings):
    window: int = 5  # latent frames of a training clip
    stills: float = 0.1  # share of the steps that train on single frames
    continued: float = 0.4  # share of the clips that begin in the middle of a motion


@dataclass(frozen=True)
class JudgeSettings:
    clips: int = 48_000  # clips of all steps
    frames: tuple[int, ...] = (0, 4, 8, 12, 16)  # that the judge sees
    batch: int = 32
    learning_rate: float = 2e-3
    seed: int = 24


@dataclass(frozen=True)
class Recipe:
    data: DataSettings = field(default_factory=DataSettings)
    vae: VAESettings = field(default_factory=VAESettings)
    text: TextSettings = field(default_factory=TextSettings)
    flow: ClipFlowSettings = field(
        default_factory=lambda: ClipFlowSettings(
            shape=FlowShape(
                grid=4,
                channel_size=48,
                patch_size=1,
                channels=192,
                head_dim=64,
                layers_per_block=(1, 1, 6),
                text_size=16,
                text_width=128,
                frames=5,
                local=True,
            ),
            images=288_000,
            batch=64,
            learning_rate=1e-3,
            matrix_learning_rate=2e-3,
            noise_std=0.25,
            seed=23,
        )
    )
    judge: JudgeSettings = field(default_factory=JudgeSettings)
    fps: int = 8
    guidance: float = 2.0  # default of the bundle
    evaluated: int = 100  # prompts

    @property
    def frames(self) -> int:
        """Frames of a training clip of the flow."""
        return 4 * self.flow.window - 3


def full() -> Recipe:
    return Recipe()


def toy() -> Recipe:
    """Settings with which every stage takes seconds, for tests; the clips are noise."""
    whole = full()
    return replace(
        whole,
        data=replace(whole.data, train=24, held_out=8, frames=25, captions=2, workers=1),
        vae=replace(
            whole.vae,
            base_dim=4,
            decoder_base_dim=4,
            latent_channels=4,
            rounds=(
                Round(2e-3, (Part(1, 8, 2), Part(5, 4, 2))),
                Round(1e-3, (Part(1, 8, 2), Part(9, 2, 2))),
            ),
        ),
        text=TextSettings(width=32, layers=2, heads=2, head_dim=16, feed_forward=32),
        flow=replace(
            whole.flow,
            shape=replace(
                whole.flow.shape,
                channel_size=4,
                channels=32,
                head_dim=32,
                layers_per_block=(1, 1, 1),
                text_width=32,
            ),
            images=96,
            batch=8,
            warm_up=2,
            save_seconds=0.0,
        ),
        judge=replace(whole.judge, clips=64, batch=8),
        evaluated=2,
    )
