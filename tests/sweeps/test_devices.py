"""GPUs that fail under trials, and trials that fail on every GPU: which is to blame, and what becomes of both.

The GPUs are Ray's count alone (SWEEPS_DRILL_FAKE_GPUS=1), their errors are raised on the CPU with torch's words.
"""

from __future__ import annotations

import os
import pickle
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cloudpickle
import pytest
import torch
from ray.exceptions import RayActorError, RayTaskError
from ray.tune.experiment import Trial as TuneTrial

from analysis import records
from analysis.records import read_sweep
from sweeps.driver import failures, losses
from sweeps.driver.failures import MAX_DEVICE_FAULTS, MAX_FAULTS, BadDevices
from sweeps.driver.losses import Roomier
from sweeps.driver.pending import GOES_ON
from tests.sweeps.driving import ROOT, SCRIPT, patched, results
from tests.sweeps.test_failures import actor, starts
from trainables import trainable
from trainables.devices import Place
from trainables.trainable import DeviceFault, OutOfGpuMemory
from trainables.training import Run

ILLEGAL = "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be asynchronously reported"
ASSERT = "CUDA error: device-side assert triggered\nCompile with `TORCH_USE_CUDA_DSA` to enable device-side assertions."
MEMORY = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 15.77 GiB"


class Cluster:
    """What the driver and the workers see of a cluster whose nodes have so many GPUs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **gpus: float) -> None:
        self.nodes = [{"NodeID": name, "Alive": True, "Resources": {"GPU": number}} for name, number in gpus.items()]
        self.told: dict[str, Any] = {}
        monkeypatch.setattr(failures.ray, "nodes", lambda: self.nodes)
        monkeypatch.setattr(failures, "tell_of_devices", self._tell)

    def _tell(self, out: dict[str, Place], met: dict[str, dict[str, Place]]) -> None:
        self.told = {"out": set(out), "met": {trial: set(places) for trial, places in met.items()}}


def gpu(number: int, node: str = "x") -> Place:
    return Place(node, node, str(number))


def failed(where: Place, kind: str = "device", epoch: int = 1) -> DeviceFault:
    return DeviceFault(f"{where}: CUDA error", where, kind, epoch)  # type: ignore[arg-type]


def trained(book: BadDevices, trial: str, epoch: int, where: Place) -> None:
    result = {"epoch": epoch, "gpu": where.key, "status": None}
    book.on_trial_result(0, [], SimpleNamespace(config={"trial": {"id": trial}}), result)


class TestWhoIsToBlame:
    def test_a_gpu_that_fails_under_two_trials(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Named once, and told to the workers; the second time under the same trial says nothing more."""
        cluster = Cluster(monkeypatch, x=2.0)
        book = BadDevices(0.0, 10)
        assert not book.met("a", failed(gpu(1), epoch=4))
        assert not book.met("a", failed(gpu(1), epoch=4))
        assert book.out == {}
        assert cluster.told == {"out": set(), "met": {"a": {"x/1"}}}
        assert capsys.readouterr().err == ""
        for trial in ("b", "c"):
            assert not book.met(trial, failed(gpu(1)))
        assert set(book.out) == cluster.told["out"] == {"x/1"}
        assert capsys.readouterr().err == "GPU 1 of x: CUDA error; it failed 3 times; its trials go elsewhere\n"
        assert not book.only.is_set()
        assert book.told() == []

    def test_one_that_is_broken_for_sure(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Out after two times, under whichever trials, and no trial is given up for it."""
        Cluster(monkeypatch, x=2.0)
        book = BadDevices(0.0, 10)
        for _ in range(2):
            assert not book.met("a", failed(gpu(1), "broken", epoch=4))
        assert set(book.out) == {"x/1"}

    def test_a_trial_under_which_every_gpu_fails(self, monkeypatch: pytest.MonkeyPatch) -> None:
        Cluster(monkeypatch, x=4.0)
        book = BadDevices(0.0, 10)
        given_up = [book.met("a", failed(gpu(number), epoch=4)) for number in range(MAX_DEVICE_FAULTS)]
        assert given_up == [False] * (MAX_DEVICE_FAULTS - 1) + [True]
        assert book.out == {}
        assert len(book.told()) == MAX_DEVICE_FAULTS

    def test_two_such_trials_that_cross(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Each GPU has failed under two trials, each of which is known to fail elsewhere too."""
        Cluster(monkeypatch, x=2.0)
        book = BadDevices(0.0, 10)
        for trial, number in (("a", 0), ("b", 1), ("a", 1), ("b", 0)):
            assert not book.met(trial, failed(gpu(number)))
        assert book.out == {}
        assert book.met("a", failed(gpu(0)))
        assert book.met("b", failed(gpu(0)))
        assert book.out == {}

    def test_assertions_of_a_trial_say_nothing_of_the_gpu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """However many trials have them, on one GPU; each is given up."""
        Cluster(monkeypatch, x=1.0)
        book = BadDevices(0.0, 10)
        for trial in "abcd":
            given_up = [book.met(trial, failed(gpu(0), "own", epoch=3)) for _ in range(MAX_DEVICE_FAULTS)]
            assert given_up[-1]
        assert book.out == {}
        assert not book.only.is_set()

    def test_what_the_trial_gets_past_elsewhere_was_the_gpu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Two broken GPUs of three, each of which the first trial meets: it is not to blame in the end."""
        Cluster(monkeypatch, x=3.0)
        book = BadDevices(0.0, 10)
        assert not book.met("a", failed(gpu(0), epoch=4))
        assert not book.met("a", failed(gpu(1), epoch=4))
        assert not book.met("b", failed(gpu(0), epoch=6))
        assert book.out == {}  # it could be the first trial
        trained(book, "a", 3, gpu(2))  # once more what it had done before
        assert book.out == {}
        trained(book, "a", 4, gpu(2))
        assert set(book.out) == {"x/0"}
        assert not book.met("c", failed(gpu(1), epoch=6))
        assert set(book.out) == {"x/0", "x/1"}
        # and its past does not count against it
        assert not book.met("a", failed(gpu(2), epoch=10))
        assert not book.met("a", failed(gpu(2), epoch=10))

    def test_the_last_gpu_fails_thrice_in_a_row(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        Cluster(monkeypatch, x=1.0)
        book = BadDevices(0.0, 10)
        book.met("a", failed(gpu(0)))
        book.met("b", failed(gpu(0)))
        assert not book.only.is_set()
        trained(book, "c", 1, gpu(0))
        book.met("d", failed(gpu(0)))
        book.met("e", failed(gpu(0)))
        assert not book.only.is_set()  # it has worked in between
        book.met("f", failed(gpu(0)))
        assert book.only.is_set()
        assert capsys.readouterr().err == ""  # told as the end of the run
        # two trials are all that are left
        book = BadDevices(0.0, 3)
        book.on_trial_complete(0, [], None)
        book.met("a", failed(gpu(0)))
        assert not book.only.is_set()
        book.met("b", failed(gpu(0)))
        assert book.only.is_set()

    def test_no_trial_is_tried_for_ever_on_broken_gpus(self, monkeypatch: pytest.MonkeyPatch) -> None:
        Cluster(monkeypatch, x=100.0)
        book = BadDevices(0.0, 10)
        given_up = [book.met("a", failed(gpu(number), "broken")) for number in range(MAX_FAULTS)]
        assert given_up == [False] * (MAX_FAULTS - 1) + [True]

    def test_gpus_that_torch_does_not_find(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Out at once; of a node without a driver all of them."""
        Cluster(monkeypatch, x=8.0, y=2.0)
        book = BadDevices(0.0, 10)
        for _ in range(2):
            assert not book.met("a", DeviceFault("x has none", Place("x", "x"), "absent"))
        assert capsys.readouterr().err == "x has none; its trials go elsewhere\n"
        assert not book.met("a", DeviceFault("y/0 is not found", gpu(0, "y"), "absent"))
        assert not book.only.is_set()
        assert not book.met("a", DeviceFault("y/1 is not found", gpu(1, "y"), "absent"))
        assert book.only.is_set()
        # an autoscaler that may have more brings them
        book = BadDevices(11.0, 10)
        for where in (Place("x", "x"), Place("y", "y")):
            book.met("a", DeviceFault(f"{where}: none", where, "absent"))
        assert not book.only.is_set()

    def test_gpus_that_cannot_do_what_is_asked_for_end_the_run(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Also where an autoscaler would start more of them; said once for all of a machine."""
        Cluster(monkeypatch, x=2.0, y=1.0)
        book = BadDevices(50.0, 10)
        for where in (gpu(0), gpu(1)):
            book.met("a", DeviceFault("precision: bf16, allowed is float32 on T4 (x)", where, "unfit"))
        assert not book.only.is_set()
        assert capsys.readouterr().err.count("\n") == 1
        book.met("a", DeviceFault("precision: bf16, allowed is float32 on T4 (y)", gpu(0, "y"), "unfit"))
        assert book.only.is_set()

    def test_where_a_trial_was_not_tried_it_lost_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        Cluster(monkeypatch, x=2.0)
        book = BadDevices(0.0, 10)
        assert not any(book.met("a", failed(gpu(1), "refused")) for _ in range(50))
        assert (book.out, book.faults) == ({}, [])
        # a node that began anew: the GPU is the same
        book.met("a", DeviceFault("", Place("x", "x", "0", "GPU-7"), "absent"))
        book.met("a", DeviceFault("", Place("z", "x", "1", "GPU-7"), "refused"))
        assert book.out["GPU-7"].node == "z"


class Failing:
    """What Tune keeps of a trial's failures."""

    def __init__(self) -> None:
        self.config, self.max_failures = {"trial": {"id": "a"}}, 3
        self.run_metadata = SimpleNamespace(num_failures=0, last_result={"epoch": 4})

    def meet(self, error: Exception) -> bool:
        """Whether it is tried again."""
        seen = RayTaskError("step", "", pickle.loads(pickle.dumps(error))).as_instanceof_cause()
        assert isinstance(seen, RayActorError)
        TuneTrial._handle_ray_actor_error(self, seen)
        return self.run_metadata.num_failures <= self.max_failures


def test_what_tune_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    Cluster(monkeypatch, x=4.0)
    book = BadDevices(0.0, 10)
    with losses.mended_tune(book) as node_losses:
        trial = Failing()
        assert all(trial.meet(failed(gpu(9), "refused")) for _ in range(2 * losses.MAX_NODE_LOSSES))
        assert all(trial.meet(OutOfGpuMemory("full")) for _ in range(2))
        assert [trial.meet(failed(gpu(number))) for number in range(MAX_DEVICE_FAULTS)] == [True, True, False]
        assert node_losses == {}
        assert [fault.epoch for fault in book.faults] == [1] * MAX_DEVICE_FAULTS


class TestWorker:
    @pytest.fixture(autouse=True)
    def fake(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SWEEPS_DRILL_FAKE_GPUS", "1")

    @staticmethod
    def fails(monkeypatch: pytest.MonkeyPatch, error: Exception, name: str = "train_epoch") -> None:
        def harmed(run: Run) -> None:
            run.epoch += 1  # as in the middle of one
            raise error

        monkeypatch.setattr(Run, name, harmed)

    @pytest.mark.parametrize(
        ("error", "kind"),
        [
            (torch.AcceleratorError(ILLEGAL), "device"),
            (RuntimeError(ASSERT), "own"),
            (torch.AcceleratorError("CUDA error: uncorrectable ECC error encountered"), "broken"),
        ],
    )
    def test_a_device_that_fails_ends_the_worker(
        self, error: Exception, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nothing is recorded, the last checkpoint is that of the last whole epoch, and it goes on from there."""
        slept: list[float] = []
        monkeypatch.setattr(trainable.time, "sleep", slept.append)
        one = actor(tmp_path / "s", gpus=0.5)
        one.step()
        one.step()
        kept = sorted((tmp_path / "s").rglob("*.pt"))
        with monkeypatch.context() as broken:
            self.fails(broken, error)
            with pytest.raises(DeviceFault, match=r"^the GPU of .*: CUDA error: ") as raised:
                one.step()
            one.cleanup()
        assert slept == [0.0]  # it may be the trial: others may have the place
        arrived = pickle.loads(pickle.dumps(raised.value))
        assert (arrived.kind, arrived.place, arrived.epoch) == (kind, one.place, 3)
        assert arrived.preempted
        assert "\n" not in str(arrived)
        assert "Compile" not in str(arrived)
        assert not (tmp_path / "s" / "trials").exists()
        assert sorted((tmp_path / "s").rglob("*.pt")) == kept
        assert actor(tmp_path / "s", gpus=0.5).step()["epoch"] == 3

    def test_a_device_that_fails_as_a_checkpoint_is_read_from_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def harmed(run: Run) -> None:
            raise torch.AcceleratorError(ILLEGAL)

        one = actor(tmp_path / "s", gpus=0.5)
        one.step()
        monkeypatch.setattr(Run, "state", harmed)
        one.cleanup()  # stopped by the driver: no reason to raise
        assert "the checkpoint before it stays" in capsys.readouterr().err
        with pytest.raises(DeviceFault):
            one.step()
        assert not (tmp_path / "s" / "trials").exists()

    def test_the_same_words_on_the_cpu_are_a_failure(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        one = actor(tmp_path / "s")
        self.fails(monkeypatch, torch.AcceleratorError(ILLEGAL))
        assert one.step()["status"] == "failed"

    def test_where_it_is_not_to_be_tried(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """On a GPU that is out, or where it failed before while there are others: not begun; others are kept off."""
        slept: list[float] = []
        monkeypatch.setattr(trainable.time, "sleep", slept.append)
        here, other = Place("", trainable.socket.gethostname()), gpu(0)
        nodes = [{"NodeID": "x", "Alive": True, "Resources": {"GPU": 1.0}}]
        monkeypatch.setattr(trainable.ray, "nodes", lambda: nodes)
        for out, met, held in (({here.key: here}, {}, 300), ({}, {here.key: here}, 60)):
            monkeypatch.setattr(trainable, "told_of_devices", lambda _, told=(out, met): told)
            one = actor(tmp_path / "s", gpus=0.5)
            with pytest.raises(DeviceFault) as raised:
                one.step()
            assert raised.value.kind == "refused"
            one.cleanup()
            assert slept.pop() == held
        assert not (tmp_path / "s").exists()
        # it has failed on all that are left
        told = {}, {here.key: here, other.key: other}
        monkeypatch.setattr(trainable, "told_of_devices", lambda _: told)
        assert actor(tmp_path / "s", gpus=0.5).step()["epoch"] == 1

    def test_a_gpu_that_is_out_by_now_is_held(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        slept: list[float] = []
        monkeypatch.setattr(trainable.time, "sleep", slept.append)
        one = actor(tmp_path / "s", gpus=0.5)
        self.fails(monkeypatch, torch.AcceleratorError(ILLEGAL))
        with pytest.raises(DeviceFault):
            one.step()
        monkeypatch.setattr(trainable, "told_of_devices", lambda _: ({one.place.key: one.place}, {}))
        one.cleanup()
        assert slept == [trainable.HOLDS_BAD_GPU]

    @pytest.mark.parametrize(
        ("words", "kind"),
        [
            ("CUDA error: uncorrectable ECC error encountered", DeviceFault),
            ("CUDA error: out of memory", OutOfGpuMemory),
        ],
    )
    def test_a_gpu_that_does_not_start(
        self, words: str, kind: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def raising(_: object) -> None:
            raise torch.AcceleratorError(words)

        monkeypatch.setattr(trainable.torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(trainable.torch.cuda, "get_device_properties", raising)
        one = actor(tmp_path / "s", gpus=0.5)
        with pytest.raises(kind, match=words):
            one.step()
        # with a GPU to itself, the second time: others go on having its memory
        one.reset_config({"trial": {**one.trial, "gpus": 1.0}})
        one._find_gpu()
        with pytest.raises(DeviceFault, match=f"does not start .{words}"):
            one.step()
        assert not (tmp_path / "s").exists()

    def test_bf16_that_a_gpu_has_not_is_no_failure(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refused(*_: object) -> None:
            raise trainable.InputError("precision: bf16, allowed is float32 on Tesla T4")

        monkeypatch.setattr(trainable, "check_device", refused)
        one = actor(tmp_path / "s", gpus=0.5)
        with pytest.raises(DeviceFault, match=r"^precision: bf16, allowed is float32 on Tesla T4 ") as raised:
            one.step()
        assert raised.value.kind == "unfit"
        assert not (tmp_path / "s").exists()

    def test_out_of_memory_on_a_shared_gpu(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """It keeps its checkpoint for another time; alone it is recorded, and keeps it too."""
        one = actor(tmp_path / "s", gpus=0.5)
        one.step()
        self.fails(monkeypatch, torch.OutOfMemoryError(MEMORY))
        with pytest.raises(OutOfGpuMemory, match=r"0\.5 of it: CUDA out of memory"):
            one.step()
        one.cleanup()
        assert not (tmp_path / "s" / "trials").exists()
        alone = actor(tmp_path / "s", gpus=0.5)
        alone.reset_config({"trial": {**alone.trial, "gpus": 1.0}})
        assert alone.step()["status"] == "failed"
        (row,) = records.read_sweep(str(tmp_path / "s")).trials.to_pylist()
        assert (row["status"], row["gpus"], row["attempts"]) == ("failed", 1.0, 2)
        assert row["error"].startswith(
            "out of GPU memory with a GPU to itself, as by --gpus-per-trial 1: a smaller --batch-size or a GPU with "
            "more memory is needed (OutOfMemoryError: CUDA out of memory."
        )
        assert [path.name[:6] for path in (tmp_path / "s").rglob("*.pt")] == ["000001"]
        assert starts(alone) == 2

    @pytest.mark.parametrize(
        ("metric", "words"),
        [("landscape", r"measuring landscape with less \(--landscape-images\)"), ("entropy", "--saliency-images")],
    )
    def test_out_of_memory_in_measuring(
        self, metric: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Hungry:
            def measure(self, moment: object) -> None:
                raise torch.OutOfMemoryError(MEMORY)

        one = actor(tmp_path / "s", gpus=1.0)
        one._start()
        assert one.run is not None
        one.run.metrics = {metric: Hungry()}
        assert one.step()["status"] == "failed"
        (row,) = records.read_sweep(str(tmp_path / "s")).trials.to_pylist()
        assert "--batch-size" not in row["error"]
        assert re.search(words, row["error"])

    def test_a_gpu_of_its_own_where_others_hold_memory(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Tried once more, and once only."""
        monkeypatch.setattr(trainable, "held_by_others", lambda _: True)
        self.fails(monkeypatch, torch.OutOfMemoryError(MEMORY))
        one = actor(tmp_path / "s", gpus=1.0)
        with pytest.raises(OutOfGpuMemory):
            one.step()
        one = actor(tmp_path / "s", gpus=1.0)
        one.reset_config({"trial": {**one.trial, "gpus": 1.0}})
        assert one.step()["status"] == "failed"


class Pending:
    """One of Tune's trials that was interrupted."""

    def __init__(self, folder: Path, error: Exception) -> None:
        self.pickled_error_file = str(folder / "error.pkl")
        Path(self.pickled_error_file).write_bytes(cloudpickle.dumps(error))
        self.config = {"trial": {"id": "a", "label": "α=1"}}
        self.resources: dict[str, float] = {}
        self.status = "ERROR"

    def update_resources(self, resources: dict[str, float]) -> None:
        self.resources = resources


def test_how_much_more_a_trial_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler = Roomier(1.0, 0.3)
    trial = Pending(tmp_path, RayTaskError("step", "", OutOfGpuMemory("full")))
    for share in (0.6, 1.0, 1.0):
        scheduler.on_trial_error(None, trial)
        assert trial.resources == {"cpu": 1.0, "gpu": share}
        assert trial.config["trial"] == {"id": "a", "label": "α=1", "cpus": 1.0, "gpus": share}
    assert scheduler.told() == [
        "out of GPU memory with --gpus-per-trial 0.3, and tried again with up to 1: 1 trial; "
        "a larger --gpus-per-trial or a smaller --batch-size spares that"
    ]
    # two GPUs for each trial are not made one
    whole = Roomier(1.0, 2.0)
    whole.on_trial_error(None, trial := Pending(tmp_path, RayTaskError("step", "", OutOfGpuMemory("full"))))
    assert trial.resources == {"cpu": 1.0, "gpu": 2.0}
    assert whole.told() == []


def test_processors_of_a_trial_whose_node_ran_low(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [
        {"Alive": True, "Resources": {"CPU": 3.0, "GPU": 1.0}},
        {"Alive": True, "Resources": {"CPU": 64.0}},
        {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 1.0}},
    ]
    monkeypatch.setattr(losses.ray, "nodes", lambda: nodes)
    scheduler = Roomier(1.0, 0.5)
    trial = Pending(tmp_path, RayActorError(error_msg="killed due to the node running low on memory"))
    for share in (2.0, 3.0, 3.0):
        scheduler.on_trial_error(None, trial)
        assert trial.resources == {"cpu": share, "gpu": 0.5}
    assert scheduler.told()[0].startswith(
        "out of memory with --cpus-per-trial 1, and tried again with up to 3: 1 trial"
    )
    # at the last time it still runs, to Tune, which would refuse
    trial.status, trial.resources = "RUNNING", {}
    scheduler.on_trial_error(None, trial)
    assert trial.resources == {}
    other = Pending(tmp_path, RayActorError(error_msg="died"))
    scheduler.on_trial_error(None, other)
    assert other.resources == {}


# --- whole sweeps on a cluster of one node with two GPUs that Ray counts

pytest_ray = [
    pytest.mark.long,
    pytest.mark.ray,
    pytest.mark.skipif(
        os.geteuid() != 0 or not shutil.which("unshare") or not shutil.which("ip"),
        reason="needs root, unshare and ip (Debian: util-linux, iproute2) for namespaces",
    ),
]
TEN = [
    *("--alpha", "1", "10", "--variant", "target", "curvature", "--train-images", "300", "--initialisations", "2"),
    *("--epochs", "8", "--checkpoint-seconds", "0"),
]


class Drill:
    """Sweeps on a cluster of this machine, one after another, in namespaces; each with the harm that is done to its
    trials."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.commands: list[str] = []
        # workers have the environment of their node, and not of their driver
        harm = folder / "harm"
        there = f"__import__('os').path.exists({str(harm)!r})"
        self.patch = patched(folder / "patch", there, f"exec(open({str(harm)!r}).read(), {{'run': run}})")

    def sweep(self, name: str, *argv: str, when: str = "", raised: str = "", storage: str = "") -> None:
        """One with more flags, in which a process raises an error when it is so, and from then on at every call."""
        harm = self.folder / "harm"
        if when:
            (self.folder / f"{name}.harm").write_text(
                "import os, sys, ray, torch\n"
                f"if hasattr(sys, 'sticky') or ({when}):\n    sys.sticky = True\n    raise {raised}\n"
            )
        self.commands.append(f"cp {self.folder / name}.harm {harm}" if when else f"rm -f {harm}")
        sweep = " ".join([sys.executable, SCRIPT, *TEN, *argv, "--storage", str(self.folder / (storage or name))])
        out = self.folder / name
        self.commands.append(f"RAY_ADDRESS=127.0.0.1:6399 {sweep} > {out}.out 2> {out}.err; echo $? > {out}.code")

    def run(self, cpus: int = 2, gpus: int = 2) -> None:
        short = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # Ray's socket paths must stay under 107 bytes
        ray = f"{Path(sys.executable).parent}/ray"
        head = f"{ray} start --head --port 6399 --num-cpus {cpus} --num-gpus {gpus} --include-dashboard false"
        script = f"""
            ip link set lo up && ip link add v0 type veth peer name v1 && ip addr add 10.77.0.1/24 dev v0
            ip link set v0 up && ip link set v1 up && ip route add default via 10.77.0.254 dev v0
            PYTHONPATH={self.patch["PYTHONPATH"]} {head} --temp-dir {short}
            {"; ".join(self.commands)}
            {ray} stop --force
        """
        environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
        environment |= {"HOME": short, "RAY_TMPDIR": short, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
        environment |= {"SWEEPS_DRILL_FAKE_GPUS": "1"}
        inside = ["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", "-c", script]
        subprocess.run(inside, cwd=ROOT, env=environment, check=False, timeout=900, capture_output=True)
        shutil.rmtree(short)

    def ended(self, name: str) -> tuple[int, str]:
        return int((self.folder / f"{name}.code").read_text()), (self.folder / f"{name}.err").read_text()

    def rows(self, name: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = read_sweep(str(self.folder / name / "pilcro")).trials.to_pylist()
        return rows

    def same(self, name: str, other: str) -> None:
        wanted, found = results(self.folder / other), results(self.folder / name)
        for table in wanted:
            assert found[table].equals(wanted[table]), table


class TestOnACluster:
    pytestmark = pytest_ray

    def test_a_broken_gpu(self, tmp_path: Path) -> None:
        """One of two fails under every trial, from its third epoch on: it is named once, and the record is the same."""
        drill = Drill(tmp_path)
        raised = f"torch.AcceleratorError({ILLEGAL!r})"
        broken = "os.environ['CUDA_VISIBLE_DEVICES'] == '1' and run.epoch == 2"
        drill.sweep("plain", "--gpus-per-trial", "0.5")
        drill.sweep("one", "--gpus-per-trial", "0.5", when=broken, raised=raised)
        drill.sweep("both", "--gpus-per-trial", "0.5", when="run.epoch == 2", raised=raised)
        drill.sweep("again", "--gpus-per-trial", "0.5", storage="both")
        drill.run(cpus=4)
        assert drill.ended("plain") == (0, "")
        code, err = drill.ended("one")
        assert code == 0, err
        assert err.count("\n") == 1, err
        assert err.startswith("GPU 1 of ")
        assert "CUDA error: an illegal memory access was encountered; it failed 2 times; its trials go else" in err
        rows = drill.rows("one")
        assert [row["status"] for row in rows] == ["completed"] * 10
        assert [row["attempts"] for row in rows].count(2) >= 2
        assert max(row["attempts"] for row in rows) == 2
        drill.same("one", "plain")
        assert not (tmp_path / "one" / "pilcro" / "checkpoints").exists()
        # both are broken: one line, nothing recorded, and what was trained is of use
        code, err = drill.ended("both")
        assert code == 2, err
        assert err.splitlines()[-1].endswith(f"there is no other GPU: {GOES_ON}")
        assert err.count("\n") == 2, err
        code, err = drill.ended("again")
        assert (code, err) == (0, "")
        drill.same("both", "plain")
        assert max(row["attempts"] for row in drill.rows("both")) > 1

    def test_a_trial_that_harms_every_gpu(self, tmp_path: Path) -> None:
        """It is given up, no GPU is named, the others are as if nothing had happened; it goes on when asked to."""
        drill = Drill(tmp_path)
        bad = "run.epoch == 2 and run.config.seed == 1 and not hasattr(run.config.method, 'alpha')"
        drill.sweep("plain", "--gpus-per-trial", "1")
        for name, words in (("illegal", ILLEGAL), ("assert", ASSERT)):
            drill.sweep(name, "--gpus-per-trial", "1", when=bad, raised=f"torch.AcceleratorError({words!r})")
        drill.sweep("dry", "--dry-run", "--forget-failed", storage="assert")
        drill.sweep("again", "--gpus-per-trial", "1", "--retry-failed", storage="illegal")
        drill.sweep("anew", "--gpus-per-trial", "1", "--retry-failed", "--forget-failed", storage="assert")
        drill.run()
        for name in ("illegal", "assert"):
            code, err = drill.ended(name)
            assert code == 1, err
            assert "go elsewhere" not in err
            (line,) = [line for line in err.splitlines() if line.startswith("failed: ")]
            # the harm is done before the third is counted
            assert "given up after 3 attempts: GPUs failed under it, in epoch 2: GPU " in line
            assert "1 of 10 trials failed; --retry-failed runs them again; 1 of them from a checkpoint" in err
        assert "those of 1 trials" in (tmp_path / "dry.out").read_text()
        for name, storage in (("again", "illegal"), ("anew", "assert")):
            assert drill.ended(name) == (0, ""), name
            drill.same(storage, "plain")
            assert not (tmp_path / storage / "pilcro" / "checkpoints").exists()
        # from its checkpoint the trial's starts go on; from the beginning they begin anew
        attempts = {name: max(row["attempts"] for row in drill.rows(name)) for name in ("illegal", "assert")}
        assert attempts == {"illegal": 4, "assert": 1}

    def test_out_of_memory_while_sharing(self, tmp_path: Path) -> None:
        """Two trials share a GPU, one of them has not enough of it, and succeeds alone; another never does."""
        drill = Drill(tmp_path)
        share = "ray.get_runtime_context().get_assigned_resources()['GPU']"
        shared = f"run.epoch == 3 and run.config.seed == 1 and {share} < 1"
        never = "run.epoch == 3 and not hasattr(run.config.method, 'alpha') and run.config.seed == 1"
        drill.sweep("plain", "--gpus-per-trial", "0.5")
        for name, when in (("shared", shared), ("never", never)):
            drill.sweep(name, "--gpus-per-trial", "0.5", when=when, raised=f"torch.OutOfMemoryError({MEMORY!r})")
        drill.sweep("again", "--gpus-per-trial", "0.5", "--retry-failed", storage="never")
        drill.run(gpus=1)
        assert drill.ended("plain") == (0, "")
        code, err = drill.ended("shared")
        assert code == 0, err
        assert err == (
            "out of GPU memory with --gpus-per-trial 0.5, and tried again with up to 1: 5 trials; "
            "a larger --gpus-per-trial or a smaller --batch-size spares that\n"
        )
        drill.same("shared", "plain")
        assert {(row["seed"], row["gpus"], row["attempts"]) for row in drill.rows("shared")} == {
            (0, 0.5, 1),
            (1, 1.0, 2),
        }
        code, err = drill.ended("never")
        assert code == 1, err
        assert (
            "out of GPU memory with a GPU to itself, as by --gpus-per-trial 1: a smaller --batch-size or a GPU" in err
        )
        assert "--retry-failed runs them again; 1 of them from a checkpoint, which --forget-failed deletes" in err
        assert drill.ended("again") == (0, "")
        drill.same("never", "plain")
