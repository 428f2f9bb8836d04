"""What a record has of the papers' numbers: its settings and their values."""

from __future__ import annotations

import math
import re
from typing import Any

from analysis.groups import (
    Group,
    Quantity,
    Row,
    Value,
    by_options,
    check_finished,
    check_rows,
    differing,
    grouped,
    quantities,
    values_of,
)
from analysis.paper.choice import Profiles, _by_layer
from analysis.paper.declared import declared
from analysis.paper.items import METHODS
from analysis.paper.printed import Claim
from analysis.paper.protocol import _LEVEL_ROUNDED, _configuration, _same, _unlike
from analysis.paper_rule import PAPERS_LIMITS
from analysis.records import Sweep

# the limit of the rule of the input-gradient regularisation paper (Section 3.2), in the strengths of a record
PAPERS_LIMIT = {"gradreg": PAPERS_LIMITS["gradient_reg"]}


class _Ours:
    """A sweep's finished trials, and their values by quantity; `reference_below`: the limit of the paper's rule, by
    default the paper's own where it has one."""

    def __init__(self, sweep: Sweep, reference_below: float | None = None) -> None:
        check_finished(sweep)
        sweep = declared(sweep)
        self.sweep, self.reference_below = sweep, reference_below
        self.rows = [row for row in sweep.rows if row["status"] != "failed"]
        check_rows(self.rows)
        self.known = quantities(sweep)
        self.taken: set[str] = set()
        """The trials that a line of a table is about."""
        self.passed: dict[str, str] = {}
        """Why other trials, of settings that a claim could have taken, are in none."""
        self._values: dict[Quantity, dict[str, Value]] = {}
        self._layers: dict[str, Profiles] = {}
        self._groups: dict[tuple[tuple[str, Any], ...], list[Group]] = {}

    def quantity(self, name: str) -> list[tuple[Quantity, float, float, str]]:
        """The record's quantities of this name, one for each kind of options, (scale, shift) from it to the claim's,
        and in what it is unlike.

        "error" is 1 − top1; "metric#0" is measured at initialisation. Levels match within 2%, since printed ones are
        rounded (8/255 as 0.0314); at another level than the paper's, or by an attack of another number of steps or
        queries, a quantity is not comparable.
        """
        if name == "error":
            return [] if "top1" not in self.known else [(self.known["top1"], -1.0, 1.0, "")]
        name, _, epoch = name.partition("#")
        stem, _, level = name.partition("@")
        if epoch:
            metric, _, component = stem.partition(":")
            initial = Quantity(metric, component, measured=True, epoch=int(epoch))
            return [(quantity, 1.0, 0.0, "") for quantity in by_options(self.sweep, initial)]
        if not level:
            return [(quantity, 1.0, 0.0, "") for quantity in self.known.values() if quantity.stem == name]
        same, unlike = self._of_steps(stem)
        exact = [it for it in same if it.at is not None and math.isclose(it.at, float(level), rel_tol=_LEVEL_ROUNDED)]
        if exact:
            return [(quantity, 1.0, 0.0, unlike) for quantity in exact]
        at = same[0].at if same else None
        told = f"level is {'not recorded' if at is None else f'{at:.4g}'} (paper: {level})"
        unlike = "; ".join(part for part in (unlike, told) if part)
        return [(quantity, 1.0, 0.0, unlike) for quantity in same if quantity.at == at]

    def _of_steps(self, stem: str) -> tuple[list[Quantity], str]:
        """The quantities of an attack, "robust_accuracy:pgd40", at every level; of the nearest number of steps or
        queries where the record has not the paper's, and that it is another."""
        name, number = re.fullmatch(r"(.*?)(\d*)", stem).groups()  # type: ignore[union-attr]
        found: dict[int, list[Quantity]] = {}
        for quantity in self.known.values():
            own = f"{quantity.metric}:{quantity.component}" if quantity.component else quantity.metric
            match = re.fullmatch(re.escape(name) + (r"(\d*)" if number else "()"), own)
            if match and quantity.measured:
                # older records have the queries of Square in its options alone
                found.setdefault(int(match[1] or number or 0), []).append(quantity)
        if not found:
            return [], ""
        wanted = int(number or 0)
        nearest = min(found, key=lambda it: (abs(it - wanted), it))
        if nearest == wanted:
            return found[nearest], ""
        # queries are an option of the metric, too
        what = f"measured with queries={nearest}" if name.endswith("square") else f"{nearest} steps"
        return found[nearest], f"{what} (paper: {wanted})"

    def limit(self, table: str) -> float | None:
        """Of the paper's rule for a table; None: the default of `paper_threshold`."""
        return self.reference_below or PAPERS_LIMIT.get(table.partition("-")[0])

    def is_of(self, table: str) -> bool:
        """Whether the record has trials of the table's method, and not only unregularised ones."""
        method = METHODS[table.partition("-")[0]]
        return any(row["method"] == method for row in self.rows)

    def values(self, quantity: Quantity) -> dict[str, Value]:
        """By trial, those that are finite."""
        if quantity not in self._values:
            found = values_of(self.sweep, quantity)
            self._values[quantity] = {trial: value for trial, value in found.items() if math.isfinite(value.value)}
        return self._values[quantity]

    def by_layer(self, metric: str) -> Profiles:
        """Values of a measurement by trial, epoch and layer."""
        if metric not in self._layers:
            self._layers[metric] = _by_layer(self.sweep, self.rows, metric)
        return self._layers[metric]

    def candidates(self, settings: dict[str, Any]) -> list[Group]:
        """The settings of the record that a claim's settings leave open, each with its seeds."""
        if not settings:
            return []  # of another author's method, or of one that no column tells
        key = tuple(sorted(settings.items()))
        if key not in self._groups:
            rows = [row for row in self.rows if all(_same(name, row[name], value) for name, value in settings.items())]
            found = []
            for group in grouped(rows, differing(rows)):
                # what no column tells apart, the whole configuration does
                parts: dict[str, list[Row]] = {}
                for row in group.trials:
                    parts.setdefault(_configuration(row), []).append(row)
                found += [Group(group.values, part, ()) for part in parts.values()]
            self._groups[key] = found
        return self._groups[key]

    def closest(self, claim: Claim) -> list[tuple[Group, list[str]]]:
        """The settings that are least unlike the paper's, and in what."""
        found = [(group, _unlike(group.trials[0], claim)) for group in self.candidates(claim.settings)]
        least = min((len(unlike) for _, unlike in found), default=0)
        for group, unlike in found:
            if len(unlike) > least:
                self.pass_over(group, f"another is more like the paper's: {'; '.join(unlike)}")
        return [(group, unlike) for group, unlike in found if len(unlike) == least]

    def take(self, group: Group) -> None:
        self.taken.update(row["trial_id"] for row in group.trials)

    def pass_over(self, group: Group, why: str) -> None:
        for row in group.trials:
            self.passed.setdefault(row["trial_id"], why)
