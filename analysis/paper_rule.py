"""The tipping point as the input-gradient regularisation paper has it: the threshold t_α (Section 3.2)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from analysis.schema import Direction, Stronger
from analysis.tipping_fit import check_scores

PAPERS_LIMITS = {"gradient_reg": 1e5}
"""α below which the paper takes the reference level, by method; the others' papers have no such rule."""

# means that are equal on paper may differ by rounding
_ROUNDING = 1e-12


@dataclass(frozen=True)
class PaperThreshold:
    """The threshold by the paper's rule, and what it was judged by."""

    strength: float
    """The weakest strength beyond `reference_below` whose mean score is below share × reference; nan: none."""
    reference: float
    """Mean score of the trials with a strength weaker than `reference_below`."""
    reference_below: float
    share: float
    n: int
    """Trials with a strength above zero."""
    n_reference: int
    """Those of them weaker than `reference_below`."""
    n_zero: int
    """Trials with strength zero, which a log axis has no place for: left out."""


def paper_threshold(
    strength: Sequence[float],
    score: Sequence[float],
    *,
    share: float = 0.8,
    reference_below: float | None = None,
    stronger: Stronger = "larger",
    direction: Direction = "max",
) -> PaperThreshold:
    """The smallest swept strength whose mean score over seeds falls below a share of the reference level.

    The rule of the input-gradient regularisation paper (there: share 0.8, reference_below 1e5), one entry of `strength`
    and `score` (higher is better) per trial, in any order. The reference level is the mean score of all trials with a
    strength below `reference_below`; the threshold is sought among those above it. The default limit is a swept
    strength, the smallest above the lowest quarter (rounded up) of the distinct ones, and may be the threshold itself.
    Diverged trials count with their score; failed ones are for the caller to leave out. Strengths of zero are left out
    and counted. Where smaller strengths are the `stronger` ones, below is above and the largest is sought; where less
    of the score is better (`direction` "min"), the mean that rises above the reference level / share.

    Raises `ValueError` for lengths that differ or are zero, strengths that are negative or not finite, scores that are
    not finite, a share outside (0, 1), fewer than two distinct strengths above zero, no strength below
    `reference_below`, and a reference level that is not above zero.
    """
    above_zero, their_scores, _ = check_scores(strength, score, None, share)
    scores: dict[float, list[float]] = {}
    for x, y in zip(above_zero.tolist(), their_scores.tolist(), strict=True):
        scores.setdefault(x, []).append(y)
    to_right = 1 if stronger == "larger" else -1
    swept = sorted(scores, key=lambda x: to_right * x)
    own = reference_below is None
    if reference_below is None:
        reference_below = swept[math.ceil(len(swept) / 4)]
    below = [y for x in swept if to_right * x < to_right * reference_below for y in scores[x]]
    if not below:
        words = "above the smallest" if stronger == "larger" else "below the largest"
        raise ValueError(f"reference_below: {reference_below}, allowed are numbers {words} strength {swept[0]}")
    reference = math.fsum(below) / len(below)
    if reference <= 0:
        raise ValueError(f"score: reference level {reference}, allowed are levels above 0")
    up, fall = (1, share) if direction == "max" else (-1, 1 / share)
    level = up * fall * reference - _ROUNDING * abs(fall * reference)
    above = [x for x in swept if to_right * x > to_right * reference_below or (own and x == reference_below)]
    beyond = (x for x in above if up * math.fsum(scores[x]) / len(scores[x]) < level)
    return PaperThreshold(
        strength=next(beyond, math.nan),
        reference=reference,
        reference_below=float(reference_below),
        share=share,
        n=sum(len(values) for values in scores.values()),
        n_reference=len(below),
        n_zero=len(strength) - len(above_zero),
    )


def papers_limit(method: str, strength: str, swept: Sequence[float]) -> float | None:
    """The paper's own limit for a curve, where the method's paper has one for this column and the sweep has strengths
    on both sides of it; None: the default of `paper_threshold`."""
    limit = PAPERS_LIMITS.get(method) if strength == "alpha" else None
    return limit if limit is not None and min(swept) < limit < max(swept) else None
