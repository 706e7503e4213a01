"""The text settings in a STARFlow's YAML."""

from __future__ import annotations

import os
import re
from pathlib import Path

from mlx_starflow.bundle.copying import check_inside
from mlx_starflow.config import FlowConfig, TextConfig
from mlx_starflow.errors import CheckpointError, ConfigError
from mlx_starflow.files.regular import read_regular

from ..read.published_yaml import Settings

_TOKEN_TABLES = ("gemma3_4b", "gemma3_1b", "gemma2_2b")
MAX_VOCABULARY_BYTES = 16 << 20


def encoder_kind(settings: Settings) -> str:
    """``TextConfig.encoder`` for the YAML's ``text``. Errors: ConfigError if it is unknown."""
    name = settings.text
    if name.endswith(".vocab"):
        return "labels"
    if name in _TOKEN_TABLES:
        return "gemma_tokens"
    if "t5" in name.lower():
        return "t5"
    if name == "gemma" or name.startswith("Alpha-VLLM/"):
        return "gemma"
    raise ConfigError(
        f"{settings.where}: text is {name[:80]!r}; expected a T5 repository, 'gemma', an "
        f"'Alpha-VLLM/…' repository, one of {', '.join(_TOKEN_TABLES)}, or a '….vocab' file."
    )


def text_config(settings: Settings, flow: FlowConfig, labels: tuple[str, ...]) -> TextConfig:
    """The ``TextConfig`` for this flow. ``labels``: class names, () if unknown. Errors:
    ConfigError."""
    kind = encoder_kind(settings)
    if labels and len(labels) != flow.text_channels - 1:
        raise ConfigError(
            f"{settings.where}: {settings.text} has {len(labels)} class names, but the weights "
            f"have {flow.text_channels - 1} classes (proj_txt.weight)."
        )
    return TextConfig(
        encoder=kind,
        length=flow.text_length,
        channels=flow.text_channels,
        masked=kind in ("t5", "gemma"),
        chat_template=kind == "gemma_tokens",
        fps=settings.fps_cond,
        noise_level=settings.noise_std if settings.cond_noise_level else None,
        aspect_ratio=settings.mix_aspect,
        labels=labels if kind == "labels" else (),
    )


def text_repository(settings: Settings) -> str:
    """The hub repository in the YAML's ``text``, or ""."""
    return settings.text if re.fullmatch(r"[\w.-]+/[\w.-]+", settings.text) else ""


def read_labels(settings: Settings, directories: list[Path]) -> tuple[str, ...]:
    """The class names, one per line, in the file named by ``text``, if it is in one of the
    directories; else (). Errors: CheckpointError if the file cannot be read, is too large or not
    UTF-8, or is a link that leads outside its directory."""
    name = Path(settings.text).name
    if not name.endswith(".vocab"):
        return ()
    for directory in directories:
        path = directory / name
        if not os.path.lexists(path):
            continue
        check_inside(path, directory)
        try:
            lines = read_regular(path, MAX_VOCABULARY_BYTES).decode("utf-8").splitlines()
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read: {error.strerror}.") from error
        except UnicodeDecodeError as error:
            raise CheckpointError(f"{path} is not text in UTF-8 ({error.reason}).") from error
        return tuple(line.strip() for line in lines if line.strip())
    return ()
