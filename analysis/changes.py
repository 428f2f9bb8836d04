"""What a quantity changes by at a setting, against a reference, over seeds: in plain numbers, with intervals."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from analysis.against_reference import against
from analysis.groups import Group, Quantity, Row
from analysis.symbols import number

MEASURES: Mapping[str, tuple[str, ...]] = {
    "pilcro": ("total_variation", "path_importance_correlation"),
    "loco_reg": ("locality:c-n/all", "locality:n-co/all"),
    "top_gap": ("robust_accuracy:pgd", "cam_sparsity", "erf_distance"),
    "deformation": ("deformation_sensitivity", "filter_total_variation"),
    "gradient_reg": ("faithfulness:", "local_lipschitz:", "max_sensitivity:", "entropy:"),
}
"""What each paper measures its method by, besides accuracy, the first first: quantities, or (with a colon) how their
names begin. Of a method that is not here all that was measured counts."""

_MOST_OF_A_KIND = 2
_TIMES = 10
"""From so many times as much on, or its square times as little, a change is said as a factor."""
MOST_SAID = 6

# a share of it is what it changes by: 0 is none of it, and it is never below
_SIZES = (
    "total_variation",
    "loss",
    "local_lipschitz",
    "max_sensitivity",
    "deformation_sensitivity",
    "filter_total_variation",
    "filter_smoothness",
)

_SHORT = {
    "top1": "Top-1",
    "top5": "Top-5",
    "loss": "cross-entropy",
    "total_variation": "TV",
    "path_importance_correlation": "r of importance and path counts",
    "robust_accuracy_correct": "robust accuracy (class correct)",
    "cam_sparsity": "mean |CAM|",
    "erf_distance": "ERF distance",
    "faithfulness": "faithfulness",
    "local_lipschitz": "local Lipschitz",
    "max_sensitivity": "Max-Sensitivity",
    "deformation_sensitivity": "sensitivity to deformation",
    "filter_total_variation": "TV of the filters",
    "iou": "IoU",
    "cam_iou": "IoU",
}


@dataclass(frozen=True)
class Change:
    """A quantity of a setting against the unregularised trials, over seeds: what is not known is nan, with a reason."""

    quantity: Quantity
    relative: bool
    """Whether `value`, `low` and `high` are shares of what it is without regularisation; else they are differences."""
    value: float
    low: float
    """Ends of the 95% t interval, by itself."""
    high: float
    n: int
    n_reference: int
    paired: bool
    reason: str
    """Why there is no interval, or no value either."""
    mean: float
    """Of the setting's trials that have a value."""
    left_out: int = 0
    """Trials whose value is no finite number."""
    p_value: float = math.nan
    """Of the t-test, by itself; nan where there is no interval."""

    @property
    def tone(self) -> Literal["", "good", "bad"]:
        """Whether the interval leaves out no change, and to which side."""
        if not self.low * self.high > 0 or self.quantity.direction not in ("max", "min"):
            return ""
        return "good" if (self.value > 0) == (self.quantity.direction == "max") else "bad"

    def __str__(self) -> str:
        return f"{short_name(self.quantity)} {self.text}"

    @property
    def text(self) -> str:
        """The change with its interval: "−0.4 points [−0.9, 0.1]", "−58% [−63, −52]"."""
        if math.isnan(self.value):
            return f"not known ({self.reason})"
        factors = [1 + one for one in (self.value, self.low, self.high) if self.relative and not math.isnan(one)]
        if factors and (max(factors) >= _TIMES or min(factors) < 1 / _TIMES**2):
            ends = "" if math.isnan(self.low) else f" [{number(1 + self.low, 2)}, {number(1 + self.high, 2)}]"
            return f"×{number(1 + self.value, 2)}{ends}"
        unit, scale = ("%", 100.0) if self.relative else _unit(self.quantity)
        value, low, high = scale * self.value, scale * self.low, scale * self.high
        decimals = form(value, low, high) if scale == 100 else _digits(value, low, high)
        while low * high > 0 and decimals.endswith("f") and any(not float(f"{x:{decimals}}") for x in (low, high)):
            decimals = f".{int(decimals[1:-1]) + 1}f"  # an end that is not 0 does not read as 0
        interval = "" if math.isnan(low) else f" [{signed(low, decimals)}, {signed(high, decimals)}]"
        return f"{signed(value, decimals, plus=True)}{unit}{interval}"


