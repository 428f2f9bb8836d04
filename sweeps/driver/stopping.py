"""Ends trials early by Ray Tune's own rules, which are told of the trials that drivers before this one recorded."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler, MedianStoppingRule, TrialScheduler

from analysis import records
from sweeps.driver.losses import Roomier
from sweeps.flags import Scheduler
from trainables.method import Method
from trainables.trainable import stop_trial

REDUCTION = 3
"""Of ASHA: a third of the trials goes on beyond each rung."""
FIRST_RUNG = 1 / 9
"""Of a trial's epochs, at which ASHA ends trials for the first time, and then at three times as many."""
MEDIAN_FROM = 1 / 5
"""Of a trial's epochs, before which the median rule ends none."""


@dataclass(frozen=True)
class _Ended:
    """A recorded trial, as far as Tune's rules look at one."""

    trial_id: str


class Stopping(Roomier):
    """`Roomier`, with a rule of Ray Tune by the validation accuracy of each epoch: `asha` (Li et al. 2020, asynchronous
    successive halving) or `median` (Golovin et al. 2017, the median of the others' averages so far). Trials of one data
    set and fold, network and number of epochs are held against each other; the unregularised ones are left out: they
    are never ended, and what they reach ends no other.

    What is to end is told to its worker, which ends the trial before its next epoch and records it as `stopped`.
    """

    def __init__(self, cpus: float, gpus: float, kind: Scheduler, url: str | None = None) -> None:
        """`url`: of a record, where there is one."""
        super().__init__(cpus, gpus)
        self.kind = kind
        self.rules: dict[str, TrialScheduler] = {}
        """Of each kind of trials that compete."""
        self.ending: set[str] = set()
        """By Tune's own names."""
        if url is not None:
            self._recall(url)

    def _recall(self, url: str) -> None:
        """Tell the rules what is recorded, in the order in which it ended."""
        columns = ["trial_id", "config", "status", "finished_at"]
        trials = records.read_table(url, "trials", columns).to_pylist()
        epochs: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
        for row in records.read_table(url, "epochs", ["trial_id", "epoch", "top1"]).to_pylist():
            epochs[row["trial_id"]].append(row)
        known = [row for row in trials if row["status"] != "failed" and row["finished_at"] is not None]
        for row in sorted(known, key=lambda row: (row["finished_at"], row["trial_id"])):
            canonical = json.loads(row["config"])
            if not _competes(canonical):
                continue
            for epoch in sorted(epochs[row["trial_id"]], key=lambda epoch: epoch["epoch"]):
                if epoch["top1"] is not None:
                    _tell(self._rule(canonical), _Ended(row["trial_id"]), epoch)

    def _rule(self, canonical: Mapping[str, Any]) -> TrialScheduler:
        """The rule of the trials that a configuration competes with."""
        epochs = canonical["training"]["epochs"]
        key = json.dumps([canonical["data"], canonical["model"], epochs], sort_keys=True)
        if key not in self.rules:
            how: dict[str, Any] = {"time_attr": "epoch", "metric": "top1", "mode": "max"}
            if self.kind == "asha":
                first = max(1, round(FIRST_RUNG * epochs))
                self.rules[key] = ASHAScheduler(
                    **how, max_t=max(first, epochs), grace_period=first, reduction_factor=REDUCTION
                )
            else:
                # where there are too few others it goes on, and does not make room for them
                self.rules[key] = MedianStoppingRule(
                    **how,
                    grace_period=max(1, round(MEDIAN_FROM * epochs)),
                    min_time_slice=math.inf,  # type: ignore[arg-type]
                )
        return self.rules[key]

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        super().on_trial_add(tune_controller, trial)
        canonical = _canonical(trial)
        if _competes(canonical):
            self._rule(canonical).on_trial_add(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        canonical = _canonical(trial)
        # a last one is told of when the trial has ended
        told = result["top1"] is not None and not result["done"] and trial.trial_id not in self.ending
        if told and _competes(canonical):
            seen = {name: result[name] for name in _SEEN}
            if self._rule(canonical).on_trial_result(tune_controller, trial, seen) == TrialScheduler.STOP:
                self.ending.add(trial.trial_id)
                stop_trial(trial.config["trial"]["id"])
        return super().on_trial_result(tune_controller, trial, result)

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        super().on_trial_complete(tune_controller, trial, result)
        canonical, ended = _canonical(trial), result.get("status") in ("completed", "diverged")
        if ended and result.get("top1") is not None and _competes(canonical):
            _tell(self._rule(canonical), trial, result)


def _canonical(trial: Trial) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(trial.config["trial"]["json"])
    return found


def _competes(canonical: Mapping[str, Any]) -> bool:
    """Not so the unregularised trials: they are what all others are held against in the end, and regularised ones that
    train more slowly may all be below them at a rung."""
    return bool(canonical["method"]["name"] != Method.name)


_SEEN = ("epoch", "top1")


def _tell(rule: TrialScheduler, trial: Any, result: Mapping[str, Any]) -> None:
    """Let the rule know of an epoch without asking it, as both do at a trial's end."""
    controller: Any = None
    rule.on_trial_add(controller, trial)
    rule.on_trial_complete(controller, trial, {name: result[name] for name in _SEEN})
