"""The settings that the flags of a search span: a tree of choices, at whose leaves are ranges of numbers.

It is found by planning: the flags with every range at its two ends make the trials of a grid, and what differs between
these is what is searched. A choice with one possible value after the ones before it is none, so that what one variant
alone has is suggested for that variant only.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from analysis.command_line import InputError, check_bounds
from analysis.lazily import lazily
from analysis.study import TASK
from sweeps.flags import MOST_TRIALS, SweepFlags
from sweeps.plan import Plan, make_plan
from sweeps.ranges import shown_range
from trainables.configuration import ModelConfig, TrainingConfig, TrialConfig
from trainables.data import DataConfig
from trainables.method import Method

if TYPE_CHECKING:
    from optuna import Trial
    from optuna.distributions import BaseDistribution

distributions = lazily("optuna.distributions")

Leaf = tuple[str, str]
"""A part of the configuration, and its field."""
Values = dict[Leaf, Any]

_DECADE = 10.0
_DIGITS = 4
"""Of a number that is proposed."""
MOST_CELLS = 10_000
"""Settings of a space without numbers from a range that are listed."""


class Parameter(NamedTuple):
    """One parameter of a setting: its name in the study, where it is, and what it may be."""

    name: str
    leaf: Leaf
    distribution: BaseDistribution


@dataclass(frozen=True)
class Setting:
    """A configuration but for its seed and fold, with its parameters."""

    config: TrialConfig
    params: Mapping[str, Any]
    distributions: Mapping[str, BaseDistribution]


def setting_config(config: TrialConfig) -> TrialConfig:
    """The configuration of the first seed and fold."""
    fold = None if config.data.fold is None else 0
    return dataclasses.replace(config, seed=0, data=dataclasses.replace(config.data, fold=fold))


class Space:
    """What a search by Optuna's samplers looks in. Raises `InputError` for ranges that are none, for one that changes
    nothing, for trials of several tasks, and as `make_plan` does."""

    def __init__(self, flags: SweepFlags) -> None:
        self.ranges, self.steps = {field: (low, high) for field, low, high in flags.ranges}, flags.STEPS
        self._check_ranges(flags)
        self.plan = _planned(flags, self.ranges)
        configs = [one.config for one in self.plan.trials if one.config.method.name != Method.name]
        if not configs:
            raise InputError(f"search: {flags.search}, allowed for a sweep of {flags.NAME} without trials is grid")
        self.kind = type(configs[0].method)
        corners = [_flat(setting_config(config)) for config in configs]
        self._check_task(flags, corners)
        self.order = list(corners[0])
        self.searched = {leaf: self.ranges[leaf[1]] for leaf in self.order if leaf[1] in self.ranges}
        varying = [leaf for leaf in self.order if len({corner[leaf] for corner in corners}) > 1]
        for field, ends in self.ranges.items():
            if not any(leaf[1] == field for leaf in varying):
                raise InputError(f"{field}: {shown_range(*ends)}, allowed is no range here: it would change nothing")
        self.choices = [leaf for leaf in varying if leaf not in self.searched]
        # by the choices that they are of, the corners, and which values each number has in them
        self._corners: dict[tuple[Any, ...], list[Values]] = {}
        for corner in corners:
            self._corners.setdefault(tuple(corner[leaf] for leaf in self.choices), []).append(corner)
        self._after: dict[tuple[Any, ...], list[Any]] = {}
        for key in self._corners:
            for depth in range(len(self.choices)):
                values = self._after.setdefault(key[:depth], [])
                if key[depth] not in values:
                    values.append(key[depth])
        self._widest = self._widths()

    def _check_ranges(self, flags: SweepFlags) -> None:
        for field, (low, high) in self.ranges.items():
            numbers = isinstance(low, int | float) and isinstance(high, int | float)
            if numbers and not low < high:
                raise InputError(f"{field}: {shown_range(low, high)}, allowed for a search are two rising numbers")
            given: dict[str, Any] = {field: (low, high)}
            check_bounds(dataclasses.replace(flags, **given))

    def _check_task(self, flags: SweepFlags, corners: Sequence[Values]) -> None:
        for name in TASK:
            values = {corner.get(("data", name)) for corner in corners}
            if len(values) > 1:
                raise InputError(
                    f"{name}: {len(values)} values, allowed with --search {flags.search} is one: numbers of different "
                    "tasks do not belong together"
                )

    # --- the tree -----------------------------------------------------------------------------------------------------

    def _widths(self) -> dict[Leaf, Any]:
        """Of each leaf what it may be where that is most: there it has its own name."""
        found: dict[Leaf, Any] = {}
        for key, depth in itertools.product(self._corners, range(len(self.choices))):
            leaf, values = self.choices[depth], self._after[key[:depth]]
            if len(values) > len(found.get(leaf, ())):
                found[leaf] = values
        for key in self._corners:
            for leaf in self.searched:
                ends = self._ends(key, leaf)
                if ends is not None:
                    widest = found.get(leaf, ends)
                    found[leaf] = (min(widest[0], ends[0]), max(widest[1], ends[1]))
        return found

    def _ends(self, key: tuple[Any, ...], leaf: Leaf) -> tuple[Any, Any] | None:
        """The range of a number in the settings of these choices; None where it has one value, or none.

        A method may make another number of the flag's (Top-GAP's pixels of smaller maps): it is between those of the
        corners then; else it is the flag's range, of which a corner may be no setting of these choices."""
        values = {corner[leaf] for corner in self._corners[key]} - {None}
        low, high = self.searched[leaf]
        if not values:
            return None
        if values <= {*_corner_ends(low, high)}:
            return low, high
        return (min(values), max(values)) if len(values) > 1 else None

    def _choice(self, leaf: Leaf, values: Sequence[Any]) -> Parameter:
        name = leaf[1] if values == self._widest[leaf] else f"{leaf[1]} ({', '.join(map(_word, values))})"
        choice: BaseDistribution = distributions.CategoricalDistribution([_plain(value) for value in values])
        return Parameter(name, leaf, choice)

    def _number(self, leaf: Leaf, ends: tuple[Any, Any]) -> Parameter:
        name = leaf[1] if ends == self._widest[leaf] else f"{leaf[1]} ({shown_range(*ends)})"
        low, high = ends
        if isinstance(low, int):
            step = self.steps.get(leaf[1], 1)
            wide = step == 1 and low > 0 and high / low >= _DECADE
            whole: BaseDistribution = distributions.IntDistribution(low, high, log=wide, step=step)
            return Parameter(name, leaf, whole)
        number: BaseDistribution = distributions.FloatDistribution(low, high, log=low > 0 and high / low >= _DECADE)
        return Parameter(name, leaf, number)

    def _walk(self, choose: Any) -> Values | None:
        """The values of a setting, where `choose` says that of each parameter; None where it has none."""
        key: tuple[Any, ...] = ()
        for leaf in self.choices:
            values = self._after[key]
            chosen = values[0]
            if len(values) > 1:
                answer = choose(self._choice(leaf, values))
                chosen = next((value for value in values if _plain(value) == answer), _NONE)
                if chosen is _NONE:
                    return None
            key += (chosen,)
        found = dict(self._corners[key][0])
        for leaf in self.searched:
            ends = self._ends(key, leaf)
            if ends is not None:
                found[leaf] = choose(self._number(leaf, ends))
        return found

    def suggested(self, trial: Trial) -> Setting:
        """The setting that a sampler chooses, its numbers to four digits."""
        params: dict[str, Any] = {}
        known: dict[str, BaseDistribution] = {}

        def choose(parameter: Parameter) -> Any:
            params[parameter.name] = value = _drawn(trial, parameter.name, parameter.distribution)
            known[parameter.name] = parameter.distribution
            return value

        values = self._walk(choose)
        assert values is not None
        return Setting(self._config(values), params, known)

    def setting_of(self, config: TrialConfig) -> Setting | None:
        """The parameters of a configuration; None for one outside."""
        if type(config.method) is not self.kind:
            return None
        config = setting_config(config)
        own = _flat(config)
        params: dict[str, Any] = {}
        known: dict[str, BaseDistribution] = {}

        def choose(parameter: Parameter) -> Any:
            value = _plain(own.get(parameter.leaf))
            try:
                inside = parameter.distribution._contains(parameter.distribution.to_internal_repr(value))
            except (ValueError, TypeError):  # of another kind
                inside = False
            if not inside:
                return _NONE
            params[parameter.name], known[parameter.name] = value, parameter.distribution
            return own[parameter.leaf]

        values = self._walk(lambda parameter: _plain(choose(parameter)))
        if values is None or any(_plain(values.get(leaf)) != _plain(value) for leaf, value in own.items()):
            return None
        return Setting(config, params, known)

    def cells(self) -> list[Setting] | None:
        """All settings, where these are a few; None where they are many or numbers from a range of real ones."""
        found: list[Setting] = []
        for key in self._corners:
            axes: list[list[Any]] = []
            leaves = [leaf for leaf in self.searched if self._ends(key, leaf) is not None]
            for leaf in leaves:
                distribution: Any = self._number(leaf, self._ends(key, leaf) or (0, 0)).distribution
                if isinstance(distribution, distributions.FloatDistribution):
                    return None
                if distribution.high - distribution.low > MOST_CELLS:
                    return None
                axes.append([*range(distribution.low, distribution.high + 1, distribution.step)])
            if len(found) + math.prod(map(len, axes)) > MOST_CELLS:
                return None
            for numbers in itertools.product(*axes):
                values = {**self._corners[key][0], **dict(zip(leaves, numbers, strict=True))}
                setting = self.setting_of(self._config(values))
                assert setting is not None
                found.append(setting)
        return found

    def _config(self, values: Values) -> TrialConfig:
        parts: dict[str, dict[str, Any]] = {}
        for (part, field), value in values.items():
            parts.setdefault(part, {})[field] = value
        return TrialConfig(
            self.kind(**parts["method"]),
            ModelConfig(**parts["model"]),
            DataConfig(**parts["data"]),
            TrainingConfig(**parts["training"]),
            0,
        )

    def described(self) -> list[str]:
        """What is searched, a parameter a line."""
        seen: dict[str, str] = {}
        for key in self._corners:
            for depth, leaf in enumerate(self.choices):
                if len(values := self._after[key[:depth]]) > 1:
                    seen.setdefault(self._choice(leaf, values).name, ", ".join(map(_word, values)))
            for leaf in self.searched:
                if (ends := self._ends(key, leaf)) is not None:
                    parameter = self._number(leaf, ends)
                    scale = ", on a logarithmic scale" if getattr(parameter.distribution, "log", False) else ""
                    seen.setdefault(parameter.name, f"{shown_range(*ends)}{scale}")
        return [f"{name}: {what}" for name, what in seen.items()]


