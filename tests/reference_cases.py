"""The reference cases of flows, and the flows that the converter makes of them."""

from __future__ import annotations

from pathlib import Path

from conftest import case_dir, case_info

from convert.bundle import convert_checkpoint
from convert.options import ConvertOptions
from mlx_starflow.bundle.load import load_component
from mlx_starflow.config import FlowConfig
from mlx_starflow.flow import Flow

STARFLOW = [
    "t2i_tiny",
    "t2i_aspect",
    "patch2_r2l",
    "gqa_swiglu",
    "gemma_top",
    "wide_top",
    "nosos_rope",
    "labels",
]
TARFLOW = ["tarflow_cond", "tarflow_uncond", "tarflow_vp"]
CLIPS = ["video_tiny", "video_i2v", "video_long", "video_global", "video_noncausal"]


def converted_flow(name: str, output: Path) -> Flow:
    """The flow of a reference case, converted into the new directory ``output``."""
    folder, info = case_dir(name), case_info(name)
    config = folder / ("video.yaml" if name in CLIPS else "config.yaml")
    convert_checkpoint(
        ConvertOptions(
            checkpoint=folder / "checkpoint.pth",
            output=output,
            config=config if config.exists() else None,
            noise_std=None if config.exists() else info["noise_std"],
        )
    )

    def build(settings: dict) -> Flow:
        return Flow(FlowConfig.from_dict(settings))

    return load_component(output / "flow", build)
