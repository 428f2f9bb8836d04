"""The locality test: slices by hand, scipy's t-test on differences computed by loops, planted layers, the command."""

from __future__ import annotations

import csv
import io
import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy import stats
from torch import Tensor, nn
from torchvision import models

from analysis.command_line import InputError, run
from trainables.data import DataConfig, load
from trainables.loco_reg import LocoReg
from trainables.metrics.locality import Locality, class_pairs, locality_by_part, locality_test, slice_differences
from trainables.metrics.locality.__main__ import main
from trainables.metrics.moment import Moment
from trainables.models import build_model

ROOT = Path(__file__).resolve().parents[2]
CLASSES = {"c": 0.0, "n": 1.0, "co": math.sqrt(2), "r4": 2.0, "r5": math.sqrt(5), "r8": math.sqrt(8)}


def slowly(weight: Tensor, a: str, b: str) -> list[float]:
    """s(w, A, B)/σ of Equation 7.1 with loops."""
    size = weight.shape[-1]
    values = []
    for w in weight.flatten(0, 1).tolist():
        means = []
        for name in (a, b):
            chosen = [
                w[i][j]
                for i in range(size)
                for j in range(size)
                if math.isclose(math.hypot(i - size // 2, j - size // 2), CLASSES[name])
            ]
            means.append(sum(chosen) / len(chosen))
        values.append(means[0] - means[1])
    mean = sum(values) / len(values)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / len(values))
    return [value / deviation for value in values]


def test_two_slices_by_hand() -> None:
    """Centres 5, 1; neighbours 1, 1 on average, corners 0, 2: c − n = 4, 0 with σ = 2; n − co = 1, −1 with σ = 1."""
    weight = torch.tensor(
        [[[[0, 0, 0], [2, 5, 1], [0, 1, 0]]], [[[2, 1, 2], [1, 1, 1], [2, 1, 2]]]], dtype=torch.float32
    )
    found = slice_differences(weight)
    assert found["c", "n"].tolist() == [2.0, 0.0]
    assert found["n", "co"].tolist() == [1.0, -1.0]
    result = locality_test([weight])["c", "n"]
    # mean 1, standard deviation √2, t = 1/(√2/√2) = 1; one-sided with one degree of freedom: 1/4
    assert (result.m, result.n, result.standard_error) == (1.0, 2, pytest.approx(1.0))
    assert result.t == pytest.approx(1.0)
    assert result.p == pytest.approx(0.25)
    assert result.stars == ""


@pytest.mark.parametrize("size", [3, 5])
def test_it_is_scipys_t_test_of_the_differences_written_out(size: int) -> None:
    generator = torch.Generator().manual_seed(size)
    weights = [torch.randn(shape, generator=generator) + 0.05 for shape in [(6, 3, size, size), (5, 1, size, size)]]
    others = [torch.randn(4, 4, 1, 1), torch.randn(4, 4, 8 - size, 8 - size), torch.randn(4)]
    found = locality_test([weights[0], *others, weights[1]], kernel_size=size)
    assert list(found) == [("c", "n"), ("n", "co"), ("co", "r4"), ("r4", "r5"), ("r5", "r8")][: 2 if size == 3 else 5]
    for (a, b), result in found.items():
        values = np.array([value for weight in weights for value in slowly(weight, a, b)])
        expected = stats.ttest_1samp(values, 0, alternative="greater")
        assert result.n == len(values) == 23
        assert result.m == pytest.approx(values.mean(), rel=1e-9)
        assert result.standard_error == pytest.approx(stats.sem(values), rel=1e-9)
        assert result.t == pytest.approx(expected.statistic, rel=1e-9)
        assert result.p == pytest.approx(expected.pvalue, rel=1e-9)


def planted(lift: float, shape: tuple[int, ...], seed: int) -> Tensor:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    weight[..., 1, 1] += lift
    return weight


def test_planted_layers_are_found_where_they_are() -> None:
    """The centre is lifted in the two lower layers of four: by L/√(1 + 1/4) standard deviations of the difference."""
    layers = {f"l{i}": planted(1.0 if i < 2 else 0.0, (40, 25, 3, 3), i) for i in range(4)}
    found = locality_by_part(layers)
    expected = 1 / math.sqrt(1.25)
    # the standard error of a mean over 2,000 slices is .022
    assert found["lower", ("c", "n")].m == pytest.approx(expected, abs=0.1)
    assert found["lower", ("c", "n")].stars == "***"
    assert abs(found["upper", ("c", "n")].m) < 0.1
    assert found["upper", ("c", "n")].p > 0.001
    assert found["l1", ("c", "n")].m == pytest.approx(expected, abs=0.1)
    assert found["all", ("c", "n")].m == pytest.approx(
        (found["lower", ("c", "n")].m + found["upper", ("c", "n")].m) / 2, abs=1e-9
    )
    assert abs(found["all", ("n", "co")].m) < 0.1
    assert found["all", ("c", "n")].n == 4000


def test_halves_of_layers_and_of_slices() -> None:
    """Three layers of 10, 10 and 80 slices: the lower half has one of them, of the slices 50."""
    layers = {name: planted(0.0, (n, 1, 3, 3), n + i) for i, (name, n) in enumerate((("a", 10), ("b", 10), ("c", 80)))}
    found = locality_by_part(layers)
    pair = ("c", "n")
    assert [found[part, pair].n for part in ("all", "lower", "upper", "lower-slices", "upper-slices")] == [
        100,
        10,
        90,
        50,
        50,
    ]
    assert found["all", pair].m == pytest.approx((found["lower-slices", pair].m + found["upper-slices", pair].m) / 2)
    assert set(locality_by_part({"only": layers["a"]})) == {
        (part, p) for part in ("all", "only") for p in class_pairs(3)
    }


def test_layers_without_spread_cannot_be_scaled() -> None:
    same = torch.ones(3, 2, 3, 3)
    same[..., 1, 1] = 5
    assert slice_differences(same)["c", "n"].size == 0
    mixed = locality_test([same, planted(0.0, (4, 4, 3, 3), 0)])
    assert mixed["c", "n"].n == 16
    alone = locality_test([same])["c", "n"]
    assert alone.n == 0
    assert math.isnan(alone.m)
    assert math.isnan(alone.p)


def test_networks_without_such_filters_are_refused() -> None:
    with pytest.raises(InputError, match="no convolution with 3×3 filters among 1"):
        locality_test([torch.ones(1, 1, 5, 5)])
    with pytest.raises(ValueError, match="kernel_size: 4"):
        locality_test([torch.ones(1, 1, 4, 4)], kernel_size=4)


# --- the metric ------------------------------------------------------------------------------------------------------


def rows(model: nn.Module, epoch: int, split: str, last: bool = False) -> dict[tuple[str, str, float | None], dict]:  # type: ignore[type-arg]
    data = load("digits", "unused", DataConfig("digits", train_images=100))
    moment = Moment(model, data, split, epoch, last, 0, torch.device("cpu"), lambda seed: model)
    found = Locality().measure(moment).measurements
    keyed = {(row["metric"], row["component"], row["level"]): row for row in found}
    assert len(keyed) == len(found)
    return keyed


def test_what_is_recorded_and_when() -> None:
    data = load("digits", "unused", DataConfig("digits", train_images=100))
    model = build_model("vgg13-5x5", channels=3, size=32, classes=10, width=4, seed=0)
    layers = tuple((0.5, 2.0, 3.0, 4.0, 5.0) if i < 6 else (0.25, 1.5) for i in range(10))
    model = LocoReg(modulation=1.0, variant="signed", layers=layers).build(model, data)
    at_first = rows(model, 0, "validation")
    assert at_first == rows(model, 7, "test", last=True)
    assert not rows(model, 7, "validation", last=True)
    assert not rows(model, 3, "validation")
    by_hand = locality_test([m.weight for m in model.modules() if isinstance(m, nn.Conv2d)])["n", "co"]
    row = at_first["locality", "n-co/all", None]
    assert (row["value"], row["std"], row["n"]) == (by_hand.m, by_hand.std, by_hand.n)
    assert at_first["locality_p", "n-co/all", None]["value"] == by_hand.p
    assert ("locality", "5x5/r5-r8/lower", None) in at_first
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)]
    for layer, name in zip(layers, names, strict=True):
        levels = [None, None, 2.0, math.sqrt(5), math.sqrt(8)][: len(layer)]
        found = [at_first["gamma" if i == 0 else "eta", name, level]["value"] for i, level in enumerate(levels)]
        assert found == pytest.approx(layer, rel=1e-6)
    assert not any(
        metric == "gamma"
        for metric, *_ in rows(build_model("resnet8", channels=1, size=8, classes=10, seed=0), 0, "validation")
    )
    shown = [key for key in at_first if not Locality().is_detail(*key[:2])]
    assert len(shown) == 2 * 3 + 5 * 3


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """The command in this process: exit code, output, errors."""

    def given(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["locality", *arguments])
        try:
            run(main)
            code = 0
        except SystemExit as ended:
            code = int(ended.code or 0)
        return code, *capsys.readouterr()

    return given


