"""The YAML file published beside a STARFlow checkpoint: a list of one-key maps.

Only settings that the shapes of the weights do not determine are taken from it; the others are
compared with the weights. Known keys of the training run are ignored. Other unknown keys are
errors, since an unknown setting may change the results.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from mlx_starflow.errors import ConfigError
from mlx_starflow.files.fields import shown
from mlx_starflow.files.regular import read_regular

MAX_YAML_BYTES = 1 << 16
MAX_ITEMS = 1000
MAX_DEPTH, MAX_EVENTS = 8, 10_000
_NOTHING = ("", "~", "null", "Null", "NULL")  # null values of YAML
_SWITCH = ("0", "1", "true", "false", "yes", "no", "on", "off")


@dataclass(frozen=True)
class Settings:
    """The settings of a model, with the published defaults for absent keys; None = absent."""

    img_size: int = 256
    channel_size: int = 3
    patch_size: int = 4
    channels: int = 512
    top_block_channels: int | None = None
    blocks: int = 4
    layers_per_block: tuple[int, ...] = (8,)
    head_dim: int = 64
    num_heads: int | None = None
    num_kv_heads: int | None = None
    txt_size: int = 0
    pt_seq_len: int | None = None
    noise_std: float = 0.3
    soft_clip: float = 0.0
    seq_order: str = "R2L"
    norm_type: str = "layer_norm"
    rope: bool = False
    sos: bool = False
    use_softplus: bool = False
    cond_top_only: bool = False
    use_final_norm: bool = False
    use_bias: bool = True
    use_swiglu: bool = False
    use_qk_norm: bool = False
    use_post_norm: bool = False
    learnable_self_denoiser: bool = False
    conditional_denoiser: bool = False
    mix_aspect: bool = False
    fps_cond: bool = False
    cond_noise_level: bool = False
    use_pretrained_lm: str = ""
    vid_size: str = ""  # "frames:fps[:fps...]" of a model of clips
    temporal_causal: int = 0
    shallow_block_local: bool = False
    denoiser_window: int | None = None  # latent frames
    local_attn_window: int | None = None  # latent frames that are sampled in one sequence
    vae: str = ""  # a repository, with ":scale" of all latent frames but the first
    text: str = ""

    given: frozenset[str] = frozenset()  # keys that the file has
    where: str = ""  # the file, for messages


# Keys that concern only training, logging or data. nvp, adaln, noise_embed_denoiser, use_mm_attn
# and vae_decoder_factor have no effect in STARFlow.
IGNORED = re.compile(
    r"no_flip|nvp|adaln|noise_embed_denoiser|use_mm_attn|vae_decoder_factor|drop_image"
    r"|last_frame_cond|video_to_video|finetuned_vae"
    r"|cfg|lr|min_lr|wds|drop_label|batch_size|epochs?|steps|seed|dataset|name"
    r"|data_path|log_?dir|output_dir|save_dir|exp_name|run_name|resume|pretrained|checkpoint"
    r"|optimizer|scheduler|betas|beta[12]|eps|warmup|workers|compile|precision|dtype|amp|bf16|fp16"
    r"|ema|project|entity|debug|(clip|max)_grad(_norm)?"
    r"|(secondary_|fsdp|wds|gradient_checkpoint|lr_|log_|save_|ckpt_|eval_|fid_|sample_|wandb|ddp"
    r"|dist_|optim|num_gpu|warmup_|grad_|ema_|loss_|data_|train_|val_)\w*"
    r"|\w+_(freq|every|interval|lr|batch_size|workers|decay|regularization|loss)"
)
_TYPES = {f.name: str(f.type) for f in fields(Settings) if f.name not in ("given", "where")}


def read_settings(path: Path, ignore: tuple[str, ...] = ()) -> Settings:
    """Read the settings of a published YAML file. ``ignore``: other keys to ignore.

    Errors: ConfigError naming the file and the key or value that is wrong.
    """
    try:
        text = read_regular(path, MAX_YAML_BYTES).decode("utf-8")
        _check_events(text)
        # All scalars are read as text: no dates, no huge numbers, no objects.
        data = yaml.load(text, Loader=yaml.BaseLoader)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from error
    except Exception as error:  # the parser raises more than its own errors
        first_line = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise ConfigError(f"{path} is not a YAML file ({first_line}).") from None
    return settings_from(_pairs(data, path), str(path), ignore)


def _check_events(text: str) -> None:
    """Raise a ValueError for features that no published file has: aliases, which can expand without
    limit, tags, which name types of objects, deep nesting, and many entries."""
    depth = 0
    for count, event in enumerate(yaml.parse(text, Loader=yaml.BaseLoader)):
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise ValueError("it uses aliases")
        if tag := getattr(event, "tag", None):
            raise ValueError(f"it uses the tag {tag[:80]!a}")
        if isinstance(event, yaml.SequenceStartEvent | yaml.MappingStartEvent):
            depth += 1
        elif isinstance(event, yaml.SequenceEndEvent | yaml.MappingEndEvent):
            depth -= 1
        if depth > MAX_DEPTH or count > MAX_EVENTS:
            raise ValueError("it is nested too deep or has too many entries")


def _pairs(data: Any, path: Path) -> dict[str, Any]:
    items = data.get("arguments") if isinstance(data, dict) else None
    if not isinstance(items, list):
        raise ConfigError(
            f"{path}: expected a list 'arguments:' of one-key maps, as in the published files."
        )
    result: dict[str, Any] = {}
    for item in items:
        if not isinstance(item, dict) or len(item) != 1:
            raise ConfigError(f"{path}: every entry of 'arguments:' must be one 'key: value'.")
        ((key, value),) = item.items()
        if not isinstance(key, str):
            raise ConfigError(f"{path}: {str(key)[:80]!r} is not the name of a setting.")
        if key in result and _short(result[key]) != _short(value):
            raise ConfigError(
                f"{path}: {key!r} is given twice, as {_short(result[key])} and {_short(value)}."
            )
        result[key] = value
    return result


def settings_from(pairs: dict[str, Any], where: str, ignore: tuple[str, ...] = ()) -> Settings:
    """Settings from the keys and values of the YAML. ``where``: the file, for messages. Errors:
    ConfigError."""
    values: dict[str, Any] = {}
    for key, value in pairs.items():
        if key in _TYPES:
            if value is not None and value not in _NOTHING:
                values[key] = _parse(key, value, _TYPES[key], where)
        elif key not in ignore and not IGNORED.fullmatch(key):
            raise ConfigError(
                f"{where}: the setting {key!r} (= {_short(value)}) is unknown. If it concerns "
                f"only training, pass --ignore-key {key}."
            )
    given = frozenset(values)
    if len(values.get("layers_per_block", ())) > 1:
        # A list with one number per block determines the number of blocks; "blocks" is ignored.
        values["blocks"] = len(values["layers_per_block"])
    settings = Settings(**values, given=given, where=where)
    _check(settings)
    return settings


def _check(settings: Settings) -> None:
    for key, allowed in (
        ("seq_order", ("R2L", "L2R")),
        ("norm_type", ("layer_norm", "rms_norm")),
        ("use_pretrained_lm", ("", "gemma3_1b", "gemma3_4b", "gemma2_2b")),
    ):
        if getattr(settings, key) not in allowed:
            raise ConfigError(
                f"{settings.where}: {key} is {getattr(settings, key)[:80]!r}; expected one of "
                f"{', '.join(repr(a) for a in allowed)}."
            )
    for key in ("img_size", "channel_size", "patch_size", "channels", "blocks", "head_dim"):
        if getattr(settings, key) <= 0:
            raise ConfigError(f"{settings.where}: {key} must be positive.")
    if settings.blocks > MAX_ITEMS:
        raise ConfigError(f"{settings.where}: blocks is {settings.blocks}, at most {MAX_ITEMS}.")


def _parse(key: str, value: Any, kind: str, where: str) -> Any:
    """A value converted to the annotated type. Errors: ConfigError."""
    text = _short(value)
    try:
        if isinstance(value, list):
            text = " ".join(map(_short, value[:MAX_ITEMS]))
        elif isinstance(value, dict):
            raise ValueError
        if kind.startswith("str"):
            return "" if text.lower() in ("none", "null", "") else text
        if kind == "bool":
            if text.lower() not in _SWITCH:
                raise ValueError
            return text.lower() in ("1", "true", "yes", "on")
        if kind.startswith("tuple"):
            return tuple(_whole(part) for part in re.split(r"[\s,]+", text))
        if text.lower() in ("none", "null") and "None" in kind:
            return None
        if kind != "float":
            return _whole(text)
        number = float(text)
        if not 0 <= number < math.inf:
            raise ValueError
        return number
    except ValueError:
        raise ConfigError(
            f"{where}: {key} is {text[:80]!r}; expected "
            f"{'0 or 1' if kind == 'bool' else 'a number'}."
        ) from None


def _short(value: Any) -> str:
    """A value as text on one line, for messages. Containers are only named."""
    if isinstance(value, str):
        return value.strip()[:200]
    if isinstance(value, (int, float, bool, type(None))):
        return shown(value) if isinstance(value, int) and abs(value) > 1 << 64 else str(value)
    return f"a {type(value).__name__}"


def _whole(text: str) -> int:
    number = float(text)
    if not 0 <= number <= 1 << 31 or number != int(number):
        raise ValueError
    return int(number)
