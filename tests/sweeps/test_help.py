"""What a sweep's command line shows, and that it refuses every value that is none, used or not."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping
from typing import get_type_hints

import pytest

from analysis.command_line import InputError, as_typed
from sweeps.flags import SweepFlags, read_flags
from sweeps.help import GROUPS, SEARCH
from sweeps.plan import make_plan
from trainables.metrics import METRICS
from trainables.metrics.flags import MetricFlags

SCRIPTS = ("pilcro", "loco_reg", "top_gap", "deformation", "gradient_reg")
KINDS = {
    "pilcro": "PilcroSweep",
    "loco_reg": "LocoSweep",
    "top_gap": "TopGapSweep",
    "deformation": "DeformationSweep",
    "gradient_reg": "GradientSweep",
}


def script(name: str) -> tuple[type[SweepFlags], Mapping[str, SweepFlags]]:
    module = importlib.import_module(f"sweeps.{name}")
    return getattr(module, KINDS[name]), module.PRESETS


def shown(name: str, capsys: pytest.CaptureFixture[str], *argv: str) -> list[str]:
    kind, presets = script(name)
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        read_flags(kind, presets, argv, importlib.import_module(f"sweeps.{name}").__doc__ or "")
    assert stop.value.code == 0
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_is_a_page_in_groups(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    lines = shown(name, capsys, "--help")
    assert len(lines) <= 100
    assert max(len(line) for line in lines if line.startswith(("  --", " " * 30))) <= 110
    titles = [line.rstrip(":") for line in lines if line and not line.startswith(" ") and line.endswith(":")]
    assert titles == [f"{name}, swept", "data", "network", "training", "measuring", "running"]
    flags = [line.split()[0].replace("[no-]", "").removeprefix("--") for line in lines if line.startswith("  --")]
    kind, _ = script(name)
    fields = [entry.name.rstrip("_").replace("_", "-") for entry in dataclasses.fields(kind)]
    metrics = [entry.name.replace("_", "-") for entry in dataclasses.fields(MetricFlags)]
    search = [name.replace("_", "-") for name in SEARCH]
    assert sorted(flags) == sorted({*fields} - {*metrics, *search, "gpu-share", "strength-range", "ranges", "about"})
    of_search = [line.split()[0] for line in shown(name, capsys, "--help-search") if line.startswith("  --")]
    assert [flag.replace("[no-]", "").removeprefix("--") for flag in of_search] == search
    others = shown(name, capsys, "--help-metrics")
    assert sorted(line.split()[0].replace("[no-]", "")[2:] for line in others if line.startswith("  --")) == sorted(
        metrics
    )
    assert all(metric in "\n".join(others) for metric in METRICS)


def test_every_flag_of_every_sweep_has_one_group() -> None:
    placed = [field for names in (*GROUPS.values(), SEARCH) for field in names]
    every = {entry.name for entry in dataclasses.fields(SweepFlags)} - {e.name for e in dataclasses.fields(MetricFlags)}
    assert sorted(placed) == sorted(every - {"gpu_share", "strength_range", "ranges", "about"})


def test_defaults_are_those_of_the_preset(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "110")

    def default(flag: str, *argv: str) -> str:
        lines = shown("pilcro", capsys, "--help", *argv)
        start = next(number for number, line in enumerate(lines) if line.split()[:1] == [flag])
        return " ".join(lines[start : start + 3]).partition("[")[2].partition("]")[0].partition(";")[0]

    assert default("--epochs") == "30"
    assert default("--epochs", "--preset", "cifar100") == "200"
    assert default("--alpha") == "1 10 100"
    assert default("--weight-decay", "--preset=cifar100") == "1e-05"


def test_the_page_is_as_wide_as_asked_for(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    flags = [line for line in shown("pilcro", capsys, "--help") if line.startswith(("  --", " " * 30))]
    assert max(map(len, flags)) <= 80


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("--seeds", "2", "3"), "--seeds takes one value, given are 2 3 (see --help)"),
        (("--momentum=.5", "0.9"), "--momentum takes one value, given are .5 0.9 (see --help)"),
        (("--flip", "true"), "--flip takes no value, given is true (see --help)"),
        (("--no-flip", "yes"), "--no-flip takes no value, given is yes (see --help)"),
        (("--preset", "x"), "--preset: 'x', allowed are digits, mnist, cifar10, cifar100, imagenet"),
        (("--nope", "3"), "Unrecognized options: --nope, 3 (see --help)"),
    ],
)
def test_what_is_wrong_with_the_number_of_values(argv: tuple[str, ...], said: str) -> None:
    with pytest.raises(InputError) as error:
        read_flags(*script("pilcro"), argv, "")
    assert str(error.value) == said


def test_fields_are_named_as_flags_are_typed() -> None:
    read_flags(*script("pilcro"), [], "")
    assert as_typed("train_images: 5, digits has 3") == "--train-images: 5, digits has 3"
    assert as_typed("zoom, evaluation_size: no") == "--zoom, --evaluation-size: no"
    assert as_typed("storage failed: seeds: 3") == "storage failed: seeds: 3"
    assert as_typed("seeds") == "seeds"
    assert as_typed("RAY_ADDRESS: x") == "RAY_ADDRESS: x"


def impossible() -> list[tuple[str, str, str]]:
    """Of each sweep and flag with numbers, values that cannot be meant; common flags once."""
    found, seen = [], set()
    for name in SCRIPTS:
        kind, _ = script(name)
        for field, hint in get_type_hints(kind).items():
            text = str(hint)
            numbers = ("int" in text or "float" in text) and "Literal" not in text and "ClassVar" not in text
            if numbers and field not in ("gpu_share", "strength_range", "alpha_range") and (field, text) not in seen:
                seen.add((field, text))
                found += [(name, field, value) for value in ("-7", *(["nan"] if "float" in text else []))]
    return found


@pytest.mark.parametrize(("name", "field", "value"), impossible())
def test_impossible_numbers_are_refused_whether_used_or_not(name: str, field: str, value: str) -> None:
    with pytest.raises(InputError) as error:
        make_plan(read_flags(*script(name), [f"--{field.replace('_', '-')}", value], ""))
    assert as_typed(str(error.value)).startswith(f"--{field.replace('_', '-')}: ")


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize(
    "field", ["dataset", "model", "padding", "scaling", "measure", "explainers", "attacks", "shift"]
)
def test_unknown_names_are_refused(name: str, field: str) -> None:
    with pytest.raises(InputError) as error:
        make_plan(read_flags(*script(name), [f"--{field}", "nonsense"], ""))
    assert as_typed(str(error.value)).startswith(f"--{field}: ")


def test_a_value_is_refused_that_no_setting_would_use() -> None:
    with pytest.raises(InputError, match=r"^fpn_channels: 0, "):
        read_flags(*script("top_gap"), ["--heads", "last", "--fpn-channels", "0"], "")
