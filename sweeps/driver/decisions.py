"""Which decisions a plan's numbers of strengths and seeds can reach, said before anything is run."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from analysis.groups import count
from analysis.holding import half_interval, least_fallen
from analysis.schema import HYPERPARAMETERS
from analysis.symbols import symbol
from sweeps.plan import Plan

_MOST_MORE = 6


def told_of_seeds(plan: Plan) -> Iterator[str]:
    """That settings that are trained once have no interval, if some are."""
    trials = Counter(trial.setting for trial in plan.trials)
    once = sum(number == 1 for number in trials.values())
    if once:
        which = "each setting is" if once == len(trials) else f"{count(once, 'setting')} of {len(trials)} are"
        yield (
            f"{which} trained once, which gives no interval: no number that training decides can agree with a paper's; "
            "--seeds 5 gives one"
        )


def told_of_decisions(plan: Plan) -> Iterator[str]:
    """A line for each method and number of strengths and seeds: what it takes that a tipping point is found."""
    baselines = sum(trial.config.method.name == "baseline" for trial in plan.trials)
    settings = len(
        {_key(trial.config.columns(), None) for trial in plan.trials if trial.config.method.name == "baseline"}
    )
    own = baselines // settings if settings else 0
    by_method: dict[str, list[dict[str, Any]]] = {}
    for trial in plan.trials:
        if trial.config.method.name != "baseline":
            by_method.setdefault(trial.config.method.name, []).append(trial.config.columns())
    for method, rows in by_method.items():
        strength = _strength(rows)
        if strength is None:
            yield f"{method}: one strength, which cannot tell where accuracy tips over, wherever that is: sweep more"
            continue
        curves: dict[tuple[str, ...], dict[float, int]] = {}
        for row in rows:
            if row[strength] is not None and row[strength] > 0:
                swept = curves.setdefault(_key(row, strength), {})
                swept[row[strength]] = swept.get(row[strength], 0) + 1
        for strengths, seeds in sorted({(len(swept), min(swept.values())) for swept in curves.values()}):
            yield _told(method, symbol(strength), strengths, seeds, own)


def _strength(rows: Sequence[dict[str, Any]]) -> str | None:
    """The hyperparameter with the most values above zero, as in `analysis.answer`."""
    counts = {}
    for name in HYPERPARAMETERS:
        values = {row.get(name) for row in rows}
        numbers = {value for value in values if isinstance(value, int | float) and not isinstance(value, bool)}
        counts[name] = len({value for value in numbers if value > 0})
    best = max(counts, key=lambda name: counts[name])
    return best if counts[best] > 1 else None


def _key(row: dict[str, Any], strength: str | None) -> tuple[str, ...]:
    """What a curve's trials have in common: not LOCO-REG's layers, which follow from c and the fold."""
    own = ("seed", "fold", "layers", strength)
    return tuple(f"{name}={value}" for name, value in sorted(row.items()) if name not in own)


def _told_of_differences(seeds: int, baselines: int) -> str:
    """How well the seeds tell differences from the baseline, where each has one."""
    if seeds == 1:
        return "; one seed tells nothing of how seeds differ"
    if baselines < seeds:
        return ""
    return f"; differences from the baseline ± {half_interval(seeds):.1f} standard deviations of theirs over seeds"


@functools.cache
def _told(method: str, sign: str, strengths: int, seeds: int, baselines: int) -> str:
    plain = f", {count(baselines, 'unregularised trial')}" if baselines else ""
    what = f"{method}, {count(strengths, 'value')} of {sign} × {count(seeds, 'seed')}{plain}"
    fallen = least_fallen(strengths, seeds, baselines)
    if fallen is not None:
        where = "the strongest" if fallen == 1 else f"the strongest {fallen}"
        every = " in each seed" if seeds > 1 else ""
        words = (
            f"{what}: that accuracy tips over can be decided where it falls at {where} or more of them{every} (p < .05)"
        )
        return f"{words}{_told_of_differences(seeds, baselines)}"
    more = range(1, _MOST_MORE + 1)
    ways = []
    for name, found in (
        ("seed", next((n for n in more if least_fallen(strengths, seeds + n, baselines) is not None), None)),
        ("strength", next((n for n in more if least_fallen(strengths + n, seeds, baselines) is not None), None)),
    ):
        if found is not None:
            ways.append(f"{count(found, name)} more")
    cure = f": {' or '.join(ways)} would" if ways else ""
    return f"{what}: too few to decide whether accuracy tips over, wherever it falls{cure}"
