"""LOCO-REG's sweep: its plan, and two stages whose second comes from the first's networks."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from analysis.command_line import InputError
from analysis.records import read_sweep
from sweeps.driver.decisions import told_of_decisions
from sweeps.flags import read_flags
from sweeps.launch import main
from sweeps.loco_reg import PRESETS, LocoSweep, _SecondStage
from sweeps.plan import make_plan
from sweeps.proposers import proposer_of
from sweeps.proposers.proposer import Known
from tests.sweeps.driving import ONE_BY_ONE, ROOT, finish, kill, processes_below, results, start, wait_for
from trainables.loco_reg import LocoReg

SCRIPT = str(ROOT / "sweeps" / "loco_reg.py")
TWO = [
    *("--stages", "two", "--statistic", "absolute", "--modulation", "0.5", "1.5", "--seeds", "2", "--epochs", "4"),
    *("--train-images", "400", "--checkpoint-seconds", "0", *ONE_BY_ONE),
]


def flags(*argv: str) -> LocoSweep:
    read = read_flags(LocoSweep, PRESETS, argv, "")
    assert isinstance(read, LocoSweep)
    return read


def test_fixed_coefficients_make_a_grid_beside_plain_l2() -> None:
    trials = make_plan(flags("--gamma", "0.5", "1", "--eta", "1", "2", "--seeds", "3")).trials
    methods = {trial.config.method for trial in trials}
    # (1, 1) is plain L2, which the baseline has
    assert {(m.gamma, m.eta) for m in methods if isinstance(m, LocoReg)} == {(0.5, 1.0), (0.5, 2.0), (1.0, 2.0)}
    assert len(trials) == 4 * 3
    assert len(make_plan(flags("--gamma", "1", "--eta", "1", "--no-baseline")).trials) == 3


def test_the_presets_carry_the_papers_protocol() -> None:
    """methods.md, section 2, number by number."""
    assert set(PRESETS) == {"digits", "cifar10", "cifar100", "fashion-mnist"}
    for name in ("cifar10", "cifar100", "fashion-mnist"):
        preset = PRESETS[name]
        assert preset.dataset == (name,)
        assert (preset.epochs, preset.batch_size, preset.learning_rate, preset.seeds) == ((250,), (128,), (0.1,), 20)
        assert (preset.milestones, preset.decay, preset.momentum) == ((70, 140, 190, 230, 245), 0.316, 0.9)
        assert preset.weight_decay == (2 * 5e-4,)
        assert preset.flip
        assert (preset.crop, preset.crop_pixels, preset.padding) == (True, 4, "zero")
        assert preset.modulation == (0.5, 1.0, 1.5, 2.5)
        assert preset.validation == 0
    assert PRESETS["fashion-mnist"].image_size == 32


def test_the_first_stage_is_plain_l2_and_the_second_waits_for_it(tmp_path: Path) -> None:
    stages = proposer_of(flags(*TWO, "--storage", str(tmp_path)))
    nothing = Known({}, slots=9)
    first = stages.propose(nothing)
    assert first is not None
    assert {trial.config.method.name for trial in first} == {"baseline"}
    assert stages.told(nothing).startswith("then, from these: 4 trials with c = 0.5, 1.5")
    assert len(stages.at_most(nothing)) == 2 + 4
    assert stages.propose(Known({}, first[:1], slots=9)) == first[1:]
    assert stages.propose(Known({first[0].id: {"status": "completed"}}, first[1:], slots=9)) == []
    # what --samples leaves of the second
    some = {n: proposer_of(flags(*TWO, "--storage", str(tmp_path), "--samples", n)).told(nothing) for n in "2346"}
    assert some["2"] == "no second stage, for which --samples has to be above 2, 0 of 2 samples"
    assert some["3"].startswith("then, from these: 1 of 4 trials with c = 0.5, 1.5")
    assert some["6"].startswith("then, from these: 4 trials with c = 0.5, 1.5")
    # of a first stage in which a trial failed there is no second
    failed = {first[0].id: {"status": "failed"}, first[1].id: {"status": "completed"}}
    assert stages.propose(Known(failed, slots=9)) is None


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("--weight-decay", "0"), "weight_decay: 0, allowed are numbers above 0"),
        (("--stages", "two", "--no-baseline"), "the second stage needs it"),
        (("--stages", "two", "--measure", "landscape"), "measure: without locality"),
        (("--stages", "two", "--modulation", "-1"), "modulation: -1.0, allowed are finite numbers above 0"),
        (("--gamma", "-1"), "gamma: -1.0, allowed are finite numbers of at least 0"),
        (("--stages", "two", "--gamma", "-1"), "gamma: -1.0, allowed are finite numbers of at least 0"),
        (("--modulation", "0"), "modulation: 0.0, allowed are finite numbers above 0"),
        (
            ("--stages", "two", "--model", "vgg13-5x5", "--image-size", "32", "--printed-eta"),
            "printed_eta: given, allowed are networks whose filters are 3×3",
        ),
    ],
)
def test_bad_flags_are_refused(argv: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        proposer_of(flags(*argv))


def by_hand(weights: list[torch.Tensor], modulation: float) -> list[tuple[float, float]]:
    """(γ_l, η_l) of Table 6 from the weights of several networks' layers, magnitudes, with plain loops."""
    found = []
    for layer in range(len(weights[0])):
        inner, outer = [], []
        for network in weights:
            mean = network[layer].double().abs().mean((0, 1))
            neighbours = (mean[0, 1] + mean[1, 0] + mean[1, 2] + mean[2, 1]) / 4
            corners = (mean[0, 0] + mean[0, 2] + mean[2, 0] + mean[2, 2]) / 4
            inner.append(float(neighbours / mean[1, 1]))
            outer.append(float(corners / neighbours))
        r_n, r_co = sum(inner) / len(inner), sum(outer) / len(outer)
        found.append((1 + modulation * (r_n - 1), 1 / (1 + modulation * (r_co - 1))))
    return found


Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """The script's main in this process, for what starts no Ray: exit code, standard output, standard error."""

    def call(storage: Path, *argv: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = 0
        try:
            main(LocoSweep, PRESETS, "", ["--storage", str(storage), *argv])
        except SystemExit as stop:
            code = int(stop.code or 0)
        return code, *capsys.readouterr()

    return call


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The storage of a two-stage sweep that nothing disturbed."""
    storage = tmp_path_factory.mktemp("whole")
    code, _, err = finish(start(storage, *TWO, "--keep-models", script=SCRIPT))
    assert code == 0, err
    return storage


@pytest.mark.ray
def test_the_second_stage_comes_from_the_firsts_networks(whole: Path) -> None:
    """Coefficients computed from the kept weights by hand (1e-9), in the trials' configuration and measurements."""
    sweep = read_sweep(str(whole / "loco_reg"))
    trials = {row["trial_id"]: row for row in sweep.trials.to_pylist()}
    assert sorted((row["method"], row["modulation"], row["seed"]) for row in trials.values() if row["modulation"]) == [
        ("loco_reg", c, seed) for c in (0.5, 1.5) for seed in (0, 1)
    ]
    kept = []
    for trial_id, row in trials.items():
        if row["method"] == "baseline":
            state = load_file(whole / "loco_reg" / "models" / f"{trial_id}.safetensors")
            kept.append([value for value in state.values() if value.ndim == 4 and value.shape[-1] == 3])
    # safetensors sorts by name; the network's order is that of the configuration
    names = [name for name, value in state.items() if value.ndim == 4 and value.shape[-1] == 3]
    assert len(kept) == 2
    measured: dict[tuple[str, str, str], dict[int, float]] = {}
    for row in sweep.measurements.to_pylist():
        if row["metric"] in ("gamma", "eta"):
            measured.setdefault((row["trial_id"], row["metric"], row["component"]), {})[row["epoch"]] = row["value"]
    for trial_id, row in trials.items():
        if row["method"] != "loco_reg":
            continue
        assert (row["variant"], row["gamma"], row["eta"]) == ("absolute", None, None)
        expected = dict(zip(names, by_hand(kept, row["modulation"]), strict=True))
        layers = json.loads(row["config"])["method"]["layers"]
        assert sorted(map(tuple, layers)) == [pytest.approx(values, rel=1e-9) for values in sorted(expected.values())]
        for name, (gamma, eta) in expected.items():
            layer = name.removesuffix(".weight")
            assert measured[trial_id, "gamma", layer] == {
                0: pytest.approx(gamma, rel=1e-6),
                4: pytest.approx(gamma, rel=1e-6),
            }
            assert measured[trial_id, "eta", layer] == {
                0: pytest.approx(eta, rel=1e-6),
                4: pytest.approx(eta, rel=1e-6),
            }


@pytest.mark.ray
def test_what_is_recorded_is_not_run_again(whole: Path, command: Command) -> None:
    code, out, err = command(whole, *TWO, "--keep-models")
    assert code == 0, err
    assert out.count("every planned trial is recorded: nothing to run") == 1


@pytest.mark.ray
@pytest.mark.long
@pytest.mark.parametrize("where", ["first stage", "between", "second stage"])
def test_interrupted_anywhere_it_goes_on(where: str, whole: Path, tmp_path: Path) -> None:
    """The driver and all that is below it killed; the same command again: the same record, bit for bit."""
    process = start(tmp_path, *TWO, script=SCRIPT)
    folder = tmp_path / "loco_reg"

    def recorded() -> int:
        return len(list((folder / "trials").glob("*.parquet")))

    reached: dict[str, Any] = {
        "first stage": lambda: list((folder / "checkpoints").glob("*/*.pt")),
        "between": lambda: recorded() == 2,
        "second stage": lambda: recorded() >= 3,
    }
    wait_for(lambda: bool(reached[where]()), where)
    kill([process.pid, *processes_below(process.pid)])
    process.communicate()
    if where == "between":
        assert recorded() == 2
    code, _, err = finish(start(tmp_path, *TWO, script=SCRIPT))
    assert code == 0, err
    wanted, found = results(whole, "loco_reg"), results(tmp_path, "loco_reg")
    assert all(found[table].equals(wanted[table]) for table in wanted)


@pytest.mark.ray
def test_a_ratio_that_cannot_be_used_ends_it_with_the_layers_name(
    whole: Path, tmp_path: Path, command: Command
) -> None:
    """c is too large for these ratios: told before the second stage begins, nothing lost."""
    shutil.copytree(whole, tmp_path / "copy")
    code, _, err = command(tmp_path / "copy", *TWO, "--keep-models", "--modulation", "50")
    assert code == 2
    told = err.splitlines()[-1]
    assert "resnet8 of width 16 on digits, weight decay 0.001, --statistic absolute: layer " in told
    assert "allowed are numbers above 0; the first stage is recorded, go on with a smaller --modulation" in told
    assert len(list((tmp_path / "copy" / "loco_reg" / "trials").glob("*.parquet"))) == 6


def test_the_second_stage_is_planned_from_ratios_by_hand() -> None:
    """γ = 1 + 1.5·(0.9 − 1), η = 1/(1 + 1.5·(0.8 − 1)) in every layer; the mean of two networks."""
    trials = make_plan(flags(*TWO)).trials
    networks = [{f"l{i}": {"n-c": n, "n-co": 1.2, "co-n": 0.8} for i in range(7)} for n in (0.85, 0.95)]
    configs = [trial.config for trial in trials]
    ratios = {("absolute", config.data, config.model, config.training): networks for config in configs}
    one = flags(*TWO, "--no-baseline")
    planned = make_plan(_SecondStage(**vars(one), ratios=ratios)).trials
    assert len(planned) == 4
    methods = {trial.config.method for trial in planned if trial.config.method.modulation == 1.5}  # type: ignore[attr-defined]
    (method,) = methods
    assert "2 values of c × 2 seeds" in next(told_of_decisions(make_plan(_SecondStage(**vars(one), ratios=ratios))))
    assert method.layers == ((pytest.approx(0.85), pytest.approx(1 / 0.7)),) * 7  # type: ignore[attr-defined]


@pytest.mark.ray
def test_the_dry_run_of_a_recorded_sweep_plans_both_stages(whole: Path) -> None:
    code, out, err = finish(start(whole, *TWO, "--keep-models", "--dry-run", script=SCRIPT))
    assert code == 0, err
    assert "6 trials planned, 6 of them recorded" in out


@pytest.mark.ray
@pytest.mark.parametrize("seeds", ["1", "3"])
def test_other_seeds_would_give_other_coefficients(seeds: str, whole: Path, command: Command) -> None:
    """Trials with the same c and other coefficients beside those recorded: refused before anything is trained."""
    code, _, err = command(whole, *TWO, "--keep-models", "--seeds", seeds)
    assert code == 2
    assert f"error: --seeds: {seeds}, allowed is 2: the coefficients of the second stage that" in err
    assert "give this one another --name" in err
