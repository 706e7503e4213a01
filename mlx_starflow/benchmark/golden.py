"""Reference results of the embedded model, stored in the package, for checks on other machines.

They have the fingerprint of the weights. When the embedded weights change, write them again with
``python -m recipes.default_model.golden``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import numpy as np

from ..device.typed import scalar
from ..pipeline import Pipeline

FILE = Path(__file__).parents[1] / "assets" / "golden.npz"
PROMPT, SEED = "a fox in snow", 7
REGENERATE = "python -m recipes.default_model.golden"


@dataclass(frozen=True)
class Golden:
    """One picture of the embedded model, by the sequential sampler in float32."""

    weights: str  # fingerprint of the flow
    latents: np.ndarray  # (16, 16, c)
    denoised: np.ndarray  # (16, 16, c)
    picture: np.ndarray  # (128, 128, 3) uint8
    log_prob: float  # of the latents, nats

    @classmethod
    def read(cls, path: Path = FILE) -> Golden:
        """Read the .npz file."""
        with np.load(path, allow_pickle=False) as data:
            return cls(
                str(data["weights"]), data["latents"], data["denoised"], data["picture"],
                float(data["log_prob"]),
            )  # fmt: skip

    def write(self, path: Path = FILE) -> None:
        """Write the .npz file."""
        np.savez_compressed(
            path, weights=self.weights, latents=self.latents, denoised=self.denoised,
            picture=self.picture, log_prob=self.log_prob,
        )  # fmt: skip


def drawn_by(pipe: Pipeline, sampler: str = "sequential") -> Golden:
    """The same picture drawn by a pipeline on this machine."""
    from ..exact.likelihood import log_prob

    result = pipe.generate(PROMPT, seed=SEED, sampler=sampler)
    context = pipe.encode_prompts([PROMPT])
    return Golden(
        pipe.fingerprint,
        np.array(result.latents[0]),
        np.array(result.denoised[0]),
        np.array(result.images[0]),
        float(scalar(log_prob(pipe.flow, mx.array(result.latents), context))),
    )


def difference(one: Golden, other: Golden) -> dict[str, float]:
    """The differences of two: latents in standard deviations, the picture as PSNR in dB, the
    log-likelihood in nats per dimension."""
    error = (one.picture.astype(float) - other.picture).ravel() / 255
    mse = float((error * error).mean())
    return {
        "latents": deviations(one.latents, other.latents),
        "denoised": deviations(one.denoised, other.denoised),
        "picture_db": 200.0 if mse == 0 else float(-10 * np.log10(mse)),
        "log_prob": abs(one.log_prob - other.log_prob) / one.latents.size,
    }


def deviations(found: np.ndarray, stored: np.ndarray) -> float:
    """The largest difference of two arrays, in standard deviations of ``stored``."""
    return float(np.abs(found - stored).max() / stored.std())
