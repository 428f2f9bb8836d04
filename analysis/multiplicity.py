"""Many tests at once: p-values adjusted by Holm, or by Benjamini and Hochberg."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.lazily import lazily

stats = lazily("scipy.stats")

Adjustment = Literal["holm", "bh"]

ADJUSTMENTS: dict[Adjustment, str] = {"holm": "Holm", "bh": "Benjamini and Hochberg"}
"""By its name on a command line: whose it is."""


def adjust(p_values: ArrayLike, method: Adjustment = "holm") -> NDArray[np.float64]:
    """Adjusted p-values (n,) in [0, 1], in the order given; a nan stays nan and does not count as a test.

    "holm" (Holm 1979) bounds the chance of any false finding, under any dependence of the tests; "bh" (Benjamini and
    Hochberg 1995) the expected share of false ones among the findings, for independent or positively dependent tests.

    Raises `ValueError` for another method, values that are not in one dimension, and numbers outside [0, 1].
    """
    if method not in ADJUSTMENTS:
        raise ValueError(f"method: {method!r}, allowed are {', '.join(ADJUSTMENTS)}")
    p = np.asarray(p_values, dtype=float)
    if p.ndim != 1:
        raise ValueError(f"p_values: shape {p.shape}, allowed is one dimension")
    tested = ~np.isnan(p)
    for value in p[tested]:
        if not 0 <= value <= 1:
            raise ValueError(f"p_values: {value}, allowed are numbers between 0 and 1, and nan where there is no test")
    adjusted = np.full(p.shape, np.nan)
    if tested.any():
        adjusted[tested] = _holm(p[tested]) if method == "holm" else stats.false_discovery_control(p[tested])
    return adjusted


def _holm(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """As `statsmodels.stats.multitest` has it, whose collection of all garbage at each call takes 0.2 s of a record."""
    order = np.argsort(p, kind="stable")
    found = np.empty_like(p)
    found[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return found
