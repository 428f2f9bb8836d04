"""The answer of a sweep in plain numbers: how strong a regulariser may be, and what that brings.

    >>> for answer in answers(read_sweep("analysis/reproductions/pilcro-cifar10")):
    ...     print(answer)

One sentence for each curve of accuracy against strength (see `tipping_points`): up to which of the swept strengths
accuracy holds, and what is different there from the unregularised trials. Where no tipping point is found, it says what
is known instead. Every number in it is computed from the record; what cannot be had is said with its reason.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from analysis.against_reference import baseline_of
from analysis.changes import MOST_SAID, Change, change, is_size, measures_of, short_name
from analysis.command_line import InputError
from analysis.groups import (
    Group,
    Quantity,
    Row,
    check_strength,
    count,
    grouped,
    quantities,
    strengths_of,
    telling,
    values_of,
)
from analysis.holding import Held
from analysis.judged import MOST_NAMED, Judged, Status, briefly, has_folds, in_words, named, place, score_text
from analysis.multiplicity import adjust
from analysis.records import Sweep
from analysis.schema import CONVERTED_STRENGTHS
from analysis.symbols import all_named, method_name, number, symbol
from analysis.tabular import Place, opened
from analysis.tipping_points import Curve, NothingToJudge, TippingPoints, tipping_points
from analysis.two_samples import SIGNIFICANCE


@dataclass(frozen=True)
class Answer:
    """How strong one setting of a method may be, and what that brings. `str` gives it as a sentence."""

    method: str
    setting: str
    """What tells its curve from the others of the method, in symbols; "" where nothing does."""
    strength: str
    status: Status
    held: Held
    """Up to which swept strength accuracy holds; nan in all where it does at none, or nobody knows."""
    at: float
    """The swept strength at which `changes` are: `held.strength`, or the weakest where accuracy holds at none."""
    holds: str
    """Up to where accuracy holds, in words."""
    reference: str
    """What they are against: "none" (the unregularised trials), or where there are none of these "α = 0"."""
    changes: tuple[Change, ...]
    """Accuracy first, then what the method is measured by."""
    absent: str
    """Why there are no changes."""
    folds: bool
    """Whether its sample is of runs of a cross-validation."""
    curve: Curve | None
    """None where no strength was swept."""
    doubt: str = ""
    """What the seeds leave room for at the strength that accuracy seems to hold up to, and how many more would tell."""

    @property
    def name(self) -> str:
        """The method and its setting."""
        return ", ".join(part for part in (method_name(self.method), self.setting) if part)

    @property
    def tipping(self) -> str:
        """The tipping point with its interval, or why there is none, in a few words."""
        if self.curve is None or self.curve.fit is None:
            return self.holds[:1].lower() + self.holds[1:]
        return briefly(self.curve, self.strength)

    @property
    def lead(self) -> str:
        """What `differences` are: "at α = 100, against none (over 3 pairs of seeds)"."""
        where = f"{self._where[1:]}, " if self._where else ""
        return f"{where}against {self.reference}{self._over}"

    @property
    def _where(self) -> str:
        """ " at α = 100"; "" where no strength was swept."""
        if math.isnan(self.at) or self.curve is None:
            return ""
        return f" at {named(self.strength, self.at, [row[self.strength] for row in self.curve.trials])}"

    @property
    def differences(self) -> list[tuple[str, Literal["", "good", "bad"]]]:
        """Each change that is known in words, and whether it is one for the better: shown (p < .05) after Holm's
        adjustment over all of these."""
        adjusted = adjust([one.p_value for one in self.changes])
        return [
            (str(one), one.tone if p < SIGNIFICANCE else "")
            for one, p in zip(self.changes, adjusted, strict=True)
            if not math.isnan(one.value)
        ]

    @property
    def missing(self) -> str:
        """What of this is not known, in words; "" where all of it is."""
        if not self.changes:
            return f"what is different{self._where} is not said: {self.absent}" if self.absent else ""
        unknown = [one for one in self.changes if math.isnan(one.value)]
        if len(unknown) < len(self.changes):
            parts = [f"{', '.join(short_name(one.quantity) for one in unknown)}: not of both"] if unknown else []
            bare: dict[str, list[str]] = {}
            for one in self.changes:
                if math.isnan(one.low) and not math.isnan(one.value) and "no intervals" not in self._over:
                    bare.setdefault(one.reason, []).append(short_name(one.quantity))
            parts += [f"no interval of {', '.join(names)}: {reason}" for reason, names in bare.items()]
            return "; ".join(parts)
        first, mean = unknown[0], ""
        if not math.isnan(first.mean):
            over = count(first.n, "run" if self.folds else "seed")
            mean = f"{short_name(first.quantity)} is {score_text(first.mean, first.quantity)}{self._where} ({over}); "
        return f"{mean}against none nothing is known ({first.reason})"

    @property
    def _over(self) -> str:
        """How many seeds the changes are over, where that is the same for all."""
        sizes = {(one.n, one.n_reference, one.paired) for one in self.changes if not math.isnan(one.value)}
        if len(sizes) != 1:
            return ""
        n, n_reference, paired = sizes.pop()
        if n == n_reference == 1:
            return " (one seed: no intervals)"
        if paired:
            return f" (over {count(n, 'pair')} of {'runs' if self.folds else 'seeds'})"
        return f" ({n} against {count(n_reference, 'run' if self.folds else 'seed')})"

    def __str__(self) -> str:
        differences = ", ".join(words for words, _ in self.differences)
        parts = [f"{self.lead}: {differences}"] if differences else []
        rest = [part for part in (self.doubt, self.missing) if part]
        return "; ".join([f"{self.name}: {self.holds}", *parts, *rest]) + "."


def answers(
    sweep: Sweep | Place, *, strength: str | None = None, reference_below: float | None = None, seed: int = 0
) -> list[Answer]:
    """The answer for each curve of a sweep (its record, folder or s3:// address): of each method by its own strength
    (`main_strengths`), or by `strength`; the plateau is that of the strengths weaker than `reference_below` (see
    `fit_curve`).

    Where no curve can be judged there is one for each setting. Raises `InputError` for an unknown strength, and as
    `tipping_points` does.
    """
    sweep = opened(sweep)
    return of_points(sweep, *all_points(sweep, strength=strength, reference_below=reference_below, seed=seed))


def all_points(
    sweep: Sweep, *, strength: str | None = None, reference_below: float | None = None, seed: int = 0
) -> tuple[list[TippingPoints], dict[str, str]]:
    """The tipping points of each method by its own strength, or by `strength`; and for each method that has none the
    reason. Raises `InputError` as `tipping_points` does, but not where nothing can be judged, and not for a
    `reference_below` of one strength that is none of another."""
    rows = [row for row in sweep.rows if row["method"] != "baseline"]
    methods = sorted({row["method"] for row in rows})
    if "top1" not in quantities(sweep):
        if strength is not None:
            check_strength(strength, sweep.settings)
        return [], dict.fromkeys(methods, "no trial has an accuracy")
    main = dict.fromkeys(methods, strength) if strength is not None else main_strengths(sweep)
    reasons = {name: "no strength with two values" for name in methods if name not in main}
    found = []
    for name in dict.fromkeys(main.values()):
        assert name is not None
        try:
            result = tipping_points(sweep, strength=name, reference_below=reference_below, seed=seed)
        except InputError as error:
            several = reference_below is not None and len(set(main.values())) > 1
            if not isinstance(error, NothingToJudge) and not several:
                raise
            said = str(error).removeprefix(f"{sweep.path}: ").removeprefix("no tipping point can be looked for: ")
            said = said.split("; ")[0].replace(f"{name} =", f"{symbol(name)} =")
            said = said.replace(f"with {name}", f"with {symbol(name)}").replace("a finite top1", "a finite Top-1")
            reasons |= {method: said for method, own in main.items() if own == name}
            continue
        own = [curve for curve in result.curves if main.get(curve.group.trials[0]["method"]) == name]
        found.append(dataclasses.replace(result, curves=own))
        with_one = {row["method"] for curve in own for row in curve.group.trials}
        reasons |= {
            method: f"no trial with a strength {symbol(name)}"
            for method, its in main.items()
            if its == name and method not in with_one
        }
    return found, reasons


def main_strengths(sweep: Sweep) -> dict[str, str]:
    """For each method the hyperparameter of which it has the most values above zero, the first of equals; methods that
    have none of two values are left out."""
    rows = [row for row in sweep.rows if row["method"] != "baseline"]
    names = [name for name in strengths_of(sweep.settings) if name not in CONVERTED_STRENGTHS]
    found = {}
    for method in sorted({row["method"] for row in rows}):
        own = [row for row in rows if row["method"] == method]
        counts = {name: len({row[name] for row in own if row[name] is not None and row[name] > 0}) for name in names}
        best = max(counts, key=lambda one: counts[one], default=None)
        if best is not None and counts[best] > 1:
            found[method] = best
    return found


def of_points(sweep: Sweep, found: Sequence[TippingPoints], reasons: Mapping[str, str]) -> list[Answer]:
    """The answer for each of these curves, and for each setting of the methods that none of them is of, for these
    `reasons`."""
    known = quantities(sweep)
    cache: dict[str, dict[str, float]] = {}

    def values(quantity: Quantity) -> dict[str, float]:
        if quantity.name not in cache:
            cache[quantity.name] = {trial: one.value for trial, one in values_of(sweep, quantity).items()}
        return cache[quantity.name]

    every = sweep.rows
    finished = [row for row in every if row["status"] != "failed"]
    baseline = [row for row in finished if row["method"] == "baseline"]
    said: list[Answer] = []
    for points in found:
        names = _names([curve.group for curve in points.curves])
        for curve, name in zip(points.curves, names, strict=True):
            judged = None if curve.fit is None else Judged(curve, curve.fit, points)
            status, held, at = _unjudged(curve, points) if judged is None else place(judged)
            trials = [row for row in curve.trials if row[points.strength] == at]
            zero = [row for row in curve.group.trials if row[points.strength] == 0]
            asked = [points.metric, *measures_of(curve.group.trials[0]["method"], known)]
            changes, of_zero, absent = _changes(asked, curve.group, trials, baseline, zero, values)
            doubt = ""
            if judged is None:
                reason = curve.reason.replace(f"{points.strength} =", f"{symbol(points.strength)} =")
                holds = f"Whether accuracy tips is not judged: {reason}"
            else:
                status, holds, doubt = in_words(judged, status, held, at, changes[0] if changes else None)
            holds += _without_score(curve, points.strength, every)
            method = " and ".join(sorted({row["method"] for row in curve.group.trials}))
            reference = f"{symbol(points.strength)} = 0" if of_zero else "none"
            where = (name, points.strength, status, held, at, holds)
            said.append(Answer(method, *where, reference, changes, absent, has_folds(curve.group), curve, doubt))
    told = {row["method"] for points in found for curve in points.curves for row in curve.group.trials}
    rest = [row for row in finished if row["method"] not in told | {"baseline"}]
    groups = grouped(rest, telling(rest)) if rest else []
    nowhere = Held(math.nan, math.nan, math.nan)
    for group, name in zip(groups, _names(groups), strict=True):
        asked = [known[name] for name in ("top1",) if name in known]
        asked += measures_of(group.trials[0]["method"], known)
        changes, _, absent = _changes(asked, group, group.trials, baseline, (), values)
        method = group.trials[0]["method"]
        holds = f"Whether accuracy tips is not judged: {reasons[method]}"
        where_not = (name, "", "not judged", nowhere, math.nan, holds)
        said.append(Answer(method, *where_not, "none", changes, absent, has_folds(group), None))  # type: ignore[arg-type]
    for method in sorted({row["method"] for row in every} - {row["method"] for row in finished} - {"baseline"}):
        failed = count(sum(row["method"] == method for row in every), "trial")
        holds = f"Nothing is known: all {failed} failed"
        said.append(Answer(method, "", "", "not judged", nowhere, math.nan, holds, "none", (), "", False, None))
    return said


def _unjudged(curve: Curve, points: TippingPoints) -> tuple[Status, Held, float]:
    """Of a curve that was not judged; it is compared at its strongest strength."""
    swept = [float(row[points.strength]) for row in curve.trials]
    strongest = (min if points.stronger == "smaller" else max)(swept, default=math.nan)
    return "not judged", Held(math.nan, math.nan, math.nan), strongest


def _without_score(curve: Curve, strength: str, rows: Sequence[Row]) -> str:
    """Which of the strengths swept no trial has a score of, and why, in words; "" where all have."""
    methods = {trial["method"] for trial in curve.group.trials}
    own = [
        row
        for row in rows
        if row["method"] in methods
        and all(row[name] == value for name, value in curve.group.values.items())
        and row[strength] is not None
        and row[strength] > 0
    ]
    without = sorted({row[strength] for row in own} - {row[strength] for row in curve.trials})
    if not without:
        return ""
    status = Counter(row["status"] for row in own if row[strength] in without)
    why = ", ".join(f"{n} {name}" for name, n in sorted(status.items()))
    named = ", ".join(number(value) for value in without[:MOST_NAMED]) + ", …" * (len(without) > MOST_NAMED)
    return f"; at {symbol(strength)} = {named} no trial has a score ({why})"


def _names(groups: Sequence[Group]) -> list[str]:
    """What tells the groups of a method apart, in symbols."""
    names = zip(all_named(groups, without=("method",)), groups, strict=True)
    return ["" if name == _method_of(group) else name for name, group in names]


def _method_of(group: Group) -> str:
    return " and ".join(method_name(name) for name in sorted({row["method"] for row in group.trials}))


def _changes(
    asked: Sequence[Quantity],
    group: Group,
    trials: Sequence[Row],
    baseline: Sequence[Row],
    zero: Sequence[Row],
    values: Callable[[Quantity], Mapping[str, float]],
) -> tuple[tuple[Change, ...], bool, str]:
    """What is different at these trials of a group from the unregularised ones, or where there are none from those of
    strength `zero`; whether it is the latter; or why nothing can be said."""
    if not trials:
        return (), False, ""
    setting = Group(group.values, trials, (), group.digits)
    try:
        reference, reason = baseline_of(setting, baseline)
        of_zero = not reference and bool(zero)
        if of_zero:
            reference, reason = baseline_of(dataclasses.replace(setting, trials=zero), zero)
    except InputError as error:
        return (), False, str(error)
    found = []
    for quantity in asked:
        known = values(quantity)
        if quantity is asked[0] or any(row["trial_id"] in known for row in trials):
            relative = is_size(quantity, known)
            found.append(change(quantity, setting, reference, known, relative=relative, reason=reason))
    return tuple(found[: MOST_SAID + 1]), of_zero, ""


def explained(share: float = 0.8) -> str:
    """What the words of the answers mean, once."""
    return (
        f"Accuracy tips at the strength where it falls to {100 * share:g}% of its plateau, which is what it has "
        "at weak strengths, and where these are few without regularisation. It holds where it is nearer to the plateau "
        "than half that fall, and seems to where the seeds leave room for all of it. Brackets are 95% intervals: of "
        "the tipping point; of the strongest swept strength before it, as the grid sees the tipping point's (none "
        "where that lies between two neighbours); and of what is different from the unregularised trials (none), over "
        "seeds, each by itself; ✓ and ✗ mark what of these stays after Holm's adjustment over the changes of one "
        "answer (p < .05)."
    )


def not_answered(sweep: Sweep, found: Sequence[Answer]) -> list[str]:
    """Which of the strengths that a sweep has several values of no answer is about; each with what shows it."""
    rows = [row for row in sweep.rows if row["method"] != "baseline"]
    names = [name for name in strengths_of(sweep.settings) if name not in CONVERTED_STRENGTHS]
    main = main_strengths(sweep)
    said = []
    for method in sorted({row["method"] for row in rows}):
        own = [row for row in rows if row["method"] == method]
        by = {answer.strength for answer in found if method in answer.method.split(" and ")}
        for name in names:
            values = {row[name] for row in own if row[name] is not None}
            told = name in by or (name == main.get(method) and by <= {""})
            if not told and len(values) > 1:
                shown = ", ".join(number(value, 3) for value in sorted(values)[:6]) + (", …" if len(values) > 6 else "")
                said.append(f"{method_name(method)} by {symbol(name)} ({shown}): --strength {name}")
    return said
