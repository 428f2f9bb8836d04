"""The papers' numbers beside a sweep's."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from analysis.comparisons import compare
from analysis.groups import Group, Quantity, Row, Value, label, replicate, training
from analysis.lazily import lazily
from analysis.multiplicity import adjust
from analysis.paper.lines import SIGNIFICANCE, Judgement, Line
from analysis.paper.ours import _Ours
from analysis.paper.printed import Claim, claims
from analysis.paper.protocol import _unlike_measured, told_of_declared
from analysis.theorems import theorem_quantities

special = lazily("scipy.special")

Run = tuple[int, ...]
"""A repetition of a setting, see `groups.replicate`."""


def _comparable(one: Row, other: Row, settings: Collection[str]) -> bool:
    """Whether two trials share everything but the method and its hyperparameters, and what the paper's `settings` of
    either name, as they may the weight decay."""
    first, second = (
        {name: value for name, value in training(row).items() if name not in settings} for row in (one, other)
    )
    return first == second and (one["method"] != other["method"] or one.get("code.method") == other.get("code.method"))


def _by_run(group: Group, values: Mapping[str, Value]) -> dict[Run, float]:
    return {replicate(row): values[row["trial_id"]].value for row in group.trials if row["trial_id"] in values}


def _scaled(values: dict[Run, float], claim: Claim, scale: float, shift: float) -> dict[Run, float]:
    percent = 100.0 if claim.unit == "%" else 1.0
    return {run: percent * (shift + scale * value) for run, value in values.items()}


def _interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and 95% t interval; nan where there is one value."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, math.nan, math.nan
    half = float(special.stdtrit(len(values) - 1, 0.975)) * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return mean, mean - half, mean + half


@dataclass(frozen=True)
class _Order:
    """A claimed order, tested: p one-sided, before adjustment."""

    text: str
    p_value: float


def _order(claim: Claim, own: dict[Run, float], group: Group, ours: _Ours, quantity: Quantity) -> _Order:
    other = _against(claim)
    if other.value == claim.value:
        return _Order("the paper's are equal", math.nan)
    sign, words = (1, "above") if claim.value > other.value else (-1, "below")
    theirs: dict[Run, float] = {}
    # measured with the same options
    found = [it for it in ours.quantity(other.quantity) if it[0].options == quantity.options and not it[3]]
    for measured, scale, shift, _ in found:
        for candidate in ours.candidates(other.settings):
            if _comparable(candidate.trials[0], group.trials[0], {*claim.settings, *other.settings}):
                values = _scaled(_by_run(candidate, ours.values(measured)), other, scale, shift)
                theirs = values if len(values) > len(theirs) else theirs
    name = other.row if other.column == claim.column else f"{other.row}, {other.column}"
    if not theirs:
        return _Order(f"{words} {name}: no trial of it", math.nan)
    # as `comparisons` pairs: one shared seed makes no pair
    shared = sorted(own.keys() & theirs.keys())
    paired = len(shared) > 1
    first = [own[run] for run in shared] if paired else list(own.values())
    second = [theirs[run] for run in shared] if paired else list(theirs.values())
    test = compare(first, second, paired=paired, alternative="greater" if sign > 0 else "less")
    if test.reason:
        return _Order(f"{words} {name}: not testable, {test.reason}", math.nan)
    return _Order(f"{words} {name}", test.p_value)


# in the note of a number of which the paper took the best of the k that it had tried
_BEST = "best of the tested k"


def _quality(own: Mapping[Run, float], claim: Claim) -> float:
    mean = float(np.mean(list(own.values())))
    return -mean if claim.direction == "min" else mean


def _numbers(ours: _Ours, table: str) -> list[Line]:
    """The numbers of a table of which the record has something."""
    drafts: list[tuple[Claim, str, list[str], dict[Run, float], _Order, str]] = []
    for claim in claims():
        if claim.table != table or not claim.quantity or not claim.settings:
            continue
        for quantity, scale, shift, level in ours.quantity(claim.quantity):
            found = []
            for group, unlike in ours.closest(claim):
                values = ours.values(quantity)
                own = _scaled(_by_run(group, values), claim, scale, shift)
                if own:
                    first = next(row for row in group.trials if row["trial_id"] in values)
                    measured = _unlike_measured(first, claim, values[first["trial_id"]].n)
                    found.append((group, list(dict.fromkeys([*unlike, *([level] if level else []), *measured])), own))
                else:
                    ours.pass_over(group, f"no value of {claim.quantity}")
            if _BEST in claim.note and found:
                best = max(found, key=lambda it: _quality(it[-1], claim))
                for group, _, _ in found:
                    ours.pass_over(group, f"another is the {_BEST}")
                found = [best]
            for group, unlike, own in found:
                ours.take(group)
                order = _order(claim, own, group, ours, quantity) if claim.against else _Order("", math.nan)
                setting = ", ".join(part for part in (_setting(group, claim), quantity.with_options) if part)
                drafts.append((claim, setting, unlike, own, order, told_of_declared(group.trials[0], claim)))
    # a family of tests is what the verdicts rest on; those of another protocol are one of their own
    adjusted = np.full(len(drafts), math.nan)
    for comparable in (True, False):
        own_family = [index for index, draft in enumerate(drafts) if (not draft[2]) == comparable]
        adjusted[own_family] = adjust([drafts[index][4].p_value for index in own_family])
    lines = []
    for (claim, setting, unlike, own, order, declared), p_value in zip(drafts, adjusted, strict=True):
        mean, low, high = _interval(list(own.values()))
        holds = p_value < SIGNIFICANCE
        effect, what = _effect(claim)
        told = order.text
        if not math.isnan(p_value):
            told = f"{order.text}: {'holds' if holds else 'not shown'}, p = {p_value:.3g}"
        verdict: Judgement
        if unlike:
            verdict, why = "not comparable", "; ".join(unlike)
        elif claim.quantity in _SAME_FOR_SEEDS:
            equal = _is_printed(mean, claim)
            verdict, why = ("agrees" if equal else "differs"), f"{'equal' if equal else 'not equal'} as printed"
        elif low <= claim.value <= high and (high - low) / 2 <= effect:
            verdict, why = "agrees", "the paper's value lies in our interval"
        elif holds:
            verdict, why = "agrees", "the order of settings holds"
        elif math.isnan(low):
            verdict, why = "not comparable", "one seed: no interval, add --seeds"
        elif low <= claim.value <= high:
            verdict, why = "too wide to tell", f"our interval is ± {(high - low) / 2:.3g}, {what}: add --seeds"
        else:
            verdict, why = "differs", "outside our interval" + (", the order is not shown" if claim.against else "")
        spread = "" if claim.std is None else f" ± {claim.std:g}"
        unit = {"fraction": "", "%": "%"}.get(claim.unit, f" {claim.unit}".rstrip())
        lines.append(
            Line(
                claim.row,
                claim.column,
                f"{claim.printed}{spread}{unit}",
                claim.value,
                claim.unit,
                setting,
                len(own),
                mean,
                low,
                high,
                mean - claim.value,
                told,
                float(p_value),
                verdict,
                why,
                declared,
                "" if math.isnan(p_value) else "holds" if holds else "not shown",
            )
        )
    return lines


def _effect(claim: Claim) -> tuple[float, str]:
    """The difference that the paper itself calls an effect, a tenth of the number where it names none, and what it is:
    an interval that is wider would hold other findings, too."""
    if claim.against:
        difference = abs(claim.value - _against(claim).value)
        if difference > 0:
            return difference, f"the paper's effect {difference:.3g}"
    return abs(claim.value) / 10, f"a tenth of the number {abs(claim.value) / 10:.3g}"


def _against(claim: Claim) -> Claim:
    """The number that this one is compared with."""
    row, _, column = claim.against.partition(" || ")
    return next(
        it for it in claims() if it.table == claim.table and it.row == row and it.column == (column or claim.column)
    )


# the same for every seed, so that there is no interval
_SAME_FOR_SEEDS = ("parameters",)


def _is_printed(ours: float, claim: Claim) -> bool:
    """Whether ours differs from the paper's by less than a unit of the last printed decimal."""
    decimals = claim.printed.partition(".")[2]
    return abs(ours - claim.value) < (10.0 ** -len(decimals) if decimals else 1e-6)


