"""Damaged trials of a search: run again under their own identity, or where nothing says what they were set aside."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from analysis import records
from analysis.command_line import InputError
from sweeps.driver.pending import keep_proposal, known_of, set_aside, unknown_of
from sweeps.plan import PlannedTrial
from sweeps.proposers import proposer_of
from sweeps.proposers.proposer import Proposer
from tests.sweeps.test_proposers import SEARCH, World, flags, row_of, tips_at

ARGV = (*SEARCH, "--variant", "target", "--samples", "6")
OPTUNA = ("--search", "tpe", "--alpha", "1e-2..1e4", "--variant", "target", "--seeds", "1", "--samples", "4")


def search(url: str, *argv: str) -> tuple[Proposer, list[PlannedTrial]]:
    """A whole search on a disk, and its trials that its space does not have."""
    world = World(proposer_of(flags(*argv)), tips_at(1.0), 1)
    while found := world.proposer.propose(world.known()):
        for trial in found:
            score = tips_at(1.0)(trial.config)
            world.recorded[trial.id] = row_of(trial.config, score) | {"trial_id": trial.id}
            epochs = [{"epoch": 1, "top1": score}]
            records.write_trial(url, world.recorded[trial.id], epochs, [], [])
    planned = world.proposer.space.ids
    return world.proposer, [trial for trial in world.proposer.plan(world.known()).trials if trial.id not in planned]


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-40])


@pytest.mark.parametrize("argv", [ARGV, OPTUNA])
def test_a_trial_whose_row_is_whole_runs_again_under_its_own_identity(tmp_path: Path, argv: tuple[str, ...]) -> None:
    proposer, (*_, trial) = search(str(tmp_path), *argv)
    truncate(tmp_path / "epochs" / f"{trial.id}.parquet")
    scan = records.scan(str(tmp_path))
    assert [*scan.corrupted] == [trial.id]
    with pytest.raises(InputError, match="damaged"):
        known_of(proposer, flags(*argv), str(tmp_path), scan)
    given = flags(*argv, "--retry-failed")
    known = known_of(proposer, given, str(tmp_path), scan)
    assert unknown_of(proposer, given, known, scan) == []
    found = proposer.propose(known)
    assert found is not None
    assert [(one.id, one.config) for one in found] == [(trial.id, trial.config)]


@pytest.mark.parametrize("argv", [ARGV, OPTUNA])
def test_one_of_which_nothing_says_what_it_was_is_set_aside(tmp_path: Path, argv: tuple[str, ...]) -> None:
    proposer, (*_, trial) = search(str(tmp_path), *argv)
    truncate(tmp_path / "trials" / f"{trial.id}.parquet")
    scan = records.scan(str(tmp_path))
    given = flags(*argv, "--retry-failed")
    known = known_of(proposer, given, str(tmp_path), scan)
    assert unknown_of(proposer, flags(*argv), known, scan) == []  # is kept as it is
    assert unknown_of(proposer, given, known, scan) == [trial.id]
    assert f"{trial.id}: damaged" in set_aside(str(tmp_path), trial.id)
    assert len([*(tmp_path / "damaged").glob("*/*.parquet")]) == 4
    scan = records.scan(str(tmp_path))
    assert (len(scan.statuses), scan.corrupted) == (len(known.recorded), {})
    assert len(records.read_sweep(str(tmp_path)).epochs) == len(known.recorded)
    assert proposer.propose(known_of(proposer, flags(*argv), str(tmp_path), scan))  # goes on


def test_what_it_was_is_known_by_the_plan_a_kept_proposal_or_the_compacted_record(tmp_path: Path) -> None:
    url, given = str(tmp_path), flags(*ARGV, "--retry-failed")
    proposer, (*_, trial) = search(url, *ARGV)
    baseline = next(one for one in proposer.space.trials if one.config.method.name == "baseline")
    truncate(tmp_path / "trials" / f"{baseline.id}.parquet")
    scan = records.scan(url)
    assert [one.id for one in known_of(proposer, given, url, scan).unfinished] == [baseline.id]
    row = row_of(baseline.config, 0.9) | {"trial_id": baseline.id}
    assert records.write_trial(url, row, [], [], [])
    own = (tmp_path / "trials" / f"{trial.id}.parquet").read_bytes()
    records.compact(url)
    (tmp_path / "trials" / f"{trial.id}.parquet").write_bytes(own[:-40])
    scan = records.scan(url)
    assert [*scan.corrupted] == [trial.id]
    assert [one.id for one in known_of(proposer, given, url, scan).unfinished] == [trial.id]
    keep_proposal(url, trial)
    known = known_of(proposer, given, url, scan)
    assert [one.id for one in known.unfinished] == [trial.id]  # once
    assert json.loads(next((tmp_path / "checkpoints").glob("*/trial.json")).read_text())["config"]
