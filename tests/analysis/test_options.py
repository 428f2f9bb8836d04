"""Numbers that were measured with different options are different quantities: in no command are they averaged."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from analysis import comparisons, correlations, paper, report, tipping_points
from analysis.command_line import InputError
from analysis.groups import Quantity, by_options, find_quantity, quantities, values_of
from analysis.options import UNKNOWN, options_of, told_apart
from analysis.paper.choice import _Spec
from analysis.paper.drawings import _epochs, _epochs_and_landscapes
from analysis.paper.ours import _Ours
from analysis.records import add_measurements, read_sweep, write_trial
from analysis.single_images import image_values
from tests.analysis.conftest import make_trial

Command = Callable[..., tuple[int, str, str]]


def landscape(images: int | None) -> str:
    return json.dumps({"landscape": {"expectation": "sampled", "images": images, "maps_at": []}, "attacks": attacks()})


def attacks(images: int = 100, **options: Any) -> dict[str, Any]:
    known = {"attacks": ["fgsm"], "epsilon": ["8/255"], "images": images, "seed": 0, "restarts": 1, "steps": [20]}
    return {**known, "step_size": "eps/4", "queries": 5000, **options}


def measured(images: int, value: float, metric: str = "robust_accuracy", **columns: Any) -> dict[str, Any]:
    row = {"epoch": 2, "metric": metric, "component": "fgsm", "level": 0.03, "value": value, "n": images}
    return {**row, "direction": "max", "unit": "fraction", **columns}


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Baselines and five strengths on four seeds; of each, seeds 0 and 1 were measured on 100 images, 2 and 3 on 128.
    What was measured on 128 is 10 more, so that a mean over both is neither."""
    for index, alpha in enumerate([None, 1.0, 10.0, 100.0, 1e3, 1e4]):
        for seed in range(4):
            images, more = (100, 0.0) if seed < 2 else (128, 10.0)
            regular = {"method": "baseline", "variant": None} if alpha is None else {}
            options = {"landscape": {"expectation": "sampled", "images": images, "maps_at": []}}
            options |= {"attacks": attacks(images)}
            trial, epochs, _, maps = make_trial(
                f"t{index}{seed}",
                alpha=alpha,
                seed=seed,
                top1=0.9 - 0.01 * index + 0.001 * seed - (0.6 if index > 3 else 0),
                total_variation=1.0 + index + 0.1 * seed + more,
                measured=json.dumps(options),
                **regular,
            )
            epochs = [{**row, "total_variation": 5.0 + more} for row in epochs]
            rows = [measured(images, 0.5 - 0.05 * index + 0.01 * seed + more / 100)]
            rows += [measured(1, 0.1, "robust_accuracy_per_image", level=float(image)) for image in range(images // 50)]
            maps = [{**maps[0], "name": "importance_landscape", "values": [more] * 6}]
            write_trial(str(tmp_path / "demo"), trial, epochs, rows, maps)
    return tmp_path / "demo"


def test_each_kind_is_a_quantity(mixed: Path) -> None:
    sweep = read_sweep(str(mixed))
    known = quantities(sweep)
    assert list(known) == [
        "top1",
        "total_variation:images=100",
        "total_variation:images=128",
        "robust_accuracy:fgsm:images=100",
        "robust_accuracy:fgsm:images=128",
    ]
    for images, seeds in ((100, "01"), (128, "23")):
        for stem in ("total_variation", "robust_accuracy:fgsm"):
            quantity = known[f"{stem}:images={images}"]
            assert quantity.stem == stem
            assert set(values_of(sweep, quantity)) == {f"t{index}{seed}" for index in range(6) for seed in seeds}
        single = image_values(sweep, known[f"robust_accuracy:fgsm:images={images}"])
        assert single is not None
        assert single.values.shape == (12, images // 50)
    assert len(values_of(sweep, known["top1"])) == 24  # which depends on none
    for flag in ("total_variation", "robust_accuracy:fgsm"):
        with pytest.raises(InputError, match=rf"--metric {flag}: .*different options.*there are {flag}:images=100, "):
            find_quantity("--metric", flag, sweep)


def test_comparisons(mixed: Path, command: Command) -> None:
    """Means of the two seeds of a kind, of the settings and of the baseline; mixed they would be 5 less."""
    code, _, err = command(comparisons.main, mixed, "--metric", "total_variation")
    assert (code, err.count("\n")) == (2, 1)
    assert "total_variation:images=100, total_variation:images=128" in err
    code, _, err = command(comparisons.main, mixed, "--metric", "total_variation:images=128")
    assert (code, err) == (0, "")
    table = pd.read_parquet(mixed / "analysis" / "comparisons.parquet")
    assert set(table["metric"]) == {"total_variation:images=128"}
    assert table["mean"].round(9).tolist() == [12.25, 13.25, 14.25, 15.25, 16.25]  # 1 + index + (0.2 + 0.3)/2 + 10
    assert table["mean_reference"].round(9).unique().tolist() == [11.25]
    assert table["n"].tolist() == table["n_reference"].tolist() == [2] * 5


def test_correlations(mixed: Path, command: Command) -> None:
    code, _, err = command(correlations.main, mixed, "--until", "all")
    assert (code, err) == (0, "")
    table = pd.read_parquet(mixed / "analysis" / "correlations.parquet")
    assert list(zip(table["metric"], table["options"], table["kept"], strict=True)) == [
        ("total_variation", "images=100", 10),
        ("total_variation", "images=128", 10),
        ("robust_accuracy", "images=100", 10),
        ("robust_accuracy", "images=128", 10),
    ]


def test_tipping_points(mixed: Path, command: Command) -> None:
    code, _, err = command(tipping_points.main, mixed, "--metric", "robust_accuracy:fgsm")
    assert (code, err.count("\n")) == (2, 1)
    assert "robust_accuracy:fgsm:images=100" in err
    code, _, err = command(tipping_points.main, mixed, "--metric", "robust_accuracy:fgsm:images=100")
    assert (code, err) == (0, "")
    table = pd.read_parquet(mixed / "analysis" / "tipping_points.parquet")
    assert table["metric"].unique().tolist() == ["robust_accuracy:fgsm:images=100"]
    code, _, err = command(tipping_points.main, mixed)  # accuracy is that of all
    assert (code, err) == (0, "")


def test_report(mixed: Path, command: Command) -> None:
    code, _, err = command(report.main, mixed)
    assert (code, err) == (0, "")
    page = (mixed / "analysis" / "report.html").read_text()
    for kind in ("images=100", "images=128"):
        assert f"Accuracy against TV ({kind})" in page
        assert f"total variation of the landscape, {kind}: difference from the baseline" in page
    assert "Accuracy against TV<" not in page
    assert "Accuracy against TV." not in page


def test_paper(mixed: Path, command: Command) -> None:
    code, _, err = command(paper.main, mixed)
    assert (code, err) == (0, "")
    ours = _Ours(read_sweep(str(mixed)))
    found = ours.quantity("robust_accuracy:fgsm@0.03")
    assert [quantity.with_options for quantity, *_ in found] == ["images=100", "images=128"]
    assert [len(ours.values(quantity)) for quantity, *_ in found] == [12, 12]
    assert [quantity.name for quantity, *_ in ours.quantity("total_variation")] == [
        "total_variation:images=100",
        "total_variation:images=128",
    ]


def test_figures_of_the_papers(mixed: Path) -> None:
    """No line and no map is a mean over both: those of 128 images are 10 above the others."""
    sweep = read_sweep(str(mixed))
    spec = _Spec("pilcro", "epochs", ("top1", "total_variation"), _epochs)
    accuracy, variation = _epochs(sweep, spec)
    assert {row[3] for row in accuracy.rows} == {4.0}  # seeds
    found = {(str(row[0]).rpartition(", ")[2], row[2], row[3]) for row in variation.rows}
    assert found == {("images=100", 5.0, 2.0), ("images=128", 15.0, 2.0)}
    maps = list(_epochs_and_landscapes(sweep, spec))[-1]
    assert {(str(row[0]).rpartition(", ")[2], row[2]) for row in maps.rows} == {
        ("images=100", 0.0),
        ("images=128", 10.0),
    }


def test_measured_afterwards(mixed: Path) -> None:
    """What is measured again is of its new kind, and of no other trial's."""
    add_measurements(str(mixed), "t00", [measured(128, 0.25)], [], {"attacks": attacks(128)})
    sweep = read_sweep(str(mixed))
    values = values_of(sweep, find_quantity("--metric", "robust_accuracy:fgsm:images=128", sweep))
    assert (len(values), values["t00"].value) == (13, 0.25)
    assert "t00" not in values_of(sweep, find_quantity("--metric", "robust_accuracy:fgsm:images=100", sweep))
    assert "t00" in values_of(sweep, find_quantity("--metric", "total_variation:images=100", sweep))


def test_which_options_tell_apart() -> None:
    def of(name: str, component: str = "", **options: Any) -> object:
        return options_of(json.dumps({"attacks": attacks(**options)}), name, component)

    robust = "robust_accuracy"
    # which attacks there are besides, and with how many steps, is no part of a number's identity
    assert of(robust, "fgsm") == of(robust, "fgsm", attacks=["fgsm", "pgd"], steps=[20, 50], queries=1, seed=3)
    assert of(robust, "fgsm") != of(robust, "fgsm", images=128)
    assert of(robust, "pgd20") != of(robust, "pgd20", step_size="eps/30")
    assert of(robust, "apgd20") == of(robust, "apgd20", step_size="eps/30")
    assert of(robust, "square") != of(robust, "square", queries=1)
    # a record from before there was a choice
    old = attacks()
    del old["step_size"]
    assert options_of(json.dumps({"attacks": old}), robust, "pgd20") == of(robust, "pgd20")
    # of another data set the options are others
    text = json.dumps({"attacks": attacks(), "attacks on mnist": attacks(7)})
    assert dict(options_of(text, robust, "fgsm on mnist") or ())["images"] == "7"
    assert dict(options_of(text, robust, "fgsm") or ())["images"] == "100"
    assert options_of(text, "total_variation") is None
    assert options_of(text, "top1") == options_of(None, "top1") == options_of(text, "locality") == ()
    # a metric of one's own: all of them count
    assert options_of('{"mine": {"k": 1}}', "mine_mean") != options_of('{"mine": {"k": 2}}', "mine_mean")


def test_unknown_options_are_a_kind_of_their_own(tmp_path: Path) -> None:
    """As of records from before options were kept. They are equal to each other, unless `n` says otherwise."""
    for index, (text, images) in enumerate([(None, 100), (None, 100), (None, 128), (landscape(None), 100)]):
        trial, epochs, _, maps = make_trial(f"t{index}", seed=index, total_variation=1.0, measured=text)
        write_trial(str(tmp_path), trial, epochs, [measured(images, 0.5)], maps)
    sweep = read_sweep(str(tmp_path))
    known = quantities(sweep)
    assert {name: len(values_of(sweep, quantity)) for name, quantity in known.items()} == {
        "top1": 4,
        "total_variation:expectation=sampled,images=default": 1,
        "total_variation:options=unknown": 3,
        "robust_accuracy:fgsm:images=100": 1,
        "robust_accuracy:fgsm:options=unknown,n=100": 2,
        "robust_accuracy:fgsm:options=unknown,n=128": 1,
    }
    assert told_apart([UNKNOWN]) == {UNKNOWN: "options=unknown"}


def test_at_initialisation(tmp_path: Path) -> None:
    for index, images in enumerate((100, 128)):
        trial, epochs, _, maps = make_trial(f"t{index}", seed=index, measured=landscape(images))
        row = {"epoch": 0, "metric": "total_variation", "component": "", "value": 1.0, "n": images}
        write_trial(str(tmp_path), trial, epochs, [row], maps)
    sweep = read_sweep(str(tmp_path))
    found = by_options(sweep, Quantity("total_variation", measured=True, epoch=0))
    assert [(it.with_options, len(values_of(sweep, it))) for it in found] == [("images=100", 1), ("images=128", 1)]
    assert [it.with_options for it, *_ in _Ours(sweep).quantity("total_variation#0")] == ["images=100", "images=128"]