def _computed(table: str) -> list[Line]:
    """The numbers of a theorem, which need no record: equal if they differ by less than a unit of the last printed
    decimal (the paper also cuts off, 0.725… for 0.7258); whole numbers are exact."""
    lines = []
    for claim in claims():
        if claim.table != table or claim.settings or claim.quantity not in theorem_quantities():
            continue
        ours = theorem_quantities()[claim.quantity]
        difference = ours - claim.value
        verdict: Judgement = "computed" if _is_printed(ours, claim) else "differs"
        why = "as printed" if verdict == "computed" else "computed"
        if claim.row == "center against corner":
            own = theorem_quantities()["cohesion_bound:c-co"]
            why = f"the bound of all cases; this one's own is {own:.4g}"
        if claim.quantity.startswith("minimax_weight"):
            # the theorem says nothing of the weights' bound, on which it depends
            verdict = "not comparable"
            why = "it depends on how w is bounded: ours has ‖w‖ = 1, g = exp(-|x|); 0 with Σ|w| = 1 or w ≥ 0"
        lines.append(
            Line(
                row=claim.row,
                column=claim.column,
                paper=claim.printed,
                value=claim.value,
                unit=claim.unit,
                ours=ours,
                difference=difference,
                n=1,
                verdict=verdict,
                why=why,
            )
        )
    return lines


def _setting(group: Group, claim: Claim) -> str:
    """What tells our setting apart that the paper's own words do not say."""
    rest = {name: value for name, value in group.values.items() if name not in claim.settings and value is not None}
    return label(rest) if rest else ""
