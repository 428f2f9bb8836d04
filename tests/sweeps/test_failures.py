"""Whose fault it is that a trial was interrupted: its own, the storage's or a node's."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import cloudpickle
import PIL
import pytest
from ray.exceptions import RayActorError, RayTaskError
from rich.console import Console

from analysis import records, tables
from sweeps.driver import progress
from sweeps.driver.failures import cause, told
from sweeps.driver.gauges import Gauges
from sweeps.driver.progress import Progress
from sweeps.flags import read_flags
from sweeps.pilcro import PRESETS, PilcroSweep
from sweeps.plan import make_plan
from trainables import trainable
from trainables.checkpoints import Checkpoints
from trainables.data import SharedData, load_each
from trainables.devices import Place
from trainables.trainable import Data, DeviceFault, StorageFailure, Trial, TrialOptions, checkpoints_of
from trainables.training import Run


def actor(storage: Path, data: Data | None = None, gpus: float = 0.0) -> Trial:
    """The first trial of a small sweep, without Ray."""
    flags = read_flags(PilcroSweep, PRESETS, ["--train-images", "200", "--initialisations", "1", "--measure"], "")
    plan = make_plan(flags)
    options = TrialOptions(str(storage), "s", flags.metrics(), 0.0, False, False, 1, 1.0, gpus, None, None, "0")
    found = Trial.__new__(Trial)
    digits = data or load_each("digits", "unused", [plan.trials[0].config.data])
    found.setup({"trial": plan.trials[0].payload()}, data={"digits": digits}, options=options)
    return found


def starts(one: Trial) -> int:
    return checkpoints_of(one.options.sweep, one.trial["id"]).starts()


@pytest.mark.parametrize("error", [PIL.UnidentifiedImageError("cannot identify 7.jpg"), OSError("image is truncated")])
def test_an_image_that_cannot_be_read_is_the_trials(
    error: OSError, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def harmed(run: Run) -> None:
        raise error

    one = actor(tmp_path / "s")
    assert not one.step()["done"]
    monkeypatch.setattr(Run, "train_epoch", harmed)
    assert one.step()["status"] == "failed"
    (row,) = records.read_sweep(str(tmp_path / "s")).trials.to_pylist()
    assert (row["status"], row["attempts"]) == ("failed", 1)
    assert str(error) in row["error"]


def test_an_image_that_cannot_be_read_at_the_beginning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def harmed(*_: object, **__: object) -> None:
        raise PIL.UnidentifiedImageError("cannot identify 7.jpg")

    one = actor(tmp_path / "s")
    monkeypatch.setattr(trainable, "Run", harmed)
    assert one.step()["status"] == "failed"
    (row,) = records.read_sweep(str(tmp_path / "s")).trials.to_pylist()
    assert (row["status"], row["attempts"]) == ("failed", 1)


@pytest.mark.parametrize("method", ["save", "load", "count_start"])
def test_a_storage_that_fails_is_not(method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def harmed(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(Checkpoints, method, harmed)
    one = actor(tmp_path / "s")
    with pytest.raises(StorageFailure, match="No space left"):
        one.step()
    assert not (tmp_path / "s" / "trials").exists()
    # what has not begun is not counted
    assert starts(one) == (1 if method == "save" else 0)


@pytest.mark.parametrize(("module", "method"), [(tables, "_opened"), (records, "put_file")], ids=["read", "write"])
def test_a_storage_that_fails_when_the_trial_has_ended_is_not(
    module: ModuleType, method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def harmed(*_: object) -> None:
        raise OSError("the token has expired")

    one = actor(tmp_path / "s")
    step = one.step()
    while step["epoch"] < step["epochs"] - 1:
        step = one.step()
    with monkeypatch.context() as failing:
        failing.setattr(module, method, harmed)
        with pytest.raises(StorageFailure, match="the token has expired"):
            one.step()
    assert not (tmp_path / "s" / "trials").exists()
    assert one.step()["status"] == "completed"


def test_data_that_cannot_be_had_are_no_start(tmp_path: Path) -> None:
    config = make_plan(read_flags(PilcroSweep, PRESETS, [], "")).trials[0].config.data
    one = actor(tmp_path / "s", SharedData("parquet:/nowhere", "data", (config,)))
    for _ in range(2):
        with pytest.raises(StorageFailure, match="cannot load its data"):
            one.step()
    assert starts(one) == 0


def test_a_node_without_its_gpu_is_not_the_trials_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error counts against no trial where Tune sees it, and the place there stays taken."""
    slept: list[float] = []
    monkeypatch.setattr(trainable.torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("SWEEPS_DRILL_FAKE_GPUS", raising=False)
    monkeypatch.setattr(trainable.time, "sleep", slept.append)
    one = actor(tmp_path / "s", gpus=0.5)
    with pytest.raises(DeviceFault, match="where torch finds none") as raised:
        one.step()
    arrived = pickle.loads(pickle.dumps(raised.value))
    seen = RayTaskError("step", "traceback", arrived).as_instanceof_cause()
    assert isinstance(seen, RayActorError)
    assert seen.preempted
    assert "where torch finds none" in str(arrived)
    assert not (tmp_path / "s").exists()
    one.cleanup()
    assert slept == [trainable.HOLDS_BAD_GPU]


def interrupted(folder: Path, identity: str, error: Exception) -> Any:
    """One of Tune's trials after an error."""
    file = folder / f"{identity}.pkl"
    file.write_bytes(cloudpickle.dumps(error))
    return SimpleNamespace(config={"trial": {"id": identity}}, pickled_error_file=str(file))


def test_the_cause(tmp_path: Path) -> None:
    storage = StorageFailure("full")
    assert isinstance(cause(interrupted(tmp_path, "a", RayTaskError("step", "", storage))), StorageFailure)
    assert isinstance(cause(interrupted(tmp_path, "b", RayActorError(error_msg="killed"))), RayActorError)
    assert cause(SimpleNamespace(pickled_error_file=None)) is None


def test_the_end_of_an_error_is_told_in_a_line() -> None:
    error = ValueError("no such table " + 600 * "x" + "\nat all")
    raised = RayTaskError("step", "Traceback (most recent call last):\n  File 1\nValueError: no", error)
    kept = cloudpickle.loads(cloudpickle.dumps(raised.as_instanceof_cause()))  # as Tune keeps it
    assert told(kept) == "ValueError: no such table " + 600 * "x" + " at all"
    died = RayActorError(error_msg="The actor died.\n\tactor_id: 7\nIts worker process has died: SYSTEM_ERROR")
    assert told(died) == "Its worker process has died: SYSTEM_ERROR"
    assert told("Failure # 4 (occurred at noon)\nTuneError: no\n") == "TuneError: no"


def test_what_is_said_after_a_failure_of_the_storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The trial is neither done nor failed, and no worker was lost."""
    labels = dict.fromkeys(("a", "b", "c"), "α=1")
    view = Progress(dict.fromkeys(labels, 1.0), labels, 0, Console())
    gauges = Gauges("s", labels, 3, 0)
    lost: list[int] = []
    monkeypatch.setattr(gauges.lost, "inc", lambda number, tags: lost.append(number))
    full = interrupted(tmp_path, "a", RayTaskError("step", "", StorageFailure("full")))
    killed = interrupted(tmp_path, "b", RayActorError(error_msg="killed"))
    blind = interrupted(tmp_path, "c", RayTaskError("step", "", DeviceFault("no GPU", Place("n", "host"), "absent")))
    for callback in (view, gauges):
        for trial in (full, killed, blind):
            callback.on_trial_start(0, [], trial)
            callback.on_trial_recover(0, [], trial)
    assert "0/3 trials done · 0 running · 3 to do" in view.line()
    assert lost == [1]
    for callback in (view, gauges):
        for trial in (full, killed):
            callback.on_trial_start(0, [], trial)
            callback.on_trial_error(0, [], trial)
    assert view.line().startswith("1/3 trials done · 0 running · 1 to do")
    assert "1 failed · 1 not finished" in view.line()
    counts = gauges.counts()
    assert (counts["failed"], counts["pending"], counts["running"]) == (1, 2, 0)


def test_what_is_lacking_while_nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once in a while, though nothing happens; no more when a trial runs, or when there is none to run."""
    clock = [0.0]
    out = io.StringIO()
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    node = {"Alive": True, "Resources": {"CPU": 4.0}}
    monkeypatch.setattr(progress.ray, "nodes", lambda: [node, {**node, "Alive": False}])
    monkeypatch.setattr(progress.ray, "available_resources", lambda: {"CPU": 3.0})
    monkeypatch.setattr(progress, "autoscaling", str)
    view = Progress({"a": 1.0}, {"a": "α=1"}, 0, Console(file=out), (1.0, 0.5))
    trial = SimpleNamespace(config={"trial": {"id": "a"}}, pickled_error_file=None)

    def lines(seconds: float) -> int:
        before = out.getvalue().count("waiting for a node")
        for _ in range(int(seconds)):
            clock[0] += 1
            view.on_step_end(0, [])
        return out.getvalue().count("waiting for a node") - before

    assert lines(59) == 0
    assert lines(61) == 2
    assert (
        "0/1 trials done · 0 running · 1 to do · time left: measuring · "
        "waiting for a node with 1 CPUs and 0.5 GPUs free (living nodes: 1; 3 of 4 CPUs free, 0 of 0 GPUs free)\n"
    ) in out.getvalue()
    view.on_trial_start(0, [], trial)
    assert lines(200) == 0
    assert "waiting" not in view.line()
    view.on_trial_recover(0, [], trial)
    assert lines(120) == 2
    view.on_trial_complete(0, [], trial)
    assert lines(200) == 0
    assert "waiting" not in view.line()


def test_what_the_autoscaler_is_at(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = SimpleNamespace(ray_node_type_name="gpu", count=1, details="InsufficientInstanceCapacity:\n none left")
    launched = SimpleNamespace(ray_node_type_name="gpu", count=2, details=None)
    status = SimpleNamespace(pending_launches=[launched], pending_nodes=[object()], failed_launches=[refused])
    monkeypatch.setattr(progress.ray, "get_runtime_context", lambda: SimpleNamespace(gcs_address="10.0.0.1:6379"))
    monkeypatch.setattr(progress, "get_cluster_status", lambda address, timeout: status)
    assert progress.autoscaling() == "; 3 starting; gpu: InsufficientInstanceCapacity: none left"

    def none(*_: object, **__: object) -> None:
        raise RuntimeError("no autoscaler")

    monkeypatch.setattr(progress, "get_cluster_status", none)
    assert progress.autoscaling() == ""
