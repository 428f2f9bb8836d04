"""Runs of one method against another's as distributions: performance profiles and the probability of improvement.

Agarwal, Schwarzer, Castro, Courville & Bellemare 2021, "Deep Reinforcement Learning at the Edge of the Statistical
Precipice" (NeurIPS), whose library is rliable. A method has N runs on each of M tasks, x_{m,n}.

- The performance profile (their Section 4.2, the run-score distribution): F(τ) = 1/M Σ_m 1/N Σ_n 1[x_{m,n} > τ], the
  share of runs with a score above τ.
- The probability of improvement (Section 4.3): P(X > Y) = 1/M Σ_m P(X_m > Y_m), where P(X_m > Y_m) is the share of
  pairs of a run of X and one of Y in which X is the better, ties counted half: Mann and Whitney's U by N·K.

Intervals are percentiles of stratified bootstraps: the runs of each task are drawn from themselves, those of X and Y
independently of each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.schema import Direction

Floats = NDArray[np.float64]

BOOTSTRAPS = 2000
"""As rliable draws for profiles."""
_ENDS = (2.5, 97.5)


@dataclass(frozen=True)
class Profile:
    """A performance profile with its pointwise 95% band."""

    tau: Floats
    share: Floats
    low: Floats
    high: Floats


@dataclass(frozen=True)
class Probability:
    """A probability of improvement with its 95% interval."""

    value: float
    low: float
    high: float


def performance_profile(
    scores: Sequence[ArrayLike],
    tau: ArrayLike,
    *,
    direction: Direction = "max",
    bootstraps: int = BOOTSTRAPS,
    rng: np.random.Generator | None = None,
) -> Profile:
    """The share of runs with a score above each of `tau` (below it, where less is better); `scores`: those of the runs
    (N_m,) of each task. Raises `ValueError` for no task, a task without runs, and scores that are not finite."""
    tasks = _checked("scores", scores)
    rng = np.random.default_rng() if rng is None else rng
    levels = np.asarray(tau, dtype=float)
    # it is the same between two scores: where none is passed, where one is, …
    every = np.unique(np.concatenate(tasks))
    steps = np.append(every, np.inf) if direction == "min" else np.append(-np.inf, every)
    place = np.searchsorted(every, levels, side="left" if direction == "min" else "right")
    share = np.zeros(len(steps))
    drawn = np.zeros((bootstraps, len(steps)))
    for runs in tasks:
        beyond = (runs[:, None] > steps if direction == "max" else runs[:, None] < steps).astype(float)
        share += beyond.mean(axis=0) / len(tasks)
        drawn += _weights(len(runs), bootstraps, rng) @ beyond / len(tasks)
    low, high = np.percentile(drawn, _ENDS, axis=0)
    return Profile(levels, share[place], low[place], high[place])


def probability_of_improvement(
    scores: Sequence[ArrayLike],
    reference: Sequence[ArrayLike],
    *,
    direction: Direction = "max",
    bootstraps: int = BOOTSTRAPS,
    rng: np.random.Generator | None = None,
) -> Probability:
    """How probable it is that a run is better than one of the reference, ties counted half; both by task, (N_m,) and
    (K_m,). Raises `ValueError` for different numbers of tasks, and as `performance_profile` does."""
    own, theirs = _checked("scores", scores), _checked("reference", reference)
    if len(own) != len(theirs):
        raise ValueError(f"reference: {len(theirs)} tasks for {len(own)} of the scores, allowed is the same number")
    rng = np.random.default_rng() if rng is None else rng
    value = 0.0
    drawn = np.zeros(bootstraps)
    for x, y in zip(own, theirs, strict=True):
        difference = x[:, None] - y if direction == "max" else y - x[:, None]
        better = (difference > 0) + 0.5 * (difference == 0)
        value += float(better.mean()) / len(own)
        first, second = (_weights(n, bootstraps, rng) for n in better.shape)
        drawn += np.einsum("bi,ij,bj->b", first, better, second, optimize=True) / len(own)
    low, high = np.percentile(drawn, _ENDS)
    return Probability(value, float(low), float(high))


def _weights(n: int, bootstraps: int, rng: np.random.Generator) -> Floats:
    """How often each of n runs is drawn, by n: (bootstraps, n). The settings of a sweep have equal generators, and most
    of them as many runs: what was drawn last is kept for the next one."""
    key = n, bootstraps, str(rng.bit_generator.state)
    if key not in _drawn:
        if n * bootstraps > _KEPT:
            return np.asarray(rng.multinomial(n, np.full(n, 1 / n), size=bootstraps) / n)
        found = rng.multinomial(n, np.full(n, 1 / n), size=bootstraps) / n
        while _drawn and n * bootstraps + sum(weights.size for weights, _ in _drawn.values()) > _KEPT:
            del _drawn[next(iter(_drawn))]
        _drawn[key] = found, rng.bit_generator.state
    weights, rng.bit_generator.state = _drawn[key]
    return weights


_KEPT = 2_000_000
"""Numbers that are kept."""
_drawn: dict[tuple[int, int, str], tuple[Floats, Any]] = {}


def _checked(name: str, tasks: Sequence[ArrayLike]) -> list[Floats]:
    found = [np.asarray(task, dtype=float) for task in tasks]
    if not found:
        raise ValueError(f"{name}: no task, allowed is at least one")
    for runs in found:
        if runs.ndim != 1 or not len(runs):
            raise ValueError(f"{name}: a task of shape {runs.shape}, allowed is one dimension with at least one run")
        if not np.isfinite(runs).all():
            raise ValueError(f"{name}: not finite somewhere, allowed are finite numbers; leave the others out")
    return found
