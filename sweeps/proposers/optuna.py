"""Searches by Optuna's samplers: random, TPE, Gaussian processes, NSGA-II.

At every proposal the study is made anew from what is recorded and what runs, and asked for a setting; the sampler's
seed is that of the search and the number of settings that have begun. So a proposal is a function of these alone: a
search that was killed goes on as it would have, and one trial at a time ends with the same trials.

A setting is a trial of the study, its seeds and folds replicates of it: told are their means, with the standard error
as a user attribute. What has not ended is told as running with its parameters, which TPE and the Gaussian processes
keep away from. A failed trial has no score: a setting of which all failed is told as failed, with the reason, and
teaches a sampler nothing, as the reason may be the machine's. A diverged one has none that can be compared: it is told
with the worst score of all completed trials, or with its own where that is worse, so that samplers keep away from where
training diverges. One that a scheduler stopped is told with the score that it had, where no other seed tells more.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import math
import statistics
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.groups import Quantity, count
from analysis.lazily import lazily
from analysis.objectives import Objective, rows_of
from analysis.options import options_of
from analysis.schema import VALIDATION
from analysis.study import empty_study
from sweeps.flags import SweepFlags
from sweeps.labels import settings_in_words
from sweeps.plan import Plan, PlannedTrial, trial_id
from sweeps.proposers.proposer import Known, Proposer
from sweeps.proposers.space import Setting, Space, setting_config
from sweeps.ranges import SETTINGS, SETTINGS_IN_HOURS
from trainables.configuration import TrialConfig
from trainables.fingerprint import code_of
from trainables.method import Method

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

optuna = lazily("optuna")

GENERATION = 20
"""Settings of a generation of NSGA-II: with Optuna's 50 most searches here would be random ones."""
MOST_FAILED = 5
"""Settings at which a search in which none has a score is given up: whatever they failed of, the next ones would."""
DEVIATIONS = 3.0
"""Between seeds, by which a setting is worse than the best when it is given up (--racing)."""
FEWEST_FREEDOM = 4
"""Degrees of freedom from which this deviation is believed."""
_REPEATS = 3
"""Proposals of a sampler, all of settings that there are already, after which one is drawn at random."""
_DRAWS = 1000
KEY = "key"
"""The user attribute by which a setting is told from every other: the identity of its first trial."""

Replicate = tuple[int, int | None]

# asked of every recorded trial at every proposal
_identity = functools.lru_cache(maxsize=100_000)(trial_id)


@dataclass
class _Known:
    """A setting with what is known of its trials, by seed and fold."""

    key: str
    """The identity of its first trial."""
    setting: Setting
    rows: dict[Replicate, Mapping[str, Any]] = field(default_factory=dict)
    running: set[Replicate] = field(default_factory=set)
    useless: set[Replicate] = field(default_factory=set)
    """Recorded by other code: not to be pooled, and not to be run again."""
    warm: str = ""
    """The sweep that it is from, if it is not this one."""

    def with_status(self, status: str) -> list[Mapping[str, Any]]:
        return [row for row in self.rows.values() if row["status"] == status]

    @property
    def ended_at(self) -> datetime:
        times = [row["finished_at"] for row in self.rows.values() if row.get("finished_at") is not None]
        return max(times, default=_EVER)


_EVER = datetime.max.replace(tzinfo=UTC)


