"""What Optuna's searches make of records: seeds that are not asked for, other sweeps, and what their end counts."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState
from pyarrow.parquet import read_table as read_parquet

from analysis.records import write_trial
from analysis.schema import TABLES
from sweeps.driver.manifest import sweep_url
from sweeps.driver.summary import SETTINGS_FILE, make_console, summarise
from sweeps.plan import make_plan, trial_id
from sweeps.proposers import metrics_of
from sweeps.proposers.optuna import KEY
from tests.sweeps.test_optuna import OBJECTIVE, SMALL, TWO, World, peak, search
from tests.sweeps.test_proposers import flags
from trainables.configuration import TrialConfig
from trainables.fingerprint import code_of


def test_recorded_seeds_that_are_not_asked_for_are_replicates_too() -> None:
    """Of six settings the first has seed 5 alone, the second seeds 5 and 6, and the third a failed seed 5."""
    argv = ("--no-baseline", "--variant", "target", "--alpha", "1", "10", "100", "--interval", "5", "6", "--seeds")
    for seeds, lacking in (("1", [0, 0, 1]), ("2", [1, 0, 2]), ("3", [2, 1, 3])):
        given = search(*argv, seeds)
        world = World(given, slots=1)
        configs = [trial.config for trial in world.proposer.space.trials]
        for config, own in zip(configs, ((5,), (5, 6), (5,)), strict=False):
            for seed in own:
                failed = {"status": "failed"} if config is configs[2] else {}
                world.record(dataclasses.replace(config, seed=seed), **failed)
        before = {*world.recorded}
        most = world.proposer.at_most(world.known())
        world.run()
        new = [config for config in world.configs() if trial_id(config) not in before]
        keys = [dataclasses.replace(config, seed=0) for config in new]
        assert [keys.count(config) for config in configs] == [*lacking, *[int(seeds)] * 3]
        assert len(most) == len(new)
        # the lowest first
        assert all(config.seed < int(seeds) for config in new)
        assert {trial.state for trial in world.study()} == {TrialState.COMPLETE}


def test_a_study_begins_with_the_trials_of_another_sweep(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    given = search(*SMALL, by="tpe")
    measured = json.dumps(given.metrics(), sort_keys=True)
    earlier = World(search(*SMALL, "--samples", "12"))
    earlier.run()
    outside = make_plan(flags("--alpha", "1e5", "--variant", "target", "curvature", "--seeds", "1"))
    for config in (*earlier.configs(), *(trial.config for trial in outside.trials)):
        code = code_of(type(config.method), config.model.model)
        row = {"config": json.dumps(config.canonical()), "measured": measured, "seed": config.seed, "code": code}
        row |= {"trial_id": trial_id(config), "status": "completed", "method": config.method.name}
        epochs = [{"epoch": 29, "top1": 0.1}, {"epoch": 30, "top1": peak(config)[OBJECTIVE]}]
        write_trial(str(tmp_path / "one"), row, epochs, [], [])
    warm = World(search(*SMALL, "--warm-start", str(tmp_path / "one"), by="tpe"))
    assert (
        f"begun with {tmp_path}/one: 12 trials of 12 settings, and 3 left out, of other settings or by other code"
        in capsys.readouterr().err
    )
    # of several each one's own are counted
    own = make_plan(flags("--alpha", "1e5", "--variant", "curvature", "--seeds", "1", "--no-baseline")).trials[0].config
    other = {"config": json.dumps(own.canonical()), "trial_id": trial_id(own), "status": "completed"}
    write_trial(str(tmp_path / "other"), other, [], [], [])
    World(search(*SMALL, "--warm-start", str(tmp_path / "one"), str(tmp_path / "other"), by="tpe"))
    assert [line.partition(": ")[2] for line in capsys.readouterr().err.splitlines()] == [
        "12 trials of 12 settings, and 3 left out, of other settings or by other code",
        "0 trials of 0 settings, and 1 left out, of other settings or by other code",
    ]
    known = {trial.user_attrs[KEY]: trial.value for trial in earlier.study()}
    study = warm.study()
    assert {trial.user_attrs[KEY]: trial.value for trial in study} == known
    assert {trial.user_attrs["sweep"] for trial in study} == {str(tmp_path / "one")}
    # its first proposal is made from them, and not at random as without
    first, alone = (world.proposer.propose(world.known()) or [] for world in (warm, World(given)))
    assert first[0].id != alone[0].id
    assert not {trial.id for trial in first} & {trial_id(config) for config in earlier.configs()}
    # none of them is this sweep's own, nor counts
    assert not warm.proposer.plan(warm.known()).trials
    assert len(warm.proposer.at_most(warm.known())) == 50


@pytest.mark.parametrize("racing", [(), ("--racing",)])
def test_the_end_counts_the_settings_that_the_standing_counts(
    racing: Sequence[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The unregularised networks are best in one objective, a setting that lacks a seed and one that a scheduler ended
    in both: none of these is of the front. The two others are."""
    argv = ("--variant", "target", "--interval", "10", "--seeds", "2", *TWO, *racing, "--storage", str(tmp_path))
    given = search(*argv)
    world, url = World(given), sweep_url(given)
    trials = [trial.config for trial in world.proposer.space.trials]
    plain = next(config for config in trials if config.method.name == "baseline")
    other = next(config for config in trials if config.method.name == "pilcro")

    def of(alpha: float) -> TrialConfig:
        changes: dict[str, Any] = {"alpha": alpha}
        return dataclasses.replace(other, method=dataclasses.replace(other.method, **changes))

    for config, seeds, top1, variation, stopped_by in (
        (plain, 2, 0.99, 9.0, None),
        (of(1.0), 2, 0.8, 1.8, None),
        (of(2.0), 2, 0.7, 1.7, None),
        (of(4.0), 2, 0.96, 0.1, "asha"),
        (of(3.0), 1, 0.95, 0.1, None),
    ):
        for seed in range(seeds):
            one = dataclasses.replace(config, seed=seed)
            status = "stopped" if stopped_by else "completed"
            world.record(one, top1=top1, total_variation=variation, status=status, stopped_by=stopped_by)
            row = {**one.columns(), **world.recorded[trial_id(one)], "epochs": 1}
            write_trial(url, {name: row[name] for name in TABLES["trials"].names if name in row}, [], [], [])
    assert world.proposer.told(world.known()).startswith("2 settings, 2 on the Pareto front")
    summarise(given, world.proposer.plan(world.known()), url, make_console(), world.proposer.trials(world.known()))
    assert "the Pareto front, of 2: mean" in capsys.readouterr().out
    places = read_parquet(f"{url}/{SETTINGS_FILE}").to_pylist()
    assert sorted((row["alpha"], row["place"], row["top1"]) for row in places) == [(1.0, 1, 0.8), (2.0, 1, 0.7)]


def test_an_objective_of_one_attack_is_called_as_the_analysis_calls_it() -> None:
    attacked = ("--measure", "attacks", "landscape", "--attacks", "fgsm", "--epsilon", "8/255")
    given = search("--objective", "robust_accuracy:max", "top1", *attacked)
    assert metrics_of(given) == ["robust_accuracy:fgsm@0.0313725:max", "top1"]
    assert World(given).optuna.names == ["robust_accuracy:fgsm@0.0313725", "top1"]
    assert metrics_of(search("--objective", "robust_accuracy:fgsm:max", *attacked)) == ["robust_accuracy:fgsm:max"]
