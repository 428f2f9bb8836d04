"""Every planned trial once, the longest first."""

from __future__ import annotations

from sweeps.flags import SweepFlags
from sweeps.plan import Plan, PlannedTrial, make_plan
from sweeps.proposers.proposer import Known, Proposer


class Grid(Proposer):
    """The trials of a plan. Raises `InputError` as `make_plan` does."""

    def __init__(self, flags: SweepFlags) -> None:
        self.space = make_plan(flags)

    def propose(self, known: Known) -> list[PlannedTrial] | None:
        """The longest first, as a long one that starts last would leave the other cores idle."""
        return self._left(known)[: known.slots] or None

    def plan(self, known: Known) -> Plan:
        return self.space

    def at_most(self, known: Known) -> list[PlannedTrial]:
        return self._left(known)

    def _left(self, known: Known) -> list[PlannedTrial]:
        taken = known.recorded.keys() | {trial.id for trial in known.running}
        return sorted((trial for trial in self.space.trials if trial.id not in taken), key=lambda trial: -trial.cost)