def change(
    quantity: Quantity,
    group: Group,
    reference: Sequence[Row],
    values: Mapping[str, float],
    *,
    relative: bool = False,
    reason: str = "",
) -> Change:
    """What a quantity is at one setting against the trials of a reference, by each trial's value; `reason`: why there
    is no reference.

    Over seeds: Student's t for the pairs where seeds are shared, else Welch's (`two_samples.compare`). `relative`: of
    the logarithms of the values, which have to be above 0, so that the change is the ratio of geometric means less 1,
    and the interval that of the mean of logarithms, turned back.
    """
    those = {row["trial_id"] for row in [*group.trials, *reference]}
    finite = {trial: value for trial, value in values.items() if trial in those and math.isfinite(value)}
    left_out = sum(trial in those for trial in values) - len(finite)
    used = {trial: math.log(value) for trial, value in finite.items()} if relative else finite
    tested = against(group, reference, used, reason)
    found = tested.comparison
    numbers = found.difference, found.low, found.high
    if relative:
        numbers = math.expm1(found.difference), math.expm1(found.low), math.expm1(found.high)
    paired = found.test == "paired t"
    own = [finite[row["trial_id"]] for row in group.trials if row["trial_id"] in finite]
    mean = math.fsum(own) / len(own) if own else math.nan
    n = found.n if reference else len(own)
    p_value = math.nan if tested.reason else found.p_value
    return Change(quantity, relative, *numbers, n, found.n_reference, paired, tested.reason, mean, left_out, p_value)


def measures_of(method: str, known: Mapping[str, Quantity]) -> list[Quantity]:
    """The quantities of a record that a method is measured by (`MEASURES`), at most two of a kind; all that there are
    but accuracy and loss for a method of one's own. None of them is a coefficient of the method itself."""
    others = {name: q for name, q in known.items() if q.stem not in ("top1", "top5", "loss")}
    if method not in MEASURES:
        return list(others.values())
    found: dict[str, Quantity] = {}
    for start in MEASURES[method]:
        of_the_kind = {
            name: q for name, q in others.items() if q.stem == start or (":" in start and q.stem.startswith(start))
        }
        found |= dict(itertools.islice(of_the_kind.items(), _MOST_OF_A_KIND))
    return list(found.values())


def is_size(quantity: Quantity, values: Mapping[str, float]) -> bool:
    """Whether a share is what a quantity changes by: a size, and above 0 in every trial."""
    return quantity.metric in _SIZES and all(value > 0 for value in values.values() if math.isfinite(value))


def short_name(quantity: Quantity) -> str:
    """A quantity in a few words: "TV", "faithfulness of gradient", "robust accuracy, pgd20"."""
    name = _SHORT.get(quantity.metric, quantity.metric.replace("_", " "))
    level = "" if quantity.level is None else f" at {quantity.level:.3g}"
    parts = [name, quantity.component + level if quantity.component else level.strip(), quantity.with_options]
    return " ".join([parts[0], *([f"({', '.join(part for part in parts[1:] if part)})"] if any(parts[1:]) else [])])


def _unit(quantity: Quantity) -> tuple[str, float]:
    if quantity.unit == "fraction":
        return " points", 100.0
    return (f" {quantity.unit}" if quantity.unit else ""), 1.0


def form(*values: float) -> str:
    """As many decimals as the largest of these numbers, in hundredths, needs: one, or none from ten on, or more where
    all would be zero."""
    largest = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    if largest >= 10:
        return ".0f"
    return ".1f" if largest >= 0.2 or largest == 0 else ".2f" if largest >= 0.02 else ".3f"


def _digits(*values: float) -> str:
    """As many decimals as give the largest of these numbers two digits; three digits from a thousand on."""
    largest = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    if largest == 0:
        return ".1f"
    return ".3g" if largest >= 1000 or largest < 1e-3 else f".{max(0, 1 - math.floor(math.log10(largest)))}f"


def signed(value: float, form: str, *, plus: bool = False) -> str:
    text = f"{value:{form}}"
    if "e" in text:
        text = number(value, 3)
    if not any(digit in text for digit in "123456789"):
        text = text.lstrip("-−")
    elif plus and value > 0:
        text = f"+{text}"
    return text.replace("-", "−")
