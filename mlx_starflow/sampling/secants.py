"""Secants: what the last two sweeps say about how a token answers to its neighbours.

A Jacobi sweep moves a correction by one token: the next one hears of it a sweep later. With an
estimate J of how token t depends on the tokens before it, the correction runs through the whole
window at once: delta_t = r_t + sum_s J_ts delta_s for the residuals r of the sweep. That is a
quasi-Newton step, and because token t only depends on earlier ones it is solved from front to
back.

In a trained deep block most of that dependence is on two tokens, the one before and the one a
row above, so J holds only these blocks. They are learned while sampling, by Broyden's update
(Broyden 1965, for a given pattern Schubert 1970): from sweep to sweep a token has seen its
inputs change by dx and its value by dy, and J changes as little as makes J dx = dy. Nothing
depends on the estimate being good: it only proposes guesses that the next sweep tests.
"""

from __future__ import annotations

import numpy as np

LARGEST = 1.0  # most that the secants may add to a number of a token, in its own deviations


class Secants:
    """Estimates for the tokens of one window, for a batch of B pictures of T tokens (B, T, D)."""

    def __init__(self, batch: int, channels: int, window: int, width: int, least: float):
        """``width``: tokens of a row of the picture. ``least``: changes of the inputs up to here
        are rounding and teach nothing."""
        self.window, self.least = window, least
        self.offsets = (1, width) if width > 1 else (1,)
        inputs = len(self.offsets) * channels
        # By place in the window, t % window, so that a token keeps its place while it slides.
        self.slopes = np.zeros((window, batch, channels, inputs), np.float32)
        self.inputs = np.zeros((window, batch, inputs), np.float32)
        self.values = np.zeros((window, batch, channels), np.float32)
        self.known = np.full(window, -1)  # the token that a place was last used for

    def learn(self, start: int, u: np.ndarray, new: np.ndarray) -> None:
        """The tokens u (B, T, D) gave the values new (B, n, D) of tokens start ..."""
        tokens = np.arange(start, start + new.shape[1])
        places = tokens % self.window
        x = np.concatenate([_at(u, tokens - offset) for offset in self.offsets], axis=-1)
        y = new.transpose(1, 0, 2)
        old = self.known[places] == tokens
        self.slopes[places[~old]] = 0
        dx, dy = x - self.inputs[places], y - self.values[places]
        far = old[:, None] & (np.abs(dx).max(axis=-1) > self.least)
        square = np.where(far, (dx * dx).sum(axis=-1), np.inf)
        slopes = self.slopes[places]
        wrong = dy - (slopes @ dx[..., None])[..., 0]
        slopes += (wrong / square[..., None])[..., None] * dx[..., None, :]
        self.slopes[places], self.known[places] = slopes, tokens
        self.inputs[places], self.values[places] = x, y

    def corrections(self, start: int, residuals: np.ndarray) -> np.ndarray:
        """What to add to tokens start ... for their residuals (B, n, D), new minus old."""
        batch, n, channels = residuals.shape
        reach = self.offsets[-1]
        delta = np.zeros((reach + n, batch, channels), np.float32)  # row reach is token start
        delta[reach:] = residuals.transpose(1, 0, 2)
        for i in range(1, n):
            slopes = self.slopes[(start + i) % self.window]
            before = [delta[reach + i - offset] for offset in self.offsets]
            carried = (slopes @ np.concatenate(before, axis=-1)[..., None])[..., 0]
            most = np.abs(carried).max(axis=-1, keepdims=True)
            delta[reach + i] += carried * (LARGEST / np.maximum(most, LARGEST))
        return delta[reach:].transpose(1, 0, 2)


def _at(u: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Rows (n, B, D) of u (B, T, D) at these tokens, zeros before the first."""
    rows = u[:, np.maximum(tokens, 0)].transpose(1, 0, 2)
    return rows * (tokens >= 0)[:, None, None]
