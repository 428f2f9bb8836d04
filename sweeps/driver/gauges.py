"""A running sweep as metrics of Ray: trials by status, best and last accuracy, speed, GPU memory.

They appear at each node's metrics port as `ray_sweep_…`, where Prometheus collects them. Ray forgets a series that is
not set again for about 20 seconds, so those of trials that have ended disappear by themselves.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

from ray import tune
from ray.exceptions import RayActorError
from ray.util.metrics import Counter, Gauge

from analysis.schema import STATUSES
from sweeps.driver.failures import cause
from sweeps.plan import PlannedTrial
from trainables.trainable import Interrupted, StorageFailure

SET_EVERY = 5.0


@dataclass
class _Running:
    setting: str
    epoch: int = 0
    top1: float | None = None
    images_per_second: float | None = None
    gpu_memory: float | None = None


class Gauges(tune.Callback):
    """Follows Tune's trials while the context is open; `statuses` are those recorded before."""

    def __init__(self, sweep: str, labels: dict[str, str], planned: int, recorded: int) -> None:
        self.sweep, self.labels = _ascii(sweep), labels
        self.planned, self.recorded = planned, recorded
        self.running: dict[str, _Running] = {}
        self.ended: dict[str, str] = {}
        self.best: float | None = None
        self.lock = threading.Lock()
        trial = ("sweep", "trial", "setting")
        self.trials = Gauge("sweep_trials", "Trials of the sweep by status", ("sweep", "status"))
        self.best_top1 = Gauge("sweep_best_top1", "Best validation Top-1 of any trial of this run", ("sweep",))
        self.last_top1 = Gauge("sweep_trial_top1", "Validation Top-1 of a running trial after its last epoch", trial)
        self.epoch = Gauge("sweep_trial_epoch", "Epochs that a running trial has done", trial)
        self.speed = Gauge("sweep_trial_images_per_second", "Training images per second of a running trial", trial)
        self.memory = Gauge("sweep_trial_gpu_memory_bytes", "Most GPU memory a running trial has allocated", trial)
        self.epochs_done = Counter("sweep_epochs", "Epochs done in this run", ("sweep",))
        self.images_done = Counter("sweep_images", "Images trained on in this run", ("sweep",))
        self.lost = Counter("sweep_workers_lost", "Workers lost under a trial in this run", ("sweep",))
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, daemon=True, name="gauges")

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its callbacks for a resume of its own, which is never used

    def add(self, trial: PlannedTrial) -> None:
        """A trial that was proposed."""
        with self.lock:
            self.planned += trial.id not in self.labels
            self.labels[trial.id] = trial.label

    def __enter__(self) -> Gauges:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        with self.lock:
            self.running[_id(trial)] = _Running(_ascii(self.labels[_id(trial)]))

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        with self.lock:
            one = self.running.setdefault(_id(trial), _Running(_ascii(self.labels[_id(trial)])))
            one.epoch, one.top1 = result["epoch"], result["top1"]
            one.images_per_second, one.gpu_memory = result["images_per_second"], result["gpu_memory"]
            if result["top1"] is not None:
                self.best = max(result["top1"], self.best or 0.0)
            if result["status"] is not None:
                self.ended[_id(trial)] = result["status"]
        if result["images"]:
            self.epochs_done.inc(1, {"sweep": self.sweep})
            self.images_done.inc(result["images"], {"sweep": self.sweep})

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        if not isinstance(cause(trial), StorageFailure):
            self._end(trial, "failed")
            return
        with self.lock:
            self.running.pop(_id(trial), None)  # pending, for the same command given again

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._end(trial, "completed")

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        error = cause(trial)
        if isinstance(error, RayActorError) and not isinstance(error, Interrupted):
            self.lost.inc(1, {"sweep": self.sweep})
        with self.lock:
            self.running.pop(_id(trial), None)

    def _end(self, trial: Any, status: str) -> None:
        with self.lock:
            self.running.pop(_id(trial), None)
            self.ended.setdefault(_id(trial), status)

    def counts(self) -> dict[str, int]:
        """Trials by status; the sum is that of the plan."""
        with self.lock:
            found = dict.fromkeys(STATUSES, 0)
            for status in self.ended.values():
                found[status] += 1
            found["recorded before"] = self.recorded
            found["running"] = len(self.running)
            found["pending"] = self.planned - self.recorded - len(self.ended.keys() | self.running.keys())
            return found

    def _keep(self) -> None:
        while True:
            for status, number in self.counts().items():
                self.trials.set(number, {"sweep": self.sweep, "status": status})
            with self.lock:
                running, best = dict(self.running), self.best
            self.best_top1.set(best, {"sweep": self.sweep})  # None is not set
            for trial, one in running.items():
                tags = {"sweep": self.sweep, "trial": trial, "setting": one.setting}
                self.epoch.set(one.epoch, tags)
                self.last_top1.set(one.top1, tags)
                self.speed.set(one.images_per_second, tags)
                self.memory.set(one.gpu_memory, tags)
            if self._ended.wait(SET_EVERY):
                return


def _id(trial: Any) -> str:
    identity: str = trial.config["trial"]["id"]
    return identity


_LETTERS = {"α": "alpha", "γ": "gamma", "η": "eta", "λ": "lambda", "σ": "sigma"}


def _ascii(text: str) -> str:
    """Ray's metrics take no other letters in their tags."""
    for letter, name in _LETTERS.items():
        text = text.replace(letter, name)
    return text.encode("ascii", "backslashreplace").decode()
