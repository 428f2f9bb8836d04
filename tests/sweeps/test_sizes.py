"""Numbers that nobody means: each is answered at once, in one line, before anything is allocated."""

from __future__ import annotations

import dataclasses
import importlib
import math
import re
import resource
import signal
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

import pytest

from analysis.bounds import bounds_of, out_of_bounds
from analysis.command_line import InputError, parse
from sweeps import launch
from sweeps.driver.summary import MOST_SHOWN
from sweeps.flags import ASKS_FROM, MOST_TRIALS, SweepFlags
from sweeps.pilcro import PRESETS, PilcroSweep
from sweeps.plan import make_plan
from trainables.models import MODELS, build_model, check_memory_of, numbers_of

SCRIPTS = ("pilcro", "top_gap", "gradient_reg", "loco_reg", "deformation")
WHOLE = ("0", "-1", "7", "1000", "99999", "10000000", "1000000000", str(2**31), str(2**63), str(10**30), "9" * 5000)
REAL = ("0", "-0.0", "-1", "nan", "inf", "-inf", "1e400", "-1e400", "1e308", "-1e308", "1e-320", "1e38", "1e9", "0.5")
TEXT = {"pixels", "epsilon", "step_size"}
"""Numbers that are written as text."""


def kind_and_presets(name: str) -> tuple[type[SweepFlags], dict[str, SweepFlags]]:
    module = importlib.import_module(f"sweeps.{name}")
    (kind,) = (
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, SweepFlags) and value.__dict__.get("NAME") == name
    )
    return kind, module.PRESETS


def numeric(hint: Any) -> type | None:
    """int or float where a flag takes such numbers."""
    for part in get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,):
        inner = get_args(part)[0] if get_origin(part) is tuple else part
        if inner in (int, float):
            return inner  # type: ignore[no-any-return]
    return None


def cases() -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Every number that a sweep's command line takes; what all sweeps have, of one."""
    seen: set[str] = set()
    for script in SCRIPTS:
        kind, _ = kind_and_presets(script)
        hints = get_type_hints(kind)
        for entry in dataclasses.fields(kind):
            number = numeric(hints[entry.name])
            values = WHOLE if number is int else REAL if number is float else WHOLE + REAL
            if entry.name not in seen | {"gpu_share"} and (number is not None or entry.name in TEXT):
                seen.add(entry.name)
                yield script, entry.name, values


