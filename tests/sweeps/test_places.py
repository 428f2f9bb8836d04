"""Where a sweep is recorded: said once, the same for --dry-run; its name is no pattern."""

from __future__ import annotations

from pathlib import Path

import pytest

from analysis import records
from sweeps.driver.manifest import check_contents, contents, sweep_url, write_contents
from sweeps.driver.pending import pending_trials, remove_finished_checkpoints, with_checkpoints
from sweeps.flags import read_flags
from sweeps.launch import main
from sweeps.pilcro import PRESETS, PilcroSweep
from sweeps.plan import make_plan
from trainables.checkpoints import checkpoints_of
from trainables.kept_models import model_file, without_model


@pytest.fixture(params=["disk", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(request.getfixturevalue("s3")) if request.param == "s3" else str(tmp_path)


def test_checkpoints_of_other_sweeps_stay(storage: str) -> None:
    """As s3fs takes brackets for a pattern, those of run1 and run2 were deleted with those of run[12]."""
    urls = {}
    for name in ("run[12]", "run1", "run2", "run*"):
        flags = read_flags(PilcroSweep, PRESETS, ["--storage", storage, "--name", name, "--alpha", "1"], "")
        plan = make_plan(flags)
        url = urls[name] = records.location(sweep_url(flags))
        for trial in plan.trials:
            checkpoints_of(url, trial.id).save(1, {"epoch": 1})
            records.write_file(model_file(url, trial.id), b"x")
            records.write_trial(url, {"trial_id": trial.id, "status": "completed"}, [], [], [])
        write_contents(url, contents(flags, plan))
    ids = {trial.id for trial in plan.trials}
    for name in ("run[12]", "run*"):
        flags = read_flags(PilcroSweep, PRESETS, ["--storage", storage, "--name", name, "--alpha", "1"], "")
        check_contents(urls[name], contents(flags, plan))
        assert with_checkpoints(urls[name]) == ids
        assert without_model(urls[name], [*ids, "other"]) == ["other"]
        remove_finished_checkpoints(flags, plan, urls[name])
        assert with_checkpoints(urls[name]) == set()
        assert pending_trials(flags, plan, urls[name], records.scan(urls[name])) == []
    for name in ("run1", "run2"):
        assert with_checkpoints(urls[name]) == ids
        assert checkpoints_of(urls[name], plan.trials[0].id).load() == ({"epoch": 1}, [])


@pytest.mark.parametrize("storage", ["s3:bucket", "s3://", "s3:///x", "s3a://bucket/x", "file:///x", "s3://b/../x", ""])
def test_what_is_no_place_is_refused_alike_by_a_dry_run(
    storage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    told = set()
    for more in ([], ["--dry-run"]):
        with pytest.raises(SystemExit) as stop:
            main(PilcroSweep, PRESETS, "", ["--storage", storage, *more])
        assert stop.value.code == 2
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1)
        told.add(err)
    assert len(told) == 1
    assert told.pop().startswith("error: --storage: ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("written", ["s3://bucket//x", "S3://bucket/x/"])
def test_a_dry_run_sees_what_is_recorded(written: str, s3: str, capsys: pytest.CaptureFixture[str]) -> None:
    plan = make_plan(read_flags(PilcroSweep, PRESETS, ["--alpha", "1", "--seeds", "1"], ""))
    records.write_trial("s3://bucket/x/pilcro", {"trial_id": plan.trials[0].id, "status": "completed"}, [], [], [])
    main(PilcroSweep, PRESETS, "", ["--storage", written, "--alpha", "1", "--seeds", "1", "--dry-run"])
    assert f"{len(plan.trials)} trials planned, 1 of them recorded in s3://bucket/x/pilcro" in capsys.readouterr().out