def test_the_command_on_networks_and_files(command: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    code, out, err = command("--torchvision", "squeezenet1_1", "--layers")
    assert (code, err) == (0, "")
    assert "3×3 filters of 9 convolutions" in out
    assert "features.12.expand3x3" in out
    layers = {"a.weight": planted(1.0, (20, 10, 3, 3), 0), "b.bias": torch.ones(3), "c.weight": torch.ones(2, 2, 1, 1)}
    save_file(layers, tmp_path / "net.safetensors")
    torch.save({"state_dict": layers}, tmp_path / "net.pth")
    printed = [command("--weights", str(tmp_path / name)) for name in ("net.safetensors", "net.pth")]
    # of one layer there are no halves in either; which of the two knows the order is said
    assert printed[0][1].splitlines()[:-1] == printed[1][1].splitlines()
    assert "sorted by name" in printed[0][1]
    result = locality_test([layers["a.weight"]])["c", "n"]
    assert f"{result.m:.3f}" in printed[0][1]
    assert "***" in printed[0][1]
    code, out, err = command("--timm", "resnet18")
    assert code == 0, err
    assert "3×3 filters of 16 convolutions" in out
    assert "7×7 filters of 1 convolutions" in out


def test_halves_are_those_of_the_networks_order(command: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    """safetensors have 0, 10, 11, 2, …: of a file alone no halves are given, and with its network the right ones."""
    layers = {f"{i}.weight": planted(1.0 if i < 6 else 0.0, (20, 10, 3, 3), i) for i in range(12)}
    torch.save(layers, tmp_path / "net.pth")
    save_file(layers, tmp_path / "net.safetensors")
    ordered, sorted_ = (command("--weights", str(tmp_path / name))[1] for name in ("net.pth", "net.safetensors"))
    lower = next(line for line in ordered.splitlines() if "lower " in line and "c-n" in line)
    expected = locality_by_part(layers)["lower", ("c", "n")]
    assert f"{expected.m:.3f}" in lower
    assert expected.m > 0.7
    assert "lower " not in sorted_.split("\n***")[0]
    model = models.get_model("squeezenet1_1", weights=None)
    save_file(model.state_dict(), tmp_path / "squeezenet.safetensors")
    found = command("--torchvision", "squeezenet1_1", "--weights", str(tmp_path / "squeezenet.safetensors"))[1]
    by_hand = locality_by_part({name: m.weight for name, m in model.named_modules() if isinstance(m, nn.Conv2d)})
    assert f"{by_hand['lower', ('c', 'n')].m:.3f}" in next(line for line in found.splitlines() if "lower " in line)


def test_the_table_in_full(command: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    weight = planted(0.1, (16, 8, 3, 3), 0)
    torch.save({"conv.weight": weight}, tmp_path / "w.pth")
    code, out, err = command("--weights", str(tmp_path / "w.pth"), "--format", "csv")
    assert code == 0
    rows = list(csv.DictReader(io.StringIO(out)))
    whole = next(row for row in rows if (row["layers"], row["classes"]) == ("all", "c-n"))
    known = locality_by_part({"conv.weight": weight})["all", ("c", "n")]
    assert [float(whole[name]) for name in ("m", "t", "p_value")] == [known.m, known.t, known.p]
    assert err.startswith("*** p < .001")


def test_weights_that_are_not_finite_are_refused() -> None:
    weight = planted(0.0, (4, 4, 3, 3), 0)
    weight[0, 0, 0, 0] = math.nan
    with pytest.raises(InputError, match="layer b: weights: some are not finite"):
        locality_by_part({"a": planted(0.0, (4, 4, 3, 3), 1), "b": weight})


def test_rounding_of_float32_is_no_spread() -> None:
    """All slices alike but for the last bit of their weights."""
    weight = torch.rand(1, 1, 3, 3).expand(50, 4, 3, 3) * (1 + 6e-8 * torch.randint(0, 2, (50, 4, 1, 1)))
    assert slice_differences(weight)["c", "n"].size == 0


def test_it_is_rs_t_test() -> None:
    """R's `t.test(x, alternative = "greater")` on normalised differences that R computed from the same weights."""
    fixture = json.loads((ROOT / "tests" / "analysis" / "r" / "fixtures.json").read_text())["locality"]
    weights = [torch.tensor(values, dtype=torch.float64).reshape(-1, 1, 3, 3) for values in fixture["layers"]]
    for (a, b), result in locality_test(weights).items():
        expected = fixture[f"{a}_{b}"]
        for name, ours in (("m", result.m), ("t", result.t), ("p", result.p)):
            assert ours == pytest.approx(expected[name], rel=1e-10)


def test_it_is_a_command_of_the_package() -> None:
    line = [sys.executable, "-m", "trainables.metrics.locality"]
    done = subprocess.run(line, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 2
    assert done.stderr == "error: nothing to test: give --timm NAME, --torchvision NAME or --weights FILE\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "nothing to test: give --timm NAME, --torchvision NAME or --weights FILE"),
        (("--torchvision", "vgg99"), "torchvision: 'vgg99' cannot be had"),
        (("--torchvision", "squeezenet1_1", "--weights", "{}/none.pth"), "weights: no file"),
        (("--weights", "{}/text.pth"), "is no state dict of torch.save or safetensors"),
        (("--weights", "{}/text.safetensors"), "is no state dict of torch.save or safetensors"),
        (("--torchvision", "squeezenet1_1", "--weights", "{}/small.pth"), "is not of squeezenet1_1"),
        (("--weights", "{}/small.pth"), "no convolution with square filters of odd size from 3 on"),
        (("--torchvision", "squeezenet1_1", "--timm", "resnet18"), "both given, allowed is one of them"),
    ],
)
def test_bad_input_is_told_in_a_line(
    arguments: tuple[str, ...], message: str, command: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    for name in ("text.pth", "text.safetensors"):
        (tmp_path / name).write_text("no weights")
    torch.save({"fc.weight": torch.ones(2, 2)}, tmp_path / "small.pth")
    code, _, err = command(*(argument.format(tmp_path) for argument in arguments))
    assert code == 2
    assert len(err.splitlines()) == 1, err
    assert message in err
