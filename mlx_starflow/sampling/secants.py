"""Secants: quasi-Newton corrections between the sweeps of the sliding window.

A Jacobi sweep passes a correction of token t on to token t + 1 only, so a window needs many
sweeps. With an estimate J of the Jacobian, of token t by the tokens before it, a correction
reaches the whole window at once: delta_t = r_t + sum_s J_ts delta_s, for the residuals r of the
sweep. Since token t depends on earlier tokens only, the sum is evaluated from first to last.

In a trained deep block most of this dependence is on two tokens, the one before and the one in
the row above, so J has only these two blocks per token. They are estimated while sampling by
Broyden's update (Broyden 1965; with a sparsity pattern: Schubert 1970). If from one sweep to the
next the inputs of a token changed by dx and its value by dy, J is changed as little as possible
such that J dx = dy. A bad estimate costs sweeps but not accuracy, since the next sweep checks the
corrected tokens.
"""

from __future__ import annotations

import numpy as np

LARGEST = 1.0  # limit on the change of a number of a token, in the units of the tokens


class Secants:
    """Estimates of J for the tokens of one window, for a batch of B pictures (B, T, D)."""

    def __init__(self, batch: int, channels: int, window: int, width: int, least: float):
        """batch: B. channels: D. window: tokens. width: tokens in a row of the picture. least:
        smaller changes of the inputs count as rounding and are not used."""
        self.window, self.least = window, least
        self.offsets = (1, width) if width > 1 else (1,)
        inputs = len(self.offsets) * channels
        # Token t is stored at index t % window, which it keeps while the window moves.
        self.slopes = np.zeros((window, batch, channels, inputs), np.float32)
        self.inputs = np.zeros((window, batch, inputs), np.float32)
        self.values = np.zeros((window, batch, channels), np.float32)
        self.known = np.full(window, -1)  # the token that is stored at each index

    def learn(self, start: int, u: np.ndarray, new: np.ndarray) -> None:
        """Update J after a sweep, which computed from the tokens u (B, T, D) the new values
        (B, n, D) of tokens start ... start + n - 1."""
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
        """Corrections (B, n, D) to add to tokens start ... start + n - 1, for their residuals
        (B, n, D), new minus old."""
        batch, n, channels = residuals.shape
        reach = self.offsets[-1]
        delta = np.zeros((reach + n, batch, channels), np.float32)  # row ``reach``: token start
        delta[reach:] = residuals.transpose(1, 0, 2)
        for i in range(1, n):
            slopes = self.slopes[(start + i) % self.window]
            before = [delta[reach + i - offset] for offset in self.offsets]
            carried = (slopes @ np.concatenate(before, axis=-1)[..., None])[..., 0]
            most = np.abs(carried).max(axis=-1, keepdims=True)
            delta[reach + i] += carried * (LARGEST / np.maximum(most, LARGEST))
        return delta[reach:].transpose(1, 0, 2)


def _at(u: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Tokens (n, B, D) of u (B, T, D) at these indices, zeros for negative ones."""
    rows = u[:, np.maximum(tokens, 0)].transpose(1, 0, 2)
    return rows * (tokens >= 0)[:, None, None]