_NONE = object()


def _planned(flags: SweepFlags, ranges: Mapping[str, tuple[Any, Any]]) -> Plan:
    """The trials at the ends of all ranges, of one seed."""
    given: dict[str, Any] = {field: _corner_ends(*ends) for field, ends in ranges.items()}
    if "alpha" in ranges and hasattr(flags, "alpha_range"):
        given["alpha_range"] = ()
    whole = dataclasses.replace(flags, **given)
    corners = make_plan(dataclasses.replace(whole, seeds=1, yes_really=True))
    if len(corners.trials) > MOST_TRIALS // 10:
        raise InputError(
            f"search: {len(corners.trials):,} combinations of values and ends of ranges, allowed are at most "
            f"{MOST_TRIALS // 10:,}"
        )
    return corners


def _corner_ends(low: Any, high: Any) -> tuple[Any, Any]:
    """A strength of 0 may be a setting of its own kind, which none from the inside of the range is."""
    return ((low + high) / 2 if low == 0 and isinstance(low, float) else low), high


def _flat(config: TrialConfig) -> Values:
    return {
        (part, entry.name): getattr(getattr(config, part), entry.name)
        for part in ("model", "data", "training", "method")
        for entry in dataclasses.fields(getattr(config, part))
    }


def _plain(value: Any) -> Any:
    """As Optuna takes a choice: a list as words."""
    return _word(value) if isinstance(value, tuple) else value


def _word(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(map(_word, value)) or "none"
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _drawn(trial: Trial, name: str, of: Any) -> Any:
    """What the sampler chooses, a real number to as many digits as a person would write."""
    if isinstance(of, distributions.CategoricalDistribution):
        return trial.suggest_categorical(name, of.choices)
    if isinstance(of, distributions.IntDistribution):
        return trial.suggest_int(name, of.low, of.high, step=of.step, log=of.log)
    value = trial.suggest_float(name, of.low, of.high, log=of.log)
    return min(max(float(f"{value:.{_DIGITS}g}"), of.low), of.high)
