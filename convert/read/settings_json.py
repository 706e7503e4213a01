"""Reading and range-checking config.json files of diffusers and transformers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlx_starflow.errors import CheckpointError, ConfigError
from mlx_starflow.files.fields import Fields, is_whole, shown
from mlx_starflow.files.json import read_json


def read_settings_json(path: Path) -> dict[str, Any]:
    """The object in a config.json. Errors: ConfigError; CheckpointError if the file is missing."""
    try:
        return Fields(read_json(path), str(path)).data
    except FileNotFoundError:
        raise CheckpointError(
            f"{path} is missing; the directory of a model must have it."
        ) from None


def check_whole(config: Mapping[str, Any], largest: Mapping[str, int], where: str) -> None:
    """Check that the keys in ``config`` are whole numbers from 1 to ``largest`` of the key.

    Modules are built from these numbers before the weights are checked, so a huge one could take
    hours. Errors: ConfigError naming the key.
    """
    for key, limit in largest.items():
        if key not in config:
            continue
        if type(config[key]) is not int or not is_whole(config[key], 1, limit):
            raise ConfigError(
                f"{where}: {key} is {shown(config[key])}; expected a whole number from 1 to "
                f"{limit}."
            )
