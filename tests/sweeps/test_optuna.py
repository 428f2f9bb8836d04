"""What Optuna's samplers propose, on a record that is made up: each trial's scores are a function of its
configuration."""

from __future__ import annotations

import json
import math
import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from analysis.command_line import InputError
from sweeps.flags import SweepFlags
from sweeps.plan import PlannedTrial, make_plan, trial_id
from sweeps.proposers import proposer_of
from sweeps.proposers.optuna import MOST_FAILED, Optuna
from sweeps.proposers.proposer import Known, Proposer
from tests.sweeps.test_proposers import flags
from trainables.configuration import TrialConfig
from trainables.fingerprint import code_of

Outcome = Mapping[str, Any]
START = datetime(2026, 11, 1, tzinfo=UTC)
OBJECTIVE = "validation_top1"


def peak(config: TrialConfig) -> Outcome:
    """Best at lr = 0.05 and α = 10, with noise between seeds of 0.005."""
    noise = random.Random(trial_id(config)).gauss(0, 0.005)
    alpha = getattr(config.method, "alpha", 1e-2)
    distance = (math.log10(alpha) - 1) ** 2 + (math.log10(config.training.learning_rate / 0.05)) ** 2
    return {OBJECTIVE: 0.95 - 0.05 * distance + noise}


def row_of(config: TrialConfig, outcome: Outcome, number: int, measured: str) -> dict[str, Any]:
    return {
        "trial_id": trial_id(config),
        "status": "completed",
        "error": None,
        "config": json.dumps(config.canonical()),
        "code": code_of(type(config.method), config.model.model),
        "measured": measured,
        "started_at": START + timedelta(minutes=number),
        "finished_at": START + timedelta(minutes=number + 1),
        **outcome,
    }


class World:
    """A driver with so many places, whose trials end one after the other, the oldest first."""

    def __init__(self, given: SweepFlags, outcome: Callable[[TrialConfig], Outcome] = peak, slots: int = 1) -> None:
        self.proposer: Proposer = proposer_of(given)
        self.measured = json.dumps(given.metrics(), sort_keys=True)
        self.outcome, self.slots = outcome, slots
        self.recorded: dict[str, dict[str, Any]] = {}
        self.running: list[PlannedTrial] = []
        self.unfinished: list[PlannedTrial] = []

    @property
    def optuna(self) -> Optuna:
        inner = getattr(self.proposer, "inner", self.proposer)
        assert isinstance(inner, Optuna)
        return inner

    def known(self) -> Known:
        return Known(self.recorded, list(self.running), list(self.unfinished), self.slots - len(self.running))

    def record(self, config: TrialConfig, **more: Any) -> None:
        outcome = {**self.outcome(config), **more}
        self.recorded[trial_id(config)] = row_of(config, outcome, len(self.recorded), self.measured)

    def step(self) -> bool:
        found = self.proposer.propose(self.known()) if len(self.running) < self.slots else []
        for trial in found or ():
            assert trial.id not in self.recorded
            assert trial.id not in {one.id for one in self.running}
            self.running.append(trial)
        assert len(self.running) <= self.slots
        if not self.running:
            assert found is None
            return False
        self.record(self.running.pop(0).config)
        return True

    def killed(self) -> None:
        self.unfinished, self.running = [*self.unfinished, *self.running], []
        self.unfinished = [trial for trial in self.unfinished if trial.id not in self.recorded]

    def run(self, kills: Sequence[int] = ()) -> list[str]:
        """Killed after these steps, with what has been proposed and not ended."""
        steps = 0
        while self.step():
            steps += 1
            if steps in kills:
                found = self.proposer.propose(self.known())
                self.running += found or []
                self.killed()
        return list(self.recorded)

    def configs(self) -> list[TrialConfig]:
        return [TrialConfig.from_canonical(json.loads(row["config"])) for row in self.recorded.values()]

    def study(self) -> list[optuna.trial.FrozenTrial]:
        return self.optuna.trials(self.known())


SMALL = ("--no-baseline", "--variant", "target", "--seeds", "1", "--learning-rate", "1e-3..1", "--alpha", "1e-2..1e4")


