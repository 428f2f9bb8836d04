"""Why Tune's trials were interrupted, and GPUs that must not have any more of them."""

from __future__ import annotations

import pickle
import sys
import threading
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.exceptions import RayTaskError

from trainables.devices import Place, gpus_left
from trainables.trainable import DeviceFault, tell_of_devices


def cause(trial: Any) -> BaseException | None:
    """The last error of one of Tune's trials, as it was raised."""
    file = Path(trial.pickled_error_file or "")
    if not file.is_file():
        return None
    error = pickle.loads(file.read_bytes())  # Tune has just written it on this machine
    return error.cause if isinstance(error, RayTaskError) else error


def told(error: BaseException | str) -> str:
    """The end of what Tune has kept of an error, in a whole line: of the exception that a task raised, without the
    traceback; of a worker that is gone, why."""
    if isinstance(error, RayTaskError):
        error = f"{type(error.cause).__name__}: {' '.join(str(error.cause).split())}"
    return str(error).strip().rsplit("\n", 1)[-1].strip()


MAX_DEVICE_FAULTS = 3
"""How often GPUs that are not out may fail under a trial, without its getting past that, before it is given up: one
that harms its device would else do so for ever."""
MAX_FAULTS = 10
"""The same of GPUs that are broken, or out."""


@dataclass
class Fault:
    """A GPU that failed under a trial."""

    place: Place
    trial: str
    epoch: int
    """In which it did."""
    kind: str
    message: str
    passed: bool = False
    """Whether the trial has got past that since, so that it was not the trial."""
    worked: bool = False
    """Whether the GPU has trained for an epoch since."""


class BadDevices(tune.Callback):
    """Which GPUs are out: those that torch does not find or that cannot do what is asked for, at once, and those that
    failed twice, under two trials where one alone could be to blame. Says of each that it is, tells the workers, and
    sets `only` when there are no others: neither living, nor such as an autoscaler could bring that may have `most`
    GPUs.

    A trial under which two GPUs failed is under suspicion itself: until it has got past that elsewhere it says nothing
    about a GPU. Nor does a failed assertion of its own. The last GPU that is left is out when it has failed under three
    trials, or all that are left, and did nothing else in between."""

    def __init__(self, most: float, trials: int) -> None:
        self.most, self.unfinished = most, trials
        self.out: dict[str, Place] = {}
        self.reasons: dict[str, str] = {}
        self.faults: list[Fault] = []
        self.only = threading.Event()
        self._unfit = True

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its callbacks for a resume of its own, which is never used

    def met(self, trial: str, error: DeviceFault) -> bool:
        """Take note of what has ended a trial's worker; whether the trial is to be given up."""
        if error.kind == "refused":
            # a node that began anew has another name
            self.out |= {error.place.key: error.place} if error.place.key in self.out else {}
            return False
        if error.kind in ("absent", "unfit"):
            self._unfit = self._unfit and error.kind == "unfit"
            self._is_out(error.place, str(error))
            return False
        self.faults.append(Fault(error.place, trial, error.epoch, error.kind, str(error)))
        self._judge()
        self._tell()
        own = self.of(trial)
        return len(own) >= MAX_FAULTS or len([f for f in own if self._blames(f)]) >= MAX_DEVICE_FAULTS

    def of(self, trial: str) -> list[Fault]:
        """The faults that the trial has not got past."""
        return [found for found in self.faults if found.trial == trial and not found.passed]

    def _blames(self, found: Fault) -> bool:
        """Whether it may be the trial that is to blame."""
        return found.kind != "broken" and found.place.key not in self.out

    def _judge(self) -> None:
        for place in {found.place.key: found.place for found in self.faults}.values():
            here = [f for f in self.faults if f.place.key == place.key]
            left = gpus_left(ray.nodes(), [*self.out.values(), place]) or self._more_may_come()
            broken = [f for f in here if f.kind == "broken"]
            under = {f.trial for f in here if f.kind == "device" and self._credible(f) and (left or not f.worked)}
            needed = 2 if left else max(2, min(3, self.unfinished))
            if place.key not in self.out and (len(broken) >= 2 or len(under | {f.trial for f in broken}) >= needed):
                self._unfit = False
                self._is_out(place, f"{here[-1].message}; it failed {len(here)} times")

    def _credible(self, found: Fault) -> bool:
        elsewhere = {f.place.key for f in self.of(found.trial) if self._blames(f)} - {found.place.key}
        return found.passed or not elsewhere

    def _more_may_come(self) -> bool:
        return sum(node["Resources"].get("GPU", 0.0) for node in ray.nodes() if node["Alive"]) < self.most

    def _is_out(self, place: Place, reason: str) -> None:
        known = place.key in self.out or reason in self.reasons.values()
        self.out[place.key], self.reasons[place.key] = place, reason
        if not gpus_left(ray.nodes(), self.out.values()) and (self._unfit or not self._more_may_come()):
            self.only.set()
        elif not known:
            print(f"{reason}; its trials go elsewhere", file=sys.stderr)
        self._tell()

    def _tell(self) -> None:
        met: dict[str, dict[str, Place]] = {}
        for found in self.faults:
            if not found.passed:
                met.setdefault(found.trial, {})[found.place.key] = found.place
        tell_of_devices(self.out, met)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        if result["status"] == "failed":
            return
        own = [found for found in self.of(trial.config["trial"]["id"]) if found.epoch <= result["epoch"]]
        for found in own:
            found.passed = True
        for found in self.faults:
            found.worked |= found.place.key == result["gpu"]
        if own:
            self._judge()

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.unfinished -= 1

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.unfinished -= 1

    def told(self) -> list[str]:
        """A line for each GPU that failed and is not out."""
        last = {f.place.key: f for f in self.faults if f.place.key not in self.out}
        times = Counter(f.place.key for f in self.faults)
        return [
            f"{found.message}; errors of it in this run, after which trials were tried again: {times[key]}"
            for key, found in last.items()
        ]


class Until(tune.Stopper):
    """Ends the run when one of these is so: the sweep is no longer this driver's, no GPU is left that could go on."""

    def __init__(self, *reasons: threading.Event) -> None:
        self.reasons = reasons

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles it for a resume of its own, which is never used

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return any(reason.is_set() for reason in self.reasons)