class Optuna(Proposer):
    """What a sampler of Optuna's proposes in the space that the flags span: see this module, and `Space`.

    Raises `InputError` as `Space` does, and for a sweep to begin with that has no record.
    """

    adaptive = True

    def __init__(self, flags: SweepFlags, objectives: Sequence[Objective]) -> None:
        self.sampler, self.seed, self.racing = flags.search, flags.search_seed, flags.racing
        self.objectives, self.names = objectives, [objective.name for objective in objectives]
        self.measured = json.dumps(flags.metrics(), sort_keys=True)
        self.columns = ("config", "code", "error", "measured", "stopped_by", "started_at", "finished_at", *self.names)
        self.settings = Space(flags)
        self.space = self.settings.plan
        folds: list[int | None] = [None] if flags.folds is None else [*range(flags.folds)]
        self.replicates: list[Replicate] = list(itertools.product(range(flags.seeds), folds))
        self.baselines = self._baselines()
        configurations = SETTINGS if flags.budget_hours is None else SETTINGS_IN_HOURS
        self.samples = flags.samples or configurations * len(self.replicates) + len(self.baselines)
        self.warm, self.told_of_warm = self._warm(flags.warm_start)
        self.cells = self.settings.cells()

    def _baselines(self) -> list[PlannedTrial]:
        """The unregularised trials, where there is one way to train them."""
        own = {setting_config(one.config): one for one in self.space.trials if one.config.method.name == Method.name}
        if len(own) != 1:
            return []
        ((config, first),) = own.items()
        trials = [_of(config, *replicate) for replicate in self.replicates]
        return [PlannedTrial(_identity(one), one, first.setting) for one in trials]

    def _warm(self, sweeps: Sequence[str]) -> tuple[list[_Known], list[str]]:
        """The settings of other sweeps, and what is to be said of them."""
        found, told = [], []
        for sweep in sweeps:
            rows = rows_of(sweep, ["status", *self.columns])
            inside, left = self._grouped(rows, sweep)
            own = [known for known in inside.values() if known.rows]
            found += own
            left += sum(len(known.useless) for known in inside.values())
            trials = sum(len(known.rows) for known in own)
            told.append(
                f"begun with {sweep}: {count(trials, 'trial')} of {count(len(own), 'setting')}, and "
                f"{left} left out, of other settings or by other code"
            )
        return found, told

    # --- what is known ------------------------------------------------------------------------------------------------

    def _grouped(self, rows: Iterable[Mapping[str, Any]], warm: str = "") -> tuple[dict[str, _Known], int]:
        """Recorded trials by setting, and how many are outside the space."""
        found: dict[str, _Known] = {}
        codes: dict[str, str | None] = {}
        left = 0
        for row in rows:
            config, setting, key = self._parsed(row["config"])
            if setting is None:
                left += 1
                continue
            known = found.setdefault(key, _Known(key, setting, warm=warm))
            replicate = (config.seed, config.data.fold)
            model = config.model.model
            if model not in codes:
                codes[model] = code_of(type(config.method), model)
            # what failed before it was recorded has no code
            if row.get("code") in (None, codes[model]):
                known.rows[replicate] = row
            else:
                known.useless.add(replicate)
        return found, left

    @functools.cached_property
    def _parsed(self) -> Any:
        """The configuration of a row, its setting and that one's key; looked at once for each."""

        @functools.cache
        def parsed(text: str) -> tuple[TrialConfig, Setting | None, str]:
            canonical = json.loads(text)
            config = TrialConfig.from_canonical(canonical)
            setting = self.settings.setting_of(config)
            return config, setting, "" if setting is None else _identity(setting.config)

        return parsed

    def _known(self, known: Known) -> dict[str, _Known]:
        """The settings of this search: those that are recorded in the order in which they ended, then those that are
        running, in the order in which they began."""
        recorded = [known.recorded[name] for name in sorted(known.recorded)]
        found, _ = self._grouped(recorded)
        found = dict(sorted(found.items(), key=lambda pair: (pair[1].ended_at, pair[0])))
        for trial in (*known.running, *self._begun(known)):
            setting = self.settings.setting_of(trial.config)
            if setting is not None:
                key = _identity(setting.config)
                own = found.setdefault(key, _Known(key, setting))
                own.running.add((trial.config.seed, trial.config.data.fold))
        return found

    def _begun(self, known: Known) -> list[PlannedTrial]:
        """Of the unfinished trials those of this search that do not run."""
        taken = known.recorded.keys() | {trial.id for trial in known.running}
        baselines = {trial.id for trial in self.baselines}
        return [
            trial
            for trial in known.unfinished
            if trial.id not in taken and (trial.id in baselines or self.settings.setting_of(trial.config) is not None)
        ]

    # --- scores -------------------------------------------------------------------------------------------------------

    def _score(self, row: Mapping[str, Any]) -> list[float] | None:
        """A trial's losses, the less the better; None where one is lacking, or was measured in another way."""
        if row["status"] == "failed":
            return None
        losses = []
        for objective in self.objectives:
            value = row.get(objective.name)
            metric, _, component = objective.name.partition("@")[0].partition(":")
            metric = VALIDATION.get(metric, metric)
            ways = {options_of(text, metric, component) for text in (row.get("measured"), self.measured)}
            if value is None or not math.isfinite(value) or len(ways) > 1:
                return None
            losses.append(objective.sign * float(value))
        return losses

    def _worst(self, settings: Iterable[_Known]) -> list[float] | None:
        """The greatest losses of all trials that are completed; None where there are no such."""
        scores = [
            score
            for known in settings
            for row in known.rows.values()
            if row["status"] == "completed" and (score := self._score(row)) is not None
        ]
        return [max(column) for column in zip(*scores, strict=True)] if scores else None

    def _scores(self, known: _Known, worst: Sequence[float] | None) -> list[list[float]]:
        """The losses of its trials, those of diverged ones as bad as the worst. A stopped one's are of an earlier epoch
        than the others': they count where there are no others, and what is lacking in them is as bad as the worst."""
        found = []
        alone = len(known.with_status("stopped")) + len(known.with_status("failed")) == len(known.rows)
        for row in known.rows.values():
            score = self._score(row)
            if row["status"] == "stopped" and not alone:
                continue
            if row["status"] == "diverged" and worst is not None:
                score = [max(pair) for pair in zip(score or worst, worst, strict=True)]
            elif row["status"] == "stopped":
                score = score or (None if worst is None else list(worst))
            if score is not None:
                found.append(score)
        return found

    def _deviations(self, settings: Iterable[_Known]) -> list[float] | None:
        """Standard deviations between seeds, pooled over the settings of completed trials; None for too few."""
        groups = [
            [score for row in known.rows.values() if (score := self._score(row)) is not None]
            for known in settings
            if len(known.with_status("completed")) == len(known.rows)
        ]
        groups = [group for group in groups if len(group) > 1]
        freedom = sum(len(group) - 1 for group in groups)
        if freedom < FEWEST_FREEDOM:
            return None
        return [
            math.sqrt(sum(statistics.variance(column) * (len(column) - 1) for column in columns) / freedom)
            for columns in zip(*(list(zip(*group, strict=True)) for group in groups), strict=True)
        ]

    def _given_up(self, settings: Mapping[str, _Known]) -> set[str]:
        """The settings of which no more seeds are trained (--racing): of which one has diverged, failed or was stopped,
        or which are worse in every objective than one with all its seeds by three standard deviations between seeds."""
        if not self.racing:
            return set()
        deviations, worst = self._deviations(settings.values()), self._worst(settings.values())
        whole = [
            [statistics.fmean(column) for column in zip(*scores, strict=True)]
            for known in settings.values()
            if not self._missing(known) and not known.running and (scores := self._scores(known, worst))
        ]
        found = set()
        for key, known in settings.items():
            scores = self._scores(known, worst)
            if len(known.with_status("completed")) < len(known.rows):
                found.add(key)
            elif scores and deviations is not None:
                own = [statistics.fmean(column) for column in zip(*scores, strict=True)]
                for best in whole:
                    bounds = [of + DEVIATIONS * deviation for of, deviation in zip(best, deviations, strict=True)]
                    if all(mean > bound for mean, bound in zip(own, bounds, strict=True)):
                        found.add(key)
                        break
        return found

    def _missing(self, known: _Known) -> list[Replicate]:
        """The trials that a setting lacks of as many seeds as are asked for in each fold: a seed that is not asked for
        stands in for one, unless it failed or is of other code."""
        taken = known.rows.keys() | known.running | known.useless
        missing = [replicate for replicate in self.replicates if replicate not in taken]
        known_of = {one for one, row in known.rows.items() if row["status"] != "failed"} | known.running
        others = Counter(fold for _, fold in known_of - {*self.replicates})
        found = []
        for seed, fold in reversed(missing):
            if others[fold] > 0:
                others[fold] -= 1
            else:
                found.append((seed, fold))
        return found[::-1]

    # --- the study ----------------------------------------------------------------------------------------------------

    def trials(self, known: Known) -> list[FrozenTrial]:
        """Those to begin with first, then what has ended, then what runs."""
        return self._trials(self._known(known))

    def _trials(self, settings: Mapping[str, _Known]) -> list[FrozenTrial]:
        # a setting that this sweep has, too, is its own
        warm = [known for known in self.warm if known.key not in settings]
        every = [*warm, *settings.values()]
        worst, given_up = self._worst(every), self._given_up(settings)
        found: list[FrozenTrial] = []
        complete = 0
        running = []
        for known in every:
            if not known.rows and not known.running:
                continue  # by other code alone
            key = known.key
            ended = bool(known.warm) or key in given_up or not self._missing(known)
            if known.running or not ended:
                running.append(known)
                continue
            trial = self._ended(known, worst, raced=bool(self._missing(known)) and key in given_up)
            if trial.state == optuna.trial.TrialState.COMPLETE:
                trial.system_attrs = {"NSGAIISampler:generation": complete // GENERATION}
                complete += 1
            found.append(trial)
        found += [self._running(known) for known in running]
        return found

    def _ended(self, known: _Known, worst: Sequence[float] | None, raced: bool) -> FrozenTrial:
        scores = self._scores(known, worst)
        values = None
        attributes = self._attributes(known)
        if scores:
            columns = list(zip(*scores, strict=True))
            signs = [objective.sign for objective in self.objectives]
            values = [sign * statistics.fmean(column) for sign, column in zip(signs, columns, strict=True)]
            errors = [_standard_error(column) for column in columns]
            attributes["standard_error"] = errors[0] if len(errors) == 1 else errors
            attributes["n"] = len(scores)
        else:
            failed = known.with_status("failed")
            errors_of = [row["error"] for row in failed if row.get("error")]
            attributes["reason"] = errors_of[0] if errors_of else f"no value of {', '.join(self.names)}"
        if raced:
            attributes["given_up"] = f"after {count(len(known.rows), 'trial')} (--racing)"
        state = optuna.trial.TrialState.COMPLETE if values is not None else optuna.trial.TrialState.FAIL
        return self._frozen(known, state, values, attributes)

    def _running(self, known: _Known) -> FrozenTrial:
        return self._frozen(known, optuna.trial.TrialState.RUNNING, None, {KEY: known.key})

    def _attributes(self, known: _Known) -> dict[str, Any]:
        found: dict[str, Any] = {KEY: known.key}
        found["seeds"] = sorted({seed for seed, _ in known.rows})
        found["trial_ids"] = sorted(row["trial_id"] for row in known.rows.values() if "trial_id" in row)
        ways = dict.fromkeys(["diverged", "failed", *(row["status"] for row in known.rows.values())])
        found |= {status: len(known.with_status(status)) for status in ways if status != "completed"}
        return found | ({"sweep": known.warm} if known.warm else {})

    def _frozen(self, known: _Known, state: Any, values: list[float] | None, attributes: dict[str, Any]) -> FrozenTrial:
        starts = [row["started_at"] for row in known.rows.values() if row.get("started_at") is not None]
        start = min(starts, default=datetime.fromtimestamp(0, UTC))
        end = max(start, known.ended_at) if known.ended_at != _EVER else start
        trial: FrozenTrial = optuna.trial.FrozenTrial(
            number=0,
            trial_id=0,
            state=state,
            value=None,
            values=values,
            # Optuna's times are local ones
            datetime_start=start.astimezone().replace(tzinfo=None),
            datetime_complete=end.astimezone().replace(tzinfo=None) if state.is_finished() else None,
            params=dict(known.setting.params),
            distributions=dict(known.setting.distributions),
            user_attrs=attributes,
            system_attrs={},
            intermediate_values={},
        )
        return trial

    def _sampler(self, kind: str, seed: int) -> BaseSampler:
        samplers = optuna.samplers
        made: BaseSampler
        if kind == "tpe":
            made = samplers.TPESampler(seed=seed, constant_liar=True)
        elif kind == "gp":
            made = samplers.GPSampler(seed=seed, warn_independent_sampling=False)
        elif kind == "nsga2":
            made = samplers.NSGAIISampler(seed=seed, population_size=GENERATION)
        else:
            made = samplers.RandomSampler(seed=seed)
        return made

    # --- what to run --------------------------------------------------------------------------------------------------

    def propose(self, known: Known) -> list[PlannedTrial] | None:
        """What was begun before, the baseline, what settings that have begun still lack, and new settings."""
        begun = self._begun(known)
        taken = known.recorded.keys() | {trial.id for trial in (*known.running, *begun)}
        chosen = [*begun, *(trial for trial in self.baselines if trial.id not in taken)][: known.slots]
        settings = self._known(dataclasses.replace(known, running=[*known.running, *chosen], unfinished=begun))
        new = [*self._lacking(settings)]
        slots = known.slots - len(chosen)
        while len(new) < slots and (setting := self._next(settings)) is not None:
            key = _identity(setting.config)
            own = settings[key] = _Known(key, setting)
            for replicate in self.replicates[: 1 if self.racing else None]:
                own.running.add(replicate)
                new.append(_of(setting.config, *replicate))
        chosen += self._named(new[:slots])
        return chosen if chosen or known.running else None

    def _lacking(self, settings: Mapping[str, _Known]) -> Iterator[TrialConfig]:
        """The trials that settings lack which have begun; one at a time where it is a race."""
        given_up = self._given_up(settings)
        for key, known in settings.items():
            missing = self._missing(known) if known.rows or known.running else []
            if not missing or key in given_up or (self.racing and known.running):
                continue
            for replicate in missing[: 1 if self.racing else None]:
                known.running.add(replicate)
                yield _of(known.setting.config, *replicate)

    def _next(self, settings: Mapping[str, _Known]) -> Setting | None:
        """A setting that there is none of yet; None where there are no others, or all have failed."""
        if self._hopeless(settings):
            return None
        left = None if self.cells is None else [one for one in self.cells if _identity(one.config) not in settings]
        if left == []:
            return None
        trials = self._trials(settings)
        for repeat in range(_DRAWS):
            kind = self.sampler if repeat < _REPEATS else "random"
            draws = np.random.SeedSequence([self.seed, len(settings), repeat])
            if left is not None and kind != self.sampler:
                return left[int(np.random.default_rng(draws).integers(len(left)))]
            found = self._asked(kind, int(draws.generate_state(1)[0]), trials)
            if _identity(found.config) not in settings:
                return found
        return None

    def _asked(self, kind: str, seed: int, trials: Sequence[FrozenTrial]) -> Setting:
        level = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.ERROR)  # what of it is experimental, or could be faster
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                study = empty_study("search", [Quantity(one.name, direction=one.direction) for one in self.objectives])
                study.sampler = self._sampler(kind, seed)
                study.add_trials(trials)
                return self.settings.suggested(study.ask())
        finally:
            optuna.logging.set_verbosity(level)

    def _hopeless(self, settings: Mapping[str, _Known]) -> bool:
        """Whether so many settings have ended, and none has a score."""
        ended = [one for one in settings.values() if one.rows and not (one.running or one.with_status("diverged"))]
        scored = any(self._score(row) is not None for known in settings.values() for row in known.rows.values())
        return len(ended) >= MOST_FAILED and not scored

    def _named(self, new: Iterable[TrialConfig]) -> list[PlannedTrial]:
        """Trials by what tells them from each other and from those of the space."""
        configs = list(new)
        names = settings_in_words([*(trial.config for trial in self.space.trials), *configs])[-len(configs) or None :]
        return [PlannedTrial(_identity(one), one, name) for one, name in zip(configs, names, strict=bool(configs))]

    # --- what is shown ------------------------------------------------------------------------------------------------

    def plan(self, known: Known) -> Plan:
        trials = {trial.id: trial.config for trial in self.baselines}
        for own in self._known(known).values():
            for replicate in sorted({*own.rows, *own.running, *own.useless}, key=lambda one: (one[0], one[1] or 0)):
                config = _of(own.setting.config, *replicate)
                trials[_identity(config)] = config
        names = settings_in_words(list(trials.values()))
        return dataclasses.replace(
            self.space,
            trials=[PlannedTrial(one, trials[one], name) for one, name in zip(trials, names, strict=True)],
        )

    def at_most(self, known: Known) -> list[PlannedTrial]:
        begun = self._begun(known)
        taken = known.recorded.keys() | {trial.id for trial in (*known.running, *begun)}
        left = [*begun, *(trial for trial in self.baselines if trial.id not in taken)]
        settings = self._known(known)
        cells = None if self.cells is None else len(self.cells)
        if not self._hopeless(settings):
            lacking = sum(len(self._missing(one)) for one in settings.values() if one.rows or one.running)
            new = self.samples if cells is None else (cells - len(settings)) * len(self.replicates)
            dearest = max((one for one in self.space.trials if one.config.method.name != Method.name), key=_cost)
            left += [dearest] * min(self.samples, lacking + new)
        return left

    def described(self) -> list[str]:
        each = f", each with {count(len(self.replicates), 'trial')}" if len(self.replicates) > 1 else ""
        objectives = " and ".join(f"{one.name} ({one.direction})" for one in self.objectives)
        lines = [f"{objectives} by {self.sampler}{each}", *self.settings.described()]
        plain = any(trial.config.method.name == Method.name for trial in self.space.trials)
        if plain and not self.baselines:
            lines.append("no unregularised networks, as how they are trained is searched")
        return lines

    def told(self, known: Known) -> str:
        settings = self._known(known)
        trials = [trial for trial in self._trials(settings) if trial.state == optuna.trial.TrialState.COMPLETE]
        left = {key for key, one in settings.items() if not any(map(_is_compared, one.rows.values()))}
        own = [trial for trial in trials if "sweep" not in trial.user_attrs and trial.user_attrs[KEY] not in left]
        text = count(len(own), "setting")
        if not own:
            return text
        if len(self.objectives) > 1:
            losses = np.array([[o.sign * v for o, v in zip(self.objectives, t.values, strict=True)] for t in own])
            beaten = [((losses <= one).all(axis=1) & (losses < one).any(axis=1)).any() for one in losses]
            return f"{text}, {len(own) - sum(beaten)} on the Pareto front"
        (objective,) = self.objectives
        values = [trial.values[0] for trial in own]
        return f"{text}, best {objective.name} {min(values) if objective.direction == 'min' else max(values):.4g}"

    def ended(self, known: Known) -> str:
        settings = self._known(known)
        if not self._hopeless(settings):
            return ""
        reasons = [trial.user_attrs["reason"] for trial in self._trials(settings) if "reason" in trial.user_attrs]
        return f"given up, as none of {count(len(settings), 'setting')} has a score: {reasons[0]}"


def _is_compared(row: Mapping[str, Any]) -> bool:
    """Whether analysis counts a trial: not one that was ended early as others did better."""
    return row["status"] != "failed" and (row["status"] != "stopped" or row.get("stopped_by") == "collapse")


def _standard_error(values: Sequence[float]) -> float | None:
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None


def _cost(trial: PlannedTrial) -> float:
    return trial.cost


def _of(config: TrialConfig, seed: int, fold: int | None) -> TrialConfig:
    """The configuration of a setting's trial."""
    return dataclasses.replace(config, seed=seed, data=dataclasses.replace(config.data, fold=fold))