def search(*argv: str, by: str = "random", of: str = "pilcro") -> SweepFlags:
    return flags("--search", by, *argv, of=of)


# --- a function of the record -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["random", "tpe", "gp", "nsga2"])
def test_killed_at_any_moment_it_ends_with_the_same_trials(by: str) -> None:
    """In the same order, also with another interpreter's proposer: all there is to know is in the record."""
    given = search(*SMALL, "--samples", "24", by=by)
    whole = World(given).run()
    assert len(whole) == 24
    assert World(given).run([1, 2, 11, 12, 20]) == whole
    assert World(search(*SMALL, "--samples", "24", "--search-seed", "1", by=by)).run() != whole


@pytest.mark.parametrize("by", ["tpe", "gp"])
def test_with_several_at_a_time_none_runs_twice_and_none_is_lost(by: str) -> None:
    given = search(*SMALL, "--samples", "22", "--seeds", "2", by=by)
    world = World(given, slots=4)
    assert len(world.run([3, 8])) == 22
    world = World(given, slots=4)
    for _ in range(5):
        world.step()
    world.running += world.proposer.propose(world.known()) or []
    begun = [trial.id for trial in world.running]
    assert len(begun) == 4
    world.killed()
    assert [trial.id for trial in world.proposer.propose(world.known()) or ()] == begun


def test_random_draws_are_those_of_their_number_whatever_the_results_and_places() -> None:
    given = search(*SMALL, "--samples", "9")
    whole = set(World(given).run())
    assert set(World(given, slots=3).run()) == whole
    assert set(World(given, lambda config: {OBJECTIVE: 0.5}).run()) == whole


@pytest.mark.parametrize(("by", "least"), [("tpe", 0.02), ("gp", 0.05)])
def test_a_sampler_finds_what_random_draws_do_not(by: str, least: float) -> None:
    """The mean of the settings after the first ten: they lie where it is good."""

    def late(kind: str) -> float:
        world = World(search(*SMALL, "--samples", "30", by=kind))
        world.run()
        return statistics.fmean(row[OBJECTIVE] for row in [*world.recorded.values()][15:])

    assert late(by) > late("random") + least


# --- the space --------------------------------------------------------------------------------------------------------


def test_numbers_integers_categories_and_what_one_variant_has_alone() -> None:
    world = World(
        search(
            *("--no-baseline", "--seeds", "1", "--samples", "40", "--weight-decay", "0..0.01", "--interval", "1..20"),
            *(
                "--laplacian-width",
                "3..7",
                "--reduction",
                "mean",
                "sum",
                "--alpha",
                "1..50",
                "--batch-size",
                "64",
                "128",
            ),
        )
    )
    world.run()
    study = world.study()
    assert {frozenset(trial.params) for trial in study} == {
        frozenset({"variant", "weight_decay", "alpha", "interval", "laplacian_width", "batch_size", *more})
        for more in ((), ("reduction",))
    }
    for trial in study:
        assert ("reduction" in trial.params) == (trial.params["variant"] == "target")
        assert trial.distributions["weight_decay"] == FloatDistribution(0.0, 0.01)
        assert trial.distributions["alpha"] == FloatDistribution(1.0, 50.0, log=True)
        assert trial.distributions["interval"] == IntDistribution(1, 20, log=True)
        assert trial.distributions["laplacian_width"] == IntDistribution(3, 7, step=2)
        assert trial.distributions["batch_size"] == CategoricalDistribution((64, 128))
    configs = world.configs()
    assert {config.method.laplacian_width for config in configs} == {3, 5, 7}  # type: ignore[attr-defined]
    assert all(config.training.learning_rate == 0.1 for config in configs)
    # four digits, as a person would write them
    assert all(float(f"{config.method.alpha:.4g}") == config.method.alpha for config in configs)  # type: ignore[attr-defined]


