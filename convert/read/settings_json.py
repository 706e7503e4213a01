"""config.json files of diffusers and transformers, believed only within reason."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlx_starflow.errors import CheckpointError, ConfigError

MAX_CONFIG_BYTES = 4 << 20


def read_settings_json(path: Path) -> dict[str, Any]:
    """The object in a config.json. Errors: ConfigError, CheckpointError where there is no file."""
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise ConfigError(f"{path} is too large for a configuration.")
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be read ({error.strerror}); a model's directory needs it."
        ) from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid JSON ({str(error)[:200]}).") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected an object of settings.")
    return data


def check_whole(config: Mapping[str, Any], largest: Mapping[str, int], where: str) -> None:
    """Whole numbers from 1 to the largest that makes sense, for the keys that are there.

    Modules are built from these numbers before any weight is looked at, so an absurd one would cost
    hours. Errors: ConfigError naming the key.
    """
    for key, limit in largest.items():
        if key not in config:
            continue
        value = config[key]
        if type(value) is not int or not 1 <= value <= limit:
            raise ConfigError(
                f"{where}: {key} is {str(value)[:80]!r}; expected a whole number from 1 to {limit}."
            )
