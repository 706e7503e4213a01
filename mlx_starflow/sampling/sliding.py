"""Prefix commit: an exact sampler that reads the weights less often than once a token.

A window of tokens is solved by Jacobi sweeps, but it slides: after every sweep the tokens at
its front whose inputs no longer change leave it, and new ones enter behind.

Why that is exact. One sweep computes new_t = sigma_t(old_<t) v_t + b_t(old_<t). The first token
of the window has only committed tokens before it, so it is right at once. Token t is as right
as its inputs: if old and new agree for all tokens of the window before t, then new_t is what
the sequential sampler would compute from them. So the window commits one token more than the
run of unchanged tokens at its front, for the slowest picture of the batch. The unchanged ones
stay as they are, to the last digit: their keys and the new token were computed from just these.

A window of T tokens is Jacobi iteration on the whole sequence with a shrinking tail.

The tokens behind the front are guesses, and a guess may be anything: in a window of up to 64
tokens ``secants`` may correct them, which carries a change through the window at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator

import mlx.core as mx
import numpy as np

from .conditional import Conditional
from .options import SampleOptions
from .outcome import Outcome
from .secants import Secants

# Largest error of a token by the type the network computes in: bfloat16 and float16 outputs
# change by more than float32's promise when the same tokens are computed in another grouping.
TOLERANCE = {mx.float32: 2e-5, mx.float16: 5e-3, mx.bfloat16: 3e-2}
COMMIT_SHARE = 0.5  # of the promised tolerance; the rest is for rounding in the certificate
SECANT_WINDOW = 64  # tokens; the secants of more would cost the host more than they save
MOST_REPAIRS = 4  # times that a failed certificate restarts the window at the first bad token


def sliding(
    block: Conditional, v: mx.array, options: SampleOptions
) -> Generator[int, None, Outcome]:
    """Noise v (B, T, D) in the block's order -> tokens; yields the number of tokens done.

    ``options.block_size`` is the window, ``options.tolerance`` the largest residual promised
    (max |b + sigma v - u|), ``options.max_sweeps`` the most sweeps a token may stay in the
    window; it is then committed as it is and the outcome says so. ``options.secants`` False
    leaves the guesses as the last sweep made them.
    """
    total = block.tokens
    window = min(options.block_size or total, total)
    tolerance = options.tolerance or TOLERANCE[block.block.layers[0].dtype]
    secants = options.secants is not False
    walk = _Walk(block, v, COMMIT_SHARE * tolerance, options.max_sweeps, secants)
    yield from walk.run(0, window)
    residual, certificates = None, 0
    while options.certify:
        residual, first_bad = walk.certify(tolerance)
        certificates += 1
        if first_bad == total or certificates > MOST_REPAIRS or options.max_sweeps is not None:
            break
        yield from walk.run(first_bad, total - first_bad)
    return Outcome(
        mx.array(walk.u),
        window,
        dict(walk.sweeps),
        walk.syncs,
        walk.converged and (residual is None or residual <= tolerance),
        residual,
        certificates,
        tolerance,
    )


class _Walk:
    """The tokens so far and what is known about them."""

    def __init__(
        self,
        block: Conditional,
        v: mx.array,
        commit: float,
        max_sweeps: int | None,
        secants: bool = True,
    ):
        """``commit``: a token whose inputs change by no more is finished."""
        self.block, self.v, self.commit, self.max_sweeps = block, v, commit, max_sweeps
        self.u = np.array(v)  # first guess of a token nobody has looked at: its noise
        self.sweeps: Counter[int] = Counter()  # sweeps that a token stayed -> tokens
        self.secants = secants
        self.syncs, self.converged = 0, True

    def run(self, start: int, window: int) -> Generator[int, None, None]:
        """Solve tokens start ... T - 1, the ones before them being right."""
        total = self.block.tokens
        batch, _, channels = self.u.shape
        secants = None
        if self.secants and 1 < window <= SECANT_WINDOW:
            width = self.block.grid.width
            secants = Secants(batch, channels, window, width, self.commit)
        entered: list[int] = []  # sweep at which each token of the window entered it
        sweep = 0
        while start < total:
            stop = min(start + window, total)
            entered += [sweep] * (stop - start - len(entered))
            sweep += 1
            new = self._sweep(start, stop)
            residuals = new - self.u[:, start:stop]
            settled = (np.abs(residuals) <= self.commit).all(axis=(0, 2))
            same = _run_of(settled)
            done = min(1 + same, stop - start)
            if self.max_sweeps is not None:
                while done < stop - start and sweep - entered[done] >= self.max_sweeps:
                    done, self.converged = done + 1, False
            self.sweeps.update(sweep - e for e in entered[:done])
            if secants is not None:
                secants.learn(start, self.u, new)
                guess = self.u[:, start:stop] + secants.corrections(start, residuals)
                new[:, done:] = guess[:, done:]
            self.u[:, start + same : stop] = new[:, same:]
            start, entered = start + done, entered[done:]
            yield start

    def _sweep(self, start: int, stop: int) -> np.ndarray:
        """New values (B, n, D) of tokens start ... stop - 1, all from the present ones."""
        before = self.u[:, start - 1 : stop - 1] if start else self._shifted(stop)
        sigma, b = self.block.affine(mx.array(before), start)
        self.syncs += 1
        return np.array(sigma * self.v[:, start:stop] + b)

    def _shifted(self, stop: int) -> np.ndarray:
        return np.concatenate([np.zeros_like(self.u[:, :1]), self.u[:, : stop - 1]], axis=1)

    def certify(self, tolerance: float) -> tuple[float, int]:
        """max |b + sigma v - u| of one pass over all tokens, and the first token above tolerance.

        The pass also renews all keys, so that a repair can start anywhere.
        """
        errors = np.abs(self._sweep(0, self.block.tokens) - self.u).max(axis=(0, 2))
        return float(errors.max()), _run_of(errors <= tolerance)


def _run_of(good: np.ndarray) -> int:
    """How many are true before the first that is not."""
    return len(good) if good.all() else int(np.argmin(good))