def test_top_gap_without_its_pyramid_has_fewer_pixels_and_none_of_its_channels() -> None:
    given = search(
        *("--heads", "fpn", "last", "--fpn-channels", "32", "64", "--pixels", "1..all", "--sparsity", "0..1"),
        *("--places", "last", "all", "--seeds", "1", "--samples", "25", "--no-baseline"),
        of="top_gap",
    )
    world = World(given, lambda config: {OBJECTIVE: 0.5})
    world.run()
    for trial in world.study():
        if trial.params["fpn"]:
            assert trial.distributions["pixels"] == IntDistribution(1, 16, log=True)
            assert trial.params["fpn_channels"] in (32, 64)
        else:
            assert trial.distributions["pixels (1..4)"] == IntDistribution(1, 4)
            assert "fpn_channels" not in trial.params
        assert trial.distributions["sparsity"] == FloatDistribution(0.0, 1.0)
        assert trial.params["variant"] in ("last", "all")
    assert {trial.params["fpn"] for trial in world.study()} == {True, False}


def test_a_space_of_few_settings_ends_when_all_are_recorded() -> None:
    argv = ("--no-baseline", "--seeds", "1", "--alpha", "1", "10", "--interval", "5..7")
    for by in ("random", "tpe", "gp", "nsga2"):
        world = World(search(*argv, by=by), slots=2)
        assert len(world.run()) == 2 * 2 * 3
        assert world.proposer.at_most(world.known()) == []


def test_the_unregularised_networks_come_first_where_there_is_one_way_to_train_them() -> None:
    world = World(search("--samples", "6"))
    world.run()
    assert [config.method.name for config in world.configs()] == ["baseline"] * 2 + ["pilcro"] * 4
    assert len(world.study()) == 2
    world = World(search("--samples", "6", "--learning-rate", "0.01..0.1"))
    world.run()
    assert {config.method.name for config in world.configs()} == {"pilcro"}
    assert any("no unregularised networks" in line for line in world.optuna.described())


# --- what is told -----------------------------------------------------------------------------------------------------


def test_what_runs_is_told_as_running_with_its_parameters() -> None:
    world = World(search(*SMALL, by="tpe"), slots=3)
    world.running += world.proposer.propose(world.known()) or []
    running = world.study()
    assert [trial.state for trial in running] == [TrialState.RUNNING] * 3
    assert [trial.params["alpha"] for trial in running] == [trial.config.method.alpha for trial in world.running]  # type: ignore[attr-defined]
    # TPE keeps away from it: that many running at the best place drive the next one off it
    world = World(search(*SMALL, "--learning-rate", "0.05", by="tpe"), slots=9)
    for _ in range(20):
        world.step()
    world.slots = len(world.running) + 1
    world.running = []
    alone = world.proposer.propose(Known(world.recorded))
    assert alone
    crowd = [PlannedTrial(trial_id(one), one, "") for one in _near(alone[0].config, 8)]
    (other,) = world.proposer.propose(Known(world.recorded, crowd)) or ()
    assert other.config.method.alpha != alone[0].config.method.alpha  # type: ignore[attr-defined]


def _near(config: TrialConfig, number: int) -> list[TrialConfig]:
    from dataclasses import replace

    alpha = config.method.alpha  # type: ignore[attr-defined]
    changes: list[dict[str, Any]] = [{"alpha": alpha * (1 + index / 100)} for index in range(number)]
    return [replace(config, method=replace(config.method, **change)) for change in changes]


def test_seeds_are_replicates_whose_mean_and_standard_error_are_told() -> None:
    scores = {0: 0.8, 1: 0.9, 2: 0.7}
    world = World(
        search(*SMALL, "--seeds", "3", "--samples", "7"),
        lambda config: {OBJECTIVE: scores[config.seed]},
    )
    world.run()
    whole, other, part = world.study()
    for trial in (whole, other):
        assert trial.state == TrialState.COMPLETE
        assert trial.value == pytest.approx(0.8)
        # the standard deviation of .7, .8 and .9 is .1
        assert trial.user_attrs["standard_error"] == pytest.approx(0.1 / math.sqrt(3))
        assert (trial.user_attrs["n"], trial.user_attrs["seeds"]) == (3, [0, 1, 2])
        assert set(trial.user_attrs["trial_ids"]) <= set(world.recorded)
    assert part.state == TrialState.RUNNING
    assert [config.seed for config in world.configs()] == [0, 1, 2, 0, 1, 2, 0]


