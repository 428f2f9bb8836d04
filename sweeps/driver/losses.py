"""What Tune makes of interruptions, mended: nodes that go away hardly count, and no error of Ray ends the sweep."""

from __future__ import annotations

import contextlib
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

import ray
from ray import tune
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.tune.execution import class_cache
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler

from analysis import records
from sweeps.driver.failures import BadDevices, cause, told
from sweeps.driver.pending import GOES_ON
from sweeps.plan import PlannedTrial
from trainables.checkpoints import checkpoints_of
from trainables.lazily import torch
from trainables.trainable import DeviceFault, Interrupted, OutOfGpuMemory, StorageFailure, TrialOptions, trial_row

GOES_WITHIN = 2.0
"""Seconds in which a node follows its worker: where a machine is shut down, the worker may be the first to end."""
MAX_WORKER_LOSSES = 3
"""How often a trial may lose its worker process before it is given up; nodes that go away do not count."""
MAX_NODE_LOSSES = 10
"""How often in a row, without an epoch more, a trial may lose its node before it is given up: one that takes its node
down with it would else be tried for ever, on machines that are paid for."""


@contextlib.contextmanager
def mended_tune(devices: BadDevices, local: bool = False) -> Iterator[dict[str, int]]:
    """While the context is open,

    - an actor that went with its node counts as preempted, which Tune does not count as a failure of its trial. Ray
      itself calls preempted only what was on a node that was drained for that reason and outlived the notice's
      deadline; a spot machine that goes without a notice, or before the deadline, would count. A trial that loses node
      after node and gets no further is given up after `MAX_NODE_LOSSES`; one under which GPUs fail, as `devices` says;
    - an error of Ray that is neither an actor's nor a task's is taken as an actor's: Ray's memory monitor kills workers
      with `OutOfMemoryError`, at which Tune (2.60) would end the sweep with a traceback;
    - what a trial raises as `Interrupted` is a task's error: as an actor's, which it is to Python, Tune would take the
      actor for dead and its place for free, and Ray would kill it there, at times with what had just been placed;
    - with `local`, trials use the workers that Ray has started. Tune gives its actors an environment of their own, for
      which each would start another process; those of a local Ray have all of it from the driver.

    Gives how often in a row each trial has lost its node, by its id.
    """
    errors: Any = RayActorError
    manager: Any = RayActorManager
    trials: Any = Trial
    preempted, failed, counted = errors.preempted, manager._actor_task_failed, trials._handle_ray_actor_error
    in_a_row: dict[str, int] = {}
    reached: dict[str, int] = {}

    def as_actors(self: RayActorManager, tracked_actor_task: Any, exception: Exception) -> None:
        if isinstance(exception, RayError) and not isinstance(exception, RayActorError | RayTaskError):
            exception = RayActorError(error_msg=str(exception))
        if isinstance(exception, RayTaskError) and isinstance(exception.cause, Interrupted):
            exception = RayTaskError("step", str(exception), exception.cause)
        failed(self, tracked_actor_task, exception)

    def count(trial: Trial, error: RayActorError) -> None:
        before = trial.run_metadata.num_failures
        counted(trial, error)
        if trial.run_metadata.num_failures > before:
            return
        name, epoch = trial.config["trial"]["id"], trial.run_metadata.last_result.get("epoch", 0)
        raised = getattr(error, "cause", error)
        if isinstance(raised, OutOfGpuMemory):
            return  # as often as it can have more
        if isinstance(raised, DeviceFault):
            if devices.met(name, raised):
                trial.run_metadata.num_failures = trial.max_failures + 1
            return
        if epoch > reached.get(name, 0):
            reached[name], in_a_row[name] = epoch, 0
        in_a_row[name] = in_a_row.get(name, 0) + 1
        if in_a_row[name] >= MAX_NODE_LOSSES:
            trial.run_metadata.num_failures = trial.max_failures + 1  # which is one too many

    errors.preempted = property(lambda error: preempted.fget(error) or went_with_its_node(error))
    manager._actor_task_failed = as_actors
    trials._handle_ray_actor_error = count
    environment = class_cache.DEFAULT_ENV_VARS, class_cache.ENV_VARS_TO_PROPAGATE
    if local:
        class_cache.DEFAULT_ENV_VARS, class_cache.ENV_VARS_TO_PROPAGATE = {}, set()
    try:
        yield in_a_row
    finally:
        errors.preempted, manager._actor_task_failed = preempted, failed
        trials._handle_ray_actor_error = counted
        class_cache.DEFAULT_ENV_VARS, class_cache.ENV_VARS_TO_PROPAGATE = environment


def went_with_its_node(error: RayActorError) -> bool:
    """Whether the node of the actor is gone; no where Ray cannot say it, so that a loss without an end is bounded."""
    deadline = time.monotonic() + GOES_WITHIN
    while True:
        try:
            node = (
                ray._private.state.actors(error.actor_id).get("Address", {}).get("NodeID") if error.actor_id else None
            )
            if not node:
                return False
            if not _lives(next((found for found in ray.nodes() if found["NodeID"] == node), {})):
                return True
        except Exception:  # noqa: BLE001 - Ray's own table of actors and nodes may fail for a moment, in many ways
            pass
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.2)


