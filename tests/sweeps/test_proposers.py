"""What is proposed, on a record that is made up: each trial's accuracy is a function of its configuration."""

from __future__ import annotations

import json
import math
import random
import sys
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from analysis.command_line import InputError
from analysis.tipping_fit import fit_curve
from analysis.tipping_search import MOST
from sweeps.flags import SweepFlags, read_flags
from sweeps.plan import PlannedTrial, make_plan, trial_id
from sweeps.proposers import proposer_of
from sweeps.proposers.proposer import Known, Proposer
from sweeps.proposers.tipping import MOST_FAILED
from tests.sweeps.test_help import script
from trainables.configuration import TrialConfig
from trainables.fingerprint import code_of

Row = dict[str, Any]


def flags(*argv: str, of: str = "pilcro") -> SweepFlags:
    return read_flags(*script(of), argv, "")


def tips_at(place: float) -> Callable[[TrialConfig], float]:
    """A logistic curve in log₁₀ α with a little noise that the configuration decides."""

    def score(config: TrialConfig) -> float:
        alpha = getattr(config.method, "alpha", 1e-9)
        noise = random.Random(trial_id(config)).gauss(0, 0.005)
        return 0.1 + 0.85 / (1 + math.exp(4 * (math.log10(alpha) - place))) + noise

    return score


def row_of(config: TrialConfig, score: float | None, status: str = "completed") -> Row:
    return {
        "status": status,
        "config": json.dumps(config.canonical()),
        "top1": score,
        "code": code_of(type(config.method), config.model.model),
        "train_seconds": 30.0,
        "measure_seconds": 6.0,
        "cpus": 1.0,
        "gpus": 0.0,
    }


class World:
    """A driver with so many places, whose trials end one after the other, the oldest first."""

    def __init__(self, proposer: Proposer, score: Callable[[TrialConfig], float], slots: int) -> None:
        self.proposer, self.score, self.slots = proposer, score, slots
        self.recorded: dict[str, Row] = {}
        self.running: list[PlannedTrial] = []
        self.unfinished: list[PlannedTrial] = []
        self.order: list[str] = []

    def known(self) -> Known:
        return Known(self.recorded, list(self.running), list(self.unfinished), self.slots - len(self.running))

    def step(self) -> bool:
        """Propose and end a trial; False when nothing is left."""
        found = self.proposer.propose(self.known()) if len(self.running) < self.slots else []
        for trial in found or ():
            assert trial.id not in self.recorded
            assert trial.id not in {one.id for one in self.running}
            self.running.append(trial)
        assert len(self.running) <= self.slots
        if not self.running:
            assert found is None
            return False
        trial = self.running.pop(0)
        self.order.append(trial.id)
        self.recorded[trial.id] = row_of(trial.config, self.score(trial.config))
        return True

    def killed(self) -> None:
        """What the next driver knows: the record, and what has begun."""
        self.unfinished, self.running = [*self.unfinished, *self.running], []
        self.unfinished = [trial for trial in self.unfinished if trial.id not in self.recorded]

    def run(self, kills: Mapping[int, int] | None = None) -> set[str]:
        steps = 0
        while self.step():
            steps += 1
            if kills and steps in kills:
                self.killed()
        return set(self.recorded)


SEARCH = ("--search", "tipping", "--alpha", "1e-2..1e4")


def alphas(world: World, variant: str) -> list[tuple[float, int, float]]:
    found = []
    for row in world.recorded.values():
        config = json.loads(row["config"])
        if config["method"].get("variant") == variant:
            found.append((config["method"]["alpha"], config["seed"], row["top1"]))
    return found


