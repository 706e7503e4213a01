"""Converting the small reference checkpoints, for tests."""

from __future__ import annotations

from pathlib import Path

import torch_files as tf
from conftest import case_dir
from hostile import small_model

from convert.bundle import convert_checkpoint
from convert.options import ConvertOptions, ConvertReport
from mlx_starflow.bundle.load import load_component
from mlx_starflow.bundle.safetensors import read_header
from mlx_starflow.config import FlowConfig
from mlx_starflow.flow import Flow


def convert(output: Path, case: str = "t2i_tiny", **options) -> ConvertReport:
    checkpoint = case_dir(case) / "checkpoint.pth"
    return convert_checkpoint(ConvertOptions(checkpoint, output, **options))


def types(directory: Path) -> dict[str, str]:
    return {t.name: t.dtype for t in read_header(directory / "model.safetensors")}


def small(folder: Path) -> Path:
    return tf.save(folder / small_model.FILE_NAME, small_model.arrays())


def flow_of(bundle: Path) -> Flow:
    return load_component(bundle / "flow", lambda d: Flow(FlowConfig.from_dict(d)))
