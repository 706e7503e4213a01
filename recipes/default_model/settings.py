"""All settings of the recipe: of the shipped model, and of a tiny model for tests."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from .flow import FlowShape


@dataclass(frozen=True)
class DataSettings:
    train: int = 120_000  # paintings
    first: int = 0  # number of the first training painting; a further run can use new ones
    held_out: int = 1_000  # paintings that are not used for training, with other seeds
    size: int = 128  # pixels per side
    encoded: int = 120_000  # training paintings that are encoded for the flow
    flipped: bool = False  # also encode them mirrored
    captions: int = 6  # phrasings kept per painting
    seed: int = 1
    workers: int = 2


@dataclass(frozen=True)
class VAESettings:
    channels: tuple[int, ...] = (16, 32, 64, 128)
    latent_channels: int = 12
    norm_groups: int = 8
    images: int = 36_000  # pictures of all steps; crops are counted by their pixels
    crop: int = 64  # side of the crops in the first part of the training; later whole pictures
    crop_share: float = 0.75  # of the pictures, used as crops
    batch: int = 8  # whole pictures per step (steps with crops have half as many pixels)
    learning_rate: float = 2e-3
    latent_noise: float = 0.1  # in training; relative to the latents' standard deviation
    kl_weight: float = 1e-6
    edge_weight: float = 0.1  # of the gradient term
    patch_weight: float = 0.03  # of the distance of patch statistics
    decoder_images: int = 0  # pictures of a last part, in which only the decoder is trained
    decoder_learning_rate: float = 4e-4
    decoder_latent_noise: float = 0.08
    # A bundle to start from. The first `start_channels` latent channels are kept similar to the
    # bundle's, so that the flow can start from the bundle too.
    start: str = ""
    start_channels: int = 6
    anchor_weight: float = 0.02
    seed: int = 2


@dataclass(frozen=True)
class TextSettings:
    width: int = 128
    layers: int = 2
    heads: int = 4
    head_dim: int = 32
    feed_forward: int = 256
    length: int = 16  # tokens, with <bos>


@dataclass(frozen=True)
class FlowSettings:
    shape: FlowShape = field(
        default_factory=lambda: FlowShape(
            channel_size=12, layers_per_block=(1, 1, 5), text_size=16, text_width=128
        )
    )
    images: int = 640_000  # pictures of all steps
    batch: int = 64
    learning_rate: float = 1e-3
    matrix_learning_rate: float = 2e-3  # Muon, for the matrices inside the layers
    weight_decay: float = 0.01
    warm_up: int = 100  # steps
    noise_std: float = 0.25
    caption_dropout: float = 0.1
    ema: float = 0.995
    save_seconds: float = 240.0
    start: str = ""  # a bundle to start from, with `start_channels` latent channels
    start_channels: int = 6
    seed: int = 3


@dataclass(frozen=True)
class PolishSettings:
    denoised: int = 1_536  # paintings whose latents are noised and then denoised by the flow
    drawn: int = 512  # samples of the flow for the captions of paintings
    steps: int = 0  # 0: the decoder stays as it is; some 800 sharpen a decoder that blurs
    pictures: int = 4  # per step; crops are counted by their pixels
    crop: int = 64  # side of the crops in pixels; the last part of the steps uses whole pictures
    crop_share: float = 0.8  # of the steps
    clean_noise: float = 0.08  # on clean latents; relative to their standard deviation
    learning_rate: float = 1e-3
    edge_weight: float = 0.1
    patch_weight: float = 0.06
    drawn_weight: float = 0.06  # of the patch statistics of drawn pictures
    gradient_weight: float = 0.02  # of the statistics of neighbouring pixels' differences
    seed: int = 6


@dataclass(frozen=True)
class ClassifierSettings:
    images: int = 60_000  # pictures of all steps
    batch: int = 64
    learning_rate: float = 2e-3
    seed: int = 4


@dataclass(frozen=True)
class Recipe:
    data: DataSettings = field(default_factory=DataSettings)
    vae: VAESettings = field(default_factory=VAESettings)
    text: TextSettings = field(default_factory=TextSettings)
    flow: FlowSettings = field(default_factory=FlowSettings)
    polish: PolishSettings = field(default_factory=PolishSettings)
    classifier: ClassifierSettings = field(default_factory=ClassifierSettings)
    guidance: float = 2.0  # default of the shipped model
    evaluated: int = 300  # prompts
    begun: str = ""  # for the model card: where the run started
    compute: str = ""  # for the model card: the cost


def full() -> Recipe:
    """Everything from the start, with about as many pictures as the shipped weights have seen."""
    return Recipe()


def further() -> Recipe:
    """The last run of the shipped weights, which began with the third ones (`--start`)."""
    recipe = Recipe()
    return replace(
        recipe,
        data=replace(recipe.data, first=180_000),
        vae=replace(recipe.vae, images=0),
        flow=replace(
            recipe.flow,
            images=211_200,
            learning_rate=6e-4,
            matrix_learning_rate=1.2e-3,
            seed=14,
        ),
        classifier=replace(recipe.classifier, images=100_000),
        begun=BEGUN,
        compute=COMPUTE,
    )


BEGUN = (
    "The flow and the text encoder were started from the third weights of this model (675,200 "
    "pictures before, the first 160,000 with 14 subjects) and trained further on new paintings. "
    "The VAE is that of the third weights (37,000 pictures, the first 9,000 with 6 latent "
    "channels, then 4,000 for its decoder alone)."
)
COMPUTE = (
    "Two cores of a server CPU with bfloat16 instructions, shared with other work: encoding "
    "10 minutes, flow 49."
)


def toy() -> Recipe:
    """Settings with which every stage takes seconds, for tests; the pictures are noise."""
    return Recipe(
        data=DataSettings(
            train=96, held_out=16, size=64, encoded=64, flipped=True, captions=2, workers=1
        ),
        vae=VAESettings(
            channels=(8, 8, 8, 8),
            latent_channels=4,
            norm_groups=4,
            images=64,
            crop=32,
            batch=4,
            decoder_images=8,
        ),
        text=TextSettings(width=32, layers=2, heads=2, head_dim=16, feed_forward=32),
        flow=replace(
            FlowSettings(),
            shape=FlowShape(
                grid=4,
                channels=32,
                head_dim=32,
                layers_per_block=(1, 2),
                text_size=16,
                text_width=32,
            ),
            images=192,
            batch=16,
            warm_up=2,
            save_seconds=0.0,
        ),
        polish=PolishSettings(denoised=16, drawn=16, steps=4, pictures=2, crop=32),
        classifier=ClassifierSettings(images=128, batch=16),
        evaluated=4,
    )
