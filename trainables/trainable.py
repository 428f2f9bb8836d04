"""The thin `tune.Trainable` around a `Run`: the only file of this room that knows Ray.

Ray Tune places trials, restarts them when a worker is lost and reports their epochs. What a trial has done is kept by
the trial itself: checkpoints and record under its own id, so that resuming never depends on Tune's state.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import platform
import socket
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import ray
from ray import tune
from ray.exceptions import RayActorError
from ray.experimental import internal_kv

from analysis import records
from analysis.command_line import InputError
from analysis.schema import HYPERPARAMETERS, SCHEMA_VERSION
from trainables.checkpoints import CheckpointError, checkpoints_of
from trainables.collapse import has_collapsed
from trainables.configuration import TrialConfig
from trainables.data import DataConfig, Images, SharedData, StreamedImages
from trainables.devices import Fault, Place, fault, first_line, gpus_left, held_by_others
from trainables.fingerprint import code_of
from trainables.kept_models import model_file, write_model
from trainables.lazily import torch
from trainables.metrics import METRICS
from trainables.metrics.flags import FLAGS
from trainables.training import MEASURING, Run, check_device
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


HOLDS_BAD_GPU = 300.0
"""Seconds for which a trial on a GPU that is out goes on taking its place there, while it is tried elsewhere: that
place, always free, would otherwise be offered to one trial after the other. Tune ends whom it has stopped after 600."""
HOLDS_ELSEWHERE = 60.0
"""The same where the GPU failed under this trial alone: others may have it then."""

Data = Mapping[DataConfig, Images | StreamedImages] | SharedData
"""A data set by what is done with it, once for each fold, or where this machine can load it from."""


class StorageFailure(RuntimeError):
    """The storage failed, or the data could not be had, and not the trial: nothing is recorded of it, and it goes on
    another time."""


class Interrupted(RayActorError):
    """What ends a trial's worker, and is not the trial's fault or not yet known to be: nothing is recorded, the last
    checkpoint stays, and it goes on in a new process. To Tune it is as if the node had been taken back, which does not
    count against a trial."""

    def __init__(self, message: str, *more: Any) -> None:
        super().__init__(error_msg=message)
        self.args = (message, *more)

    @property
    def preempted(self) -> bool:
        return True


class OutOfGpuMemory(Interrupted):
    """The GPU's memory is full, and the trial may fit where it has more of a GPU, or where others have none of it."""


class DeviceFault(Interrupted):
    """A GPU that Ray gave the trial does not work, or failed under it."""

    def __init__(
        self, message: str, place: Place, kind: Literal[Fault, "absent", "unfit", "refused"], epoch: int = 1
    ) -> None:
        """Kinds, besides those of a fault: absent: torch finds no GPU, or none that starts; unfit: it cannot do what is
        asked for; refused: it is out, or failed under this trial before. `epoch`: in which it failed, as Tune hears of
        epochs late."""
        super().__init__(message, place, kind, epoch)
        self.place, self.kind, self.epoch = place, kind, epoch


def tell_of_devices(out: Mapping[str, Place], met: Mapping[str, Mapping[str, Place]]) -> None:
    """Tell the workers of this driver which GPUs are out, and, by trial, under which ones it failed."""
    content = {
        "out": [dataclasses.asdict(place) for place in out.values()],
        "met": {trial: [dataclasses.asdict(place) for place in places.values()] for trial, places in met.items()},
    }
    internal_kv._internal_kv_put(_devices_key(), json.dumps(content), namespace="sweeps")


def told_of_devices(trial: str) -> tuple[dict[str, Place], dict[str, Place]]:
    """The GPUs that are out, and those under which the trial failed."""
    content = None
    if ray.is_initialized():
        content = internal_kv._internal_kv_get(_devices_key(), namespace="sweeps")
    told = json.loads(content) if content else {"out": [], "met": {}}
    out, met = ([Place(**place) for place in places] for places in (told["out"], told["met"].get(trial, [])))
    return {place.key: place for place in out}, {place.key: place for place in met}