def _lives(node: dict[str, Any]) -> bool:
    """Whether Ray on the node can be reached: the cluster takes seconds to notice that it is gone."""
    if not node.get("Alive"):
        return False
    try:
        socket.create_connection((node["NodeManagerAddress"], node["NodeManagerPort"]), timeout=1).close()
    except OSError:
        return False
    return True


def out_of_memory(error: BaseException) -> str | None:
    """What to tell where Ray's memory monitor has killed the worker; None where it has not."""
    words = " ".join(str(error).split())
    if "running low on memory" not in words:
        return None
    _, _, used = words.partition(" was ")
    figures = f" ({used.split(' (')[0]})" if " limit (" in used else ""
    return (
        f"out of memory: Ray killed its worker as the node ran low{figures}; fewer trials on a node at a time "
        "(a larger --cpus-per-trial) or a smaller --batch-size need less"
    )


class Roomier(FIFOScheduler):
    """Trials that were out of memory are tried again with more of a node: on a GPU with twice the share, up to all of
    it, or, where Ray killed the worker as the node's memory ran low, with twice the processors, up to all of a node's.
    Their number of threads stays, and with it their numbers."""

    def __init__(self, cpus: float, gpus: float) -> None:
        super().__init__()
        self.shares = {"cpus": cpus, "gpus": gpus}
        self.more: dict[str, dict[str, float]] = {}
        """By trial, what it has."""

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        if trial.status == Trial.RUNNING:
            return  # it is given up: Tune has stopped those that are tried again
        error, payload = cause(trial), trial.config["trial"]
        has = {name: payload.get(name, share) for name, share in self.shares.items()}
        if isinstance(error, OutOfGpuMemory):
            has["gpus"] = max(has["gpus"], min(1.0, 2 * has["gpus"]))
        elif error is not None and out_of_memory(error):
            nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            most = max((node.get("CPU", 0.0) for node in nodes if node.get("GPU", 0.0) >= has["gpus"]), default=0.0)
            has["cpus"] = max(has["cpus"], min(most, 2 * has["cpus"]))
        else:
            return
        self.more[payload["id"]] = has
        trial.config["trial"] = {**payload, **has}
        trial.update_resources({"cpu": has["cpus"], "gpu": has["gpus"]})

    def told(self) -> list[str]:
        """What spares a next run that trials are tried twice, in a line for each kind of memory."""
        lines = []
        for name, kind in (("gpus", "GPU memory"), ("cpus", "memory")):
            had = [has[name] for has in self.more.values() if has[name] > self.shares[name]]
            if had:
                flag, trials = f"--{name}-per-trial", f"{len(had)} trial{'s' if len(had) > 1 else ''}"
                lines.append(
                    f"out of {kind} with {flag} {self.shares[name]:g}, and tried again with up to {max(had):g}: "
                    f"{trials}; a larger {flag} or a smaller --batch-size spares that"
                )
        return lines


def record_lost(
    results: tune.ResultGrid,
    trials: Mapping[str, PlannedTrial],
    url: str,
    options: TrialOptions,
    node_losses: Mapping[str, int],
    devices: BadDevices,
) -> None:
    """Record the trials that lost worker or node again and again, so that they do not disappear without a word."""
    unborn: list[str] = []
    for index in range(len(results)):
        result = results[index]
        if result.error is None:
            continue
        if result.config is None or "trial" not in result.config:
            unborn.append(told(result.error))
            continue
        trial = trials[result.config["trial"]["id"]]
        if isinstance(result.error, StorageFailure):
            print(f"not finished: {trial.label} ({trial.id}): {told(result.error)}; {GOES_ON}", file=sys.stderr)
            continue
        payload = trial.payload()
        # those that lost their node are among them; a worker that died before its trial began has counted none
        attempts = checkpoints_of(url, trial.id).starts() or MAX_WORKER_LOSSES + 1
        row = trial_row(trial.id, trial.config, payload["json"], options, attempts, torch.device("cpu"))
        message = out_of_memory(result.error) or told(result.error)
        faults = devices.of(trial.id)
        if faults and isinstance(getattr(result.error, "cause", result.error), DeviceFault):
            places = dict.fromkeys(str(found.place) for found in faults)
            message = f"GPUs failed under it, in epoch {faults[-1].epoch}: {', '.join(places)}; {faults[-1].message}"
        if node_losses.get(trial.id, 0) >= MAX_NODE_LOSSES:
            message = (
                f"lost its node {node_losses[trial.id]} times in a row without an epoch more; it last said: {message}"
            )
        lost = {"status": "failed", "error": f"given up after {attempts} attempts: {message}"}
        records.write_trial(url, {**row, **lost, "device": None}, [], [], [])
    if unborn:
        print(f"{len(unborn)} trials could not be started ({unborn[0]}); {GOES_ON}", file=sys.stderr)
