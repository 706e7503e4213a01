"""Train flow and text encoder together, by exact maximum likelihood of noised latents."""

from __future__ import annotations

import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from .data import write_json
from .flow import STARFlow
from .latents import rows_of
from .optimizer import build_optimizers, cosine, set_rates
from .parallel import agree, average_gradients, rank, share, world
from .settings import FlowSettings, TextSettings
from .state import half_precision, load_state, pick_device, save_state, step_generator
from .text import UNKNOWN_ID, build_encoder, encode, null_ids

# Share of tokens replaced by <unk>, so that the model learns to ignore unknown words.
_UNKNOWN_SHARE = 0.01


def nats_per_dimension(z: Tensor, logdets: list[Tensor]) -> Tensor:
    """−log p per dimension, without the constant ½ log 2π; (B,)."""
    inner = sum(logdet.flatten(1).mean(1) for logdet in logdets if logdet.ndim > 1)
    return 0.5 * z.square().flatten(1).mean(1) - inner


def to_bits(nats: float) -> float:
    """Convert a mean of `nats_per_dimension` to bits per latent dimension."""
    return (nats + 0.5 * math.log(2 * math.pi)) / math.log(2)


class Trainer:
    def __init__(
        self, settings: FlowSettings, text: TextSettings, words: int, total: int, begin=None
    ):
        self.settings, self.text, self.total = settings, text, total
        self.device = pick_device()
        torch.manual_seed(settings.seed)
        self.flow = STARFlow(settings.shape).to(self.device)
        self.encoder = build_encoder(text, words).to(self.device)
        if begin is not None:
            begin(self.flow, self.encoder)
        self.named = [*self.flow.named_parameters(), *self.encoder.named_parameters()]
        self.average = [p.detach().clone() for _, p in self.named]
        self.optimizers = build_optimizers(
            self.named,
            lambda name, p: p.ndim == 2 and ("attn_blocks" in name or ".layers." in name),
            settings.learning_rate,
            settings.matrix_learning_rate,
            settings.weight_decay,
        )
        self.step = 0

    def batch(self, latents: np.ndarray, tokens: np.ndarray) -> tuple[Tensor, ...]:
        """This process's rows of the step's batch: noised latents and caption ids."""
        s, step = self.settings, self.step
        epoch, place = divmod(step, len(latents) // s.batch)
        order = np.random.default_rng([s.seed, 0, epoch]).permutation(len(latents))
        rng = np.random.default_rng([s.seed, 1, step])
        x, ids = rows_of(latents, tokens, order[place * s.batch : (place + 1) * s.batch], rng)
        unknown = (rng.random(ids.shape) < _UNKNOWN_SHARE) & (ids.numpy() > UNKNOWN_ID)
        ids[torch.from_numpy(unknown)] = UNKNOWN_ID
        dropped = torch.from_numpy(rng.random(len(ids)) < s.caption_dropout)
        ids[dropped] = self.null(ids.shape[1])
        x, *more = self.cut(x, ids, rng)
        x = x + s.noise_std * torch.randn(x.shape, generator=step_generator(s.seed, step))
        return tuple(rows[share(s.batch)].to(self.device) for rows in (x, *more))

    def null(self, length: int) -> Tensor:
        """The token ids (1, length) of the null caption."""
        return null_ids(length)

    def cut(self, x: Tensor, ids: Tensor, rng: np.random.Generator | None) -> tuple[Tensor, ...]:
        """The part of the latents and captions to train on, and further arguments of ``loss``.

        ``rng``: None for a fixed part, to measure with.
        """
        return x, ids

    def evaluate(self, x: Tensor, ids: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The flow's noise and log-determinants."""
        with torch.autocast(self.device, torch.bfloat16, enabled=half_precision(self.device)):
            return self.flow(x, encode(self.encoder, ids))

    def loss(self, x: Tensor, ids: Tensor) -> Tensor:
        return nats_per_dimension(*self.evaluate(x, ids)).mean()

    def update(self, latents: np.ndarray, tokens: np.ndarray) -> float:
        s = self.settings
        set_rates(self.optimizers, cosine(self.step, self.total, s.warm_up))
        loss = self.loss(*self.batch(latents, tokens))
        parameters = [p for _, p in self.named]
        for p in parameters:
            p.grad = None
        loss.backward()
        average_gradients(parameters)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
        self.step += 1
        decay = min(s.ema, self.step / (self.step + 10))
        torch._foreach_lerp_(self.average, [p.detach() for p in parameters], 1 - decay)
        return loss.item()

    def averaged(self) -> dict:
        """Moving averages as state dicts of flow and encoder."""
        held = {name: p for (name, _), p in zip(self.named, self.average, strict=True)}
        own = {name for name, _ in self.flow.named_parameters()}
        return {
            "flow": {name: p for name, p in held.items() if name in own},
            "encoder": {name: p for name, p in held.items() if name not in own},
            "step": self.step,
        }

    def state(self) -> dict:
        return {
            "parameters": [p.detach() for _, p in self.named],
            "average": self.average,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "step": self.step,
        }

    def load(self, state: dict) -> None:
        with torch.no_grad():
            for (_, p), held in zip(self.named, state["parameters"], strict=True):
                p.copy_(held)
        torch._foreach_copy_(self.average, state["average"])
        for optimizer, held in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(held)
        self.step = state["step"]

    @torch.no_grad()
    def bits(self, latents: np.ndarray, tokens: np.ndarray, count: int = 256) -> float:
        """Bits per dimension under the averaged weights, on fixed rows with fixed noise."""
        live = [p.detach().clone() for _, p in self.named]
        torch._foreach_copy_([p.detach() for _, p in self.named], self.average)
        rows = np.linspace(0, len(latents) - 1, count).astype(int)
        x, ids = rows_of(latents, tokens, rows, np.random.default_rng(0))
        x, *more = self.cut(x, ids, None)
        x = x + self.settings.noise_std * torch.randn(x.shape, generator=step_generator(0, 0))
        mine = [rows[share(count)].to(self.device).split(64) for rows in (x, *more)]
        parts = [self.loss(*part) for part in zip(*mine, strict=True)]
        mean = torch.stack(parts).mean().cpu()
        if world() > 1:
            dist.all_reduce(mean)
            mean /= world()
        torch._foreach_copy_([p.detach() for _, p in self.named], live)
        return to_bits(mean.item())


def train_flow(
    folder: Path,
    train: tuple[np.ndarray, np.ndarray],
    held_out: tuple[np.ndarray, np.ndarray],
    words: int,
    settings: FlowSettings,
    text: TextSettings,
    say=lambda line: None,
    stop_after: int | None = None,
    begin=None,
    kind: type[Trainer] = Trainer,
) -> None:
    """Train to the end (or to step `stop_after`); state and averages are saved in `folder`.

    `begin(flow, encoder)`: loads initial weights; None for random ones.
    """
    folder.mkdir(parents=True, exist_ok=True)
    total = settings.images // settings.batch
    trainer = kind(settings, text, words, total, begin)
    if state := load_state(folder / "state.pt", trainer.device):
        trainer.load(state)
    began = saved = time.monotonic()
    first, losses = trainer.step, []

    def save() -> None:
        bits = trainer.bits(*train), trainer.bits(*held_out)
        if rank() == 0:
            save_state(folder / "state.pt", trainer.state())
            save_state(folder / "average.pt", trainer.averaged())
            line = {"step": trainer.step, "images_seen": trainer.step * settings.batch}
            line |= {"train_bits": bits[0], "held_out_bits": bits[1]}
            write_json(folder / "progress.json", line)
            say(f"saved at {trainer.step}: bits/dim train {bits[0]:.4f} held-out {bits[1]:.4f}")

    last = min(total, stop_after or total)
    while trainer.step < last:
        losses.append(trainer.update(*train))
        if rank() == 0 and (trainer.step % 50 == 0 or trainer.step == first + 5):
            rate = (trainer.step - first) * settings.batch / (time.monotonic() - began)
            mean = to_bits(float(np.mean(losses[-50:])))
            say(f"flow step {trainer.step}/{total} bits/dim {mean:.4f} {rate:.1f} images/s")
        if agree(time.monotonic() - saved > settings.save_seconds) and trainer.step < last:
            save()
            saved = time.monotonic()
    save()


def load_averaged(folder: Path, settings: FlowSettings, text: TextSettings, words: int):
    """Return the trained flow and encoder with averaged weights, and the training step."""
    state = load_state(folder / "average.pt")
    flow, encoder = STARFlow(settings.shape), build_encoder(text, words)
    flow.load_state_dict(state["flow"])
    missing, extra = encoder.load_state_dict(state["encoder"], strict=False)
    if extra or set(missing) - {"lm_head.weight"}:
        raise ValueError(f"encoder state: missing keys {missing}, unexpected keys {extra}")
    return flow.eval(), encoder.eval(), state["step"]


@torch.no_grad()
def measured_bits(
    flow: STARFlow, encoder, data: tuple[np.ndarray, np.ndarray], noise_std: float, count: int
) -> float:
    """Bits per dimension of evenly spaced rows, with fixed noise, computed in float32."""
    latents, tokens = data
    rows = np.unique(np.linspace(0, len(latents) - 1, count).astype(int))
    x, ids = rows_of(latents, tokens, rows, np.random.default_rng(0))
    x = x + noise_std * torch.randn(x.shape, generator=step_generator(0, 0))
    parts = [
        nats_per_dimension(*flow(a, encode(encoder, b)))
        for a, b in zip(x.split(64), ids.split(64), strict=True)
    ]
    return to_bits(torch.cat(parts).mean().item())
