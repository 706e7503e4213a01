"""The options of a training. The flags of ``train`` and the keys of its YAML file are derived from
these."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

from ..adapters.files import KINDS
from ..adapters.targets import DEFAULT_KEYS, MAX_RANK
from ..errors import UsageError
from ..files.fields import Fields

OPTIMIZERS = ("adamw", "muon")
MAX_SHIFTS = 64  # each is encoded and kept in memory


def _asked(default: Any, help: str, metavar: str = "N", choices: tuple[str, ...] = ()) -> Any:
    return field(
        default=default,
        metadata={"help": help, "metavar": metavar, "choices": choices, "flags": ()},
    )


@dataclass(frozen=True)
class TrainOptions:
    """All options of a training, with defaults and help texts."""

    fine_tune_type: str = _asked(
        "lora",
        "What is trained: a low-rank update of every matrix (lora), low-rank updates and the norms "
        "of the matrices' rows (dora), or all weights (full).",
        choices=KINDS,
    )
    iters: int = _asked(300, "Number of optimizer steps.")
    batch_size: int = _asked(4, "Pictures per pass.")
    grad_accumulation_steps: int = _asked(1, "Passes per step, whose gradients are averaged.")
    learning_rate: float = _asked(3e-4, "Peak of the learning rate.", "LR")
    warmup: int = _asked(
        20, "Steps of linear warm-up of the learning rate; it then decays as half a cosine."
    )
    final_rate: float = _asked(0.1, "Final learning rate, as a share of the peak.", "SHARE")
    optimizer: str = _asked(
        "adamw",
        "AdamW, or Muon for the matrices of the layers and AdamW for the rest (full only).",
        choices=OPTIMIZERS,
    )
    weight_decay: float = _asked(0.0, "Weight decay of AdamW and Muon.", "W")
    max_grad_norm: float = _asked(1.0, "Gradients are clipped to this norm; 0: no clipping.", "L")
    num_layers: int = _asked(
        -1, "Train the last N layers, in the order from data to noise; -1: all."
    )
    lora_rank: int = _asked(16, "Rank of the low-rank updates.")
    lora_scale: float = _asked(4.0, "Factor of the low-rank updates.", "S")
    lora_dropout: float = _asked(0.0, "Dropout of the inputs of the low-rank updates.", "P")
    lora_keys: tuple[str, ...] = _asked(
        DEFAULT_KEYS,
        "Matrices to train, such as attention.q,attention.v,mlp.up. Default: attention.qkv (as one "
        "matrix), attention.proj and those of the MLP.",
        "KEY,...",
    )
    caption_dropout: float = _asked(
        0.1, "Share of pictures that are trained without their caption.", "P"
    )
    flip: bool = _asked(False, "Also train on the mirror image of every picture.")
    shifts: int = _asked(
        0,
        "Also train on N copies of every picture, each shifted by up to a tenth of its side; the "
        "border fills what it leaves.",
    )
    recolour: str = _asked(
        "",
        "Train on the pictures that this program drew with the colours and contrasts of the "
        "others; the captions of these copies begin with TEXT.",
        "TEXT",
    )
    recolour_keep: float = _asked(
        0.5,
        "With --recolour, share of the drawn pictures that are also trained on as they are.",
        "SHARE",
    )
    ema: float = _asked(
        0.0,
        "Decay of the moving average of the trained arrays, which is evaluated and saved in their "
        "place; 0: no average.",
        "DECAY",
    )
    val_draws: int = _asked(4, "Noise draws per held-out picture, the same in every evaluation.")
    steps_per_report: int = _asked(10, "Steps between reports of the loss.")
    steps_per_eval: int = _asked(25, "Steps between evaluations on held-out pictures.")
    patience: int = _asked(4, "Stop after N evaluations without improvement; 0: never.")
    save_every: int = _asked(100, "Steps between numbered copies of the trained arrays.")
    grad_checkpoint: bool = _asked(
        False,
        "Compute activations again in the backward pass instead of keeping them: much less memory, "
        "a third more time.",
    )
    seed: int = _asked(0, "Seed of the order of pictures, the noise and the initial weights.")

    def __post_init__(self) -> None:
        least = {
            "iters": 1, "batch_size": 1, "grad_accumulation_steps": 1, "warmup": 0, "lora_rank": 1,
            "val_draws": 1, "steps_per_report": 1, "steps_per_eval": 1, "patience": 0,
            "save_every": 1, "seed": 0, "learning_rate": 0, "max_grad_norm": 0, "weight_decay": 0,
            "final_rate": 0, "caption_dropout": 0, "lora_dropout": 0, "ema": 0,
            "shifts": 0, "recolour_keep": 0,
        }  # fmt: skip
        for name, low in least.items():
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= low):
                raise UsageError(f"{name} is {value}; expected {low} or more.")
        for name in ("caption_dropout", "lora_dropout", "ema", "final_rate", "recolour_keep"):
            if getattr(self, name) > 1:
                raise UsageError(f"{name} is {getattr(self, name)}; expected at most 1.")
        if self.lora_dropout == 1 or self.ema == 1:
            raise UsageError("lora_dropout and ema must be below 1.")
        if self.shifts > MAX_SHIFTS:
            raise UsageError(f"shifts is {self.shifts}; expected at most {MAX_SHIFTS}.")
        if self.lora_rank > MAX_RANK:
            raise UsageError(f"lora_rank is {self.lora_rank}; expected at most {MAX_RANK}.")
        for name, allowed in (("fine_tune_type", KINDS), ("optimizer", OPTIMIZERS)):
            if getattr(self, name) not in allowed:
                raise UsageError(
                    f"{name} is {getattr(self, name)!r}; expected one of {', '.join(allowed)}."
                )
        if self.fine_tune_type != "full" and self.optimizer != "adamw":
            raise UsageError("The optimizer muon is for --fine-tune-type full.")

    @classmethod
    def names(cls) -> tuple[str, ...]:
        return tuple(f.name for f in dataclasses.fields(cls))


# Keys of "lora_parameters" in mlx-lm's YAML file, and the options that they set.
_LORA = {"rank": "lora_rank", "scale": "lora_scale", "dropout": "lora_dropout", "keys": "lora_keys"}
PLACES = ("data", "model", "prompt", "adapter_path", "resume_adapter_file", "fit")


def read_settings(data: Any, where: str) -> dict[str, Any]:
    """The fields of ``TrainOptions`` and the entries of ``PLACES`` in the object of a YAML file.
    Keys may be written with - or _. Errors: UsageError that names the file and the unknown key or
    the key with an invalid value."""
    fields = Fields(data, where, UsageError)
    flat = {str(key).replace("-", "_"): value for key, value in fields.data.items()}
    lora = flat.pop("lora_parameters", None)
    if lora is not None:
        for key, value in Fields(lora, where, UsageError, "lora_parameters").data.items():
            if key not in _LORA:
                raise UsageError(f"{where}: lora_parameters has the unknown key {key!r:.60}.")
            flat[_LORA[key]] = value
    found: dict[str, Any] = {}
    for key, value in flat.items():
        if value is None:
            continue
        if key in PLACES:
            found[key] = Fields(flat, where, UsageError).text(key)
        elif key in TrainOptions.names():
            found[key] = _typed(Fields(flat, where, UsageError), key)
        else:
            known = ", ".join((*PLACES, *TrainOptions.names(), "lora_parameters"))
            raise UsageError(f"{where}: unknown key {key!r:.60}. Known keys: {known}.")
    return found


def _typed(fields: Fields, key: str) -> Any:
    default = next(f.default for f in dataclasses.fields(TrainOptions) if f.name == key)
    if isinstance(default, bool):
        return fields.switch(key)
    if isinstance(default, int):
        return fields.whole(key, low=-1)
    if isinstance(default, float):
        value = fields.data.get(key)
        if isinstance(value, str):  # YAML reads 1e-4 as a string
            fields = Fields({key: _number(value)}, fields.where, UsageError)
        return fields.number(key)
    return fields.texts(key) if isinstance(default, tuple) else fields.text(key)


def _number(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text
