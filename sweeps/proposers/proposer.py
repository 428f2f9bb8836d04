"""The one interface of all that says what to run next.

A proposer holds nothing that changes. All that it knows of a sweep it is given each time, so that the driver that comes
after a killed one is proposed what that one would have been. `sweeps/driver/proposals.py` hands proposals to Ray Tune.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sweeps.plan import Plan, PlannedTrial

Recorded = Mapping[str, Mapping[str, Any]]
"""Rows of the trials table by trial: `status`, and the columns that the proposer asks for (`columns`)."""


@dataclass(frozen=True)
class Known:
    """What a proposal is made from."""

    recorded: Recorded
    """Trials that have ended, but for those that are to be run again."""
    running: Sequence[PlannedTrial] = ()
    """Trials that were proposed and have not ended, in the order in which they were."""
    unfinished: Sequence[PlannedTrial] = ()
    """Trials that a driver before this one was proposed, and that have not ended: each runs once more, or none of its
    search does."""
    slots: int = 1
    """How many trials may begin."""


class Proposer(ABC):
    """Says what to run next."""

    columns: tuple[str, ...] = ()
    """Of the trials table, and objectives (`analysis.objectives`), beside `status`."""
    adaptive: bool = False
    """Whether results decide what it proposes: then it is asked for no more than can run at once."""

    space: Plan
    """The data, and trials of every kind that may be proposed: what is checked and loaded before anything runs."""

    @abstractmethod
    def propose(self, known: Known) -> list[PlannedTrial] | None:
        """At most `known.slots` trials to run now; none to wait for what runs; None where nothing more will come."""

    @abstractmethod
    def plan(self, known: Known) -> Plan:
        """Its trials as far as they are known: recorded, running, unfinished, and of a grid those to come."""

    @abstractmethod
    def at_most(self, known: Known) -> list[PlannedTrial]:
        """As many trials as may still begin at most, each like one that may."""

    def trials(self, known: Known) -> list[Any]:
        """Its settings as trials of a study of Optuna's, for who watches; none where it is no search of those."""
        return []

    def told(self, known: Known) -> str:
        """Where it stands, in a few words; "" for nothing that the trials do not say."""
        return ""

    def ended(self, known: Known) -> str:
        """What has ended it before its own end; "" for nothing."""
        return ""

    def described(self) -> list[str]:
        """What is searched, in lines; none where the plan says it."""
        return []
