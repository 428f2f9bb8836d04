"""What a proposer says, handed to Ray Tune: the only second file that knows both."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ray.tune.search import Searcher

from analysis.objectives import row_of
from sweeps.driver.pending import keep_proposal
from sweeps.plan import PlannedTrial
from sweeps.proposers.proposer import Known, Proposer

LOOKED_EVERY = 2.0
"""Seconds between looks at whether the cluster has grown, while all its places are taken."""


class Proposals(Searcher):
    """Asks the proposer whenever a trial has ended, and gives Tune one proposal after the other: those of a grid as
    fast as Tune takes them, those of a search where a place for one is free. What a search proposes is kept with the
    trial's checkpoints before it begins, so that the driver after a killed one knows what was running."""

    def __init__(
        self,
        proposer: Proposer,
        known: Known,
        sweep: str,
        places: Callable[[], int],
        begun: Sequence[Callable[[PlannedTrial], None]] = (),
        asked: Callable[[Known], None] | None = None,
    ) -> None:
        """`begun` is told each proposal, and `asked` what is known each time when the proposer was."""
        super().__init__()
        self.asked = asked
        self.proposer, self.sweep, self.places, self.begun = proposer, sweep, places, begun
        self.recorded: dict[str, Mapping[str, Any]] = dict(known.recorded)
        self.unfinished = known.unfinished
        self.trials: dict[str, PlannedTrial] = {}
        """All that were proposed in this run, by their id."""
        self.running: dict[str, PlannedTrial] = {}
        """Those that have not ended, also while they wait for a place."""
        self.error: Exception | None = None
        """What kept the proposer from an answer: nothing more begins then."""
        self.standing = ""
        self._names: dict[str, str] = {}  # by Tune's own
        self._ended: list[tuple[str, str | None]] = []
        self._queue: deque[PlannedTrial] = deque()
        self._finished, self._changed = False, True
        self._had, self._looked = 0, 0.0

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles it for a resume of its own, which is never used

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Nothing: what it has to know is in the record."""

    def suggest(self, trial_id: str) -> Any:
        if not self._queue and not self._finished and self._has_news():
            try:
                self._ask()
            except Exception as error:  # noqa: BLE001 - raised by whoever runs Tune, when what runs has ended
                self.error, self._finished = error, True
        if self._queue:
            trial = self._queue.popleft()
            self._names[trial_id] = trial.id
            return {"trial": trial.payload()}
        return Searcher.FINISHED if self._finished else None

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        self._ended.append((self._names[trial_id], "failed" if error else (result or {}).get("status")))

    def _has_news(self) -> bool:
        if self._changed or self._ended:
            return True
        if not self.proposer.adaptive or time.monotonic() - self._looked < LOOKED_EVERY:
            return False
        self._looked = time.monotonic()
        return self.places() > self._had

    def _ask(self) -> None:
        self._changed = False
        while self._ended:
            name, status = self._ended[0]
            if status is not None:  # else it was stopped, and is no result
                self.recorded[name] = self._row(name, status)
                del self.running[name]
            self._ended.pop(0)
        slots = sys.maxsize
        if self.proposer.adaptive:
            self._had = self.places()
            slots = self._had - len(self.running)
            if slots <= 0:
                return
        known = Known(self.recorded, list(self.running.values()), self.unfinished, slots)
        found = self.proposer.propose(known)
        for trial in found or ():
            if self.proposer.adaptive:
                keep_proposal(self.sweep, trial)
            self.trials[trial.id] = self.running[trial.id] = trial
            self._queue.append(trial)
            for tell in self.begun:
                tell(trial)
        if self.proposer.adaptive:
            now = Known(dict(self.recorded), list(self.running.values()), self.unfinished)
            self.standing = self.proposer.told(now)
            if self.asked is not None:
                self.asked(now)
        self._finished = found is None or not (found or self.running)

    def _row(self, name: str, status: str) -> Mapping[str, Any]:
        if not self.proposer.columns:
            return {"status": status}
        # what was lost again and again is recorded when the run has ended
        row = row_of(self.sweep, name, self.proposer.columns) if status != "failed" else None
        return row or {"status": status, "config": self.trials[name].payload()["json"]}
