"""A grid whose second stage comes from what the first has recorded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from sweeps.flags import SweepFlags
from sweeps.plan import Plan, PlannedTrial
from sweeps.proposers.grid import Grid
from sweeps.proposers.proposer import Known, Proposer


@dataclass(frozen=True)
class Later:
    """A second stage."""

    trials: int
    """How many trials it has."""
    told: str
    """What they are, in words."""
    flags: Callable[[Plan], SweepFlags]
    """The flags of both stages, from the record of the first one's plan. Raises `InputError` where it has nothing to go
    by."""


class Stages(Proposer):
    """The trials of a first stage, and when all of them are recorded those of the second."""

    def __init__(self, first: Grid, later: Later, samples: int | None = None) -> None:
        """`samples`: how many trials a budget leaves of both stages, which says what is told of the second."""
        self.first, self.later, self.space, self.samples = first, later, first.space, samples

    def propose(self, known: Known) -> list[PlannedTrial] | None:
        if not self._first_recorded(known):
            # of a first stage in which a trial failed, and is not to be tried again, there is no second
            return self.first.propose(known) or ([] if known.running else None)
        return self._both.propose(known)

    def plan(self, known: Known) -> Plan:
        return self._both.space if self._first_recorded(known) else self.first.space

    def at_most(self, known: Known) -> list[PlannedTrial]:
        if self._first_recorded(known):
            return self._both.at_most(known)
        left, of_all = self.first.at_most(known), self.first.space.trials
        return [*left, *(of_all[number % len(of_all)] for number in range(self.later.trials))]

    def told(self, known: Known) -> str:
        if self._first_recorded(known):
            return ""
        left = self.later.trials if self.samples is None else self.samples - len(self.first.space.trials)
        if left <= 0:
            return f"no second stage, for which --samples has to be above {len(self.first.space.trials)}"
        some = f"{left} of " if left < self.later.trials else ""
        return f"then, from these: {some}{self.later.told}"

    def _first_recorded(self, known: Known) -> bool:
        recorded = known.recorded
        return all(recorded.get(one.id, {"status": "failed"})["status"] != "failed" for one in self.first.space.trials)

    @cached_property
    def _both(self) -> Grid:
        return Grid(self.later.flags(self.first.space))
