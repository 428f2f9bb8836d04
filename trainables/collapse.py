"""When a trial has collapsed for good, so that its remaining epochs would tell nothing new."""

from __future__ import annotations

import math
from collections.abc import Sequence

AT_CHANCE = 1.5
"""Times the accuracy of guessing, up to which a network does no more than guess: of 10 classes on 200 images that is
two standard deviations above it."""
SHARE = 1 / 3
"""Of a trial's epochs, for which it must have been there without a break."""


def has_collapsed(top1: Sequence[float | None], classes: int, epochs: int) -> bool:
    """Whether the last third of `epochs`, of which `top1` has the validation accuracies (fractions) so far, were no
    better than guessing between so many classes. A network that has not begun to learn by then counts, too: how often
    one would still have learned, `python -m tests.benchmarks.collapse` counts on records."""
    number = math.ceil(SHARE * epochs)
    last = top1[-number:]
    return len(last) == number and all(score is not None and score <= AT_CHANCE / classes for score in last)