@pytest.fixture
def in_time() -> Iterator[None]:
    """An answer is there within seconds on a busy machine."""

    def late(*_: object) -> None:
        raise TimeoutError("no answer")

    before = signal.signal(signal.SIGALRM, late)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def answer(script: str, *argv: str, storage: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Exit code, output and errors of a --dry-run."""
    kind, presets = kind_and_presets(script)
    signal.alarm(8)
    code = 0
    try:
        launch.main(kind, presets, "", ["--dry-run", "--storage", str(storage), *argv])
    except SystemExit as stop:
        code = int(stop.code or 0)
    signal.alarm(0)
    return code, *capsys.readouterr()


@pytest.mark.usefixtures("in_time")
@pytest.mark.parametrize(
    ("script", "field", "values"), list(cases()), ids=lambda part: part if isinstance(part, str) else ""
)
def test_every_number_is_accepted_or_refused_in_one_line(
    script: str, field: str, values: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flag = f"--{field.replace('_', '-')}"
    refused = 0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for value in values:
        given = ["1", "10", value] if field == "alpha_range" else [value]
        for words in [given, [value, "10", "3"]] if field == "alpha_range" else [given]:
            # --x=-1 and not --x -1: what begins with a dash is a flag
            argv = [flag, *words] if len(words) > 1 else [f"{flag}={words[0]}"]
            code, out, err = answer(script, *argv, storage=tmp_path, capsys=capsys)
            assert code in (0, 2), (argv, err)
            if code == 2:
                refused += 1
                assert err.startswith("error: "), (argv, err)
                assert err.count("\n") == 1, (argv, err)
                assert out == "", argv
                # the flag is named, or the plan or network that it makes too large
                assert any(name in err for name in (flag, "--image-size", "--dataset", "plan")), (argv, err)
    assert refused, f"{flag}: nothing is too large for it"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # KB
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("in_time")
class TestPlans:
    def test_many_trials_are_asked_about_before_they_are_made(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        code, _, err = answer("pilcro", "--search", "grid", "--seeds", "15000", storage=tmp_path, capsys=capsys)
        assert (code, err) == (
            2,
            f"error: plan: 105,000 trials, allowed with --yes-really alone are more than {ASKS_FROM:,}\n",
        )
        code, _, err = answer(
            "pilcro", "--search", "grid", "--seeds", "200000", "--yes-really", storage=tmp_path, capsys=capsys
        )
        assert code == 2
        assert err.startswith(f"error: plan: 1,400,000 trials, allowed are at most {MOST_TRIALS:,}")

    @pytest.mark.parametrize(
        "argv",
        [
            ("--alpha-range", "1", "10", "60000"),
            ("--search", "grid", "--folds", "150", "--seeds", "100"),
            ("--epochs", *map(str, range(1, 200)), "--batch-size", *map(str, range(1, 200))),
            ("--alpha", "1", "--width", *map(str, range(1, 300)), "--learning-rate", *(f"0.{n}" for n in range(1, 99))),
        ],
        ids=["strengths", "folds", "settings", "networks"],
    )
    def test_whatever_makes_them_many(
        self, argv: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        code, _, err = answer("pilcro", *argv, storage=tmp_path, capsys=capsys)
        assert code == 2
        assert "--yes-really" in err
        assert err.count("\n") == 1

    def test_with_yes_really_they_are_planned(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("sweeps.plan.ASKS_FROM", 10)
        with pytest.raises(InputError, match=r"14 trials, .*--yes-really"):
            make_plan(PilcroSweep())
        assert len(make_plan(PilcroSweep(yes_really=True)).trials) == 14


def counted(name: str, width: int, size: int) -> tuple[int, int]:
    """The parameters of a network and its activations for one image, built and run without its numbers."""
    import torch

    found: list[int] = []
    with torch.device("meta"), torch.no_grad():
        network = build_model(name, channels=3, size=size, classes=10, width=width, seed=0).eval()
        for module in network.modules():
            if not list(module.children()):
                module.register_forward_hook(lambda _, __, output: found.append(output.numel()))
        network(torch.empty(1, 3, size, size))
    return sum(parameter.numel() for parameter in network.parameters()), sum(found)


@pytest.mark.parametrize("name", MODELS)
def test_what_is_said_of_a_networks_size_is_so(name: str) -> None:
    architecture = MODELS[name]
    for wider in (1, 8) if architecture.any_width else (1,):
        for size in (64, 512):
            width = wider * architecture.width
            said = numbers_of(name, width, size)
            for ours, counted_ones in zip(said, counted(name, width, size), strict=True):
                # torchvision's ResNet-50 widens its inner layers alone; few filters are 5×5 at 64 pixels; and the last
                # layer of MobileNet, which sees all pixels, has a half of its few weights at 512
                assert 0.5 < ours / counted_ones < 2.7, (width, size)


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        ((1024, 32, 1), "width: 1024, resnet18 of width 1024 has about 2.9e+09 parameters, allowed are at most 2e+09"),
        ((64, 4096, 1), "image_size: 4096, resnet18 of width 64 has about 3.2e+10 activations for one image"),
        ((64, 224, 10000), "batch_size: 10000, .* of 224 pixels, allowed are at most 2576 images"),
    ],
)
def test_what_no_device_holds_is_refused(argv: tuple[int, int, int], told: str) -> None:
    check_memory_of("resnet18", 256, 224, 256)
    with pytest.raises(InputError, match=re.escape(told).replace(r"\.\*", ".*")):
        check_memory_of("resnet18", *argv)


def test_a_flag_without_a_bound_of_its_own_has_that_of_the_record() -> None:
    @dataclasses.dataclass
    class Flags:
        number: int = 0
        several: tuple[float, ...] = ()

    assert list(out_of_bounds(Flags(2**62, (1.0, -1e30)))) == []
    assert [told.split(":")[0] for told in out_of_bounds(Flags(2**63, (1.0, math.nan)))] == ["number", "several"]


def test_bounds_are_of_flags_that_there_are() -> None:
    for script in SCRIPTS:
        kind, _ = kind_and_presets(script)
        assert set(bounds_of(kind)) <= {entry.name for entry in dataclasses.fields(kind)}


def test_help_says_what_is_checked(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    _, out, _ = answer("pilcro", "--help", storage=tmp_path, capsys=capsys)
    assert re.search(r"--epochs N … .*\[30; 1 to 999,999\]", out)
    assert re.search(r"--momentum X .*\[0.9; in \[0, 1\)\]", out)


@pytest.mark.parametrize(
    ("script", "argv", "told"),
    [
        ("pilcro", "--maps-at 5 999", "--maps-at: given, allowed with --epochs 999"),
        ("pilcro", "--variant curvature --reduction sum", "--reduction: given, allowed with --variant target"),
        ("pilcro", "--padding zero", "--padding: given, allowed with --crop"),
        ("pilcro", "--crop-pixels 2", "--crop-pixels: given, allowed with --crop"),
        ("pilcro", "--decay 0.5", "--decay: given, allowed with --schedule step"),
        ("pilcro", "--optimizer adam --momentum 0.5", "--momentum: given, allowed with --optimizer sgd"),
        ("loco_reg", "--printed-eta", "--printed-eta: given, allowed with --stages two"),
        ("loco_reg", "--modulation 2", "--modulation: given, allowed with --stages two"),
        ("loco_reg", "--stages two --eta 2", "--eta: given, allowed with --stages one"),
        ("top_gap", "--heads last --fpn-channels 32", "--fpn-channels: given, allowed with --heads fpn"),
        ("top_gap", "--sparsity 0 --norm sum", "--norm: given, allowed with --sparsity above 0"),
        ("deformation", "--task-images 20", "--task-images: given, allowed with --dataset mnist-tasks"),
    ],
)
def test_a_flag_that_changes_nothing_is_refused(
    script: str, argv: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = answer(script, *argv.split(), storage=tmp_path, capsys=capsys)
    assert (code, err) == (2, f"error: {told}: it would change nothing\n")


def test_of_an_option_of_what_is_not_measured_it_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = answer("pilcro", "--attack-steps", "7", storage=tmp_path, capsys=capsys)
    assert (code, err) == (0, "--attack-steps changes nothing here: none of attacks is measured\n")
    code, _, err = answer("pilcro", "--attack-steps", "7", "--measure", "attacks", storage=tmp_path, capsys=capsys)
    assert (code, err) == (0, "")
    # that a preset's defaults have none is nobody's doing
    code, _, err = answer("pilcro", "--preset", "cifar100", "--epochs", "9", storage=tmp_path, capsys=capsys)
    assert (code, err) == (0, "")


@pytest.mark.parametrize("flags", ["--width 1e9", "--seeds 1e9", "--seeds 2.5", "--epochs=x", "--batch-size 1e400"])
def test_what_is_no_whole_number_is_told_so(flags: str) -> None:
    argv = flags.split()
    flag, value = argv if len(argv) == 2 else flags.split("=")
    with pytest.raises(InputError, match=f"^{flag}: '{value}', allowed are whole numbers in digits"):
        parse(PilcroSweep, argv, default=PRESETS["digits"], prog="pilcro.py")


def test_a_long_plan_is_neither_slow_nor_all_printed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    arguments = ["--dry-run", "--storage", str(tmp_path), "--alpha-range", "1", "10", "2000"]
    launch.main(PilcroSweep, PRESETS, "", arguments)
    out = capsys.readouterr().out
    assert out.count("pilcro α=") == MOST_SHOWN - 1  # the baseline is the first
    assert f"\n  … and {2 * 2000 + 1 - MOST_SHOWN} settings more\n" in out
