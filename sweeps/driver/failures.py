"""Why Tune's trials were interrupted, and nodes that must not have any more of them."""

from __future__ import annotations

import pickle
import sys
import threading
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.exceptions import RayTaskError

from trainables.trainable import NoGpu


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


class BadNodes(tune.Callback):
    """Says of each node with a GPU that torch does not find that it is out, and sets `only` when there are no others:
    neither living, nor such as an autoscaler could bring that may have `most` GPUs."""

    def __init__(self, most: float) -> None:
        self.most = most
        self.found: dict[str, str] = {}
        self.only = threading.Event()

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its callbacks for a resume of its own, which is never used

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        error = cause(trial)
        if not isinstance(error, NoGpu):
            return
        gpus = {node["NodeID"]: node["Resources"].get("GPU", 0.0) for node in ray.nodes() if node["Alive"]}
        others = [node for node in gpus if gpus[node] and node != error.node and node not in self.found]
        known = error.node in self.found
        self.found[error.node] = str(error)
        if not others and sum(gpus.values()) >= self.most:
            self.only.set()
        elif not known:
            print(f"{error}; its trials go elsewhere", file=sys.stderr)


class Until(tune.Stopper):
    """Ends the run when one of these is so: the sweep is no longer this driver's, no node is left that could go on."""

    def __init__(self, *reasons: threading.Event) -> None:
        self.reasons = reasons

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles it for a resume of its own, which is never used

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return any(reason.is_set() for reason in self.reasons)
