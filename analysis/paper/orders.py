"""What the papers say of layers in words, an order of two settings or a trend, tested on a sweep's seeds in pairs.

A value of a layer is compared within each seed (and fold). `below` and `above` are of the mean over the layers that are
spoken of, one-sided; that settings are `apart` or `alike` is of each layer, two-sided, p after Holm over them. `alike`
holds only where each layer's 95% interval lies within a tenth of the value. `falls` and `rises` are Spearman's ρ: along
a hyperparameter of the mean over layers, orders changed within seeds; along the layers of the mean over seeds.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.comparisons import Comparison, compare
from analysis.groups import Group, Row, count, differing, grouped, label, replicate
from analysis.multiplicity import adjust
from analysis.options import options_of
from analysis.paper.lines import SIGNIFICANCE, Finding, Line
from analysis.paper.ours import _Ours
from analysis.paper.printed import Order, orders
from analysis.paper.protocol import _configuration, _same, _unlike, _unlike_measured, told_of_declared
from analysis.rank_correlation import spearman_permutation

Run = tuple[int, ...]
Layers = dict[str, dict[Run, float]]
"""By layer, in their order, and repetition."""

# the input is of no network
_NO_LAYER = ("", "input")
# of the value, within which two settings are alike
_ALIKE = 0.1
_FROM_LAYERS = 3


@dataclass(frozen=True)
class _Draft:
    """A line before p is adjusted over the table: its columns, what is seen, and how its finding follows from p."""

    dataset: str
    """The paper's, of which the statement is."""
    unlike: list[str]
    columns: dict[str, Any]
    p_value: float
    opposite_p: float
    """Of the opposite, where it is another test; else nan."""
    finding: Callable[[float], Finding]
    seen: str


def _orders(ours: _Ours, table: str) -> list[Line]:
    """What a paper says in words of the layers of networks that the record has."""
    drafts: list[_Draft] = []
    for order in orders():
        if order.table == table:
            drafts += _trend(ours, order) if order.along else _pairs(ours, order)
    # of several data sets' statements those about the one that the record is most like
    unlike: dict[str, int] = {}
    for draft in drafts:
        least = min(len(draft.unlike), unlike.get(draft.dataset, len(draft.unlike)))
        unlike[draft.dataset] = least
    chosen = [draft for draft in drafts if unlike[draft.dataset] == min(unlike.values())]
    # a family of tests is of those that are as comparable
    families: dict[tuple[str, ...], list[_Draft]] = {}
    for draft in chosen:
        families.setdefault(tuple(draft.unlike), []).append(draft)
    lines: dict[int, Line] = {}
    for family in families.values():
        adjusted = (adjust([it.p_value for it in family]), adjust([it.opposite_p for it in family]))
        for draft, p_value, opposite_p in zip(family, *adjusted, strict=True):
            lines[id(draft)] = _line(draft, float(p_value), float(opposite_p))
    return [lines[id(draft)] for draft in chosen]


def _line(draft: _Draft, p_value: float, opposite_p: float) -> Line:
    columns = dict(draft.columns)
    if math.isnan(p_value):
        why = "; ".join(draft.unlike) or draft.seen
        return Line(**{**columns, "verdict": "not comparable", "why": why, "order": draft.seen})
    finding = draft.finding(p_value)
    if finding == "not shown" and opposite_p < SIGNIFICANCE:
        finding, p_value = "the opposite holds", opposite_p
    told = f"{draft.seen}: {finding}, p = {p_value:.3g}"
    columns |= {"order": told, "order_p": p_value, "finding": finding}
    if draft.unlike:
        return Line(**{**columns, "verdict": "not comparable", "why": "; ".join(draft.unlike)})
    verdict = {"holds": "agrees", "not shown": "too wide to tell"}.get(finding, "differs")
    why = "not shown: add --seeds" if finding == "not shown" else f"what the paper says {finding}"
    if finding == "the opposite holds":
        why = "the opposite of what the paper says holds"
    return Line(**{**columns, "verdict": verdict, "why": why})


def _values(ours: _Ours, quantity: str, trials: Sequence[Row]) -> Layers:
    """At initialisation (`metric#0`), or after training; a network that diverged has none then."""
    metric, _, start = quantity.partition("#")
    measured = ours.by_layer(metric)
    found: Layers = {}
    for row in trials:
        epoch = 0 if start else row["epochs"]
        for layer, value in measured.get(row["trial_id"], {}).get(epoch, {}).items():
            if layer not in _NO_LAYER and math.isfinite(value):
                found.setdefault(layer, {})[replicate(row)] = value
    return found