@pytest.mark.parametrize("slots", [1, 2, 8])
def test_each_curve_ends_with_its_own_tipping_point(slots: int) -> None:
    """¶c tips at 10, ¶t at 1000, the baseline is asked for first, and both are found within .3 decades."""

    def score(config: TrialConfig) -> float:
        return tips_at(1.0 if getattr(config.method, "variant", "") == "curvature" else 3.0)(config)

    world = World(proposer_of(flags(*SEARCH)), score, slots)
    assert world.proposer.told(world.known()) == "0 of 2 curves answered"
    ids = world.run()
    assert world.proposer.told(world.known()) == "2 of 2 curves answered"
    first = [json.loads(world.recorded[name]["config"])["method"]["name"] for name in world.order[:2]]
    assert first == ["baseline", "baseline"]
    assert len(ids) <= 2 + 2 * MOST
    for variant, place in (("curvature", 1.0), ("target", 3.0)):
        own = sorted(alphas(world, variant))
        assert min(own)[0] == 1e-2
        assert max(own)[0] == 1e4
        # four digits, as a person would write them
        assert all(float(f"{alpha:.4g}") == alpha for alpha, _, _ in own)
        fit = fit_curve(*map(list, zip(*[(a, y, s) for a, s, y in own], strict=True)))  # type: ignore[arg-type]
        # where the logistic curve above is at 80% of .95
        wanted = place + math.log(0.85 / (0.8 * 0.95 - 0.1) - 1) / 4
        assert fit.status == "tipping point"
        assert fit.log10_strength == pytest.approx(wanted, abs=0.15)
        assert fit.high - fit.low <= 0.35


def test_killed_again_and_again_it_ends_with_the_same_trials() -> None:
    """One at a time: the same set; two at a time: none twice (which `World` asserts), and what had begun is among
    those that are recorded."""
    whole = World(proposer_of(flags(*SEARCH)), tips_at(1.5), 1).run()
    for kills in ({1: 1}, {5: 1, 6: 1}, dict.fromkeys(range(1, 60), 1)):
        assert World(proposer_of(flags(*SEARCH)), tips_at(1.5), 1).run(kills) == whole
    world = World(proposer_of(flags(*SEARCH)), tips_at(1.5), 4)
    for _ in range(7):
        world.step()
    begun = [trial.id for trial in world.running]
    assert len(begun) >= 2
    world.killed()
    found = world.proposer.propose(world.known())
    assert found is not None
    assert [trial.id for trial in found][: len(begun)] == begun
    assert {*begun} <= world.run()


def test_what_is_recorded_already_counts_where_it_fits() -> None:
    """A record of a grid: a search that begins on it does with fewer trials, and takes none twice."""
    alone = World(proposer_of(flags(*SEARCH)), tips_at(1.5), 1)
    new = len(alone.run())
    world = World(proposer_of(flags(*SEARCH)), tips_at(1.5), 1)
    grid = make_plan(flags("--alpha", "0.01", "0.1", "1", "10", "100", "1000"))
    others = make_plan(flags("--alpha", "1", "--laplacian-width", "5"))
    for trial in (*grid.trials, *others.trials):
        world.recorded[trial.id] = row_of(trial.config, tips_at(1.5)(trial.config))
    known = Known({**world.recorded})
    before = len(world.recorded)
    world.run()
    assert len(world.recorded) - before < new / 2
    ids = world.proposer.plan(known).ids
    assert ids == grid.ids  # and not those of another Laplacian
    # of other code they are no part of this curve, as in the analysis, and their places are not tried again
    for row in world.recorded.values():
        row["code"] = "another"
    found = world.proposer.propose(world.known())
    assert found
    assert not {trial.id for trial in found} & world.recorded.keys()


def test_failed_trials_are_not_tried_again_and_end_it_when_they_are_many() -> None:
    world = World(proposer_of(flags(*SEARCH, "--variant", "target", "--no-baseline")), tips_at(1.0), 1)
    for count in range(MOST_FAILED):
        (trial,) = world.proposer.propose(world.known()) or ()
        assert trial.id not in world.recorded, count
        world.recorded[trial.id] = row_of(trial.config, None, "failed")
    assert world.proposer.propose(world.known()) is None
    assert world.proposer.told(world.known()) == "0 of 1 curve answered, 1 ended without an answer"
    assert "given up after 3 failed trials: --retry-failed goes on" in world.proposer.ended(world.known())