def stop_trial(trial: str) -> None:
    """Tell the worker of a trial of this driver to end it before its next epoch."""
    internal_kv._internal_kv_put(_stopped_key(trial), b"1", namespace="sweeps")


def _stopped_key(trial: str) -> str:
    return f"stopped-{ray.get_runtime_context().get_job_id()}-{trial}"


def _devices_key() -> str:
    return f"devices-{ray.get_runtime_context().get_job_id()}"


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
    scheduler: str = "none"
    """Which rule may end trials early."""
    declared: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Which of the papers' data sets the data are said to be, by their names in the record."""
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
        "declared": options.declared.get(config.data.dataset),
        "config": config_json,
        "measured": json.dumps(options.metrics, sort_keys=True),
        "attempts": attempts,
        "cpus": options.cpus,
        "gpus": options.gpus,
        "git_commit": options.git_commit,
        "git_dirty": options.git_dirty,
        "code": code_of(type(config.method), config.model.model),
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
        self.turns: Turns | None = None
        self.data, self.given = dict(data), options
        self.device = torch.device("cpu")
        self.interruption: Interrupted | None = None
        self.place = Place("", socket.gethostname())
        self.reset_config(config)
        if options.gpus > 0:
            self._find_gpu()
        torch.set_num_threads(options.threads)
        records.be_patient()

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.trial = new_config["trial"]
        # of a trial that was out of memory the driver says how much more it has than the others
        more = {name: self.trial[name] for name in ("cpus", "gpus") if name in self.trial}
        self.options = dataclasses.replace(self.given, **more)
        self.run: Run | None = None
        self.images = 0
        return True

    def _find_gpu(self) -> None:
        """Where this worker trains, asked while the device may still be asked."""
        if ray.is_initialized():
            gpu = str(next(iter(ray.get_gpu_ids()), ""))
            self.place = Place(ray.get_runtime_context().get_node_id(), socket.gethostname(), gpu)
        try:
            self.device = trial_device(True)
        except RuntimeError as error:
            # without a driver, or a torch that uses it, no other GPU of the node is found either
            drives = torch.version.cuda is not None and any(Path("/proc/driver/nvidia/gpus").glob("*"))
            place = self.place if drives else dataclasses.replace(self.place, gpu="")
            self.interruption = DeviceFault(str(error), place, "absent")
            return
        if self.device.type != "cuda":
            return
        try:
            uuid = getattr(torch.cuda.get_device_properties(self.device), "uuid", "")  # older torch has none
            torch.zeros(1, device=self.device).item()
        except RuntimeError as error:
            # of a GPU to itself others have the memory, and go on having it
            if fault(error, torch.device("cpu")) == "memory" and (self.options.gpus < 1 or "gpus" not in self.trial):
                self.interruption = OutOfGpuMemory(f"{self.place}: {first_line(error)}")
            else:
                message = f"{self.place} does not start ({first_line(error)})"
                self.interruption = DeviceFault(message, self.place, "absent")
            return
        self.place = dataclasses.replace(self.place, uuid=str(uuid))

    def __repr__(self) -> str:
        trial = getattr(self, "trial", None)
        return f"{trial['label']} {trial['id']}" if trial else "idle"

    def step(self) -> dict[str, Any]:
        try:
            if self.interruption is not None:
                raise self.interruption
            return self._step()
        except Interrupted as error:
            # in the middle of an epoch, perhaps on a device that does not answer: its last checkpoint is what counts
            self.interruption, self.run = error, None
            raise

    def _step(self) -> dict[str, Any]:
        try:
            run = self.run or self._start()
        except (StorageFailure, Interrupted):
            raise  # not the trial's fault: Tune tries again
        except Exception as error:  # noqa: BLE001 - whatever a trial raises is recorded as its result
            return self._record_unborn(self._blamed(error))
        try:
            if not run.finished:
                with self._turn():
                    if run.epoch == 0:
                        run.begin()
                    if self._is_stopped(run):
                        run.stop(self.options.scheduler)
                    else:
                        run.train_epoch()
        except Exception as error:  # noqa: BLE001 - that of a damaged image is an OSError, and no failure of the storage
            run.fail(self._blamed(error))
        try:
            with _of_storage():
                if run.finished:
                    self._record(run)
                elif time.monotonic() - self.saved >= self.options.checkpoint_seconds:
                    self._save(run)
        except RuntimeError as error:
            if not isinstance(error, StorageFailure):
                self._blamed(error)  # the device's, from which a checkpoint is read, ends the worker
            raise
        row = run.epochs[-1] if run.epochs else {}
        images, self.images = run.images - self.images, run.images
        memory = torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else None
        return {
            "epoch": run.epoch,
            "epochs": self.config_of_trial.training.epochs,
            "images": images,
            "images_per_second": images / row["seconds"] if images and row.get("seconds") else None,
            "gpu_memory": memory,
            "top1": row.get("top1"),
            "loss": row.get("loss"),
            "status": run.status,
            "error": run.error,
            "gpu": self.place.key if self.options.gpus > 0 else None,
            "done": run.finished,
        }

    def _is_stopped(self, run: Run) -> bool:
        """Whether the scheduler ends the trial: where it looks at one trial alone it is asked here, else the driver has
        said so before this epoch began."""
        if self.options.scheduler == "none" or run.epoch == 0:
            return False
        if self.options.scheduler == "collapse":
            top1 = [row.get("top1") for row in run.epochs]
            return has_collapsed(top1, run.data.classes, self.config_of_trial.training.epochs)
        return bool(internal_kv._internal_kv_exists(_stopped_key(self.trial["id"]), namespace="sweeps"))

    def _turn(self) -> contextlib.AbstractContextManager[None]:
        """The trial's processors and GPUs, in turns with other sweeps of this machine."""
        if self.turns is None:
            return contextlib.nullcontext()
        assert self.options.shared is not None
        return self.turns.held({"CPU": self.options.cpus, "GPU": self.options.gpus}, self.options.shared)

    def _blamed(self, error: Exception) -> str:
        """What to record of an exception. Raises `Interrupted` where it is the device's, or may be."""
        kind = fault(error, self.device) if self.options.gpus > 0 else None
        if kind is None:
            return _describe(error)
        if kind != "memory":
            epoch = max(1, self.run.epoch) if self.run is not None else 1
            raise DeviceFault(f"{self.place}: {first_line(error)}", self.place, kind, epoch) from error
        shared = self.options.gpus < 1
        if shared or ("gpus" not in self.trial and held_by_others(self.device)):
            raise OutOfGpuMemory(f"{self.place}, {self.options.gpus:g} of it: {first_line(error)}") from error
        less = "a smaller --batch-size"
        for note in getattr(error, "__notes__", ()):
            name = note.removeprefix(MEASURING)
            flags = [f"--{flag.replace('_', '-')}" for flag in FLAGS.get(name, {}).values() if flag.endswith(_SIZES)]
            less = f"measuring {name} with less ({', '.join(flags)})" if flags else f"--measure without {name}"
        return (
            f"out of GPU memory with a GPU to itself, as by --gpus-per-trial 1: {less} or a GPU with more memory is "
            f"needed ({_describe(error)})"
        )

    def _check_gpu(self) -> None:
        """Raise `DeviceFault` where the trial is not to be tried here."""
        out, met = told_of_devices(self.trial["id"])
        if self.place.key in out:
            raise DeviceFault(f"{self.place} is out", self.place, "refused")
        if self.place.key in met and gpus_left(ray.nodes(), [*out.values(), *met.values()]):
            raise DeviceFault(f"{self.place} failed under this trial", self.place, "refused")
        try:
            check_device(self.device, self.config_of_trial.training)
        except InputError as error:
            # the same words for all such GPUs of a machine
            raise DeviceFault(f"{error} ({self.place.host})", self.place, "unfit") from None

    def _start(self) -> Run:
        """Build the run and continue it from its last checkpoint, if it has one."""
        self.config_of_trial = TrialConfig.from_canonical(json.loads(self.trial["json"]))
        if self.options.gpus > 0:
            self._check_gpu()
        self.checkpoints = checkpoints_of(self.options.sweep, self.trial["id"])
        # null where it is not known: begun by a version that did not tell, or of source that changed meanwhile
        self.code: str | None = code_of(type(self.config_of_trial.method), self.config_of_trial.model.model)
        data = self._data(self.config_of_trial.data)
        if self.options.shared is not None and self.turns is None:
            with _of_storage():
                self.turns = Turns(trial_of=self.options.name[:100])
        unusable = ""
        with _of_storage():
            try:
                state, complaints = self.checkpoints.load()
            except CheckpointError as error:
                state, complaints, unusable = None, [], str(error)
            if state is not None:
                begun_by = state.pop("code", None)
                if begun_by and self.code and begun_by != self.code:
                    self.checkpoints.delete()
                    complaints.append(f"{self.checkpoints.folder}: of code {begun_by}, which is {self.code} now")
                    state = None
                else:
                    self.code = self.code and begun_by
            # only now, as nothing has been tried where data or checkpoint could not be had
            self.attempts = self.checkpoints.count_start()
        self.saved = time.monotonic()
        metrics = {name: METRICS[name](**options) for name, options in self.options.metrics.items()}
        run = Run(self.config_of_trial, data, metrics=metrics, device=self.device, fresh=state is None)
        if unusable:
            run.fail(f"no usable checkpoint: {unusable}; --retry-failed starts this trial again from the beginning")
        for line in complaints:
            used = "the checkpoint before it is used" if state is not None else "the trial begins again"
            print(f"{line}; {used}", file=sys.stderr)
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

    def _identity(self, attempts: int) -> dict[str, Any]:
        row = trial_row(self.trial["id"], self.config_of_trial, self.trial["json"], self.options, attempts, self.device)
        return {**row, "code": self.code}

    def _save(self, run: Run) -> None:
        self.checkpoints.save(run.epoch, {**run.state(), "code": self.code})
        self.saved = time.monotonic()

    def _record_unborn(self, error: str) -> dict[str, Any]:
        """Record a trial that failed before its run could be built or continued; its checkpoints stay as they are."""
        with _of_storage():
            attempts = max(1, self.checkpoints.starts())
            row = self._identity(attempts)
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
            "gpu": None,
            "done": True,
        }

    def _record(self, run: Run) -> None:
        trial, epochs, measurements, maps = run.tables()
        identity = self._identity(self.attempts)
        if self.options.keep_models and run.status == "completed":
            write_model(model_file(self.options.sweep, self.trial["id"]), run.model, run.data)
        names = json.dumps(run.data.class_names, ensure_ascii=False)
        records.write_trial(self.options.sweep, {**identity, "class_names": names, **trial}, epochs, measurements, maps)
        if not self.options.keep_checkpoints and run.status != "failed":
            self.checkpoints.delete()

    def cleanup(self) -> None:
        """A trial stopped before its end keeps what it has trained; on a GPU that is out, others are kept off."""
        if isinstance(self.interruption, DeviceFault):
            time.sleep(self._holds(self.interruption))
        run = self.run
        if run is not None and not run.finished and run.epoch > 0:
            try:
                self._save(run)
            except RuntimeError as error:
                if fault(error, self.device) is None:
                    raise
                print(f"{self.place}: {first_line(error)}; the checkpoint before it stays", file=sys.stderr)

    def _holds(self, interruption: DeviceFault) -> float:
        """Seconds for which the place stays taken; the driver has heard of the fault by now."""
        place, kind = interruption.place, interruption.kind
        if kind in ("absent", "unfit") or place.key in told_of_devices(self.trial["id"])[0]:
            return HOLDS_BAD_GPU
        return HOLDS_ELSEWHERE if kind == "refused" else 0.0


_SIZES = ("images", "samples", "pixels", "panels", "restarts", "initialisations")
"""How the options of metrics end that say of how much they measure."""


def _describe(error: Exception) -> str:
    """The exception in one line, with the place in this project or its libraries that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({frames[-1].filename.rsplit('/', 1)[-1]}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())}{place}"
