"""A search by Optuna's samplers driven as a user drives it: killed, gone on with, and what it leaves behind."""

from __future__ import annotations

from pathlib import Path

import optuna
import pyarrow.parquet as pq
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from analysis.records import read_sweep
from analysis.study import study_of
from tests.sweeps.driving import ONE_BY_ONE, finish, kill, processes_below, same, start, wait_for

pytestmark = pytest.mark.ray

SEARCH = [
    *("--search", "tpe", "--alpha", "1e-2..1e2", "--learning-rate", "1e-2..1", "--variant", "target", "--no-baseline"),
    *("--seeds", "1", "--samples", "12", "--objective", "validation_top1", "total_variation"),
    *(
        "--train-images",
        "300",
        "--initialisations",
        "2",
        "--epochs",
        "2",
        "--interval",
        "3",
        "--checkpoint-seconds",
        "0",
    ),
]


def journal(storage: Path) -> optuna.Study:
    path = storage / "pilcro" / "search" / "optuna.log"
    return optuna.load_study(study_name="pilcro", storage=JournalStorage(JournalFileBackend(str(path))))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The storage of a search, one trial at a time, that nothing disturbed."""
    storage = tmp_path_factory.mktemp("whole")
    code, out, err = finish(start(storage, *SEARCH, *ONE_BY_ONE))
    assert code == 0, err
    assert "the budget is spent (12 settings, " in out
    assert "the Pareto front, of 12: mean over seeds" in out
    assert f"-m analysis.search {storage}/pilcro --metric validation_top1 total_variation" in out
    return storage


def test_the_front_and_the_journal_are_those_of_the_record(whole: Path) -> None:
    study = study_of(str(whole / "pilcro"), metrics=["validation_top1", "total_variation"])
    front = {(trial.params["alpha"], *trial.values) for trial in study.best_trials}
    table = pq.read_table(whole / "pilcro" / "search" / "settings.parquet").to_pylist()
    assert len(table) == 12
    assert {(r["alpha"], r["validation_top1"], r["total_variation"]) for r in table if r["place"] == 1} == front
    mirrored = journal(whole)
    assert mirrored.metric_names == ["validation_top1", "total_variation"]
    ids = [trial.user_attrs["trial_ids"] for trial in mirrored.trials]
    assert sorted(name for (name,) in ids) == sorted(read_sweep(str(whole / "pilcro")).trials["trial_id"].to_pylist())
    assert {trial.params["alpha"] for trial in mirrored.best_trials} == {alpha for alpha, *_ in front}


def test_given_again_it_runs_nothing_and_makes_a_lost_journal_anew(whole: Path) -> None:
    path = whole / "pilcro" / "search" / "optuna.log"
    path.unlink()
    code, out, err = finish(start(whole, *SEARCH, *ONE_BY_ONE))
    assert code == 0, err
    assert "nothing to run: 12 settings, " in out
    assert f"study:  {path}" in out
    assert len(journal(whole).trials) == 12


@pytest.mark.long
def test_killed_at_any_moment_it_ends_with_the_same_trials(whole: Path, tmp_path: Path) -> None:
    """One at a time, killed with -9 in training and between trials, three times: the same record, bit for bit, after
    the random beginning, too."""
    folder = tmp_path / "pilcro"

    def recorded() -> int:
        return len(list((folder / "trials").glob("*.parquet")))

    for least in (2, 6, 11):
        process = start(tmp_path, *SEARCH, *ONE_BY_ONE)
        wait_for(lambda: recorded() >= least, f"{least} trials")  # noqa: B023 - called before the next turn
        kill([process.pid, *processes_below(process.pid)])
        process.communicate()
    code, _, err = finish(start(tmp_path, *SEARCH, *ONE_BY_ONE))
    assert code == 0, err
    same(tmp_path, whole)
    assert {trial.params["alpha"] for trial in journal(tmp_path).trials} == {
        trial.params["alpha"] for trial in journal(whole).trials
    }


@pytest.mark.long
def test_killed_with_two_at_a_time_what_had_begun_goes_on(tmp_path: Path) -> None:
    """Both seeds of the setting that was in training, and no setting without one of them, are recorded in the end."""
    two = [*SEARCH, "--seeds", "2", "--epochs", "6", "--cpus-per-trial", "1"]
    folder = tmp_path / "pilcro"
    for least in (2, 7):
        process = start(tmp_path, *two)
        wait_for(lambda: len(list((folder / "trials").glob("*.parquet"))) >= least, f"{least} trials")  # noqa: B023
        wait_for(lambda: len(list((folder / "checkpoints").glob("*/trial.json"))) >= 1, "trials in training")
        kill([process.pid, *processes_below(process.pid)])
        process.communicate()
    begun = {file.parent.name for file in (folder / "checkpoints").glob("*/trial.json")}
    code, _, err = finish(start(tmp_path, *two))
    assert code == 0, err
    rows = read_sweep(str(folder)).trials.to_pylist()
    assert len(rows) == 12
    assert begun <= {row["trial_id"] for row in rows}
    settings = [row["alpha"] for row in rows]
    assert all(settings.count(alpha) == 2 for alpha in settings)


@pytest.mark.long
def test_another_search_begins_with_its_trials(whole: Path, tmp_path: Path) -> None:
    more = [*SEARCH[: SEARCH.index("12")], "2", *SEARCH[SEARCH.index("12") + 1 :]]
    code, out, err = finish(start(tmp_path, *more, "--warm-start", str(whole / "pilcro"), *ONE_BY_ONE))
    assert code == 0, err
    assert "12 trials of 12 settings, and 0 left out" in err
    assert "2 trials in " in out
    trials = journal(tmp_path).trials
    assert [trial.user_attrs.get("sweep") for trial in trials[-2:]] == [None, None]
    assert len(trials) == 14
