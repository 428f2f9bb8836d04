"""How well a search finds tipping points, and in how many trials: a simulation study.

    uv run python -m tests.analysis.search_simulation --curves 500 --slots 1 2 8 32

Curves over 8 decades whose noise-free form is known (`KINDS`, of `tests/analysis/tipping_simulation.py`), with noise of
three sizes and 3% of diverged runs, are searched by `next_trials` until it says that it is done; a trial is any
strength and any seed, and its score is drawn when it runs. With several slots the trials that run end in any order.
What has been recorded at the end is judged by `fit_curve`, as a grid is. `BARS` says how few trials that may take and
how well the tipping points have to be found.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import repeat

import numpy as np
import tyro

from analysis.tipping_fit import fit_curve
from analysis.tipping_search import next_trials
from tests.analysis.tipping_simulation import CHANCE, Floats, curve, drift

KINDS = ("logistic", "gompertz", "ramp", "step", "two stages", "slow drift", "flat")
DECADES = 8.0
WIDTH = 0.16
"""The median width of the interval of a grid of 50 strengths."""
DIVERGED = 0.03
MOST_TRIALS = {1: 14, 2: 14, 8: 18}
"""The mean number of trials by slots, at most."""
BARS = {"rmse": 0.09, "far": 0.01, "covered": 0.95, "missed": 0.0, "invented": 0.0}


class Network:
    """A curve, and what a trial at a strength scores."""

    def __init__(self, number: int) -> None:
        rng = np.random.default_rng([20261129, number])
        self.kind = KINDS[number % len(KINDS)]
        self.plateau = float(rng.uniform(0.5, 0.99))
        self.t80 = math.nan if self.kind == "flat" else float(rng.uniform(0.3, 0.9) * DECADES)
        sizes = (0.003, 0.01) if self.kind == "slow drift" else (0.003, 0.01, 0.03)
        self.noise = float(rng.choice(sizes))
        self.state = int(rng.integers(1 << 31))

    def mean(self, x: Floats) -> Floats:
        """The noise-free curve at log₁₀ strengths."""
        rng = np.random.default_rng(self.state)
        if self.kind == "flat":
            return np.full_like(x, self.plateau)
        if self.kind == "slow drift":
            return drift(x, self.t80, DECADES, self.plateau, rng)
        return curve(self.kind, x, self.t80, self.plateau, rng)

    def trial(self, strength: float, seed: int) -> float:
        """The score of one: the same whenever it is asked for."""
        x = math.log10(strength)
        rng = np.random.default_rng([self.state, seed, round(x * 1e6)])
        score = float(self.mean(np.array([x]))[0]) + self.noise * rng.normal()
        return CHANCE if rng.random() < DIVERGED else float(np.clip(score, 0, 1))


@dataclass(frozen=True)
class Searched:
    number: int
    kind: str
    truth: float
    trials: int
    status: str
    found: float
    low: float
    high: float

    @property
    def covered(self) -> bool:
        return self.low - 1e-9 <= self.truth <= self.high + 1e-9


def search(number: int, slots: int, width: float = WIDTH) -> Searched:
    network, rng = Network(number), np.random.default_rng([20261130, number])
    recorded: list[tuple[float, int, float]] = []
    running: list[tuple[float, int]] = []
    while True:
        strengths, seeds, scores = zip(*recorded, strict=True) if recorded else ((), (), ())
        proposed = (
            next_trials(
                strengths,
                scores,
                seeds,
                low=1.0,
                high=10**DECADES,
                width=width,
                slots=slots - len(running),
                running=running,
            )
            if len(running) < slots
            else []
        )
        if proposed is None and not running:
            break
        running += proposed or []
        strength, seed = running.pop(int(rng.integers(len(running))))
        recorded.append((strength, seed, network.trial(strength, seed)))
    fit = fit_curve(strengths, scores, seeds, rng=np.random.default_rng(0))
    return Searched(number, network.kind, network.t80, len(recorded), fit.status, fit.log10_strength, fit.low, fit.high)


def study(curves: int, slots: int, *, first: int = 0, jobs: int = 1, width: float = WIDTH) -> list[Searched]:
    numbers = range(first, first + curves)
    if jobs == 1:
        return [search(number, slots, width) for number in numbers]
    with ProcessPoolExecutor(jobs) as pool:
        return list(pool.map(search, numbers, repeat(slots), repeat(width), chunksize=4))


def summary(found: Sequence[Searched]) -> dict[str, float]:
    """Mean number of trials of all; of those that tip over, how well they are found; of flat ones, how many tip."""
    tips = [one for one in found if math.isfinite(one.truth)]
    flat = [one for one in found if not math.isfinite(one.truth)]
    there = [one for one in tips if one.status == "tipping point"]
    errors = np.array([one.found - one.truth for one in there])
    return {
        "trials": float(np.mean([one.trials for one in found])),
        "bias": float(errors.mean()) if len(errors) else math.nan,
        "rmse": float(np.sqrt((errors**2).mean())) if len(errors) else math.nan,
        "far": float((abs(errors) > 0.5).mean()) if len(errors) else math.nan,
        "covered": float(np.mean([one.covered for one in there])) if there else math.nan,
        "width": float(np.median([one.high - one.low for one in there])) if there else math.nan,
        "missed": 1 - len(there) / len(tips) if tips else math.nan,
        "invented": float(np.mean([one.status == "tipping point" for one in flat])) if flat else math.nan,
    }


@dataclass(frozen=True)
class Flags:
    """Search simulated curves, and print how many trials that took and how well their tipping points were found."""

    curves: int = 500
    slots: tuple[int, ...] = (1, 2, 8, 32)
    width: float = WIDTH
    jobs: int = 2
    worst: int = 0
    """So many of the worst are printed one by one."""


def main() -> None:
    flags = tyro.cli(Flags, description=__doc__)
    for slots in flags.slots:
        found = study(flags.curves, slots, jobs=flags.jobs, width=flags.width)
        print(f"{slots} slots, {flags.curves} curves, width {flags.width}")
        for kind in (*KINDS, ""):
            own = [one for one in found if kind in ("", one.kind)]
            if own:
                values = ", ".join(f"{name} {value:.3f}" for name, value in summary(own).items())
                print(f"  {kind or 'all':<11} {len(own):4}  {values}")
        bad = [one for one in found if math.isfinite(one.truth)]
        bad.sort(key=lambda one: -abs(one.found - one.truth) if math.isfinite(one.found) else -99)
        for one in bad[: flags.worst]:
            print("   ", one)
        for one in sorted(found, key=lambda one: -one.trials)[: flags.worst]:
            print("    long:", one)


if __name__ == "__main__":
    main()
