"""The trainer: arrays, optimizer, training step, evaluation, and saving and restoring the state."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_flatten, tree_map

from ..adapters.changes import forget_compiled
from ..adapters.files import AdapterConfig
from ..device.typed import scalar
from ..errors import NumericsError, StarflowError, UsageError
from ..exact.likelihood import log_prob
from ..exact.scoring import noise_kind
from ..flow import Flow
from .division import Division
from .gradient import gradient
from .material import Batch, Material, Part, batch, with_noise
from .muon import muon
from .options import TrainOptions
from .parameters import Arrays, Trained
from .together import Together

VALID_KEY = 7_000_003  # first random key of the evaluation noise


@dataclass(frozen=True)
class Bits:
    """Held-out bits per dimension: the mean and its standard error over pictures (over noise draws
    if there is only one picture)."""

    mean: float
    standard_error: float


class Trainer:
    """Steps of stochastic gradient descent on the exact likelihood."""

    def __init__(
        self,
        flow: Flow,
        config: AdapterConfig,
        options: TrainOptions,
        material: Material,
        together: Together | None = None,
    ) -> None:
        """``together``: the ranks that share every batch, or the flow; ``options.batch_size`` is
        that of one part. Errors: UsageError if all weights of a flow that is not float32 are to be
        trained, and for what cannot be trained in shares."""
        self.options, self.material = options, material
        self.together = together or Together()
        self.trained = Trained(flow, config)
        self.arrays = self.trained.initial(options.seed)
        self.division = Division(flow, config, self.arrays)
        if self.together.divided and options.optimizer == "muon":
            raise UsageError(
                "Muon needs whole matrices, of which --split tensor gives every rank a share; use "
                "--optimizer adamw."
            )
        self.average: Arrays | None = dict(self.arrays) if options.ema else None
        self.optimizer = self._optimizer()
        self.optimizer.init(_slashed(self.arrays))
        self.step = 0
        self.trained.put(self.arrays)

    def update(self) -> float:
        """Do one step; returns the bits per dimension of its batch before the update. Errors:
        NumericsError if they are NaN or infinite."""
        o, passes = self.options, self.options.grad_accumulation_steps
        nats, slopes = mx.array(0.0), None
        for number in range(passes):
            found = self.batch(number)
            key = mx.random.key(o.seed * 13 + self.step * passes + number)
            value, own = gradient(
                self.trained, self.arrays, found.x, found.context, o.grad_checkpoint, key
            )
            nats = nats + value
            slopes = own if slopes is None else {n: slopes[n] + own[n] for n in own}
        numbers = passes * o.batch_size * self.material.numbers
        slopes = self.together.mean(self.division.complete(cast(Arrays, slopes)))
        nats = self.together.mean_of(nats)
        mean = {n: slope / numbers for n, slope in slopes.items()}
        if o.max_grad_norm:
            mean = self.division.clipped(mean, o.max_grad_norm)
        moved = self.optimizer.apply_gradients(_slashed(mean), _slashed(self.arrays))
        arrays = {name: moved[name.replace(".", "/")] for name in mean}
        average = self.average
        if average is not None:
            share = min(o.ema, (self.step + 1) / (self.step + 11))
            average = {n: a + (1 - share) * (arrays[n] - a) for n, a in average.items()}
        mx.eval(arrays, average, self.optimizer.state)
        bits = self._bits(scalar(nats) / numbers)
        if not math.isfinite(bits):
            raise NumericsError(
                f"The loss is NaN or infinite after {self.step} steps. Try a lower --learning-rate."
            )
        self.arrays, self.average, self.step = arrays, average, self.step + 1
        self.trained.put(arrays)
        return bits

    def batch(self, number: int) -> Batch:
        """This rank's part of the batch of pass ``number`` of the next step."""
        o, passes, own = self.options, self.options.grad_accumulation_steps, self.together
        whole = o.batch_size * own.parts
        found = batch(self.material, o.seed, self.step, (number, passes), whole, o.caption_dropout)
        part, context = own.own(o.batch_size), found.context
        return Batch(found.x[part], None if context is None else context[part])

    def kept(self) -> Arrays:
        """The arrays that are evaluated and saved: the moving average if there is one. Of a flow
        in shares those of this rank."""
        return self.arrays if self.average is None else self.average

    def saved(self) -> Arrays:
        """The same, whole. All ranks call it."""
        return self.division.whole(self.kept())

    def evaluate(self, part: Part | None = None) -> Bits | None:
        """Bits per dimension of the held-out pictures, or of another part, with the arrays
        ``kept()``; None if there are no held-out pictures. Errors: NumericsError."""
        part = self.material.valid if part is None else part
        if part is None:
            return None
        with self.showing():
            return self._evaluate(part)

    @contextmanager
    def showing(self) -> Iterator[None]:
        """A context in which the flow holds the arrays ``kept()``, for sampling and evaluation."""
        self.put_kept(self.kept())
        try:
            yield
        finally:
            self.put_kept(self.arrays)

    def put_kept(self, arrays: Arrays) -> None:
        """Put arrays into the flow for sampling and evaluation."""
        self.trained.put(arrays)
        forget_compiled(self.trained.flow)

    def _evaluate(self, part: Part) -> Bits:
        draws, size = self.options.val_draws, self.options.batch_size
        nats = np.empty((len(part), draws))
        rows = np.array([captions[0] for captions in part.captions])
        for draw in range(draws):
            key = mx.random.key(VALID_KEY + draw)
            x = with_noise(part.latents, self.material.config, key)
            for start in range(0, len(part), size):
                self.together.step()
                own = slice(start, start + size)
                context = self.material.context(rows[own])
                nats[own, draw] = -np.array(log_prob(self.trained.flow, x[own], context))
        nats /= self.material.numbers
        if not np.isfinite(nats).all():
            raise NumericsError("The held-out likelihood is NaN or infinite. Try a lower "
                                "--learning-rate.")  # fmt: skip
        scatter = nats.mean(axis=1) if len(part) > 1 else nats[0]
        error = scatter.std(ddof=1) / math.sqrt(len(scatter)) if len(scatter) > 1 else math.nan
        return Bits(self._bits(float(nats.mean())), float(error) / math.log(2))

    def _bits(self, nats_per_dim: float) -> float:
        uniform = not self.material.config.noise_std and noise_kind(self.material.config)
        offset = math.log(128.0) if uniform == "uniform" else 0.0
        return (nats_per_dim + offset) / math.log(2)

    def _optimizer(self) -> optim.Optimizer:
        o = self.options

        def rate(step: mx.array) -> mx.array:
            rise = mx.minimum(1.0, (step + 1) / max(1, o.warmup))
            fall = (1 + mx.cos(math.pi * mx.minimum(1.0, step / o.iters))) / 2
            return o.learning_rate * rise * (o.final_rate + (1 - o.final_rate) * fall)

        if o.optimizer == "muon":
            return muon(self.arrays, rate, o.weight_decay)
        return optim.AdamW(rate, weight_decay=o.weight_decay, bias_correction=True)

    # Saving and restoring

    def state(self) -> Arrays:
        """All arrays that the next step depends on, whole; the number ``step`` is not among them.
        All ranks call it."""
        found = {f"arrays.{name}": array for name, array in self.arrays.items()}
        for name, array in (self.average or {}).items():
            found[f"average.{name}"] = array
        held: Any = tree_flatten(self.optimizer.state)
        for number, (_, leaf) in enumerate(held):
            whole = not mx.issubdtype(leaf.dtype, mx.floating)
            found[f"optimizer.{number}"] = leaf.astype(mx.uint32) if whole else leaf
        return self.division.whole(found, self._like())

    def _like(self) -> dict[str, str]:
        """The trained array that each array of the state is like."""
        like = {f"{kind}.{name}": name for kind in ("arrays", "average") for name in self.arrays}
        held: Any = tree_flatten(self.optimizer.state)
        for number, (path, _) in enumerate(held):
            like[f"optimizer.{number}"] = path.rpartition(".")[0].replace("/", ".")
        return like

    def load(self, state: Arrays, step: int) -> None:
        """Restore a ``state``. Errors: StarflowError if it is of another training."""
        expected = self.state()
        for name, array in expected.items():
            if name not in state or state[name].shape != array.shape:
                raise StarflowError(
                    f"The training state has no {name!r} of shape {array.shape}: it belongs to "
                    "another training. Start a new training in another --adapter-path."
                )
        state = self.division.own(state, self._like())
        numbers = iter(range(len(state)))

        def leaf(old: mx.array) -> mx.array:
            return state[f"optimizer.{next(numbers)}"].astype(old.dtype)

        self.optimizer.state = tree_map(leaf, self.optimizer.state)
        self.arrays = {name: state[f"arrays.{name}"] for name in self.arrays}
        if self.average is not None:
            self.average = {name: state[f"average.{name}"] for name in self.arrays}
        self.step = step
        self.trained.put(self.arrays)

    def begin_from(self, arrays: Arrays) -> None:
        """Start with the whole arrays of an adapter and a new optimizer. Errors: StarflowError if
        the names of the arrays differ."""
        if set(arrays) != set(self.arrays):
            raise StarflowError(
                "The initial adapter has other arrays than this training: give the same "
                "--fine-tune-type, --lora-rank, --lora-keys and --num-layers."
            )
        arrays = self.division.own(arrays)
        self.arrays = {name: arrays[name].astype(mx.float32) for name in self.arrays}
        self.average = None if self.average is None else dict(self.arrays)
        self.trained.put(self.arrays)


def _slashed(arrays: Arrays) -> Arrays:
    """The arrays with slashes in place of dots in their names: an optimizer splits names at dots
    into the paths of a tree."""
    return {name.replace(".", "/"): array for name, array in arrays.items()}