def test_folds_are_replicates_too() -> None:
    world = World(search(*SMALL, "--seeds", "2", "--folds", "2", "--samples", "8"))
    world.run()
    assert [trial.user_attrs["n"] for trial in world.study()] == [4, 4]
    assert [(c.seed, c.data.fold) for c in world.configs()][:4] == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_a_failed_trial_is_told_with_its_reason_and_a_diverged_one_with_the_worst_score() -> None:
    world = World(search(*SMALL, "--samples", "9"))
    world.run()
    rows = list(world.recorded.values())
    rows[2] |= {"status": "failed", "error": "out of memory", OBJECTIVE: None}
    rows[4] |= {"status": "diverged", OBJECTIVE: None}
    rows[6] |= {"status": "diverged", OBJECTIVE: 0.999}  # its last epoch's, before its loss exploded
    rows[8] |= {"status": "diverged", OBJECTIVE: 0.01}
    worst = min(row[OBJECTIVE] for row in rows if row["status"] == "completed")
    study = world.study()
    assert [trial.state for trial in study].count(TrialState.FAIL) == 1
    assert study[2].user_attrs["reason"] == "out of memory"
    assert study[2].user_attrs["failed"] == 1
    assert [study[index].value for index in (4, 6, 8)] == [worst, worst, 0.01]
    assert [study[index].user_attrs["diverged"] for index in (3, 4)] == [0, 1]


def test_what_a_scheduler_stopped_is_told_with_the_score_that_it_had() -> None:
    world = World(
        search(*SMALL, "--samples", "3", "--objective", OBJECTIVE, "loss"), lambda _: {OBJECTIVE: 0.8, "loss": 0.5}
    )
    world.run()
    rows = list(world.recorded.values())
    rows[1] |= {"status": "stopped", "stopped_by": "asha", OBJECTIVE: 0.3, "loss": 2.0}
    rows[2] |= {"status": "stopped", "stopped_by": "asha", OBJECTIVE: 0.3, "loss": None}
    study = world.study()
    assert [trial.values for trial in study] == [[0.8, 0.5], [0.3, 2.0], [0.8, 0.5]]
    assert [trial.user_attrs.get("stopped", 0) for trial in study] == [0, 1, 1]
    # beside whole trainings it is left out: its score is of an earlier epoch
    world = World(search(*SMALL, "--samples", "2", "--seeds", "2"), lambda config: {OBJECTIVE: 0.8})
    world.run()
    [*world.recorded.values()][1].update({"status": "stopped", "stopped_by": "asha", OBJECTIVE: 0.3})
    (trial,) = world.study()
    assert (trial.value, trial.user_attrs["n"], trial.user_attrs["stopped"]) == (0.8, 1, 1)


def test_tpe_keeps_away_from_where_training_diverges() -> None:
    """Above a learning rate of 0.03 everything diverges, and below it nothing matters."""

    def outcome(config: TrialConfig) -> Outcome:
        rate = config.training.learning_rate
        score = random.Random(trial_id(config)).uniform(0.85, 0.9)
        return {"status": "diverged", OBJECTIVE: None} if rate > 0.03 else {OBJECTIVE: score}

    world = World(search(*SMALL, "--samples", "40", by="tpe"), outcome)
    world.run()
    rates = [config.training.learning_rate for config in world.configs()]
    assert sum(rate > 0.03 for rate in rates[:10]) >= 4  # of random ones half
    assert sum(rate > 0.03 for rate in rates[10:]) <= 8  # of 30


def test_when_everything_fails_it_is_given_up() -> None:
    world = World(search(*SMALL), lambda config: {"status": "failed", "error": "no CUDA"})
    assert len(world.run()) == MOST_FAILED
    assert world.proposer.ended(world.known()) == f"given up, as none of {MOST_FAILED} settings has a score: no CUDA"
    assert world.proposer.at_most(world.known()) == []
    # that the first ones diverge says nothing of the others
    world = World(search(*SMALL, "--samples", "9"), lambda config: {"status": "diverged", OBJECTIVE: None})
    assert len(world.run()) == 9


