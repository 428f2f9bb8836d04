"""The journal of a search: what `optuna-dashboard` would read of it, at every moment."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from analysis.command_line import InputError
from analysis.records import open_place
from sweeps.driver.mirror import FILE, Mirror, keep_journal, write_journal
from sweeps.proposers import objectives
from tests.sweeps.test_optuna import SMALL, TWO, World, search, two
from trainables.configuration import TrialConfig

GIVEN = search(*SMALL, *TWO, "--seeds", "2", "--samples", "12", "--racing", by="tpe")


def read(path: Path) -> optuna.Study:
    return optuna.load_study(study_name="pilcro", storage=JournalStorage(JournalFileBackend(str(path))))


def content(trials: list[optuna.trial.FrozenTrial]) -> dict[str, Any]:
    """What is told of each setting, whatever its number and times."""
    return {
        trial.user_attrs["key"]: (trial.state, trial.params, trial.values, trial.user_attrs, trial.distributions)
        for trial in trials
    }


def write(path: Path, world: World) -> None:
    write_journal(str(path), "pilcro", objectives(GIVEN), world.study())


def test_at_every_moment_it_is_what_is_recorded_and_runs(tmp_path: Path) -> None:
    path = tmp_path / FILE
    world = World(GIVEN, two, slots=3)
    sizes = [0]
    numbers: dict[str, int] = {}
    while world.step():
        write(path, world)
        study = read(path)
        assert content(study.trials) == content(world.study())
        sizes.append(path.stat().st_size)
        for trial in study.trials:  # nobody's number changes while it is watched
            assert numbers.setdefault(trial.user_attrs["key"], trial.number) == trial.number
    assert sizes == sorted(sizes)
    assert [way.name for way in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert study.metric_names == ["top1", "total_variation"]
    assert {trial.user_attrs["key"] for trial in study.best_trials} <= {t.user_attrs["key"] for t in world.study()}
    before = path.read_bytes()
    write(path, world)
    assert path.read_bytes() == before  # nothing has changed


def test_the_study_is_one_and_the_same_while_it_is_watched(tmp_path: Path) -> None:
    """Also where the worst score, which diverged trials are told with, becomes worse and worse."""
    path = tmp_path / FILE
    ids = set()

    def outcome(config: TrialConfig) -> dict[str, Any]:
        if config.training.learning_rate > 0.1:
            return {"status": "diverged", "top1": None, "total_variation": None}
        return {"top1": 0.9 - len(world.recorded) / 100, "total_variation": 1.0 + len(world.recorded)}

    given = search(*SMALL, *TWO, "--samples", "24", by="tpe")
    world = World(given, outcome, slots=2)
    while world.step():
        write_journal(str(path), "pilcro", objectives(given), world.study())
        study = read(path)
        ids.add(study._study_id)
        assert len(study.trials) == len(world.study())
    assert ids == {0}
    diverged = [trial for trial in study.trials if trial.user_attrs["diverged"]]
    assert len(diverged) >= 3
    assert [trial.params for trial in diverged] == [t.params for t in world.study() if t.user_attrs["diverged"]]


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"nonsense\n"),
        lambda path: path.write_bytes(b'{"op_code": 99}\n' + path.read_bytes()),
        lambda path: path.write_bytes(path.read_bytes()[:-7]),
        lambda path: path.write_bytes(path.read_bytes().replace(b'"CREATE', b'"')[: path.stat().st_size // 2]),
    ],
    ids=["deleted", "empty", "nonsense", "another operation", "cut", "half"],
)
def test_deleted_or_damaged_it_is_made_anew(damage: Any, tmp_path: Path) -> None:
    path = tmp_path / FILE
    world = World(GIVEN, two, slots=3)
    for _ in range(7):
        world.step()
        write(path, world)
    damage(path)
    world.step()
    write(path, world)
    assert content(read(path).trials) == content(world.study())


def test_what_says_something_else_than_the_record_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / FILE
    world = World(GIVEN, two)
    for _ in range(6):
        world.step()
    write(path, world)
    study = read(path)
    study.add_trial(dataclasses_free(study.trials[0]))  # somebody's own
    write(path, world)
    assert content(read(path).trials) == content(world.study())
    # a trial of it diverged after all: another record of the same name
    row = next(iter(world.recorded.values()))
    row |= {"status": "diverged", "top1": 0.1}
    write(path, world)
    assert content(read(path).trials) == content(world.study())
    assert [study.study_name for study in optuna.get_all_study_summaries(JournalStorage(JournalFileBackend(str(path))))]
    # other objectives
    other = dataclasses.replace(GIVEN, objective=("top1",))
    write_journal(str(path), "pilcro", objectives(other), World(other, two).study())
    assert read(path).directions == [optuna.study.StudyDirection.MAXIMIZE]


def dataclasses_free(trial: optuna.trial.FrozenTrial) -> optuna.trial.FrozenTrial:
    return optuna.trial.create_trial(
        values=trial.values, params=trial.params, distributions=trial.distributions, user_attrs={"key": "mine"}
    )


def test_written_in_a_thread_what_fails_is_told_and_ends_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world = World(GIVEN, two, slots=2)
    world.step()
    world.step()
    with Mirror(str(tmp_path), "pilcro", objectives(GIVEN)) as mirror:
        mirror.show(world.study())
    assert content(read(tmp_path / FILE).trials) == content(world.study())
    (tmp_path / "file").write_text("")
    with Mirror(str(tmp_path / "file"), "pilcro", objectives(GIVEN)) as mirror:
        mirror.show(world.study())
    assert "optuna-dashboard shows, is not up to date: " in capsys.readouterr().err


def test_running_trials_end(tmp_path: Path) -> None:
    path = tmp_path / FILE
    world = World(GIVEN, two, slots=2)
    world.running += world.proposer.propose(world.known()) or []
    keep_journal(str(tmp_path), "pilcro", objectives(GIVEN), world.study())
    begun = read(path).trials
    assert [trial.state for trial in begun] == [TrialState.RUNNING] * 2
    assert all(trial.params for trial in begun)
    while world.step():
        pass
    keep_journal(str(tmp_path), "pilcro", objectives(GIVEN), world.study())
    assert {trial.state for trial in read(path).trials[:2]} == {TrialState.COMPLETE}


def test_on_s3_it_is_put_there_whole(s3: str, tmp_path: Path) -> None:
    world = World(GIVEN, two)
    for _ in range(4):
        world.step()
    assert keep_journal(f"{s3}/results/pilcro", "pilcro", objectives(GIVEN), world.study()).startswith(s3)
    fs, inner = open_place(f"{s3}/results/pilcro")
    (tmp_path / "journal").write_bytes(fs.cat_file(f"{inner}/{FILE}"))
    assert content(read(tmp_path / "journal").trials) == content(world.study())


def test_none_of_it_is_read_by_the_analysis(tmp_path: Path) -> None:
    from analysis.records import read_sweep

    write(tmp_path / FILE, World(GIVEN, two))
    with pytest.raises(InputError, match="no recorded trials"):
        read_sweep(str(tmp_path))
