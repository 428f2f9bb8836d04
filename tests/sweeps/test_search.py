"""A search driven as a user drives it, and killed: no trial twice, none lost, and one at a time the same trials."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from analysis.records import read_sweep
from tests.sweeps.driving import ONE_BY_ONE, finish, kill, processes_below, same, start, wait_for

pytestmark = pytest.mark.ray

SEARCH = [
    *("--search", "tipping", "--alpha", "1e-2..1e4", "--variant", "target", "--seeds", "1", "--samples", "7"),
    *("--train-images", "300", "--initialisations", "2", "--epochs", "6", "--checkpoint-seconds", "0"),
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The storage of a search, one trial at a time, that nothing disturbed."""
    storage = tmp_path_factory.mktemp("whole")
    code, out, err = finish(start(storage, *SEARCH, *ONE_BY_ONE))
    assert code == 0, err
    assert "7 trials in " in out
    assert "PILCRO: " in out  # where it tips, or what there is instead
    assert "the budget is spent (0 of 1 curve answered, 7 of 7 samples)" in out
    return storage


def test_a_search_that_has_ended_runs_nothing_and_a_larger_budget_goes_on(whole: Path, tmp_path: Path) -> None:
    table = read_sweep(str(whole / "pilcro")).trials.to_pylist()
    assert len(table) == 7
    assert sorted(row["alpha"] for row in table if row["alpha"])[0] == 0.01
    assert not list(whole.glob("pilcro/checkpoints/*"))
    code, out, err = finish(start(whole, *SEARCH, *ONE_BY_ONE))
    assert code == 0, err
    assert "nothing to run: 0 of 1 curve answered, 7 of 7 samples" in out
    assert len(read_sweep(str(whole / "pilcro")).trials) == 7


@pytest.mark.long
def test_killed_at_any_moment_it_ends_with_the_same_trials(whole: Path, tmp_path: Path) -> None:
    """One at a time, killed with -9 in training, between trials, as the next begins: the same record, bit for bit."""
    folder = tmp_path / "pilcro"

    def recorded() -> int:
        return len(list((folder / "trials").glob("*.parquet")))

    for moment in range(4):
        process = start(tmp_path, *SEARCH, *ONE_BY_ONE)
        before = recorded()
        reached = {
            0: lambda: list((folder / "checkpoints").glob("*/*.pt")),
            1: lambda: recorded() > before,  # noqa: B023 - called before the next turn
            2: lambda: list((folder / "checkpoints").glob("*/trial.json")) and recorded() > before,  # noqa: B023
            3: lambda: list((folder / "checkpoints").glob("*/*.pt")),
        }[moment]
        wait_for(lambda: bool(reached()), f"moment {moment}")  # noqa: B023
        kill([process.pid, *processes_below(process.pid)])
        process.communicate()
    code, _, err = finish(start(tmp_path, *SEARCH, *ONE_BY_ONE))
    assert code == 0, err
    same(tmp_path, whole)


@pytest.mark.long
def test_killed_with_two_at_a_time_what_had_begun_goes_on(tmp_path: Path) -> None:
    """Both that were in training are among those recorded, and went on from their checkpoints."""
    process = start(tmp_path, *SEARCH, "--cpus-per-trial", "1")
    folder = tmp_path / "pilcro"
    wait_for(lambda: len(list((folder / "checkpoints").glob("*/*.pt"))) >= 2, "two trials in training")
    kill([process.pid, *processes_below(process.pid)])
    process.communicate()
    begun = {file.parent.name for file in (folder / "checkpoints").glob("*/trial.json")}
    begun -= {file.stem for file in (folder / "trials").glob("*.parquet")}
    assert begun
    assert all(json.loads(file.read_text())["config"] for file in (folder / "checkpoints").glob("*/trial.json"))
    code, _, err = finish(start(tmp_path, *SEARCH, "--cpus-per-trial", "1"))
    assert code == 0, err
    trials = {row["trial_id"]: row for row in read_sweep(str(folder)).trials.to_pylist()}
    assert begun <= trials.keys()
    assert len(trials) == 7
    assert max(trials[name]["attempts"] for name in begun) == 2


def test_a_search_on_the_record_of_a_grid(tmp_path: Path) -> None:
    """Two that share a record: the grid's trials count, and none of them runs again."""
    small = [word for word in SEARCH if word not in ("--search", "tipping")]
    small[small.index("1e-2..1e4")] = "1"
    code, out, err = finish(start(tmp_path, *small, *ONE_BY_ONE))
    assert code == 0, err
    assert "2 of 2 trials in " in out
    before = (tmp_path / "pilcro" / "trials").glob("*.parquet")
    seen = {file.name: file.stat().st_mtime_ns for file in before}
    more = [*SEARCH[: SEARCH.index("7")], "4", *SEARCH[SEARCH.index("7") + 1 :]]
    code, out, err = finish(start(tmp_path, *more, *ONE_BY_ONE))
    assert code == 0, err
    assert "2 trials in " in out
    after = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "pilcro" / "trials").glob("*.parquet")}
    assert len(after) == 4
    assert seen.items() <= after.items()