def test_only_what_has_an_answer_is_told_as_answered() -> None:
    """20 trials do not say to a thousandth of a decade where it tips, nor 9 samples to a hundredth."""
    one = (*SEARCH, "--variant", "target", "--no-baseline")
    fine = World(proposer_of(flags(*one, "--interval-width", "0.001")), tips_at(1.0), 1)
    assert len(fine.run()) == MOST
    assert fine.proposer.told(fine.known()) == "0 of 1 curve answered, 1 ended without an answer"
    assert f"no answer after {MOST} trials: --samples goes on with more" in fine.proposer.ended(fine.known())
    spent = World(proposer_of(flags(*one, "--interval-width", "0.01", "--samples", "9")), tips_at(1.0), 1)
    assert len(spent.run()) == 9
    told = "the budget is spent (0 of 1 curve answered, 9 of 9 samples): the same command with a larger one goes on"
    assert spent.proposer.ended(spent.known()) == told
    less = proposer_of(flags(*one, "--interval-width", "0.01", "--samples", "5"))  # than there is
    assert less.ended(spent.known()).startswith("the budget is spent (0 of 1 curve answered")
    for score in (tips_at(1.0), lambda config: 0.9, lambda config: 0.1):
        answered = World(proposer_of(flags(*SEARCH, "--variant", "target")), score, 1)
        answered.run()
        assert answered.proposer.told(answered.known()) == "1 of 1 curve answered"
        assert answered.proposer.ended(answered.known()) == ""


def test_a_flat_curve_is_none_in_range_and_a_fallen_one_below_it() -> None:
    flat = World(proposer_of(flags(*SEARCH, "--variant", "target")), lambda config: 0.9, 2)
    assert len(flat.run()) <= 10
    fallen = World(
        proposer_of(flags(*SEARCH, "--variant", "target")),
        lambda config: 0.95 if config.method.name == "baseline" else 0.1,
        2,
    )
    assert len(fallen.run()) <= 12


def test_extended_it_looks_on_beyond_the_range() -> None:
    """A curve that tips at 10⁵ is not found in 10⁻²..10⁴, and is with --extend; one at 10⁻³ below it."""
    for place, beyond in ((5.0, lambda alpha: alpha > 1e4), (-3.0, lambda alpha: alpha < 1e-2)):
        for more, found in (((), False), (("--extend",), True)):
            world = World(proposer_of(flags(*SEARCH, *more, "--variant", "target")), tips_at(place), 1)
            world.run()
            assert any(beyond(alpha) for alpha, _, _ in alphas(world, "target")) == found
            if found:
                x, seed, y = map(list, zip(*alphas(world, "target"), strict=True))
                fit = fit_curve(x, y, seed, baseline=[0.95, 0.95])
                assert fit.status == "tipping point"
                assert fit.log10_strength == pytest.approx(place, abs=0.4)


def test_whole_strengths_stay_whole_and_within_what_the_network_has() -> None:
    """Top-GAP's k on digits: 1 to 16, the smaller the stronger."""
    proposer = proposer_of(flags("--search", "tipping", of="top_gap"))

    def score(config: TrialConfig) -> float:
        return 0.95 if getattr(config.method, "pixels", 64) >= 6 else 0.3

    world = World(proposer, score, 2)
    world.run()
    pixels = [json.loads(row["config"])["method"].get("pixels") for row in world.recorded.values()]
    swept = [k for k in pixels if k is not None]
    assert all(isinstance(k, int) for k in swept)
    assert (min(swept), max(swept)) == (1, 16)
    fallen, held = max(k for k in swept if k < 6), min(k for k in swept if k >= 6)
    assert math.log10(held / fallen) <= 0.3


