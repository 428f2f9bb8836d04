"""A proposer that ends with a number of trials, or with hours of GPUs or processors."""

from __future__ import annotations

import dataclasses
import statistics
import sys
from collections.abc import Mapping
from typing import Any

from sweeps.plan import Plan, PlannedTrial
from sweeps.proposers.proposer import Known, Proposer

_COSTS = ("train_seconds", "measure_seconds", "cpus", "gpus")


class Budget(Proposer):
    """Another proposer's trials, as long as there is some left of

    - `samples`: trials of its plan, of which the recorded, running and unfinished ones count;
    - `hours` for which its trials have GPUs, or where they have none processors. Recorded trials count with what they
      took; those that have begun and not ended with what one like them is expected to, by the median of the recorded
      ones for each epoch of a plain network.

    What has begun goes on to its end; nothing begins beyond.
    """

    def __init__(self, inner: Proposer, samples: int | None, hours: float | None) -> None:
        self.inner, self.samples, self.hours = inner, samples, hours
        self.space, self.adaptive = inner.space, inner.adaptive or hours is not None
        self.columns = (*inner.columns, *(_COSTS if hours is not None else ()))

    def propose(self, known: Known) -> list[PlannedTrial] | None:
        going_on = {trial.id for trial in self._going_on(known)}
        slots = min(known.slots, self._samples_left(known) + len(going_on))
        if slots <= 0:
            return None
        found = self.inner.propose(dataclasses.replace(known, slots=slots))
        if not found or self.hours is None:
            return found
        used, unit = self._used(known), self._unit(known)
        chosen: list[PlannedTrial] = []
        for trial in found:
            if trial.id not in going_on:
                if used >= self.hours or (not unit and (known.running or chosen)):
                    continue  # nobody knows what one takes before the first has ended
                used += unit * trial.cost
            chosen.append(trial)
        # what runs may take less than is expected of it
        return chosen if chosen or known.running else None

    def plan(self, known: Known) -> Plan:
        whole = self.inner.plan(known)
        begun = known.recorded.keys() | {trial.id for trial in (*known.running, *known.unfinished)}
        come = begun | {trial.id for trial in self.at_most(known)}
        return dataclasses.replace(whole, trials=[trial for trial in whole.trials if trial.id in come])

    def at_most(self, known: Known) -> list[PlannedTrial]:
        if self._spent(known):
            return self._going_on(known)
        return self.inner.at_most(known)[: self._samples_left(known) + len(self._going_on(known))]

    def trials(self, known: Known) -> list[Any]:
        return self.inner.trials(known)

    def told(self, known: Known) -> str:
        parts = [self.inner.told(known)]
        if self.samples is not None:
            parts.append(f"{self.samples - self._samples_left(known)} of {self.samples} samples")
        if self.hours is not None:
            parts.append(f"{self._used(known):.2g} of {self.hours:g} hours")
        return ", ".join(filter(None, parts))

    def ended(self, known: Known) -> str:
        if not self._spent(known) or self.inner.propose(known) is None:
            return self.inner.ended(known)
        spent = f"the budget is spent ({self.told(known)}): the same command with a larger one goes on"
        return "\n".join(filter(None, [self.inner.ended(known), spent]))

    def described(self) -> list[str]:
        limits = [f"{self.samples} trials"] if self.samples is not None else []
        limits += [f"{self.hours:g} hours of GPUs, or where there are none of cores"] if self.hours is not None else []
        return [*self.inner.described(), f"at most {' and '.join(limits)}, with those of what is recorded"]

    def _spent(self, known: Known) -> bool:
        """Whether nothing of it is left."""
        return self._samples_left(known) <= 0 or (self.hours is not None and self._used(known) >= self.hours)

    def _going_on(self, known: Known) -> list[PlannedTrial]:
        taken = known.recorded.keys() | {trial.id for trial in known.running}
        own = self.inner.plan(known).ids
        return [trial for trial in known.unfinished if trial.id not in taken and trial.id in own]

    def _samples_left(self, known: Known) -> int:
        if self.samples is None:
            return sys.maxsize
        begun = {trial.id for trial in (*known.running, *known.unfinished)}
        own = self.inner.plan(known).ids
        return self.samples - len(own & (known.recorded.keys() | begun))

    def _used(self, known: Known) -> float:
        """Hours that have been used, and will be by what has begun."""
        own = self.inner.plan(known).trials
        begun = {trial.id for trial in (*known.running, *known.unfinished)}
        ended = sum(_hours(known.recorded[trial.id]) for trial in own if trial.id in known.recorded)
        going = sum(trial.cost for trial in own if trial.id in begun and trial.id not in known.recorded)
        return ended + self._unit(known) * going

    def _unit(self, known: Known) -> float:
        """Hours for each epoch of a plain network; 0 while nothing is recorded."""
        own = self.inner.plan(known).trials
        spent = [(_hours(known.recorded[trial.id]), trial.cost) for trial in own if trial.id in known.recorded]
        return statistics.median([hours / cost for hours, cost in spent if hours > 0] or [0.0])


def _hours(row: Mapping[str, Any]) -> float:
    """For which a trial had its GPUs, or its processors."""
    seconds = (row.get("train_seconds") or 0.0) + (row.get("measure_seconds") or 0.0)
    return float(seconds * (row.get("gpus") or row.get("cpus") or 1.0) / 3600)
