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
from .tolerance import CONSTANT, ROUNDING, WITHIN, constant, tolerance_of, word_for

TOLERANCE = CONSTANT  # by the type of the arithmetic, where its floor is lower
COMMIT_SHARE = 0.5  # of the promised tolerance; the rest is for rounding in the certificate
SECANT_WINDOW = 64  # tokens; the secants of more would cost the host more than they save
MOST_REPAIRS = 4  # times that a failed certificate restarts the window at the first bad token
REPAIR_WINDOW = 64  # tokens; more would be computed in vain while the front is repaired
FALLING = 0.7  # a repair that leaves more of the residual than this share has gained nothing
# Sweeps that bring the front no nearer, at so many times the change that counts as none, raise the
# question whether the rest is rounding.
NEAR, STALLED = 8.0, 4
SEEN = 1.5  # the largest rounding of all tokens over that of the few that are looked at
NUDGE = 0.03  # of the change that counts as none: how far inputs are moved to see rounding


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
    asked = options.tolerance or constant(block.block)
    secants = options.secants is not False
    walk = _Walk(block, v, COMMIT_SHARE * asked, options.max_sweeps, secants)
    yield from walk.run(block.start, window)
    residual, certificates = None, 0
    while options.certify:
        before = residual
        residual, first_bad = walk.certify(tolerance_of(walk.floor, asked))
        certificates += 1
        if first_bad == total or certificates > MOST_REPAIRS or options.max_sweeps is not None:
            break
        if before is not None and residual > FALLING * before:
            break
        yield from walk.run(first_bad, min(REPAIR_WINDOW, total - first_bad))
    least = constant(block.block)
    accuracy = word_for(residual, asked, walk.floor, least, walk.converged)
    return Outcome(
        mx.array(walk.u),
        window,
        dict(walk.sweeps),
        walk.syncs,
        accuracy in (WITHIN, ROUNDING),
        residual,
        certificates,
        accuracy,
        walk.floor,
        walk.checks,
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
        """``commit``: a token whose inputs change by no more is finished. It rises where rounding
        alone changes more."""
        self.block, self.v, self.commit, self.max_sweeps = block, v, commit, max_sweeps
        self.u = np.array(v)  # first guess of a token nobody has looked at: its noise
        if block.known is not None:
            self.u[:, : block.start] = np.array(block.known)
        self.sweeps: Counter[int] = Counter()  # sweeps that a token stayed -> tokens
        self.secants = secants
        self.syncs, self.converged = 0, True
        self.floor = 0.0  # largest difference between two groupings that was seen
        self.checks = 0  # passes spent on looking

    def run(self, start: int, window: int) -> Generator[int, None, None]:
        """Solve tokens start ... T - 1, the ones before them being right."""
        total = self.block.tokens
        batch, _, channels = self.u.shape
        secants = None
        if self.secants and 1 < window <= SECANT_WINDOW:
            width = self.block.grid.width
            secants = Secants(batch, channels, window, width, self.commit)
        entered: list[int] = []  # sweep at which each token of the window entered it
        sweep = stalled = 0
        patience, last = STALLED, np.inf
        while start < total:
            stop = min(start + window, total)
            entered += [sweep] * (stop - start - len(entered))
            sweep += 1
            new = self._sweep(start, stop)
            residuals = new - self.u[:, start:stop]
            changes = np.abs(residuals).max(axis=(0, 2))
            same = _run_of(changes <= self.commit)
            if same < stop - start and self.max_sweeps is None:
                slow = changes[same] <= NEAR * self.commit and changes.max() > 0.5 * last
                stalled, last = stalled + 1 if slow else 0, changes.max()
                if stalled >= patience and stop - start > 1:
                    stalled, patience = 0, 4 * patience
                    middle = self._look(start, stop, new)
                    same = min(_run_of(changes <= self.commit), middle - start - 1)
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

    def _sweep(self, start: int, stop: int, moved: np.ndarray | float = 0.0) -> np.ndarray:
        """New values (B, n, D) of tokens start ... stop - 1, all from the present ones, which are
        first ``moved`` by so much."""
        before = self.u[:, start - 1 : stop - 1] if start else self._shifted(stop)
        sigma, b = self.block.affine(mx.array(before + moved), start)
        self.syncs += 1
        return np.array(sigma * self.v[:, start:stop] + b)

    def _look(self, start: int, stop: int, values: np.ndarray) -> int:
        """Compute the second half of tokens start ... stop - 1, which came out as ``values``, once
        more: from inputs that differ by less than what counts as a change, with the keys of the
        first half in the cache. What comes out differently is rounding. Returns where the half
        begins: keys from there on are not to be kept."""
        middle = (start + stop) // 2
        signs = np.where(np.arange(self.u.shape[2]) % 2, NUDGE, -NUDGE).astype(np.float32)
        again = self._sweep(middle, stop, signs * self.commit)
        self.checks += 1
        seen = float(np.abs(again - values[:, middle - start :]).max())
        self.floor = max(self.floor, SEEN * seen)
        self.commit = max(self.commit, COMMIT_SHARE * tolerance_of(self.floor, 0.0))
        return middle

    def _shifted(self, stop: int) -> np.ndarray:
        return np.concatenate([np.zeros_like(self.u[:, :1]), self.u[:, : stop - 1]], axis=1)

    def certify(self, tolerance: float) -> tuple[float, int]:
        """max |b + sigma v - u| of one pass over all tokens, and the first token above tolerance.

        The pass also renews all keys, so that a repair can start anywhere.
        """
        total = self.block.tokens
        values = self._sweep(0, total)
        errors = np.abs(values - self.u).max(axis=(0, 2))
        errors[: self.block.start] = 0  # known tokens are not the values of any noise
        if errors.max() > tolerance and total > 1 and self.max_sweeps is None:
            start = max(0, min(int(np.argmax(errors)) - REPAIR_WINDOW // 2, total - REPAIR_WINDOW))
            stop = min(start + REPAIR_WINDOW, total)
            middle = self._look(start, stop, values[:, start:stop])
            tolerance = max(tolerance, tolerance_of(self.floor, 0.0))
            if middle < _run_of(errors <= tolerance) < total:
                self._sweep(middle, stop)  # a repair behind it builds on these keys
                self.checks += 1
        return float(errors.max()), _run_of(errors <= tolerance)


def _run_of(good: np.ndarray) -> int:
    """How many are true before the first that is not."""
    return len(good) if good.all() else int(np.argmin(good))