def test_folds_are_replicates_as_seeds_are() -> None:
    world = World(proposer_of(flags(*SEARCH, "--folds", "2", "--variant", "target")), tips_at(1.0), 1)
    world.run()
    folds = {
        (json.loads(row["config"])["data"]["fold"], json.loads(row["config"])["seed"])
        for row in world.recorded.values()
    }
    assert {fold for fold, _ in folds} == {0, 1}


def test_the_dry_run_says_what_it_may_cost_at_most(capsys: pytest.CaptureFixture[str], tmp_path: Any) -> None:
    from sweeps.launch import dry_run

    for more, most in (((), 2 + 2 * MOST), (("--samples", "7"), 7), (("--variant", "target"), 2 + MOST)):
        given = flags(*SEARCH, *more, "--storage", str(tmp_path))
        dry_run(given, proposer_of(given))
        out = capsys.readouterr().out
        assert f"at most {most} trials more, 0 are recorded in {tmp_path}/pilcro" in out
        assert "curvature: α from 0.01 to 10000" in out or "target" in more


# --- budgets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slots", [1, 3])
def test_samples_count_what_is_recorded_and_what_runs(slots: int) -> None:
    world = World(proposer_of(flags(*SEARCH, "--samples", "9")), tips_at(1.0), slots)
    assert len(world.run()) == 9
    assert world.proposer.ended(world.known()).startswith("the budget is spent (")
    assert len(world.proposer.plan(world.known()).trials) == 9
    whole = World(proposer_of(flags(*SEARCH)), tips_at(1.0), 1)
    whole.run()
    if slots == 1:
        assert whole.order[:9] == world.order
    grid = World(proposer_of(flags("--alpha", "1", "10", "--samples", "4")), tips_at(1.0), slots)
    assert len(grid.proposer.plan(grid.known()).trials) == 4
    assert len(grid.run()) == 4


def test_hours_count_what_is_recorded_and_what_runs_is_expected_to_take() -> None:
    """Each trial takes a hundredth of an hour: with .05 hours five begin, the first alone, as until it has ended
    nobody knows what one takes."""
    one = World(proposer_of(flags(*SEARCH, "--budget-hours", "0.05")), tips_at(1.0), 1)
    assert len(one.run()) == 5
    assert "0.05 of 0.05 hours" in one.proposer.ended(one.known())
    for slots in (3, 9):
        world = World(proposer_of(flags(*SEARCH, "--budget-hours", "0.05")), tips_at(1.0), slots)
        assert len(world.proposer.propose(world.known()) or ()) == 1
        assert len(world.run()) == 5
    little = World(proposer_of(flags(*SEARCH, "--budget-hours", "1e-6")), tips_at(1.0), 9)
    assert len(little.run()) == 1
    killed = World(proposer_of(flags(*SEARCH, "--budget-hours", "0.05")), tips_at(1.0), 1)
    assert killed.run(dict.fromkeys(range(9), 1)) == set(one.recorded)
    grid = World(proposer_of(flags("--alpha", "1", "10", "--budget-hours", "0.03")), tips_at(1.0), 1)
    assert len(grid.run()) == 3


# --- the command line -------------------------------------------------------------------------------------------------


def test_a_list_of_strengths_is_a_grid_and_a_range_a_search() -> None:
    assert flags("--alpha", "1", "10").search == "grid"
    assert flags("--alpha-range", "1", "100", "9").search == "grid"
    for argv in (("--alpha", "0.1..100"), ("--alpha=1e-1..1e2",), ("--alpha-range", "0.1", "100")):
        read = flags("--search", "tipping", *argv, "--seeds", "3")
        assert (read.search, read.strength_range, read.seeds) == ("tipping", (0.1, 100.0), 3)
    loco = flags("--stages", "two", of="loco_reg")
    assert loco.search == "grid"