def test_trials_of_a_grid_count_and_those_of_other_code_and_other_options_do_not() -> None:
    world = World(search(*SMALL, "--learning-rate", "0.1"))
    grid = make_plan(flags("--alpha", "0.1", "10", "--variant", "target", "--seeds", "1", "--no-baseline"))
    others = make_plan(flags("--alpha", "10", "1e6", "--variant", "target", "--laplacian-width", "5", "--seeds", "1"))
    for trial in (*grid.trials, *others.trials):
        world.record(trial.config)
    assert sorted(trial.params["alpha"] for trial in world.study()) == [0.1, 10]
    assert world.proposer.plan(world.known()).ids == grid.ids
    first, second = (world.recorded[trial.id] for trial in grid.trials)
    first["code"] = "another"
    second["measured"] = json.dumps({"landscape": {}})
    (left,) = world.study()
    assert left.value is not None  # accuracy is not measured with options
    total = World(search(*SMALL, "--learning-rate", "0.1", "--objective", "total_variation"))
    total.recorded = {second["trial_id"]: {**second, "total_variation": 1.0}}
    assert [trial.state for trial in total.study()] == [TrialState.FAIL]


# --- racing -----------------------------------------------------------------------------------------------------------


def test_hopeless_settings_stop_after_their_first_seed() -> None:
    """Three standard deviations between seeds are .03: no setting below the best's mean − .03 gets a second seed once
    four degrees of freedom tell the deviation, and every better one gets all three."""

    def outcome(config: TrialConfig) -> Outcome:
        alpha = math.log10(config.method.alpha)  # type: ignore[attr-defined]
        return {OBJECTIVE: 0.9 - 0.05 * abs(alpha - 1) + (-0.01, 0.0, 0.01)[config.seed]}

    given = search(*SMALL, "--learning-rate", "0.1", "--seeds", "3", "--samples", "40", "--racing")
    world = World(given, outcome)
    world.run()
    ns = [(trial.user_attrs.get("n"), trial.params["alpha"]) for trial in world.study() if trial.user_attrs.get("n")]
    assert [n for n, _ in ns][:2] == [3, 3]  # nothing is known of the deviation before
    assert {n for n, _ in ns} == {1, 3}
    means = [(n, 0.9 - 0.05 * abs(math.log10(alpha) - 1)) for n, alpha in ns]
    best = 0.0
    for index, (n, mean) in enumerate(means):
        # the first seed's score is .01 below the mean
        assert (n == 1) == (index >= 2 and mean - 0.01 < best - 0.03 - 1e-9)
        best = max(best, mean if n == 3 else 0.0)
    # and so it is remade after any kill
    assert World(given, outcome).run([2, 5, 9, 17]) == list(world.recorded)
    given_up = [trial for trial in world.study() if "given_up" in trial.user_attrs]
    assert given_up[0].user_attrs["given_up"] == "after 1 trial (--racing)"
    assert given_up[0].state == TrialState.COMPLETE


def test_in_a_race_what_diverged_gets_no_second_seed() -> None:
    world = World(
        search(*SMALL, "--seeds", "2", "--samples", "6", "--racing"),
        lambda config: {"status": "diverged", OBJECTIVE: 0.1} if config.training.learning_rate > 0.1 else peak(config),
    )
    world.run()
    by_rate: dict[float, int] = {}
    for config in world.configs():
        rate = config.training.learning_rate
        by_rate[rate] = by_rate.get(rate, 0) + 1
    assert all((number == 1) == (rate > 0.1) for rate, number in [*by_rate.items()][:-1])
    assert any(rate > 0.1 for rate in by_rate)


# --- several objectives -----------------------------------------------------------------------------------------------

TWO = ("--objective", "top1", "total_variation")


def two(config: TrialConfig) -> Outcome:
    """The stronger, the flatter and the worse; the learning rate is for nothing but harm."""
    alpha = math.log10(config.method.alpha)  # type: ignore[attr-defined]
    harm = abs(math.log10(config.training.learning_rate / 0.05))
    return {"top1": 0.9 - 0.1 * alpha - 0.1 * harm, "total_variation": 5 - alpha + harm}


