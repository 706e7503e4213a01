"""A complete training, from a folder of pictures to the best adapter, as a stream of events.

If the stream is closed early, the files of the last save remain. If ``stop`` returns True, the
state is saved and the summary says that the training was interrupted.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Generator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import mlx.core as mx

from ..adapters.files import WEIGHTS, AdapterConfig, read_adapter
from ..bundle.load import evaluate, load_arrays
from ..errors import UsageError
from ..files.counted import counted
from ..generation.components import Components
from .checkpoint import Checkpoint, Progress
from .copies import Copies
from .curve import write_curve
from .events import Ended, Evaluated, Event, Noted, Previewed, Saved, Stepped
from .material import Material, read_material
from .memory import plan_training
from .options import TrainOptions
from .preview import Previews
from .together import Together
from .trainer import Trainer

# Options that do not change the results of a step
IRRELEVANT = ("steps_per_report", "save_every", "patience", "grad_checkpoint")


@dataclass(frozen=True)
class Task:
    """The data of a training, its initial state and its output."""

    data: Path
    adapter_path: Path
    prompt: str | None = None  # caption of pictures without one
    fit: str = "crop"  # pictures of another size: "crop", "stretch" or "refuse"
    resume: bool = False  # continue the training in ``adapter_path``
    begin_from: Path | None = None  # file of an adapter whose weights are the initial weights
    previews: int = 2  # pictures drawn at every evaluation
    preview_prompts: tuple[str, ...] = ()  # (): the first captions


def adapter_config(components: Components, options: TrainOptions) -> AdapterConfig:
    """The configuration of the adapter that a training with these options makes."""
    return AdapterConfig(
        base=components.base,
        fine_tune_type=options.fine_tune_type,
        num_layers=options.num_layers,
        rank=options.lora_rank,
        scale=options.lora_scale,
        dropout=options.lora_dropout,
        keys=options.lora_keys,
    )


def train(
    components: Components,
    task: Task,
    options: TrainOptions,
    stop: Callable[[], bool] = lambda: False,
    together: Together | None = None,
) -> Generator[Event, None, None]:
    """Train a flow; the last event is ``Ended``. Afterwards the components' flow holds the arrays
    in adapters.safetensors.

    ``together``: ranks that share every batch, or the flow. All of them call this; ranks other than
    0 with an ``adapter_path`` of their own, for temporary files.

    Errors: UsageError for options that do not fit together, OutOfMemoryError before anything is
    loaded, StarflowError for pictures and files, NumericsError if the loss becomes NaN or infinite.
    """
    began, together = time.perf_counter(), together or Together()
    config = adapter_config(components, options)
    checkpoint = Checkpoint(task.adapter_path, config)
    if not task.resume or together.rank:
        checkpoint.begin()
    plan = plan_training(components, config, options, _pictures(task.data, options.recolour))
    yield Noted(plan.sentence)
    reading = read_material(
        components, task.data, task.prompt, task.fit, options.seed,
        Copies(options.flip, options.shifts), task.adapter_path, task.preview_prompts,
        options.recolour, options.recolour_keep,
    )  # fmt: skip
    while True:
        together.step()
        try:
            yield next(reading)
        except StopIteration as finished:
            material: Material = finished.value
            break
        if stop():
            yield Ended({"iterations": 0, "stopped": "interrupted",
                         "adapter_path": str(task.adapter_path)})  # fmt: skip
            return
    for note in material.notes:
        yield Noted(note)
    yield Noted(_what(material, options, together.parts))
    mx.reset_peak_memory()
    trainer = Trainer(components.flow, config, options, material, together)
    whole = replace(options, batch_size=options.batch_size * together.parts)
    identity = _identity(components, material, whole)
    progress = Progress()
    if task.resume:
        state = None
        if together.rank == 0:
            state, progress = checkpoint.read_state(identity)
        state, progress = together.same(state, trainer.state()), together.progress(progress)
        trainer.load(state, progress.step)
        yield Noted(f"Resuming after step {progress.step}.")
    elif task.begin_from is not None:
        adapter = read_adapter(task.begin_from, components.flow_config, components.base)
        trainer.begin_from(adapter.arrays())
    previews = Previews(components, material, task.preview_prompts, task.previews)
    run = _Run(checkpoint, trainer, options, progress, identity, previews)
    yield from run.steps(stop)
    yield Ended({**run.summary(began), "adapter_path": str(task.adapter_path)})


class _Run:
    """The loop over steps, with evaluations, saves and previews."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        trainer: Trainer,
        options: TrainOptions,
        progress: Progress,
        identity: str,
        previews: Previews,
    ) -> None:
        self.checkpoint, self.trainer, self.options = checkpoint, trainer, options
        self.progress, self.identity, self.previews = progress, identity, previews
        self.stopped = "iters"
        rows = [row for row in progress.rows if row[1] is not None]
        # training bits per dimension at the last evaluation
        self._last = rows[-1][1] if rows else None

    def steps(self, stop: Callable[[], bool]) -> Generator[Event, None, None]:
        o, trainer = self.options, self.trainer
        if trainer.step == 0 and not self.progress.rows:
            yield from self._evaluate()
        while trainer.step < o.iters:
            if trainer.together.any(stop()):
                self.stopped = "interrupted"
                break
            if self._is_enough():
                self.stopped = "patience"
                break
            bits = trainer.update()
            self.progress = replace(
                self.progress, step=trainer.step, since=(*self.progress.since, bits)
            )
            yield Stepped(trainer.step, o.iters, bits)
            last = trainer.step == o.iters
            # Before the state: a training resumed from it would not write this file again.
            if trainer.step % o.save_every == 0 or last:
                yield Saved(self.checkpoint.save_numbered(trainer.saved(), trainer.step))
            if trainer.step % o.steps_per_eval == 0 or last:
                yield from self._evaluate()
            elif trainer.step % o.save_every == 0:
                self._save()
        self._save()
        trainer.put_kept(trainer.division.own(self._best()))

    def _is_enough(self) -> bool:
        return 0 < self.options.patience <= self.progress.worse

    def _evaluate(self) -> Generator[Event, None, None]:
        trainer, held = self.trainer, self.trainer.evaluate()
        step, before = trainer.step, self.progress
        train = sum(before.since) / len(before.since) if before.since else None
        self._last = self._last if train is None else train
        valid = None if held is None else held.mean
        best = valid is None or before.best_bits is None or valid < before.best_bits
        self.progress = replace(
            before,
            best_bits=valid if best else before.best_bits,
            best_step=step if best else before.best_step,
            worse=0 if best else before.worse + 1,
            since=(),
        ).with_row(step, train, valid, None if held is None else _number(held.standard_error))
        if best:
            self.checkpoint.save_best(trainer.saved(), step)
        write_curve(self.checkpoint.directory, self.progress.rows)
        if held is not None:
            yield Evaluated(step, held, train, best)
        self._save()
        place = self.previews.draw(trainer, self.checkpoint.directory)
        if place is not None:
            yield Previewed(place)

    def _save(self) -> None:
        self.checkpoint.save_state(self.trainer.state(), self.progress, self.identity)

    def _best(self) -> dict[str, mx.array]:
        path = self.checkpoint.directory / WEIGHTS
        found = load_arrays(path)
        evaluate(found, path)
        return found

    def summary(self, began: float) -> dict[str, Any]:
        rows = self.progress.rows
        base = next((row for row in rows if row[0] == 0), None)
        best = next((row for row in rows if row[0] == self.progress.best_step), None)
        return {
            "iterations": self.trainer.step,
            "train_bits_per_dim": self._last,
            "valid_bits_per_dim": self.progress.best_bits,
            "valid_standard_error": _number(best[3]) if best else None,
            "base_valid_bits_per_dim": base[2] if base else None,
            "best_iteration": self.progress.best_step,
            "stopped": self.stopped,
            "seconds": round(time.perf_counter() - began, 1),
            "peak_memory_bytes": mx.get_peak_memory(),
        }


def _pictures(data: Path, recolour: str) -> int:
    """About as many pictures as the training has, at most."""
    if not data.is_dir():
        raise UsageError(f"--data {data}: there is no such folder.")
    return sum(1 for _ in data.iterdir()) * (2 if recolour else 1)


def _what(material: Material, options: TrainOptions, ranks: int) -> str:
    held = len(material.valid) if material.valid is not None else 0
    passes = ranks * options.batch_size * options.grad_accumulation_steps
    epochs = options.iters * passes / len(material.train)
    return (
        f"{counted(len(material.train), 'picture')} for training and {held} held out; "
        f"{counted(options.iters, 'step')} of {counted(passes, 'picture')} (epochs: {epochs:.3g})."
    )


def _identity(components: Components, material: Material, options: TrainOptions) -> str:
    """A hash of everything that the results of a training depend on."""
    parts = [
        [[e.digest, *e.prompts] for e in part.examples]
        for part in (material.train, material.valid)
        if part is not None
    ]
    own = {k: v for k, v in asdict(options).items() if k not in IRRELEVANT}
    about = [asdict(components.base), components.dtype, components.quantize, own, parts]
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16]


def _number(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value
