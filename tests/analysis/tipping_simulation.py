"""How well tipping points are found: a simulation study.

    uv run python -m tests.analysis.tipping_simulation --sweeps 1000 --per-shape 200

Sweeps are drawn whose noise-free curve is known: collapses that are logistic, Gompertz, a ramp, a step or two logistic
stages, to chance (0.1), with 7 to 50 strengths over 4 to 8 decades, 1 to 20 seeds, noise of three sizes, and in half of
them 3% of diverged runs at any strength; and flat curves, of which the same is true. Four ways of finding the tipping
point are judged on the same sweeps:

- ours: `fit_tipping_point`, decision, location and interval;
- the paper's rule, on the mean over seeds (`paper_threshold`) and trial by trial, as of sweeps with one seed;
- a two-segment fit: the breakpoint of a continuous line of two pieces, least squares, called a tipping point where the
  second piece falls (p < .05 of the F test against one line).

Ours alone is judged by shape, on sweeps of 15 to 50 strengths: of the curves above, and of what was hard for it
(`SHAPES`): curves that drift down slowly, through the level or before they fall, that dip once or twice and recover,
that rise before they fall; any of those collapses with seeds of different noise, with trials missing, with strengths
unevenly spaced, with another number of seeds at each strength. A quarter of them does not tip over: the drift, the
rise, the noise without the fall, the dips with nothing after them. Where a curve dips, the truth is the fall from which
it does not come back. `BARS` says how well each shape has to be found.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import tyro
from numpy.typing import NDArray
from scipy import optimize, stats

from analysis.tipping_fit import TippingPoint
from analysis.tipping_points import fit_tipping_point, paper_threshold

Floats = NDArray[np.float64]
CHANCE = 0.1
SHARE = 0.8
KINDS = ("logistic", "gompertz", "ramp", "step", "two stages")


@dataclass(frozen=True)
class Drawn:
    """A sweep: log₁₀ strengths, scores and seeds of its trials; where it tips over (nan: a flat curve)."""

    x: Floats
    y: Floats
    seed: NDArray[np.int64]
    t80: float
    kind: str
    diverged: bool


def draw(rng: np.random.Generator) -> Drawn:
    number, seeds = int(rng.integers(7, 51)), int(rng.choice([1, 2, 3, 5, 10, 20]))
    high, plateau = rng.uniform(4, 8), rng.uniform(0.5, 0.99)
    x, seed = np.tile(np.linspace(0, high, number), seeds), np.repeat(np.arange(seeds), number)
    noise = rng.choice([0.003, 0.01, 0.03]) * rng.normal(size=len(x))
    diverges = bool(rng.random() < 0.5)
    if rng.random() < 0.2:
        y = plateau + noise
        if diverges:
            y[rng.random(len(y)) < 0.03] = CHANCE
        return Drawn(x, np.clip(y, 0, 1), seed, math.nan, "flat", diverges)
    kind = str(rng.choice(KINDS))
    t = rng.uniform(0.4 * high, 0.85 * high)
    y = curve(kind, x, t, plateau, rng) + noise
    if diverges:
        y[rng.random(len(y)) < 0.03] = CHANCE
    return Drawn(x, np.clip(y, 0, 1), seed, t, kind, diverges)


def curve(kind: str, x: Floats, t: float, plateau: float, rng: np.random.Generator) -> Floats:
    """A curve from the plateau to chance that is 80% of the plateau at t."""
    fall, left = plateau - CHANCE, (SHARE * plateau - CHANCE) / (plateau - CHANCE)
    steepness = rng.uniform(1.5, 8)
    if kind == "logistic":
        return CHANCE + fall / (1 + np.exp(steepness * (x - t) + math.log(1 / left - 1)))
    if kind == "gompertz":
        return CHANCE + fall * (1 - np.exp(-np.exp(-steepness * (x - t) + math.log(-math.log(1 - left)))))
    if kind == "ramp":
        width = rng.uniform(0.3, 2)
        return CHANCE + fall * np.clip(left - (x - t) / width, 0, 1)
    if kind == "step":
        return np.where(x < t, plateau, CHANCE)

    # two logistic falls, to an intermediate level and from there to chance, moved to where they are at 80% at t
    between, gap, second = rng.uniform(0.4, 0.75) * plateau, rng.uniform(0.5, 2), rng.uniform(1.5, 8)

    def stages(at: Floats) -> Floats:
        first_fall = (plateau - between) / (1 + np.exp(-steepness * at))
        return plateau - first_fall - (between - CHANCE) / (1 + np.exp(-second * (at - gap)))

    crossing = optimize.brentq(lambda at: float(stages(np.array(at))) - SHARE * plateau, -20, 20)
    return stages(x - t + crossing)


def drift(x: Floats, t: float, high: float, plateau: float, rng: np.random.Generator, *, tips: bool = True) -> Floats:
    """A curve that drifts down slowly and is 80% of the plateau at t; if it does not tip, it stays above that."""
    level = SHARE * plateau
    begins = rng.uniform(0.0, 0.3) * high
    if tips and rng.random() < 0.5:
        # down by a line through the level, with no other fall
        slope = (plateau - level) / min(t - begins, rng.uniform(0.8, 2.5))
        return np.maximum(plateau - slope * np.clip(x - t + (plateau - level) / slope, 0, None), CHANCE)
    # down by a line to less than the level, then a fall of what is left
    slope = rng.uniform(0.05, 0.18) * plateau / (t - begins)
    left = plateau - slope * (t - begins)
    line = plateau - slope * np.clip(x - begins, 0, t - begins)
    fraction = (level - CHANCE) / (left - CHANCE)
    steepness = rng.uniform(1.5, 8) if rng.random() < 0.7 else 60.0
    fall = 1 + np.exp(np.clip(steepness * (x - t) + math.log(1 / fraction - 1), -500, 500))
    return CHANCE + (line - CHANCE) / fall if tips else line


SHAPES = (
    "slow drift",
    "dip",
    "bump",
    "double dip",
    "heteroscedastic seeds",
    "missing seeds",
    "uneven spacing",
    "unequal seeds",
)


# at most so many decades of bias and root mean square error, at least this share of intervals that hold the truth, at
# most these shares of tipping points missed and found where there is none (a test at .05), in every shape
BARS = {"bias": 0.05, "rmse": 0.10, "covered": 0.94, "missed": 0.01, "invented": 0.05}


def draw_shape(shape: str, rng: np.random.Generator) -> Drawn:
    """A sweep of 15 to 50 strengths of this shape; a quarter of them do not tip over."""
    number, seeds = int(rng.integers(15, 51)), int(rng.choice([1, 2, 3, 5, 10]))
    high, plateau = rng.uniform(4, 8), rng.uniform(0.5, 0.99)
    gaps = np.exp(0.5 * rng.normal(size=number - 1)) if shape == "uneven spacing" else np.ones(number - 1)
    swept = high * np.r_[0, gaps.cumsum()] / gaps.sum()
    if "seeds" in shape:
        seeds = max(seeds, 2)
    x, seed = np.tile(swept, seeds), np.repeat(np.arange(seeds), number)
    tips = bool(rng.random() < 0.75)
    t = rng.uniform(0.5 * high, 0.85 * high)
    noise = np.full(len(x), rng.choice([0.003, 0.01, 0.03]))
    if shape == "heteroscedastic seeds":
        noise *= np.exp(rng.uniform(-1, 1.5, seeds))[seed]
    kind = shape if shape in KINDS else str(rng.choice(KINDS[:4]))
    if shape == "slow drift":
        noise = np.minimum(noise, 0.01)  # a slope of a tenth in a decade and more noise: no estimate is within a tenth
        y = drift(x, t, high, plateau, rng, tips=tips)
    else:
        y = curve(kind, x, t, plateau, rng) if tips else np.full(len(x), plateau)
    if shape == "bump":
        top, width = rng.uniform(0.05, 0.25) * plateau, rng.uniform(0.3, 0.8)
        centre = rng.uniform(0.35 * high, max(0.36 * high, t - 2.5 * width))
        y = y + top * np.exp(-(((x - centre) / width) ** 2))
    if "dip" in shape:
        # between the lowest quarter and the fall, and each recovery at least twice as long as the dip before it
        first, last = math.ceil(number / 4), int(np.searchsorted(swept, t))
        part = (last - first) // (2 if shape == "double dip" else 1)
        for begins in range(first, first + part * (2 if shape == "double dip" else 1), part):
            strengths = int(rng.integers(1, max(part // 3, 1) + 1))
            inside = (x >= swept[begins]) & (x <= swept[begins + strengths - 1])
            y = np.where(inside, rng.uniform(0.3, 0.7) * plateau, y)
    y = y + noise * rng.normal(size=len(x))
    diverges = bool(rng.random() < 0.25)
    if diverges:
        y[rng.random(len(y)) < 0.03] = CHANCE
    kept = np.ones(len(x), bool)
    if shape == "missing seeds":
        kept = rng.random(len(x)) > rng.uniform(0.1, 0.4)
    if shape == "unequal seeds":
        kept = seed < rng.integers(1, seeds + 1, number)[np.searchsorted(swept, x)]
    y = np.clip(y, 0, 1)
    return Drawn(x[kept], y[kept], seed[kept], t if tips else math.nan, shape, diverges)


def two_segments(x: Floats, y: Floats) -> tuple[float, float, float, float]:
    """Breakpoint, the two slopes and the p-value of the F test against one line, of y = a + b x + d (x − ψ)₊.

    Least squares: the best of 99 evenly spaced ψ, refined by golden section between its neighbours.
    """
    swept = np.unique(x)
    one = np.stack([np.ones_like(x), x], 1)
    straight = float(((y - one @ np.linalg.lstsq(one, y, rcond=None)[0]) ** 2).sum())

    def fit(breakpoint: float) -> tuple[float, Floats]:
        design = np.column_stack([one, np.maximum(x - breakpoint, 0)])
        beta = np.linalg.lstsq(design, y, rcond=None)[0]
        return float(((y - design @ beta) ** 2).sum()), beta

    grid = np.linspace(swept[0], swept[-1], 101)[1:-1]
    best = int(np.argmin([fit(value)[0] for value in grid]))
    low, high = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    golden = (math.sqrt(5) - 1) / 2
    for _ in range(60):
        left, right = high - golden * (high - low), low + golden * (high - low)
        if fit(left)[0] <= fit(right)[0]:
            high = right
        else:
            low = left
    found = (low + high) / 2
    least, beta = fit(found)
    free = len(x) - 4
    p_value = 1.0
    if free > 0 and straight > least:
        p_value = float(stats.f.sf((straight - least) / 2 / max(least / free, 1e-300), 2, free))
    return float(found), float(beta[1]), float(beta[1] + beta[2]), p_value


@dataclass(frozen=True)
class Outcome:
    """What each method said of a sweep: location (nan: none) by method; ours also with its interval."""

    truth: float
    kind: str
    diverged: bool
    locations: dict[str, float]
    covered: bool
    located_by: str = ""
    dips: bool = False
    """Whether it was flagged that the curve dips."""


METHODS = ("ours", "paper's rule", "paper's rule per trial", "two segments")


def judge(seed: int) -> Outcome:
    rng = np.random.default_rng([20261121, seed])
    sweep = draw(rng)
    strength = 10**sweep.x
    fit = fit_tipping_point(strength, sweep.y, sweep.seed, rng=rng)
    rule = paper_threshold(strength.tolist(), sweep.y.tolist())
    beyond = (strength >= rule.reference_below) & (sweep.y < SHARE * rule.reference)
    breakpoint, _, after, p_value = two_segments(sweep.x, sweep.y)
    locations = {
        "ours": fit.log10_strength,
        "paper's rule": math.log10(rule.strength),
        "paper's rule per trial": float(sweep.x[beyond].min()) if beyond.any() else math.nan,
        "two segments": breakpoint if after < 0 and p_value < 0.05 else math.nan,
    }
    return Outcome(sweep.t80, sweep.kind, sweep.diverged, locations, _covers(fit, sweep.t80))


def _covers(fit: TippingPoint, truth: float) -> bool:
    return bool(fit.low - 1e-9 <= truth <= fit.high + 1e-9)


def judge_shape(drawn: tuple[str, int]) -> Outcome:
    shape, seed = drawn
    rng = np.random.default_rng([20261128, (*KINDS, *SHAPES).index(shape), seed])
    sweep = draw_shape(shape, rng)
    fit = fit_tipping_point(10**sweep.x, sweep.y, sweep.seed, rng=rng)
    found = {"ours": fit.log10_strength}
    return Outcome(sweep.t80, shape, sweep.diverged, found, _covers(fit, sweep.t80), fit.located_by, bool(fit.dips))


def study(sweeps: int, *, first: int = 0, jobs: int = 1) -> list[Outcome]:
    seeds = range(first, first + sweeps)
    if jobs == 1:
        return [judge(seed) for seed in seeds]
    with ProcessPoolExecutor(jobs) as pool:
        return list(pool.map(judge, seeds, chunksize=8))


def study_shapes(
    each: int, shapes: Sequence[str] = (*KINDS, *SHAPES), *, first: int = 0, jobs: int = 1
) -> list[Outcome]:
    drawn = [(shape, seed) for shape in shapes for seed in range(first, first + each)]
    if jobs == 1:
        return [judge_shape(one) for one in drawn]
    with ProcessPoolExecutor(jobs) as pool:
        return list(pool.map(judge_shape, drawn, chunksize=8))


@dataclass(frozen=True)
class Figures:
    """How a method did: in decades, and as counts."""

    bias: float
    rmse: float
    beyond_half: float
    missed: int
    collapses: int
    invented: int
    flat: int
    invented_diverged: int
    flat_diverged: int
    covered: float


def figures(outcomes: list[Outcome], method: str, kind: str | None = None) -> Figures:
    collapses = [o for o in outcomes if not math.isnan(o.truth) and kind in (None, o.kind)]
    flat = [o for o in outcomes if math.isnan(o.truth) and (kind in (None, o.kind) or o.kind == "flat")]
    found = [o for o in collapses if not math.isnan(o.locations[method])]
    errors = np.array([o.locations[method] - o.truth for o in found])

    def invented(diverged: bool) -> tuple[int, int]:
        those = [o for o in flat if o.diverged == diverged]
        return sum(not math.isnan(o.locations[method]) for o in those), len(those)

    return Figures(
        bias=float(errors.mean()) if len(errors) else math.nan,
        rmse=float(np.sqrt((errors**2).mean())) if len(errors) else math.nan,
        beyond_half=float((abs(errors) > 0.5).mean()) if len(errors) else math.nan,
        missed=len(collapses) - len(found),
        collapses=len(collapses),
        invented=invented(False)[0],
        flat=invented(False)[1],
        invented_diverged=invented(True)[0],
        flat_diverged=invented(True)[1],
        covered=float(np.mean([o.covered for o in found])) if method == "ours" and found else math.nan,
    )


def report(outcomes: list[Outcome]) -> str:
    lines = [
        f"{len(outcomes)} sweeps. Bias, RMSE in decades; > .5: share of errors above half a decade; invented: tipping "
        "points on flat curves",
        f"{'':24}{'bias':>7}{'RMSE':>7}{'> .5':>8}{'missed':>10}{'invented':>10}{'with diverged':>15}{'coverage':>10}",
    ]
    rows: list[tuple[str, dict[str, Any]]] = [
        (method, dataclasses.asdict(figures(outcomes, method))) for method in METHODS
    ]
    rows += [(f"  ours, {kind}", dataclasses.asdict(figures(outcomes, "ours", kind))) for kind in KINDS]
    for name, f in rows:
        covered = "" if math.isnan(f["covered"]) else f"{100 * f['covered']:.1f}%"
        lines.append(
            f"{name:24}{f['bias']:7.3f}{f['rmse']:7.3f}{100 * f['beyond_half']:7.1f}%"
            f"{f['missed']:5}/{f['collapses']:<4}{f['invented']:5}/{f['flat']:<4}"
            f"{f['invented_diverged']:8}/{f['flat_diverged']:<6}{covered:>9}"
        )
    return "\n".join(lines)


def shape_report(outcomes: list[Outcome]) -> str:
    bars = ", ".join(f"{name} {bar}" for name, bar in BARS.items())
    lines = [
        f"By shape, {len(outcomes)} sweeps; the bars: {bars}. Isotonic: share located by the isotonic curve",
        f"{'':24}{'bias':>8}{'RMSE':>7}{'> .5':>7}{'coverage':>10}{'missed':>10}{'invented':>10}{'dip told':>10}"
        f"{'isotonic':>10}",
    ]
    for shape in dict.fromkeys(outcome.kind for outcome in outcomes):
        f, own = figures(outcomes, "ours", shape), [outcome for outcome in outcomes if outcome.kind == shape]
        isotonic = np.mean([o.located_by == "isotonic" for o in own if o.located_by])
        lines.append(
            f"{shape:24}{f.bias:+8.3f}{f.rmse:7.3f}{100 * f.beyond_half:6.1f}%{100 * f.covered:9.1f}%"
            f"{f.missed:5}/{f.collapses:<4}{f.invented + f.invented_diverged:5}/{f.flat + f.flat_diverged:<4}"
            f"{100 * np.mean([o.dips for o in own]):9.0f}%{100 * isotonic:9.0f}%"
        )
    return "\n".join(lines)


@dataclass
class Flags:
    """How well tipping points are found: a simulation study."""

    sweeps: int = 1000
    per_shape: int = 200
    """Sweeps of each shape."""
    first: int = 0
    """Number of the first sweep: other sweeps are drawn from another number on."""
    jobs: int = 2


if __name__ == "__main__":
    flags = tyro.cli(Flags)
    if flags.sweeps:
        print(report(study(flags.sweeps, first=flags.first, jobs=flags.jobs)))
    if flags.per_shape:
        print(shape_report(study_shapes(flags.per_shape, first=flags.first, jobs=flags.jobs)))
