"""The thin `tune.Trainable` around a `Run`: the only file of this room that knows Ray.

Ray Tune places trials, restarts them when a worker is lost and reports their epochs. What a trial has done is kept by
the trial itself: checkpoints and record under its own id, so that resuming never depends on Tune's state.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import socket
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import ray
from ray import tune
from ray.exceptions import RayActorError

from analysis import records
from analysis.schema import HYPERPARAMETERS, SCHEMA_VERSION
from trainables.checkpoints import CheckpointError, checkpoints_of
from trainables.configuration import TrialConfig
from trainables.data import DataConfig, Images, SharedData, StreamedImages
from trainables.kept_models import model_file, write_model
from trainables.lazily import torch
from trainables.metrics import METRICS
from trainables.training import Run
from trainables.turns import Turns

_SETTINGS = (
    "epochs",
    "batch_size",
    "fold",
    "width",
    "learning_rate",
    "optimizer",
    "crop",
    "precision",
    "alpha_per_image",
    *HYPERPARAMETERS,
)


HOLDS_BAD_NODE = 300.0
"""Seconds for which a trial that found no GPU goes on taking its place there, while it is tried elsewhere: that place,
always free, would otherwise be offered to one trial after the other. Tune ends whom it has stopped after 600."""

Data = Mapping[DataConfig, Images | StreamedImages] | SharedData
"""A data set by what is done with it, once for each fold, or where this machine can load it from."""


class StorageFailure(RuntimeError):
    """The storage failed, or the data could not be had, and not the trial: nothing is recorded of it, and it goes on
    another time."""


class NoGpu(RayActorError):
    """Ray gave the trial a GPU of a node where torch finds none: the node's fault, not the trial's. To Tune it is as if
    the node had been taken back, which does not count against a trial."""

    def __init__(self, node: str, message: str) -> None:
        super().__init__(error_msg=message)
        self.args = (node, message)
        self.node = node

    @property
    def preempted(self) -> bool:
        return True


@contextlib.contextmanager
def _of_storage() -> Iterator[None]:
    try:
        yield
    except records.STORAGE_ERRORS as error:
        raise StorageFailure(_describe(error)) from error


@dataclass(frozen=True)
class TrialOptions:
    """What the trials of a sweep share and what does not change their results."""

    sweep: str
    """Where the record is: a folder or s3:// URL."""
    name: str
    metrics: Mapping[str, Mapping[str, Any]]
    """Options of each metric by its name in the registry."""
    checkpoint_seconds: float
    keep_checkpoints: bool
    keep_models: bool
    threads: int
    cpus: float
    gpus: float
    git_commit: str | None
    git_dirty: bool | None
    project_version: str
    shared: Mapping[str, float] | None = None
    """What the machine has, where other sweeps use it, too, and do not know of each other's trials; else None."""


def trial_device(gpu: bool) -> torch.device:
    """Where a trial trains: on the GPU that Ray gave it, else on the CPU. A GPU that Ray counts but torch does not find
    is an error, except in drills on machines without one (SWEEPS_DRILL_FAKE_GPUS=1)."""
    if not gpu:
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda")
    if os.environ.get("SWEEPS_DRILL_FAKE_GPUS") == "1":
        return torch.device("cpu")
    raise RuntimeError(
        f"Ray gave the trial a GPU of {socket.gethostname()}, where torch finds none (driver? CUDA build of torch?); "
        "--gpus-per-trial 0 trains on the CPU"
    )