def _of(values: Layers, layers: str) -> Layers:
    """The layers that are spoken of: all, those of the first half, the last."""
    names = list(values)
    chosen = {"all": names, "early": names[: len(names) // 2], "last": names[-1:]}[layers]
    return {name: values[name] for name in chosen}


def _mean(values: Layers) -> dict[Run, float]:
    """Over the layers, of the repetitions that have them all."""
    runs = set.intersection(*(set(own) for own in values.values())) if values else set()
    return {run: float(np.mean([own[run] for own in values.values()])) for run in runs}


def _paired(first: Mapping[Run, float], second: Mapping[Run, float], alternative: Any = "two-sided") -> Comparison:
    runs = sorted(first.keys() & second.keys())
    return compare([first[run] for run in runs], [second[run] for run in runs], paired=True, alternative=alternative)


def _name(layer: str) -> str:
    return layer.removesuffix(".conv")


def _pairs(ours: _Ours, order: Order) -> list[_Draft]:
    found = []
    rows = ours.rows
    told = {name for name in (*order.settings, *order.than) if name != "method"}
    rest = [name for name in differing(rows) if name not in order.than] if rows else []
    for group in ours.candidates(order.settings):
        others = [group]
        if order.than:
            others = [
                other
                for other in ours.candidates({**order.settings, **order.than})
                if all(_like(name, group.trials[0], other.trials[0]) for name in rest)
            ]
        for other in others:
            first = _of(_values(ours, order.quantity, group.trials), order.layers)
            second = _of(_values(ours, order.than_quantity, other.trials), order.layers)
            first = {name: own for name, own in first.items() if name in second}
            if not first or not _alike_measured(order, group.trials[0], other.trials[0]):
                continue
            ours.take(group)
            ours.take(other)
            # what tells our setting apart that the paper's words do not say
            own = {name: value for name, value in group.values.items() if name not in told and value is not None}
            found.append(_pair(order, group, first, {name: second[name] for name in first}, label(own) if own else ""))
    return found


def _like(name: str, one: Row, other: Row) -> bool:
    return _same(name, one[name], other[name]) or _same(name, other[name], one[name])


def _alike_measured(order: Order, one: Row, other: Row) -> bool:
    metrics = [quantity.partition("#")[0] for quantity in (order.quantity, order.than_quantity or order.quantity)]
    return options_of(one["measured"], metrics[0]) == options_of(other["measured"], metrics[1])


def _pair(order: Order, group: Group, first: Layers, second: Layers, setting: str) -> _Draft:
    tests = {name: _paired(first[name], second[name]) for name in first}
    adjusted = dict(zip(tests, adjust([test.p_value for test in tests.values()]), strict=True))
    one_sided: Any = {"below": "less", "above": "greater"}.get(order.order, "two-sided")
    mean = _paired(_mean(first), _mean(second), one_sided)
    shown = {name: adjusted[name] < SIGNIFICANCE for name in tests}
    below = [name for name in tests if shown[name] and tests[name].difference < 0]
    above = [name for name in tests if shown[name] and tests[name].difference > 0]
    columns = _columns(order, group, len(first), setting)
    columns |= {"n": mean.n, "ours": mean.difference, "low": mean.low, "high": mean.high}
    many, held = len(tests) > 1, _held(order, group)
    seen = f"difference {mean.difference:.3g}" if not many else _in_layers(below, above, len(tests))
    if order.order in ("below", "above"):
        if many:
            seen = f"difference of the mean {mean.difference:.3g}; {seen}"

        def of_order(p_value: float) -> Finding:
            return "holds" if p_value < SIGNIFICANCE else "not shown"

        return _Draft(*held, columns, mean.p_value, 1 - mean.p_value, of_order, mean.reason or seen)
    known = [p for p in adjusted.values() if not math.isnan(p)]
    reason = "" if known else next(iter(tests.values())).reason
    within = all(
        max(abs(test.low), abs(test.high)) <= _ALIKE * abs(test.mean_reference) or test.difference == 0
        for test in tests.values()
    )

    def of_difference(p_value: float) -> Finding:
        if order.order == "apart":
            return "holds" if p_value < SIGNIFICANCE else "not shown"
        return "does not hold" if p_value < SIGNIFICANCE else "holds" if within else "not shown"

    return _Draft(*held, columns, min(known, default=math.nan), math.nan, of_difference, reason or seen)


def _in_layers(below: Sequence[str], above: Sequence[str], of: int) -> str:
    """In which layers a difference is shown: "below in 7 of 8 layers, above in conv1_1"."""
    parts = []
    for names, what in ((below, "below"), (above, "above")):
        if names:
            where = f"{len(names)} of {of} layers" if len(names) > 2 else " and ".join(map(_name, names))
            parts.append(f"{what} in {where}")
    return ", ".join(parts) or f"no difference shown in any of {of} layers"


def _trend(ours: _Ours, order: Order) -> list[_Draft]:
    found = []
    for trials, setting in _curves(ours, order):
        values = _of(_values(ours, order.quantity, trials), order.layers)
        if len(values) < (_FROM_LAYERS if order.along == "layer" else 1):
            continue
        group = Group({}, trials, ())
        rng = np.random.default_rng(0)
        if order.along == "layer":
            mean = [float(np.mean(list(own.values()))) for own in values.values()]
            places = np.arange(len(mean))
            rho = spearman_permutation(places, mean, rng=rng)
            n, what = len(mean), count(len(mean), "layer")
            falling = ""
        else:
            rows = [row for row in trials if row[order.along] is not None]
            if len({row[order.along] for row in rows}) < 2:
                continue
            by_trial = {row["trial_id"]: _mean(_of(_values(ours, order.quantity, [row]), order.layers)) for row in rows}
            known = [row for row in rows if by_trial[row["trial_id"]]]
            x = [row[order.along] for row in known]
            y = [next(iter(by_trial[row["trial_id"]].values())) for row in known]
            within = np.unique([str(replicate(row)) for row in known], return_inverse=True)[1]
            if len(known) < _FROM_LAYERS:
                continue
            rho = spearman_permutation(x, y, within=within, rng=rng)
            n, what = len(known), f"{count(len(known), 'network')}, orders within seeds"
            falling = _step_by_step(ours, order, known, list(values))
        ours.take(group)
        columns = _columns(order, group, len(values), setting)
        columns |= {"n": n, "ours": rho.rho}
        sign = -1 if order.order == "falls" else 1

        def of_trend(p_value: float, rho: float = rho.rho, sign: int = sign) -> Finding:
            shown = p_value < SIGNIFICANCE
            return "not shown" if not shown else "holds" if sign * rho > 0 else "the opposite holds"

        reason = "constant" if math.isnan(rho.p_value) else ""
        seen = f"ρ = {rho.rho:.2f} ({what}){falling}"
        found.append(_Draft(*_held(order, group), columns, rho.p_value, math.nan, of_trend, reason or seen))
    return found


def _curves(ours: _Ours, order: Order) -> list[tuple[list[Row], str]]:
    """The trials that a trend is over: settings, or those that differ in the hyperparameter alone."""
    rows = [row for group in ours.candidates(order.settings) for row in group.trials]
    if not rows:
        return []
    told = {order.along, *order.settings}
    by = [name for name in differing(rows, order.along) if name != order.along]
    found: dict[tuple[str, str], list[Row]] = {}
    for group in grouped(rows, by):
        own = {name: value for name, value in group.values.items() if name not in told and value is not None}
        for row in group.trials:
            rest = _configuration({**row, "config": _without(row, order.along)})
            found.setdefault((label(own) if own else "", rest), []).append(row)
    return [(trials, setting) for (setting, _), trials in found.items()]


def _without(row: Row, name: str) -> str:
    try:
        config = json.loads(row["config"] or "{}")
    except ValueError:
        return ""
    for part in config.values():
        if isinstance(part, dict):
            part.pop(name, None)
    return json.dumps(config)


def _step_by_step(ours: _Ours, order: Order, rows: Sequence[Row], layers: Sequence[str]) -> str:
    """In how many layers the mean over seeds goes the paper's way from each value to the next."""
    sign = -1 if order.order == "falls" else 1
    steps = sorted({row[order.along] for row in rows})
    means: list[dict[str, float]] = []
    for step in steps:
        values = _values(ours, order.quantity, [row for row in rows if row[order.along] == step])
        means.append({layer: float(np.mean(list(own.values()))) for layer, own in values.items()})
    going = sum(
        all(
            sign * (after.get(layer, math.nan) - before.get(layer, math.nan)) > 0
            for before, after in itertools.pairwise(means)
        )
        for layer in layers
    )
    return f"; at every step in {going} of {count(len(layers), 'layer')}"


def _held(order: Order, group: Group) -> tuple[str, list[str]]:
    """The paper's data set, and in what a group's trials are not as in the paper."""
    row = group.trials[0]
    return order.protocol["dataset"], [*_unlike(row, order), *_unlike_measured(row, order)]


_ORDERS = {
    "below": "below",
    "above": "above",
    "apart": "other than",
    "alike": "like",
    "falls": "falls",
    "rises": "rises",
}
_WHERE = {"all": "", "early": ", first half of the layers", "last": ", last layer"}


def _columns(order: Order, group: Group, layers: int, setting: str) -> dict[str, Any]:
    quantity, start = order.quantity.removesuffix("#0"), order.quantity.endswith("#0")
    shown = {name: value for name, value in order.settings.items() if name != "method"}
    ours = label(shown)
    if order.along:
        text = f"{quantity} {_ORDERS[order.order]} along {order.along}"
    elif order.than:
        text = f"{quantity} {_ORDERS[order.order]} that of {label(order.than)}"
    else:
        text = f"{quantity} after training {_ORDERS[order.order]} that at initialisation"
    text += " (at initialisation)" if start else ""
    return {
        "row": order.statement,
        "column": ours,
        "paper": text + _WHERE[order.layers if layers > 1 or order.layers == "last" else "all"],
        "setting": setting,
        "declared": told_of_declared(group.trials[0], order),
    }
