"""The published models that have a name here, with their repositories and settings.

``settings`` has what cannot be derived from the weights; the converter derives the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

DEFAULT = "default"  # the small model of pictures inside the package
CLIPS = "clips"  # and that of clips

_NONE: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class KnownModel:
    """A published checkpoint."""

    name: str  # the name that users give
    description: str  # one phrase
    repository: str  # on the hub
    checkpoint: str  # file in the repository
    licence: str  # a sentence
    attribution: str = ""  # a sentence that must be kept with copies
    settings: Mapping[str, Any] = field(default_factory=lambda: _NONE)  # as in its YAML file
    text_encoder: str = ""  # repository, "" for none
    vae: str = ""  # repository, "" for a model of pixels
    dtype: str = "float32"  # of the converted large matrices
    aliases: tuple[str, ...] = ()
    checkpoint_bytes: int = 0  # approximate; the hub gives the exact size before a download


_STARFLOW_3B = KnownModel(
    name="apple/starflow",
    description="text to image, 256x256, 3.86 billion parameters",
    repository="apple/starflow",
    checkpoint="starflow_3B_t2i_256x256.pth",
    licence="Apple Machine Learning Research Model License Agreement: for research only.",
    attribution=(
        "Apple Machine Learning Research Model is licensed under the Apple Machine Learning "
        "Research Model License Agreement."
    ),
    settings=MappingProxyType(
        {
            "img_size": 256,
            "txt_size": 128,
            "channel_size": 4,
            "patch_size": 1,
            "blocks": 6,
            "noise_std": 0.3,
            "rope": 1,
            "sos": 1,
            "seq_order": "L2R",
            "use_softplus": 1,
            "cond_top_only": 1,
            "use_final_norm": 1,
            "soft_clip": 4,
            "vae": "stabilityai/sd-vae-ft-ema",
            "text": "google/flan-t5-xl",
        }
    ),
    text_encoder="google/flan-t5-xl",
    vae="stabilityai/sd-vae-ft-ema",
    dtype="bfloat16",
    aliases=("starflow", "starflow-3b"),
    checkpoint_bytes=15_436_000_000,
)


_STARFLOW_V = KnownModel(
    name="starflow-v",
    description="text or a picture to clips of 81 frames, 480p, 6.9 billion parameters",
    repository="apple/starflow",
    checkpoint="starflow-v_7B_t2v_caus_480p_v3.pth",
    licence=_STARFLOW_3B.licence,
    attribution=_STARFLOW_3B.attribution,
    settings=MappingProxyType(
        {
            "img_size": 640,
            "vid_size": "81:16",
            "txt_size": 256,
            "channel_size": 48,
            "patch_size": 1,
            "blocks": 6,
            "noise_std": 0.5,
            "rope": 1,
            "pt_seq_len": 32,
            "sos": 1,
            "seq_order": "L2R",
            "mix_aspect": 1,
            "fps_cond": 1,
            "cond_noise_level": 1,
            "use_softplus": 1,
            "cond_top_only": 1,
            "use_final_norm": 1,
            "soft_clip": 4,
            "learnable_self_denoiser": 1,
            "conditional_denoiser": 1,
            "denoiser_window": 10,
            "temporal_causal": 2,
            "shallow_block_local": 1,
            "vae": "Wan-AI/Wan2.2-TI2V-5B-Diffusers:0.6",
            "text": "google/flan-t5-xl",
        }
    ),
    text_encoder="google/flan-t5-xl",
    vae="Wan-AI/Wan2.2-TI2V-5B-Diffusers",
    dtype="bfloat16",
    aliases=("starflow-v-7b", "apple/starflow-v"),
    checkpoint_bytes=27_600_000_000,
)


def _tarflow(name: str, description: str, checkpoint: str, size: int) -> KnownModel:
    return KnownModel(
        name=name,
        description=description,
        repository="encoreus/Transformer_Autoregressive_Flow",
        checkpoint=checkpoint,
        licence="Apache License 2.0.",
        checkpoint_bytes=size,
    )


KNOWN = (
    _STARFLOW_3B,
    _STARFLOW_V,
    _tarflow(
        "tarflow-afhq-256",
        "animal faces in 3 classes, 256x256, 0.46 billion parameters",
        "afhq_model_8_768_8_8_0.07.pth",
        1_850_000_000,
    ),
    _tarflow(
        "tarflow-imagenet-64-unconditional",
        "ImageNet without classes, 64x64, 0.46 billion parameters",
        "imagenet64_model_2_768_8_8_0.05.pth",
        1_850_000_000,
    ),
    _tarflow(
        "tarflow-imagenet-64",
        "ImageNet in 1000 classes, 64x64, 0.81 billion parameters",
        "imagenet_model_4_1024_8_8_0.05.pth",
        3_300_000_000,
    ),
    _tarflow(
        "tarflow-imagenet-128",
        "ImageNet in 1000 classes, 128x128, 0.82 billion parameters",
        "imagenet_model_4_1024_8_8_0.15.pth",
        3_300_000_000,
    ),
)


def known_model(name: str) -> KnownModel | None:
    """The known model with this name, alias or checkpoint file name, ignoring case; else None."""
    folded = name.casefold()
    for model in KNOWN:
        if folded in (model.name, *model.aliases, model.checkpoint.casefold()):
            return model
    return None
