"""The search for tipping points: for each curve of the sweep on its own, the strengths that tell most of where it tips.

A curve is what the analysis takes for one: trials of one method, data set, network and training that differ in strength
and seed (and fold) alone. Where to look next on one says `analysis.tipping_search.next_trials`. The unregularised
trials come first, as their scores tell the plateau.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_type_hints

import numpy as np

from analysis.bounds import bounds_of
from analysis.command_line import InputError
from analysis.groups import count
from analysis.schema import stronger
from analysis.symbols import symbol
from analysis.tipping_fit import fit_curve
from analysis.tipping_search import MOST, next_trials
from sweeps.flags import MOST_TRIALS, SweepFlags
from sweeps.labels import settings_in_words
from sweeps.plan import Plan, PlannedTrial, make_plan, trial_id
from sweeps.proposers.proposer import Known, Proposer
from trainables.configuration import TrialConfig
from trainables.fingerprint import code_of
from trainables.method import Method

MOST_FAILED = 3
"""Failed trials at which a curve is given up: whatever they failed of, the next ones would."""
EXTENDED_BY = 2.0
"""Decades by which a range is extended at a time."""
MOST_EXTENSIONS = 3
MOST_IN_BUDGET = MOST_TRIALS
"""Trials of a curve, where a budget ends the search."""
MOST_BY_HOURS = 1000
"""Trials of a curve that a plan counts, where hours end the search."""
_DIGITS = 4
"""Of a strength that is proposed: what they leave out is a thousandth of an interval."""


@dataclass(frozen=True)
class _Curve:
    """What the trials of one curve have in common, and the range of strengths that is searched."""

    like: TrialConfig
    strength: str
    low: float
    high: float
    whole: bool
    folds: int

    @property
    def key(self) -> str:
        return _key(self.like.canonical(), self.strength)

    @property
    def baseline(self) -> str:
        return _key(dataclasses.replace(self.like, method=Method()).canonical(), self.strength)

    def trial(self, strength: float, replicate: int) -> TrialConfig:
        value: Any = round(strength) if self.whole else strength
        method = dataclasses.replace(self.like.method, **{self.strength: value})
        seed, fold = divmod(replicate, self.folds)
        data = self.like.data if self.like.data.fold is None else dataclasses.replace(self.like.data, fold=fold)
        return TrialConfig(method, self.like.model, data, self.like.training, seed)

    def replicate(self, config: TrialConfig) -> int:
        """Seed and fold as one number."""
        return config.seed * self.folds + (config.data.fold or 0)


@dataclass
class _Trials:
    """The trials of a curve as far as they are known, as pairs of strength and replicate."""

    scores: dict[tuple[float, int], float] = dataclasses.field(default_factory=dict)
    running: list[tuple[float, int]] = dataclasses.field(default_factory=list)
    useless: set[tuple[float, int]] = dataclasses.field(default_factory=set)
    """Recorded without a score that counts: failed, without accuracy, or by other code."""
    failed: int = 0
    baseline: list[float] = dataclasses.field(default_factory=list)


class Tipping(Proposer):
    """The search for the tipping point of each curve that the flags span, by their own strength (`STRENGTH`).

    Raises `InputError` as `make_plan` does, and for a sweep without a strength or a range that is none.
    """

    columns = ("config", "top1", "code", "stopped_by")
    adaptive = True

    def __init__(self, flags: SweepFlags) -> None:
        self.width, self.extend = flags.interval_width, flags.extend
        # a budget that is given is the only one, and `Budget` sees to it
        self.most = MOST if flags.samples is None and flags.budget_hours is None else MOST_IN_BUDGET
        self.shown_most = min(self.most, flags.samples or MOST_BY_HOURS)
        self.strength = flags.STRENGTH
        self.space = make_plan(flags.at_range_ends())
        self.folds = flags.folds or 1
        self.curves = list(self._curves())
        if not self.curves:
            raise InputError(f"search: tipping, allowed for a sweep of {flags.NAME} is grid")
        if self.extend and all(curve.whole for curve in self.curves):
            raise InputError(f"extend: given, allowed with --{self.strength} is none: it would change nothing")
        self.bound = bounds_of(type(flags)).get(self.strength)
        self.baselines = [trial for trial in self.space.trials if trial.config.method.name == Method.name]

    def _curves(self) -> Iterator[_Curve]:
        found: dict[str, list[TrialConfig]] = {}
        for trial in self.space.trials:
            if hasattr(trial.config.method, self.strength):
                found.setdefault(_key(trial.config.canonical(), self.strength), []).append(trial.config)
        for configs in found.values():
            values = [float(getattr(config.method, self.strength)) for config in configs]
            whole = _is_whole(type(configs[0].method), self.strength)
            if not 0 < min(values) < max(values):
                shown = f"{min(values):g}..{max(values):g}"
                raise InputError(f"{self.strength}: {shown}, allowed for a search are two rising numbers above 0")
            yield _Curve(configs[0], self.strength, min(values), max(values), whole, self.folds)

    # --- what is known ------------------------------------------------------------------------------------------------

    def _known(self, known: Known) -> dict[str, _Trials]:
        """The trials of each curve by its key."""
        found = {curve.key: _Trials() for curve in self.curves}
        by_baseline: dict[str, list[_Trials]] = {}
        for curve in self.curves:
            by_baseline.setdefault(curve.baseline, []).append(found[curve.key])
        curves = {curve.key: curve for curve in self.curves}
        for _, row, canonical in _parsed(known):
            key = _key(canonical, self.strength)
            if key not in found and key not in by_baseline:
                continue
            config = TrialConfig.from_canonical(canonical)
            score = row.get("top1")
            counts = row["status"] != "failed" and score is not None and math.isfinite(score)
            counts = counts and row.get("stopped_by") in (None, "collapse")
            counts = counts and row.get("code") == code_of(type(config.method), config.model.model)
            if key in by_baseline:
                for trials in by_baseline[key] if counts else ():
                    trials.baseline.append(float(score))  # type: ignore[arg-type]
                continue
            pair = self._pair(curves[key], config)
            if counts:
                found[key].scores[pair] = float(score)  # type: ignore[arg-type]
            else:
                found[key].useless.add(pair)
                found[key].failed += row["status"] == "failed"
        for trial in (*known.running, *self._begun(known)):
            key = _key(trial.config.canonical(), self.strength)
            if key in found:
                found[key].running.append(self._pair(curves[key], trial.config))
        return found

    def _pair(self, curve: _Curve, config: TrialConfig) -> tuple[float, int]:
        return float(getattr(config.method, self.strength)), curve.replicate(config)

    def _begun(self, known: Known) -> list[PlannedTrial]:
        """Of the unfinished trials those of this search that do not run."""
        taken = known.recorded.keys() | {trial.id for trial in known.running}
        own = {curve.key for curve in self.curves} | {curve.baseline for curve in self.curves}
        return [
            trial
            for trial in known.unfinished
            if trial.id not in taken and _key(trial.config.canonical(), self.strength) in own
        ]

    # --- what to run --------------------------------------------------------------------------------------------------

    def propose(self, known: Known) -> list[PlannedTrial] | None:
        """What was begun before, then the baseline, then for each curve in turn, that of the fewest trials first, what
        `next_trials` says."""
        begun = self._begun(known)
        taken = known.recorded.keys() | {trial.id for trial in (*known.running, *begun)}
        wanted = [*begun, *(trial for trial in self.baselines if trial.id not in taken)]
        chosen = wanted[: known.slots]
        if len(wanted) >= known.slots:
            return chosen
        slots, waiting = known.slots - len(wanted), bool(known.running or wanted)
        trials = self._known(dataclasses.replace(known, running=[*known.running, *chosen]))
        order = sorted(self.curves, key=lambda curve: len(trials[curve.key].scores) + len(trials[curve.key].running))
        new: list[TrialConfig] = []
        for number, curve in enumerate(order):
            if not slots:
                break
            found = self._next(curve, trials[curve.key], math.ceil(slots / (len(order) - number)))
            waiting |= found == []
            new += found or []
            slots -= len(found or [])
        chosen += self._named(new, known)
        return chosen if chosen or waiting else None

    def _next(self, curve: _Curve, trials: _Trials, slots: int) -> list[TrialConfig] | None:
        return None if trials.failed >= MOST_FAILED else self._further(curve, trials, slots, self.most)

    def _further(self, curve: _Curve, trials: _Trials, slots: int, most: int) -> list[TrialConfig] | None:
        for low, high, new in self._ranges(curve, trials):
            if new is not None and not any(at == new for at, _ in {*trials.scores, *trials.useless}):
                # the search goes on from what the new end says
                return [] if any(at == new for at, _ in trials.running) else [curve.trial(new, 0)]
            pairs = self._pairs(curve, trials, low, high, slots, most)
            if pairs is not None:
                return [curve.trial(*pair) for pair in pairs]
        return None

    def _ranges(self, curve: _Curve, trials: _Trials) -> Iterator[tuple[float, float, float | None]]:
        """The range, and where the search in it has ended without a tipping point, and may be extended, wider ones,
        each with its new end."""
        low, high = curve.low, curve.high
        yield low, high, None
        weak_is_low = stronger(self.strength) == "larger"
        for _ in range(MOST_EXTENSIONS if self.extend and not curve.whole else 0):
            status = _status(self.strength, trials, low, high)
            if status not in ("none in range", "below range"):
                return
            new = float(f"{high * 10**EXTENDED_BY:.{_DIGITS}g}")
            if (status == "none in range") != weak_is_low:
                new = float(f"{low / 10**EXTENDED_BY:.{_DIGITS}g}")
            if self.bound is not None and self.bound.problem(new):
                return
            low, high = min(low, new), max(high, new)
            yield low, high, new

    def _pairs(
        self, curve: _Curve, trials: _Trials, low: float, high: float, slots: int, most: int
    ) -> list[tuple[float, int]] | None:
        inside = {pair: score for pair, score in trials.scores.items() if low <= pair[0] <= high}
        found = next_trials(
            [strength for strength, _ in inside],
            list(inside.values()),
            [replicate for _, replicate in inside],
            low=low,
            high=high,
            width=self.width,
            slots=slots,
            most=most,
            running=[pair for pair in trials.running if low <= pair[0] <= high],
            baseline=trials.baseline,
            stronger=stronger(self.strength),
            allowed=np.arange(math.ceil(low), math.floor(high) + 1) if curve.whole else None,
        )
        if found is None:
            return None
        taken = {*trials.scores, *trials.running, *trials.useless}
        pairs: list[tuple[float, int]] = []
        for strength, replicate in found:
            rounded = strength if strength in (low, high) else float(f"{strength:.{_DIGITS}g}")
            if any(strength == known for known, _ in taken):
                rounded = strength
            while (rounded, replicate) in taken:
                replicate += 1  # one that failed, or is recorded by other code
            taken.add((rounded, replicate))
            pairs.append((rounded, replicate))
        return pairs

    def _named(self, new: Iterable[TrialConfig], known: Known) -> list[PlannedTrial]:
        """Trials by what tells them from each other and from those of the space."""
        configs = list(new)
        names = settings_in_words([*(trial.config for trial in self.space.trials), *configs])[-len(configs) or None :]
        return [
            PlannedTrial(trial_id(config), config, name) for config, name in zip(configs, names, strict=bool(configs))
        ]

    # --- what is shown ------------------------------------------------------------------------------------------------

    def plan(self, known: Known) -> Plan:
        own = {curve.key for curve in self.curves} | {curve.baseline for curve in self.curves}
        trials = {trial.id: trial.config for trial in self.baselines}
        for identity, _, canonical in _parsed(known):
            if _key(canonical, self.strength) in own:
                trials[identity] = TrialConfig.from_canonical(canonical)
        for trial in (*known.running, *self._begun(known)):
            trials[trial.id] = trial.config
        order = {key: number for number, key in enumerate(dict.fromkeys([c.baseline for c in self.curves]))}
        order |= {curve.key: number for number, curve in enumerate(self.curves, len(order))}

        def place(config: TrialConfig) -> tuple[float, ...]:
            strength = getattr(config.method, self.strength, 0.0)
            return order[_key(config.canonical(), self.strength)], strength, config.seed, config.data.fold or 0

        ids = sorted(trials, key=lambda identity: place(trials[identity]))
        names = settings_in_words([trials[identity] for identity in ids])
        return dataclasses.replace(
            self.space,
            trials=[PlannedTrial(one, trials[one], name) for one, name in zip(ids, names, strict=True)],
        )

    def at_most(self, known: Known) -> list[PlannedTrial]:
        begun = self._begun(known)
        taken = known.recorded.keys() | {trial.id for trial in (*known.running, *begun)}
        left = [*begun, *(trial for trial in self.baselines if trial.id not in taken)]
        trials = self._known(known)
        for curve in self.curves:
            own = trials[curve.key]
            if self._next(curve, own, 1) is None:
                continue
            number = max(0, self.shown_most - len(own.scores) - len(own.running))
            config = curve.trial(curve.high, 0)
            left += [PlannedTrial(trial_id(config), config, "")] * number
        return left

    def described(self) -> list[str]:
        sign = symbol(self.strength)
        return [f"{n}: {sign} from {c.low:g} to {c.high:g}" for n, c in zip(self._names(), self.curves, strict=True)]

    def _names(self) -> list[str]:
        """What tells the curves from each other, in words."""
        sign = symbol(self.strength)
        # all at their weak ends, whose strength is no part of their name
        ends = settings_in_words([curve.trial(curve.low, 0) for curve in self.curves])
        return [" ".join(word for word in name.split() if not word.startswith(f"{sign}=")) for name in ends]

    def _is_answered(self, curve: _Curve, trials: _Trials) -> bool:
        """Whether the search would go on nowhere, however many trials it had, and its tipping point, or that there is
        none in the range or only below it, is known."""
        if self._further(curve, trials, 1, MOST_IN_BUDGET) is not None:
            return False
        *_, (low, high, _) = self._ranges(curve, trials)
        return _status(self.strength, trials, low, high) in ("tipping point", "none in range", "below range")

    def told(self, known: Known) -> str:
        trials = [self._known(known)[curve.key] for curve in self.curves]
        answered = [self._is_answered(*one) for one in zip(self.curves, trials, strict=True)]
        ended = [self._next(*one, 1) is None for one in zip(self.curves, trials, strict=True)]
        without = sum(end and not answer for end, answer in zip(ended, answered, strict=True))
        text = f"{sum(answered)} of {count(len(self.curves), 'curve')} answered"
        return f"{text}, {without} ended without an answer" if without else text

    def ended(self, known: Known) -> str:
        trials, lines = self._known(known), []
        for name, curve in zip(self._names(), self.curves, strict=True):
            own = trials[curve.key]
            if self._next(curve, own, 1) is not None or self._is_answered(curve, own):
                continue
            if own.failed >= MOST_FAILED:
                lines.append(f"{name}: given up after {own.failed} failed trials: --retry-failed goes on")
            elif len(own.scores) >= self.most:
                lines.append(f"{name}: no answer after {len(own.scores)} trials: --samples goes on with more")
            else:
                lines.append(f"{name}: no answer, and no further trial would give one")
        return "\n".join(lines)


def _parsed(known: Known) -> Iterator[tuple[str, Mapping[str, Any], dict[str, Any]]]:
    for identity in sorted(known.recorded):
        row = known.recorded[identity]
        yield identity, row, json.loads(row["config"])


def _key(canonical: Mapping[str, Any], strength: str) -> str:
    """What the trials of one curve have in common."""
    parts = {name: value for name, value in canonical.items() if name != "seed"}
    parts["method"] = {name: value for name, value in canonical["method"].items() if name != strength}
    parts["data"] = {name: value for name, value in canonical["data"].items() if name != "fold"}
    return json.dumps(parts, sort_keys=True)


def _is_whole(kind: type[Method], field: str) -> bool:
    return get_type_hints(kind)[field] is int


def _status(strength: str, trials: _Trials, low: float, high: float) -> str:
    inside = {pair: score for pair, score in trials.scores.items() if low <= pair[0] <= high}
    return fit_curve(
        [at for at, _ in inside],
        list(inside.values()),
        [replicate for _, replicate in inside],
        baseline=trials.baseline,
        stronger=stronger(strength),
        rng=np.random.default_rng(0),
    ).status