def trial_row(
    trial_id: str, config: TrialConfig, config_json: str, options: TrialOptions, attempts: int, device: torch.device
) -> dict[str, Any]:
    """Identity, hyperparameters and provenance of a trial, as columns of the trials table."""
    columns = {**config.columns(), **config.method.columns(config.training.batch_size)}
    return {
        "trial_id": trial_id,
        "schema_version": SCHEMA_VERSION,
        "sweep": options.name,
        **{name: columns[name] for name in ("method", "dataset", "model", "seed")},
        **{name: columns.get(name) for name in _SETTINGS},
        "config": config_json,
        "measured": json.dumps(options.metrics, sort_keys=True),
        "attempts": attempts,
        "cpus": options.cpus,
        "gpus": options.gpus,
        "git_commit": options.git_commit,
        "git_dirty": options.git_dirty,
        "host": socket.gethostname(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu ({platform.machine()})",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "ray": ray.__version__,
        "project_version": options.project_version,
    }


class Trial(tune.Trainable):
    """One trial at a time, an epoch a step; the actor is used again for the next trial.

    `config` has the trial's "id", its canonical configuration as JSON ("json") and its short "label".
    """

    def setup(
        self,
        config: dict[str, Any],
        data: Mapping[str, Data] | None = None,
        options: TrialOptions | None = None,
    ) -> None:
        assert data is not None
        assert options is not None
        self.data, self.options = dict(data), options
        self.no_gpu: NoGpu | None = None
        try:
            self.device = trial_device(options.gpus > 0)
        except RuntimeError as error:
            node = ray.get_runtime_context().get_node_id() if ray.is_initialized() else ""
            self.no_gpu = NoGpu(node, str(error))
        self.turns: Turns | None = None
        torch.set_num_threads(options.threads)
        records.be_patient()
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.trial = new_config["trial"]
        self.run: Run | None = None
        self.images = 0
        return True

    def __repr__(self) -> str:
        trial = getattr(self, "trial", None)
        return f"{trial['label']} {trial['id']}" if trial else "idle"

    def step(self) -> dict[str, Any]:
        if self.no_gpu is not None:
            raise self.no_gpu
        try:
            run = self.run or self._start()
        except StorageFailure:
            raise  # not the trial's fault: Tune tries again
        except Exception as error:  # noqa: BLE001 - whatever a trial raises is recorded as its result
            return self._record_unborn(_describe(error))
        try:
            if not run.finished:
                with self._turn():
                    if run.epoch == 0:
                        run.begin()
                    run.train_epoch()
        except Exception as error:  # noqa: BLE001 - that of a damaged image is an OSError, and no failure of the storage
            run.fail(_describe(error))
        with _of_storage():
            if run.finished:
                self._record(run)
            elif time.monotonic() - self.saved >= self.options.checkpoint_seconds:
                self._save(run)
        row = run.epochs[-1] if run.epochs else {}
        images, self.images = run.images - self.images, run.images
        memory = torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else None
        return {
            "epoch": run.epoch,
            "epochs": self.config_of_trial.training.epochs,
            "images": images,
            "images_per_second": images / row["seconds"] if row.get("seconds") else None,
            "gpu_memory": memory,
            "top1": row.get("top1"),
            "loss": row.get("loss"),
            "status": run.status,
            "error": run.error,
            "done": run.finished,
        }

    def _turn(self) -> contextlib.AbstractContextManager[None]:
        """The trial's processors and GPUs, in turns with other sweeps of this machine."""
        if self.turns is None:
            return contextlib.nullcontext()
        assert self.options.shared is not None
        return self.turns.held({"CPU": self.options.cpus, "GPU": self.options.gpus}, self.options.shared)

    def _start(self) -> Run:
        """Build the run and continue it from its last checkpoint, if it has one."""
        self.config_of_trial = TrialConfig.from_canonical(json.loads(self.trial["json"]))
        self.checkpoints = checkpoints_of(self.options.sweep, self.trial["id"])
        data = self._data(self.config_of_trial.data)
        if self.options.shared is not None and self.turns is None:
            with _of_storage():
                self.turns = Turns()
        unusable = ""
        with _of_storage():
            try:
                state, complaints = self.checkpoints.load()
            except CheckpointError as error:
                state, complaints, unusable = None, [], str(error)
            # only now, as nothing has been tried where data or checkpoint could not be had
            self.attempts = self.checkpoints.count_start()
        self.saved = time.monotonic()
        metrics = {name: METRICS[name](**options) for name, options in self.options.metrics.items()}
        run = Run(self.config_of_trial, data, metrics=metrics, device=self.device, fresh=state is None)
        if unusable:
            run.fail(f"no usable checkpoint: {unusable}; --retry-failed starts this trial again from the beginning")
        for line in complaints:
            print(f"{line}; the checkpoint before it is used", file=sys.stderr)
        if state is not None:
            run.restore(state)
        self.images = run.images
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        self.run = run
        return run

    def _data(self, config: DataConfig) -> Images | StreamedImages:
        found = self.data[config.dataset]
        if isinstance(found, SharedData):
            try:
                found = found.load()
            except Exception as error:
                raise StorageFailure(f"{socket.gethostname()} cannot load its data: {_describe(error)}") from error
            self.data[config.dataset] = found
        return found[config]

    def _save(self, run: Run) -> None:
        self.checkpoints.save(run.epoch, run.state())
        self.saved = time.monotonic()

    def _record_unborn(self, error: str) -> dict[str, Any]:
        """Record a trial that failed before its run could be built or continued; its checkpoints stay as they are."""
        with _of_storage():
            attempts = max(1, self.checkpoints.starts())
            row = trial_row(
                self.trial["id"], self.config_of_trial, self.trial["json"], self.options, attempts, self.device
            )
            records.write_trial(self.options.sweep, {**row, "status": "failed", "error": error}, [], [], [])
        epochs = self.config_of_trial.training.epochs
        return {
            "epoch": 0,
            "epochs": epochs,
            "images": 0,
            "images_per_second": None,
            "gpu_memory": None,
            "top1": None,
            "loss": None,
            "status": "failed",
            "error": error,
            "done": True,
        }

    def _record(self, run: Run) -> None:
        trial, epochs, measurements, maps = run.tables()
        identity = trial_row(
            self.trial["id"], self.config_of_trial, self.trial["json"], self.options, self.attempts, self.device
        )
        if self.options.keep_models and run.status == "completed":
            write_model(model_file(self.options.sweep, self.trial["id"]), run.model, run.data)
        names = json.dumps(run.data.class_names, ensure_ascii=False)
        records.write_trial(self.options.sweep, {**identity, "class_names": names, **trial}, epochs, measurements, maps)
        if not self.options.keep_checkpoints:
            self.checkpoints.delete()

    def cleanup(self) -> None:
        """A trial that is stopped before its end keeps what it has trained; one that found no GPU keeps others away."""
        if self.no_gpu is not None:
            time.sleep(HOLDS_BAD_NODE)
        run = self.run
        if run is not None and not run.finished and run.epoch > 0:
            self._save(run)


def _describe(error: Exception) -> str:
    """The exception in one line, with the place in this project or its libraries that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({frames[-1].filename.rsplit('/', 1)[-1]}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())}{place}"
