"""How a flow is trained. Flags of ``train`` and keys of its YAML file are derived from this."""

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


def _asked(default: Any, help: str, metavar: str = "N", choices: tuple[str, ...] = ()) -> Any:
    return field(
        default=default,
        metadata={"help": help, "metavar": metavar, "choices": choices, "flags": ()},
    )


@dataclass(frozen=True)
class TrainOptions:
    """One declaration of every number of a training."""

    fine_tune_type: str = _asked(
        "lora",
        "What is trained: a product of low rank beside every "
        "matrix (lora), with its rows' lengths (dora), or all weights (full).",
        choices=KINDS,
    )
    iters: int = _asked(300, "Steps.")
    batch_size: int = _asked(4, "Pictures in a pass.")
    grad_accumulation_steps: int = _asked(1, "Passes in a step.")
    learning_rate: float = _asked(3e-4, "Peak of the learning rate.", "LR")
    warmup: int = _asked(20, "Steps in which it rises from zero; then it falls as half a cosine.")
    final_rate: float = _asked(0.1, "Where it ends, as a share of the peak.", "SHARE")
    optimizer: str = _asked(
        "adamw",
        "AdamW, or Muon for the layers' matrices with AdamW for the rest (full only).",
        choices=OPTIMIZERS,
    )
    weight_decay: float = _asked(0.0, "Decay of the weights in AdamW and Muon.", "W")
    max_grad_norm: float = _asked(1.0, "Gradients are clipped to this length; 0: never.", "L")
    num_layers: int = _asked(
        -1, "Train the last N layers, counted from the data to the noise; -1: all."
    )
    lora_rank: int = _asked(16, "Rank of the low-rank products.")
    lora_scale: float = _asked(4.0, "Their factor.", "S")
    lora_dropout: float = _asked(0.0, "Share of their inputs that a step leaves out.", "P")
    lora_keys: tuple[str, ...] = _asked(
        DEFAULT_KEYS,
        "Matrices, such as "
        "attention.q,attention.v,mlp.up. Default: attention.qkv (in one), attention.proj and the "
        "MLP's.",
        "KEY,...",
    )
    caption_dropout: float = _asked(
        0.1, "Share of pictures that are seen without their caption.", "P"
    )
    flip: bool = _asked(False, "Train on every picture's mirror image too.")
    ema: float = _asked(
        0.0, "Moving average of the weights, kept in their place (full only); 0: none.", "DECAY"
    )
    val_draws: int = _asked(4, "Noise draws of an evaluation, the same every time.")
    steps_per_report: int = _asked(10, "Steps between two reports of the loss.")
    steps_per_eval: int = _asked(25, "Steps between two evaluations on held-out pictures.")
    patience: int = _asked(4, "Stop after N evaluations without a new best; 0: never.")
    save_every: int = _asked(100, "Steps between two numbered copies.")
    grad_checkpoint: bool = _asked(
        False,
        "Compute layers again on the way back instead of keeping "
        "them: much less memory, a third more time.",
    )
    seed: int = _asked(0, "Of the order, the noise and the weights that begin at random.")

    def __post_init__(self) -> None:
        least = {
            "iters": 1, "batch_size": 1, "grad_accumulation_steps": 1, "warmup": 0, "lora_rank": 1,
            "val_draws": 1, "steps_per_report": 1, "steps_per_eval": 1, "patience": 0,
            "save_every": 1, "seed": 0, "learning_rate": 0, "max_grad_norm": 0, "weight_decay": 0,
            "final_rate": 0, "caption_dropout": 0, "lora_dropout": 0, "ema": 0,
        }  # fmt: skip
        for name, low in least.items():
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= low):
                raise UsageError(f"{name} is {value}; expected {low} or more.")
        for name in ("caption_dropout", "lora_dropout", "ema", "final_rate"):
            if getattr(self, name) > 1:
                raise UsageError(f"{name} is {getattr(self, name)}; expected at most 1.")
        if self.lora_dropout == 1 or self.ema == 1:
            raise UsageError("lora_dropout and ema must be below 1.")
        if self.lora_rank > MAX_RANK:
            raise UsageError(f"lora_rank is {self.lora_rank}; expected at most {MAX_RANK}.")
        for name, allowed in (("fine_tune_type", KINDS), ("optimizer", OPTIMIZERS)):
            if getattr(self, name) not in allowed:
                raise UsageError(
                    f"{name} is {getattr(self, name)!r}; expected one of {', '.join(allowed)}."
                )
        if self.fine_tune_type != "full" and (self.ema or self.optimizer != "adamw"):
            raise UsageError("ema and the optimizer muon are for --fine-tune-type full.")

    @classmethod
    def names(cls) -> tuple[str, ...]:
        return tuple(f.name for f in dataclasses.fields(cls))


# Keys of mlx-lm's YAML file whose values stand under "lora_parameters" there.
_LORA = {"rank": "lora_rank", "scale": "lora_scale", "dropout": "lora_dropout", "keys": "lora_keys"}
PLACES = ("data", "model", "prompt", "adapter_path", "resume_adapter_file", "fit")


def read_settings(data: Any, where: str) -> dict[str, Any]:
    """Fields of ``TrainOptions`` and of ``PLACES`` from the object in a YAML file. Keys may be
    written with - or _. Errors: UsageError naming the file and a key that is unknown or wrong."""
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
        if isinstance(value, str):  # YAML reads 1e-4 as a text
            fields = Fields({key: _number(value)}, fields.where, UsageError)
        return fields.number(key)
    return fields.texts(key) if isinstance(default, tuple) else fields.text(key)


def _number(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text