@pytest.mark.parametrize("by", ["random", "tpe", "gp", "nsga2"])
def test_several_objectives(by: str) -> None:
    given = search(*SMALL, *TWO, "--samples", "45" if by == "nsga2" else "16", by=by)
    world = World(given, two)
    whole = world.run()
    study = world.study()
    assert study[0].values == pytest.approx([*two(world.configs()[0]).values()])
    assert World(given, two).run([3, 13]) == whole
    front = optuna.create_study(directions=["maximize", "minimize"])
    front.add_trials(study)
    assert world.proposer.told(world.known()).startswith(
        f"{len(study)} settings, {len(front.best_trials)} on the Pareto front"
    )
    if by == "nsga2":
        generations = [trial.system_attrs["NSGAIISampler:generation"] for trial in study]
        assert generations == [index // 20 for index in range(45)]


def test_nsgas_later_generations_are_children_of_the_best_before() -> None:
    """Half of all parameters are a parent's, and the others mutations; a child that is a parent again is none."""
    inherited: dict[str, list[optuna.trial.FrozenTrial]] = {}
    for by in ("random", "nsga2"):
        world = World(search(*SMALL, *TWO, "--samples", "60", by=by), two)
        world.run()
        study = world.study()
        for child in study[20:]:
            for parent in study[: study.index(child)]:
                shared = [name for name in child.params if child.params[name] == parent.params[name]]
                inherited.setdefault(by, []).extend([parent] * len(shared))
    assert not inherited.get("random")
    assert len(inherited["nsga2"]) >= 20

    def harm(trials: Sequence[optuna.trial.FrozenTrial]) -> float:
        return statistics.fmean(abs(math.log10(trial.params["learning_rate"] / 0.05)) for trial in trials)

    assert harm(inherited["nsga2"]) < harm(study) - 0.05


ATTACKED = ("--measure", "attacks", "--attacks", "fgsm", "pgd", "--epsilon", "0.1", "--attack-steps", "20")


@pytest.mark.parametrize(
    "argv",
    [
        ("--objective", "robust_accuracy:pgd20@0.1:max", *ATTACKED),
        ("--objective", "robust_accuracy:fgsm:max", *ATTACKED),
        ("--objective", "robust_accuracy:max", "--measure", "attacks", "--attacks", "fgsm", "--epsilon", "8/255"),
        ("--objective", "faithfulness:gradient@50:max", "--measure", "faithfulness"),
        ("--objective", "erf:centre:max", "--measure", "erf"),
    ],
)
def test_what_there_is_one_number_of_is_searched(argv: Sequence[str]) -> None:
    proposer_of(search(*argv))


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("--objective", "nonsense"), "objective: nonsense, allowed are validation_top1, validation_top5,"),
        (("--objective", "robust_accuracy:pgd:max"), "objective: robust_accuracy:pgd, allowed with --measure attacks"),
        (("--objective", "importance_landscape:max"), "objective: importance_landscape (a map), allowed are"),
        (
            ("--objective", "robust_accuracy:max", *ATTACKED),
            "objective: robust_accuracy, allowed is one of robust_accuracy:fgsm@0.1, robust_accuracy:pgd20@0.1",
        ),
        (
            ("--objective", "robust_accuracy:pgd@0.1:max", *ATTACKED),
            "allowed is one of robust_accuracy:fgsm@0.1, robus",
        ),
        (("--objective", "entropy:min", "--measure", "entropy"), "one of entropy:gradient, entropy:deeplift"),
        (("--objective", "faithfulness:x@9:max", "--measure", "faithfulness"), "one of faithfulness:gradient, fait"),
        (("--objective", "parameters:x:min", "--measure", "parameters"), "allowed is one of parameters"),
        (("--objective", "top1:min"), "objective: top1:min, allowed is top1:max"),
        (("--objective", "train_seconds"), "objective: train_seconds, allowed are train_seconds:max and train_seco"),
        (("--objective", "total_variation", "--measure", "paths"), "total_variation, allowed with --measure landscape"),
        (("--objective", "seed"), "objective: seed, allowed are"),
        (("--alpha", "10..1"), "alpha: 10..1, allowed for a search are two rising numbers"),
        (("--alpha", "1..inf"), "alpha: inf, allowed are finite numbers"),
        (("--alpha", "-1..1"), "alpha: -1.0, allowed are finite numbers of at least 0"),
        (("--interval", "1..2.5"), "interval: 1..2.5, allowed are values, or one LOW..HIGH of whole numbers"),
        (("--learning-rate", "0..1"), "learning_rate: "),
        (("--variant", "curvature", "target", "--dataset", "digits", "mnist"), "dataset: "),
        (("--interval-width", "0.1"), "interval_width: given, allowed with --search tipping"),
        (("--seeds", "1", "--racing"), "racing: given, allowed with --seeds above 1"),
        (("--warm-start", "/nowhere"), "/nowhere: no recorded trials"),
    ],
)
def test_what_cannot_be_searched_is_refused(argv: Sequence[str], said: str) -> None:
    with pytest.raises(InputError) as error:
        proposer_of(search(*argv))
    assert said in str(error.value)


