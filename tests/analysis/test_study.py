"""A record as a study of Optuna: trials by hand, and what Optuna's own functions make of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from analysis.command_line import InputError
from analysis.records import read_sweep
from analysis.study import configurations, study_of, tasks

Record = Callable[..., bool]


@pytest.fixture
def sweep(record: Record, tmp_path: Path) -> Path:
    """A baseline, two variants of which one has a hyperparameter of its own, one seed diverged, one failed, and a
    setting of which every trial failed."""
    plain = {"method": "baseline", "alpha": None, "variant": None}
    record(tmp_path, "b0", **plain, seed=0, top1=0.5, loss=1.0)
    record(tmp_path, "b1", **plain, seed=1, top1=0.7, loss=2.0)
    record(tmp_path, "c0", alpha=1.0, laplacian_width=3, seed=0, top1=0.9, loss=0.5)
    record(tmp_path, "c1", alpha=1.0, laplacian_width=3, seed=1, top1=0.8, loss=0.25)
    record(tmp_path, "d0", alpha=100.0, laplacian_width=5, seed=0, top1=0.6, loss=None, status="diverged")
    record(tmp_path, "d1", alpha=100.0, laplacian_width=5, seed=1, top1=None, loss=None, status="failed", error="oom")
    record(tmp_path, "t0", alpha=10.0, variant="target", seed=0, top1=0.4, loss=3.0)
    failed = {"top1": None, "loss": None, "status": "failed", "error": "out of memory"}
    record(tmp_path, "f0", alpha=10.0, laplacian_width=3, seed=0, **failed)
    return tmp_path


def by_setting(study: optuna.Study) -> dict[str, optuna.trial.FrozenTrial]:
    return {trial.user_attrs["setting"]: trial for trial in study.trials}


def test_seeds_are_replicates(sweep: Path) -> None:
    study = study_of(sweep)
    assert study.directions == [optuna.study.StudyDirection.MAXIMIZE]
    found = by_setting(study)
    assert len(found) == 5
    best = found["pilcro, alpha=1, laplacian_width=3, curvature"]
    assert best.params == {"method": "pilcro", "alpha": 1.0, "laplacian_width": 3, "variant": "curvature"}
    assert best.value == pytest.approx(0.85)
    # sd of .9 and .8 is .1/√2, by √2
    assert best.user_attrs["standard_error"] == pytest.approx(0.05)
    assert best.user_attrs["n"] == 2
    assert (best.user_attrs["seeds"], best.user_attrs["trial_ids"]) == ([0, 1], ["c0", "c1"])
    assert study.best_trial.user_attrs["setting"] == best.user_attrs["setting"]
    assert found["baseline"].params == {"method": "baseline"}
    assert found["baseline"].value == pytest.approx(0.6)


def test_what_a_variant_has_alone_is_conditional(sweep: Path) -> None:
    study = study_of(sweep)
    target = by_setting(study)["pilcro, alpha=10, target"]
    assert target.params == {"method": "pilcro", "alpha": 10.0, "variant": "target"}
    assert set(target.distributions) == set(target.params)
    best = study.best_trial.distributions
    assert best["alpha"] == FloatDistribution(1.0, 100.0, log=True)
    assert best["laplacian_width"] == IntDistribution(3, 5)
    assert best["variant"] == CategoricalDistribution(("curvature", "target"))


def test_diverged_and_failed_trials(sweep: Path) -> None:
    found = by_setting(study_of(sweep))
    diverged = found["pilcro, alpha=100, laplacian_width=5, curvature"]
    assert (diverged.state, diverged.value) == (TrialState.COMPLETE, 0.6)
    attributes = diverged.user_attrs
    assert (attributes["diverged"], attributes["failed"], attributes["n"]) == (1, 1, 1)
    assert attributes["standard_error"] is None
    failed = found["pilcro, alpha=10, laplacian_width=3, curvature"]
    assert (failed.state, failed.values) == (TrialState.FAIL, None)
    assert failed.user_attrs["reason"] == "1 trial failed: out of memory"


def test_several_metrics(sweep: Path) -> None:
    study = study_of(sweep, metrics=["top1", "loss"])
    assert [way.name for way in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    found = by_setting(study)
    best = found["pilcro, alpha=1, laplacian_width=3, curvature"]
    assert best.values == pytest.approx([0.85, 0.375])
    assert best.user_attrs["n"] == [2, 2]
    assert best.user_attrs["standard_error"] == pytest.approx([0.05, 0.125])
    # the diverged one has no loss
    assert found["pilcro, alpha=100, laplacian_width=5, curvature"].state == TrialState.FAIL
    assert [trial.user_attrs["setting"] for trial in study.best_trials] == [best.user_attrs["setting"]]


def test_order_and_times_are_the_records(record: Record, tmp_path: Path) -> None:
    times = [datetime(2026, 11, 1, hour, tzinfo=UTC) for hour in range(4)]
    record(tmp_path, "a", alpha=1.0, started_at=times[2], finished_at=times[3])
    record(tmp_path, "b", alpha=2.0, started_at=times[0], finished_at=times[1])
    study = study_of(tmp_path)
    assert [trial.params["alpha"] for trial in study.trials] == [2.0, 1.0]
    assert study.trials[0].datetime_complete == datetime(2026, 11, 1, 1)
    assert repr(study.trials) == repr(study_of(tmp_path).trials)


def test_zero_is_on_a_linear_scale(record: Record, tmp_path: Path) -> None:
    for index, sparsity in enumerate([0.0, 0.001, 1.0]):
        record(tmp_path, f"a{index}", sparsity=sparsity)
    study = study_of(tmp_path)
    assert len(study.trials) == 3
    assert study.trials[0].distributions == {"sparsity": FloatDistribution(0.0, 1.0)}


def test_another_space_leaves_out_what_is_beyond_it(sweep: Path) -> None:
    alpha = FloatDistribution(1e-3, 20.0, log=True)
    study = study_of(sweep, space={"alpha": alpha})
    assert study.user_attrs["left_out"] == ["pilcro, alpha=100, laplacian_width=5, curvature"]
    assert {trial.distributions["alpha"] for trial in study.trials if "alpha" in trial.params} == {alpha}
    # a sampler goes on from it
    study.sampler = optuna.samplers.TPESampler(seed=0)
    asked = study.ask({"alpha": alpha})
    assert 1e-3 <= asked.params["alpha"] <= 20


def test_tasks_are_not_pooled(record: Record, tmp_path: Path) -> None:
    for data in ("digits", "mnist"):
        for alpha in (1.0, 2.0):
            record(tmp_path, f"{data}{alpha}", dataset=data, alpha=alpha)
    with pytest.raises(InputError, match=r"trials of 2 values of dataset \(digits, mnist\), whose numbers do not"):
        study_of(tmp_path)
    found = tasks(read_sweep(tmp_path))
    assert found == [{"dataset": "digits"}, {"dataset": "mnist"}]
    assert [len(study_of(tmp_path, where=where).trials) for where in found] == [2, 2]
    with pytest.raises(InputError, match="no trial with dataset=cifar10"):
        study_of(tmp_path, where={"dataset": "cifar10"})


def test_metrics_without_a_better_direction_are_refused(record: Record, tmp_path: Path) -> None:
    record(tmp_path, "a", train_seconds=1.0)
    for metrics in ("train_seconds", "nothing"):
        with pytest.raises(InputError, match=f"^--metric {metrics}: .*there are top1"):
            study_of(tmp_path, metrics=metrics)


def test_values_that_are_not_finite_are_left_out(record: Record, tmp_path: Path) -> None:
    record(tmp_path, "a0", alpha=1.0, seed=0, loss=math.inf)
    record(tmp_path, "a1", alpha=1.0, seed=1, loss=2.0)
    record(tmp_path, "b0", alpha=2.0, seed=0, loss=math.nan)
    one, other = configurations(tmp_path, metrics="loss")
    assert (one.means, one.ns, other.is_complete) == ([2.0], [1], False)
