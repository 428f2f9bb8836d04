"""The command as a user meets it: exit codes, one line on standard error, nothing written where nothing should be."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from ray.exceptions import RayActorError, RayTaskError

from analysis import records, tables
from sweeps import launch
from sweeps.driver import lease, pending
from sweeps.driver.address import address_to_join
from sweeps.driver.failures import BadDevices
from sweeps.driver.lease import Lease
from sweeps.driver.losses import MAX_NODE_LOSSES, record_lost
from sweeps.driver.pending import remove_finished_checkpoints
from sweeps.driver.usage import Used
from sweeps.flags import read_flags
from sweeps.pilcro import PRESETS, PilcroSweep
from sweeps.plan import Plan, PlannedTrial, make_plan
from trainables.checkpoints import Checkpoints
from trainables.trainable import Trial, TrialOptions, trial_row

SCRIPT = Path(__file__).resolve().parents[2] / "sweeps" / "pilcro.py"


def run(*argv: str) -> int:
    """The script's main in this process; its exit code."""
    try:
        launch.main(PilcroSweep, PRESETS, "", list(argv))
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing below may get as far as starting Ray."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("Ray was started")

    monkeypatch.setattr(launch, "_run_on_ray", refuse)


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    return captured.err


def test_works_from_any_folder_as_a_script(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--dry-run"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "tipping: at most 42 trials more, 0 are recorded in results/pilcro" in done.stdout
    assert not list(tmp_path.iterdir())


def test_bad_input_as_a_user_sees_it(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--alpha", "-1"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr == "error: --alpha: -1.0, allowed are finite numbers of at least 0\n"
    assert done.stdout == ""
    assert not list(tmp_path.iterdir())


def test_help_says_what_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    shown = capsys.readouterr().out
    assert "--laplacian-width" in shown
    assert "--[no-]retry-failed" in shown


@pytest.mark.usefixtures("no_ray")
class TestRefusedBeforeAnythingRuns:
    def test_a_storage_that_cannot_be_written(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "file").write_text("")
        assert run("--storage", str(tmp_path / "file" / "x")) == 2
        assert "--storage" in one_line(capsys)

    def test_an_s3_that_does_not_answer(
        self, nobody: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "test")
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{nobody}")
        assert run("--storage", "s3://bucket/prefix") == 2
        assert "s3://bucket/prefix" in one_line(capsys)

    def test_missing_data(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("--preset", "imagenet", "--storage", str(tmp_path), "--data-root", str(tmp_path / "none")) == 2
        assert "imagenet" in one_line(capsys)

    def test_another_sweep_of_the_same_name(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        record_failed(tmp_path)
        manifest = tmp_path / "pilcro" / "sweep.json"
        manifest.write_text(json.dumps({"schema_version": 1, "contents": {"dataset": ["mnist"]}}))
        before = manifest.read_bytes()
        assert run("--storage", str(tmp_path)) == 2
        assert "another --name" in one_line(capsys)
        assert manifest.read_bytes() == before

    def test_a_sweep_that_came_to_nothing_is_in_nobodys_way(self, tmp_path: Path) -> None:
        (tmp_path / "pilcro").mkdir()
        (tmp_path / "pilcro" / "sweep.json").write_text(json.dumps({"contents": {"dataset": ["mnist"]}}))
        with pytest.raises(AssertionError, match="Ray was started"):
            run("--storage", str(tmp_path))

    def test_a_record_of_another_schema_version(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        identity = record_failed(tmp_path)
        monkeypatch.setattr(tables, "SCHEMA_VERSION", 2)
        assert run("--storage", str(tmp_path), "--alpha", "1") == 2
        line = one_line(capsys)
        assert identity in line
        assert "version" in line

    def test_checkpoints_that_are_all_damaged(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        flags = read_flags(PilcroSweep, PRESETS, [], "")
        trial = make_plan(flags).trials[3]
        folder = tmp_path / "pilcro" / "checkpoints" / trial.id
        Checkpoints(str(folder)).save(4, {"epoch": 4})
        (file,) = folder.glob("*.pt")
        file.write_bytes(file.read_bytes()[:-1])
        assert run("--storage", str(tmp_path), "--search", "grid") == 2
        line = one_line(capsys)
        assert file.name in line
        assert "--retry-failed" in line
        assert file.exists()
        with pytest.raises(AssertionError, match="Ray was started"):
            run("--storage", str(tmp_path), "--retry-failed", "--search", "grid")
        assert not file.exists()

    def test_a_second_driver_deletes_nothing(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """With --retry-failed neither, and it reads no checkpoint: another may end that trial meanwhile."""
        monkeypatch.setattr(lease, "RENEWED_EVERY", 0.2)
        trial = make_plan(read_flags(PilcroSweep, PRESETS, [], "")).trials[3]
        checkpoints = Checkpoints(str(tmp_path / "pilcro" / "checkpoints" / trial.id))
        checkpoints.save(4, {"epoch": 4})
        checkpoints.count_start()
        (file,) = Path(checkpoints.folder).glob("*.pt")
        file.write_bytes(file.read_bytes()[:-1])
        with Lease(str(tmp_path / "pilcro")):
            assert run("--storage", str(tmp_path), "--retry-failed") == 2
        assert "nothing was changed" in one_line(capsys)
        assert file.exists()
        assert checkpoints.starts() == 1

    def test_a_driver_that_finds_everything_done_when_it_has_its_lease(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(launch, "pending_trials", lambda *_: [])
        assert run("--storage", str(tmp_path), "--search", "grid") == 1  # which it is not
        assert "nothing to run" in capsys.readouterr().out

    def test_a_ray_that_does_not_answer(
        self, nobody: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from analysis.command_line import run as guarded

        for address, told in ((nobody, "RAY_ADDRESS: no Ray answers at"), ("auto", "you have started no Ray")):
            monkeypatch.setenv("RAY_ADDRESS", address)
            with pytest.raises(SystemExit):
                guarded(lambda: print(address_to_join()))
            assert told in one_line(capsys)
        for address in ("", "local"):
            monkeypatch.setenv("RAY_ADDRESS", address)
            assert address_to_join() is None

    @pytest.mark.parametrize(
        ("address", "told"),
        [
            ("garbage", "RAY_ADDRESS: 'garbage', allowed are host:port"),
            ("http://127.0.0.1:8265", "allowed are host:port"),
            ("ray://127.0.0.1:10001", "with RAY_ADDRESS=host:6379, or hand it over with ray job submit"),
        ],
    )
    def test_an_address_that_is_none(
        self,
        address: str,
        told: str,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setenv("RAY_ADDRESS", address)
        assert run("--storage", str(tmp_path / "new")) == 2
        assert told in one_line(capsys)
        assert not (tmp_path / "new").exists()

    @pytest.mark.parametrize("storage", ["memory://x", "s3a://bucket/prefix", "nonsense://x"])
    def test_a_storage_of_another_kind(self, storage: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("--storage", storage) == 2
        assert f"storage: {storage}, allowed are a folder or s3://bucket/prefix" in one_line(capsys)

    def test_a_dry_run_writes_nothing(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert (
            run("--storage", str(tmp_path / "new"), "--dry-run", "--estimate", "--seeds", "3", "--alpha", "1", "2", "3")
            == 0
        )
        shown = capsys.readouterr().out
        assert "21 trials planned" in shown
        assert "core-hours" in shown
        assert not (tmp_path / "new").exists()


OPTIONS = TrialOptions("", "pilcro", {}, 10, False, False, 1, 1.0, 0.0, None, None, "0")


def record_failed(storage: Path) -> str:
    """A planned trial recorded as failed; its id."""
    import torch

    trial = make_plan(read_flags(PilcroSweep, PRESETS, ["--alpha", "1"], "")).trials[0]
    row = trial_row(trial.id, trial.config, trial.payload()["json"], OPTIONS, 1, torch.device("cpu"))
    records.write_trial(str(storage / "pilcro"), {**row, "status": "failed", "error": "boom"}, [], [], [])
    return trial.id


def test_failed_trials_end_with_a_summary_and_exit_code_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = record_failed(tmp_path)
    ran: list[str] = []

    def run_none(flags: object, plan: object, pending: list[PlannedTrial], *_: object) -> Used:
        ran.extend(trial.id for trial in pending)
        return Used()

    monkeypatch.setattr(launch, "_run_on_ray", run_none)
    argv = ["--storage", str(tmp_path), "--alpha", "1", "--no-baseline"]
    assert run(*argv[:-1]) == 1
    shown = capsys.readouterr()
    assert f"({identity}): boom" in shown.err
    assert "1 of 6 trials failed" in shown.err
    assert "5 trials are not finished" in shown.err
    assert identity not in ran
    ran.clear()
    assert run(*argv[:-1], "--retry-failed") == 1
    assert identity in ran


def test_checkpoints_of_failed_trials_stay_until_they_are_forgotten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not at the end of a run, nor of --retry-failed, which goes on from them; nothing is deleted with --dry-run."""
    identity = record_failed(tmp_path)
    sweep = tmp_path / "pilcro"
    argv = ["--storage", str(tmp_path), "--alpha", "1"]
    trials = make_plan(read_flags(PilcroSweep, PRESETS, argv, "")).trials
    for trial in (trials[0].id, trials[1].id, "of-another-plan"):
        Checkpoints(str(sweep / "checkpoints" / trial)).save(4, {"epoch": 4})

    def run_none(flags: PilcroSweep, plan: Plan, pending: object, loading: object, url: str, *_: object) -> Used:
        remove_finished_checkpoints(flags, plan, url)
        return Used()

    def kept() -> set[str]:
        return {file.parent.name for file in sweep.glob("checkpoints/*/*.pt")}

    monkeypatch.setattr(launch, "_run_on_ray", run_none)
    everything = {identity, trials[1].id, "of-another-plan"}
    for more in ([], ["--retry-failed"]):
        assert run(*argv, *more) == 1
        assert kept() == everything
        assert "--retry-failed runs them again; 1 of them from a checkpoint, which --forget-failed deletes" in (
            capsys.readouterr().err
        )
    assert run(*argv, "--forget-failed", "--dry-run") == 0
    assert "checkpoints of failed trials that would be deleted: those of 1 trials" in capsys.readouterr().out
    assert kept() == everything
    assert run(*argv, "--forget-failed") == 1
    assert kept() == everything - {identity}
    assert "from a checkpoint" not in capsys.readouterr().err
    # also where there is nothing else to do
    Checkpoints(str(sweep / "checkpoints" / identity)).save(4, {"epoch": 4})
    monkeypatch.setattr(launch, "selected", lambda *_: [])
    monkeypatch.setattr(pending, "selected", lambda *_: [])
    assert run(*argv, "--forget-failed") == 1
    assert kept() == everything - {identity}


def test_a_trial_that_raises_is_recorded_as_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The actor itself, without Ray: an exception in training becomes a row, with the epochs until then."""
    from trainables.data import Images, load
    from trainables.training import Run

    flags = read_flags(PilcroSweep, PRESETS, ["--train-images", "200", "--initialisations", "1"], "")
    plan = make_plan(flags)
    data = load("digits", "unused", plan.trials[0].config.data)
    assert isinstance(data, Images)
    trained = Run.train_epoch

    def third_raises(run: Run) -> object:
        if run.epoch == 2:
            raise RuntimeError("out of luck")
        return trained(run)

    monkeypatch.setattr(Run, "train_epoch", third_raises)
    actor = Trial.__new__(Trial)
    options = TrialOptions(str(tmp_path / "s"), "s", flags.metrics(), 0.0, False, False, 1, 1.0, 0.0, "abc", False, "0")
    actor.setup({"trial": plan.trials[0].payload()}, data={"digits": {data.config: data}}, options=options)
    assert repr(actor) == f"{plan.trials[0].label} {plan.trials[0].id}"
    results = [actor.step() for _ in range(3)]
    assert [result["done"] for result in results] == [False, False, True]
    sweep = records.read_sweep(str(tmp_path / "s"))
    (row,) = sweep.trials.to_pylist()
    assert row["status"] == "failed"
    assert row["error"].startswith("RuntimeError: out of luck")
    assert sweep.epochs.num_rows == 2
    assert row["git_commit"] == "abc"
    # for --retry-failed
    kept = sorted((tmp_path / "s" / "checkpoints" / plan.trials[0].id).glob("*.pt"))
    assert [file.name[:6] for file in kept] == ["000001", "000002"]


def test_a_trial_given_up_for_its_nodes_is_recorded_with_why(tmp_path: Path) -> None:
    trial = make_plan(read_flags(PilcroSweep, PRESETS, ["--alpha", "1"], "")).trials[0]
    result = SimpleNamespace(error=RayActorError(error_msg="its node is gone"), config={"trial": trial.payload()})
    losses = {trial.id: MAX_NODE_LOSSES}
    record_lost([result], {trial.id: trial}, str(tmp_path / "pilcro"), OPTIONS, losses, BadDevices(0.0, 1))  # type: ignore[arg-type]
    (row,) = records.read_sweep(str(tmp_path / "pilcro")).trials.to_pylist()
    assert row["status"] == "failed"
    assert f"lost its node {MAX_NODE_LOSSES} times in a row without an epoch more" in row["error"]
    assert "its node is gone" in row["error"]


def test_a_trial_that_lost_its_workers_is_recorded_with_the_end_of_the_error(tmp_path: Path) -> None:
    trial = make_plan(read_flags(PilcroSweep, PRESETS, ["--alpha", "1"], "")).trials[0]
    traceback = "Traceback (most recent call last):\n" + 100 * "  File 'sweep', line 1\n"
    error = RayTaskError("step", traceback + "ValueError: a", ValueError("a " + 600 * "long " + "message"))
    result = SimpleNamespace(error=error.as_instanceof_cause(), config={"trial": trial.payload()})
    record_lost([result], {trial.id: trial}, str(tmp_path / "pilcro"), OPTIONS, {}, BadDevices(0.0, 1))  # type: ignore[arg-type]
    (row,) = records.read_sweep(str(tmp_path / "pilcro")).trials.to_pylist()
    assert row["error"] == f"given up after 4 attempts: ValueError: a {600 * 'long '}message"


def test_environment_keeps_what_the_user_set() -> None:
    code = "import os, sweeps; print(os.environ['RAY_USAGE_STATS_ENABLED'], os.environ['TUNE_RESULT_BUFFER_LENGTH'])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "TUNE_RESULT_BUFFER_LENGTH": "7"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["0", "7"]