@pytest.mark.parametrize(
    ("of", "argv", "said"),
    [
        ("pilcro", ("--search", "tipping", "--alpha", "1", "10"), "search: tipping, allowed with --alpha is grid"),
        ("pilcro", ("--search", "tipping", "--alpha-range", "1", "10", "5"), "allowed with --alpha-range is grid"),
        ("pilcro", ("--search", "grid", "--alpha", "1..10"), "alpha: 1..10, allowed with a --search alone is a range"),
        ("pilcro", ("--search", "tipping", "--alpha", "x..10"), "alpha: x..10, allowed are values, or one LOW..HIGH"),
        ("pilcro", ("--search", "tipping", "--alpha", "1..10", "20"), "alpha: 1..10 20, allowed are values, or one"),
        ("pilcro", ("--search", "tipping", "--alpha", "10..1"), "alpha: 10..1, allowed for a search are two"),
        ("pilcro", ("--search", "tipping", "--alpha", "0..1"), "alpha: 0..1, allowed for a search are two rising"),
        ("pilcro", ("--search", "grid", "--interval-width", "0.1"), "allowed with --search tipping"),
        ("pilcro", ("--samples", "0"), "samples: 0, allowed are whole numbers of at least 1"),
        ("pilcro", ("--budget-hours", "0"), "budget_hours: 0.0, allowed are finite numbers above 0"),
        ("loco_reg", ("--stages", "two", "--search", "tipping"), "search: tipping, allowed with --stages two is grid"),
        ("top_gap", ("--search", "tipping", "--pixels", "1..1000"), "pixels: 1000, allowed with resnet8"),
        ("top_gap", ("--pixels", "4..2"), "pixels: 4..2, allowed are two rising numbers, of which all is the largest"),
        ("top_gap", ("--pixels", "all..1"), "pixels: all..1, allowed are two rising numbers"),
        ("top_gap", ("--pixels", "4..4"), "pixels: 4..4, allowed are two rising numbers"),
        ("top_gap", ("--search", "tpe", "--pixels", "all..1"), "pixels: all..1, allowed are two rising numbers"),
        ("top_gap", ("--pixels", "0..4"), "pixels: '0', allowed are whole numbers of at least 1, and all"),
        ("top_gap", ("--extend",), "extend: given, allowed with --pixels is none: it would change nothing"),
        (
            "pilcro",
            ("--search", "tipping", "--alpha", "1..inf"),
            "alpha: inf, allowed are finite numbers of at least 0",
        ),
        ("pilcro", ("--search", "tipping", "--alpha", "1..1e300"), "alpha: 1e+300, allowed are numbers of at most"),
        ("pilcro", ("--search", "tipping", "--alpha-range", "1", "1e300"), "alpha_range: 1e+300, allowed are numbers"),
        ("loco_reg", ("--stages", "two", "--eta", "1..10"), "eta: 1..10, allowed with --stages two is no range"),
        ("loco_reg", ("--stages", "two", "--modulation", "1..2"), "modulation: 1..2, allowed with --stages two is no"),
    ],
)
def test_what_cannot_be_searched_is_refused(of: str, argv: tuple[str, ...], said: str) -> None:
    with pytest.raises(InputError) as error:
        proposer_of(flags(*argv, of=of))
    assert said in str(error.value)
    assert "two" not in argv or "LOW..HIGH" not in str(error.value)  # which is refused, too


def test_the_grid_is_proposed_the_longest_first_and_whole() -> None:
    proposer = proposer_of(flags("--alpha", "1", "--epochs", "2", "30"))
    found = proposer.propose(Known({}, slots=sys.maxsize))
    assert found is not None
    assert {trial.id for trial in found} == proposer.space.ids
    assert [trial.cost for trial in found] == sorted((trial.cost for trial in found), reverse=True)
    assert proposer.propose(Known({}, found)) is None
