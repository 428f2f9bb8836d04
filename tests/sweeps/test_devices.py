"""GPUs that fail under trials, and trials that fail on every GPU: which is to blame, and what becomes of both.

The errors are raised on the CPU with torch's words; `test_devices_drill.py` has whole sweeps.
"""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cloudpickle
import pytest
import torch
from ray.exceptions import RayActorError, RayTaskError
from ray.tune.experiment import Trial as TuneTrial

from analysis import records
from sweeps.driver import failures, losses
from sweeps.driver.failures import MAX_DEVICE_FAULTS, MAX_FAULTS, BadDevices
from sweeps.driver.losses import Roomier
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