def test_ranges_in_all_ways_of_writing() -> None:
    argv = ("--learning_rate=1e-3..1", "--weight-decay", "0..0.5", "--epochs", "12..30", "--alpha-range", "1", "10")
    read = search(*argv)
    assert read.ranges == (
        ("learning_rate", 1e-3, 1.0),
        ("weight_decay", 0.0, 0.5),
        ("epochs", 12, 30),
        ("alpha", 1, 10),
    )
    assert search("--alpha", "1", "10").ranges == ()
    assert search().ranges == (("alpha", 0.01, 1e4),)
    assert search(of="top_gap").ranges == (("pixels", "1", "all"),)
    # three numbers are a list
    assert search("--alpha-range", "1", "100", "3").ranges == ()
    with pytest.raises(InputError, match="alpha: two ranges, allowed is one"):
        search("--alpha", "1..2", "--alpha", "3..4")
    # a folder above is no range
    assert search("--data-root", "../data").data_root == "../data"


@pytest.mark.parametrize(
    ("of", "argv", "said"),
    [
        ("pilcro", ("--learning-rate", "0.01..0.1"), "learning_rate: 0.01..0.1, allowed with --search random, tpe,"),
        ("pilcro", ("--search", "grid", "--epochs", "5..9"), "epochs: 5..9, allowed with --search random, tpe,"),
        ("pilcro", ("--objective", "loss"), "objective: given, allowed with --search random, tpe, gp or nsga2"),
        ("pilcro", ("--racing",), "racing: given, allowed with --search random, tpe, gp or nsga2"),
        ("loco_reg", ("--search", "tpe", "--stages", "two"), "search: tpe, allowed with --stages two is grid"),
        ("loco_reg", ("--search", "tpe", "--modulation", "1..2"), "modulation: 1..2, allowed is no range here"),
        ("deformation", ("--search", "tpe", "--labels", "real", "random"), "labels: 2 values, allowed with --search"),
    ],
)
def test_what_goes_with_these_searches_alone(of: str, argv: Sequence[str], said: str) -> None:
    with pytest.raises(InputError) as error:
        proposer_of(flags(*argv, of=of))
    assert said in str(error.value)


# --- the end, and the beginning -------------------------------------------------------------------------------------


def test_without_samples_it_ends_with_fifty_settings_and_the_plan_says_so(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from sweeps.launch import dry_run

    for more, most in (((), 2 + 50 * 2), (("--samples", "7"), 7), (("--alpha", "1", "10"), 2 + 2 * 2 * 2)):
        given = search(*more, "--storage", str(tmp_path))
        dry_run(given, proposer_of(given))
        out = capsys.readouterr().out
        assert f"random: at most {most} trials more, 0 are recorded in {tmp_path}/pilcro" in out
        assert "variant: curvature, target" in out
    world = World(search(*SMALL))
    assert len(world.run()) == 50
