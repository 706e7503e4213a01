"""The sliding window: an exact sampler that reads the weights less often than once per token.

A window of tokens is solved by Jacobi sweeps. After every sweep the tokens at its front whose
inputs no longer change are committed and leave the window, and new ones enter at its end.

Why this is exact: one sweep computes new_t = sigma_t(old_<t) v_t + b_t(old_<t). The first token of
the window depends on committed tokens only, so it is right after one sweep. Token t is right if its
inputs are: if old and new agree for all tokens of the window before t, then new_t is what the
sequential sampler computes. A sweep therefore commits the run of unchanged tokens at the front and
one token more; in a batch, the shortest run of all pictures counts. Unchanged tokens keep their
old values exactly, since the cached keys and the new token were computed from these.

A window of T tokens is Jacobi iteration on the whole sequence, in which committed tokens are no
longer computed.

The tokens behind the front are guesses, which need not be right. In a window of up to 64 tokens
they can be improved by ``secants``, which passes corrections on through the window at once.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Generator

import mlx.core as mx
import numpy as np

from .conditional import Conditional
from .options import SampleOptions
from .outcome import Outcome
from .secants import Secants
from .tolerance import CONSTANT, ROUNDING, WITHIN, constant, tolerance_of, word_for

TOLERANCE = CONSTANT  # default tolerance by dtype, unless rounding errors are larger
COMMIT_SHARE = 0.5  # a token is unchanged within this share of the tolerance; the rest is rounding
SECANT_WINDOW = 64  # tokens; in a wider window secants cost the host more than they save
MOST_REPAIRS = 4  # most restarts at the first bad token after the residual was measured
REPAIR_WINDOW = 64  # tokens; in a wider window most of the work would be wasted
FALLING = 0.7  # repairs end if the residual is more than this share of the last one
# After STALLED sweeps without progress, with changes of at most NEAR times the commit limit, the
# sampler measures whether these changes are rounding errors.
NEAR, STALLED = 8.0, 4
SEEN = 1.5  # assumed ratio of the largest rounding error of all tokens to that of those measured
NUDGE = 0.03  # change of the inputs when rounding is measured, as a share of the commit limit


def sliding(
    block: Conditional, v: mx.array, options: SampleOptions
) -> Generator[int, None, Outcome]:
    """Noise v (B, T, D) in the block's order -> ``Outcome``. Yields the number of tokens done.

    ``options.block_size``: the window. ``options.tolerance``: largest allowed residual
    (max |b + sigma v - u|). ``options.max_sweeps``: most sweeps of a token in the window, after
    which it is committed as it is and the outcome is not converged. ``options.secants``: False
    turns the secants off.
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
        allowed=asked if residual is None else math.inf,  # else the word says it
    )


class _Walk:
    """The state of the sampler: tokens, counters and limits."""

    def __init__(
        self,
        block: Conditional,
        v: mx.array,
        commit: float,
        max_sweeps: int | None,
        secants: bool = True,
    ):
        """``commit``: largest change of an input that counts as unchanged. It is raised if
        rounding errors are larger."""
        self.block, self.v, self.commit, self.max_sweeps = block, v, commit, max_sweeps
        self.u = np.array(v)  # the first guess of a token is its noise
        if block.known is not None:
            self.u[:, : block.start] = np.array(block.known)
        self.sweeps: Counter[int] = Counter()  # sweeps in the window -> number of tokens
        self.secants = secants
        self.syncs, self.converged = 0, True
        self.floor = 0.0  # largest rounding error that was measured
        self.checks = 0  # passes spent on measuring it

    def run(self, start: int, window: int) -> Generator[int, None, None]:
        """Solve tokens start ... T - 1, given that the tokens before are right. Yields the number
        of tokens done."""
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
        """New values (B, n, D) of tokens start ... stop - 1, computed from the current tokens plus
        ``moved``."""
        before = self.u[:, start - 1 : stop - 1] if start else self._shifted(stop)
        sigma, b = self.block.affine(mx.array(before + moved), start)
        self.syncs += 1
        return np.array(sigma * self.v[:, start:stop] + b)

    def _look(self, start: int, stop: int, values: np.ndarray) -> int:
        """Measure the rounding error and raise ``floor`` and ``commit`` accordingly.

        Computes the second half of tokens start ... stop - 1 again, with the keys of the first
        half in the cache and inputs changed by less than ``commit``. The difference to ``values``,
        the results of the sweep over all of them, is due to rounding. Returns the first token of
        the second half; cached keys from there on must be computed again.
        """
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
        """One pass over all tokens: max |b + sigma v - u|, and the first token above tolerance (T
        if there is none).

        The pass also computes all keys again, so that a repair can start at any token.
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
                self._sweep(middle, stop)  # compute keys again that a repair needs
                self.checks += 1
        return float(errors.max()), _run_of(errors <= tolerance)


def _run_of(good: np.ndarray) -> int:
    """The number of true values before the first false one."""
    return len(good) if good.all() else int(np.argmin(good))
