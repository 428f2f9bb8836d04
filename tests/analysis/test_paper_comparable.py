"""What makes a record the papers': how it was attacked and measured, what its data are declared to be; and what of it,
and of the papers, is in no line."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from analysis import paper
from analysis.command_line import InputError
from analysis.paper.declared import declared
from analysis.paper.ours import _Ours
from analysis.paper.printed import CLASSES, claims, data_sets
from analysis.paper.unmatched import Unmatched, checked, unmatched
from analysis.paper.verdicts import _check, check
from analysis.records import read_sweep, write_trial
from analysis.report.build import report
from tests.analysis.conftest import make_trial

Command = Callable[..., tuple[int, str, str]]
Record = Callable[..., bool]

TOP_GAP: dict[str, Any] = {
    "method": "top_gap", "fpn": True, "variant": "class_maps", "sparsity": 1.0, "alpha": None, "width": 64,
}  # fmt: skip
CIFAR = {**TOP_GAP, "dataset": "cifar10", "model": "preact-resnet18"}
BIRDS = {**TOP_GAP, "model": "resnet18-imagenet", "pretrained": True, "fold": 0}
ATTACKS = {"images": 10_000, "restarts": 1, "step_size": "eps/30", "queries": 5000, "seed": 0}


def attacked(path: Path, component: str, n: int, *, columns: Any = CIFAR, level: float = 8 / 255, **o: Any) -> None:
    """Two seeds of a network whose robust accuracy is of n images, by these options of the attack."""
    for seed in range(2):
        measured = json.dumps({"attacks": {**ATTACKS, **o}})
        trial, epochs, _, _ = make_trial(f"{component}{seed}", seed=seed, measured=measured, **columns)
        row = {"epoch": 2, "metric": "robust_accuracy", "component": component, "direction": "max", "level": level}
        write_trial(str(path), trial, epochs, [{**row, "n": n, "value": 0.3426 + 0.0004 * (2 * seed - 1)}], [])


def line_of(path: Path, table: str, column: str, row: str = "") -> paper.Line:
    (found,) = [line for line in check(read_sweep(str(path)), table).lines if line.column == column and row in line.row]
    return found


@pytest.mark.parametrize(
    ("component", "column", "options", "why"),
    [
        ("square5000", "Square Attack", {}, ""),
        ("square500", "Square Attack", {"queries": 500}, "measured with queries=500 (paper: 5000)"),
        ("square", "Square Attack", {}, ""),  # as older records have it
        ("square", "Square Attack", {"queries": 500}, "measured with queries=500 (paper: 5000)"),
        ("square5000", "Square Attack", {"restarts": 3}, "measured with restarts=3 (paper: 1)"),
        ("square5000", "Square Attack", {"images": 100}, "measured with images=100 (paper: all)"),
        ("square5000", "Square Attack", {"step_size": "eps/4"}, ""),  # Square has no steps
        ("pgd50", "PGD⁵⁰ ↑", {"step_size": "eps/4"}, "PGD by steps of eps/4 (paper: eps/30)"),
        ("pgd50", "PGD⁵⁰ ↑", {"queries": 10}, ""),
        ("pgd10", "PGD⁵⁰ ↑", {}, "10 steps (paper: 50)"),
        ("apgd20", "APGD, 20 iterations", {"restarts": 5}, "measured with restarts=5 (paper: 1)"),
    ],
)  # fmt: skip
def test_how_a_network_was_attacked(
    component: str, column: str, options: dict[str, Any], why: str, tmp_path: Path
) -> None:
    attacked(tmp_path, component, n=options.get("images", 10_000), **options)
    line = line_of(tmp_path, "topgap-4", column, "Top-GAP (ours) | PRN18")
    assert line.why == why if why else line.verdict != "not comparable"
    assert (line.verdict == "not comparable") == bool(why)


@pytest.mark.parametrize(
    ("dataset", "asked", "n", "part"),
    [
        ("cifar10", 10_000, 10_000, False),
        ("cifar10", 50_000, 10_000, False),
        ("cifar10", 9_999, 9_999, True),
        ("cub-200-2011", 2_357, 2_357, False),  # a fold of 11,788
        ("cub-200-2011", 500, 500, True),
        ("coco", 500, 500, True),  # of as many as were asked for it is not known that they are all
        ("coco", 500, 431, False),
    ],
)
def test_all_images_are_attacked_or_a_part(dataset: str, asked: int, n: int, part: bool, tmp_path: Path) -> None:
    photographs = dataset != "cifar10"
    columns = {**BIRDS, "dataset": dataset, "model": "resnet18-imagenet"} if photographs else CIFAR
    component, level = ("pgd40", 1 / 255) if photographs else ("pgd50", 8 / 255)
    attacked(tmp_path, component, n, columns=columns, level=level, images=asked)
    table, column, row = ("topgap-3", "PGD ↑ (ours)", "RN") if photographs else ("topgap-4", "PGD⁵⁰ ↑", "Top-GAP")
    name = {"cub-200-2011": "CUB", "coco": "COCO"}.get(dataset, "")
    line = line_of(tmp_path, table, column, f"{name} | {row}" if name else row)
    assert (line.why == f"measured with images={asked} (paper: all)") == part
    assert (line.verdict == "not comparable") == part


def test_of_a_record_that_says_nothing_nothing_is_held_against_it(tmp_path: Path) -> None:
    for seed in range(2):
        trial, epochs, _, _ = make_trial(f"{seed}", seed=seed, **CIFAR)
        row = {"epoch": 2, "metric": "robust_accuracy", "component": "pgd50", "direction": "max", "level": 8 / 255}
        write_trial(str(tmp_path), trial, epochs, [{**row, "n": 100, "value": 0.3 + 0.01 * seed}], [])
    assert line_of(tmp_path, "topgap-4", "PGD⁵⁰ ↑", "Top-GAP").verdict != "not comparable"


def test_saliency_is_of_so_many_images_and_samples(tmp_path: Path) -> None:
    options = {"local_lipschitz": {"images": 128, "samples": 50, "seed": 0}}
    for index in range(20):
        trial, epochs, _, _ = make_trial(
            f"{index:02}", method="gradient_reg", dataset="mnist", model="lenet5", width=6, epochs=25, variant=None,
            alpha=10.0 ** (2 + index / 4), optimizer="adam", learning_rate=0.001, top1=0.9,
            measured=json.dumps(options),
        )  # fmt: skip
        row = {"epoch": 25, "metric": "local_lipschitz", "component": "gradient", "direction": "min", "n": 128}
        write_trial(str(tmp_path), trial, epochs, [{**row, "value": 5 - 0.1 * index}], [])
    (line,) = check(read_sweep(str(tmp_path)), "gradreg-3").lines
    assert (line.verdict, line.why) == ("not comparable", "measured with samples=50 (paper: 200)")
    assert line.finding == "holds"


# --- declared data ----------------------------------------------------------------------------------------------------


@pytest.fixture
def birds(tmp_path: Path, record: Record) -> Path:
    """Table 5 in a folder of which nobody says what it is."""
    for seed in range(3):
        top1 = 0.685 + 0.001 * (seed - 1)
        record(
            tmp_path / "demo", f"{seed}", **{**BIRDS, "dataset": "folder:birds@1a2b3c4d", "seed": seed, "top1": top1}
        )
    return tmp_path / "demo"


def test_a_folder_is_what_it_is_declared_to_be(birds: Path, record: Record) -> None:
    (line,) = check(read_sweep(str(birds)), "topgap-5").lines
    assert line.why == "dataset is folder:birds@1a2b3c4d (paper: cub-200-2011)"
    # one trial says it of the data set
    columns = {**BIRDS, "dataset": "folder:birds@1a2b3c4d", "seed": 3, "top1": 0.685, "declared": "cub-200-2011"}
    record(birds, "said", **columns)
    (line,) = check(read_sweep(str(birds)), "topgap-5").lines
    assert (line.verdict, line.n) == ("agrees", 4)
    assert line.why == "the paper's value lies in our interval; data declared as cub-200-2011"
    (line,) = check(read_sweep(str(birds)), "topgap-a7").lines
    assert line.verdict != "not comparable"


def test_declared_to_be_another_is_not_comparable(birds: Path) -> None:
    sweep = declared(read_sweep(str(birds)), "oxford-pets")
    (line,) = check(sweep, "topgap-5").lines
    assert line.why == "dataset is folder:birds@1a2b3c4d, declared as oxford-pets (paper: cub-200-2011)"


def test_two_declarations_of_one_data_set_are_an_error(birds: Path, record: Record, command: Command) -> None:
    for name in ("coco", "cub-200-2011"):
        record(birds, name, **{**BIRDS, "dataset": "folder:birds@1a2b3c4d", "seed": 9, "declared": name})
    code, _, err = command(paper.main, birds)
    assert (code, err.count("\n")) == (2, 1)
    assert "folder:birds@1a2b3c4d is declared to be coco and cub-200-2011" in err or "cub-200-2011 and coco" in err
    assert command(paper.main, birds, "--as", "cub-200-2011", "--table", "topgap-5")[0] == 0


def test_the_command_declares_too(birds: Path, command: Command) -> None:
    code, out, err = command(paper.main, birds, "--as", "cub-200-2011", "--table", "topgap-5")
    assert (code, err) == (0, "")
    assert "1 agrees" in out
    (row,) = pq.read_table(birds / "analysis" / "topgap-5.parquet").to_pylist()
    assert row["why"].endswith("data declared as cub-200-2011")
    for name, told in (
        ("birds", f"--as: 'birds', allowed are {', '.join(data_sets())}"),
        ("digits", "--as: 'digits', allowed are cifar10"),
    ):
        code, out, err = command(paper.main, birds, "--as", name)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert told in err


def test_what_is_known_to_be_another_cannot_be_declared(tmp_path: Path, record: Record) -> None:
    record(tmp_path, "0", dataset="kmnist")
    with pytest.raises(InputError, match="as: mnist, allowed is none for kmnist"):
        declared(read_sweep(str(tmp_path)), "mnist")


def test_the_papers_data_sets_are_known() -> None:
    assert set(CLASSES) == set(data_sets())
    assert {claim.protocol["dataset"] for claim in claims() if "dataset" in claim.protocol} == set(data_sets())


# --- what is in no line -----------------------------------------------------------------------------------------------


@pytest.fixture
def several(tmp_path: Path, record: Record) -> Path:
    """Table 1 of PILCRO with an α and an interval that the paper has not, and another method."""
    same = {
        "dataset": "cifar100", "model": "resnet50", "width": 64, "epochs": 200, "batch_size": 128, "crop": 0,
        "interval": 10, "laplacian_width": 3,
    }  # fmt: skip
    for seed in range(3):
        top1 = 0.69 + 0.001 * seed
        for alpha in (0.3, 1.0, 3.0):
            record(tmp_path / "demo", f"a{alpha}{seed}", seed=seed, top1=top1, **{**same, "alpha": alpha})
        record(tmp_path / "demo", f"i{seed}", seed=seed, top1=top1, **{**same, "interval": 5})
        record(tmp_path / "demo", f"g{seed}", seed=seed, top1=top1, **{**same, "method": "another", "variant": None})
    return tmp_path / "demo"


def settings(left: list[Unmatched]) -> dict[str, int]:
    return {entry.why: len(entry.names) for entry in left if entry.kind == "setting"}


def test_settings_in_no_line_are_listed_with_their_reason(several: Path) -> None:
    tables, left = checked(read_sweep(str(several)))
    assert {table.item.id.partition("-")[0] for table in tables} == {"pilcro"}
    assert settings(left) == {
        "alpha is another (papers: 1, 10, 100)": 2,
        "another is more like the paper's: interval is 5 (paper: 10)": 1,
        "no number of these tables is of another": 1,
    }


def test_every_number_is_in_a_line_or_listed(several: Path) -> None:
    tables, left = checked(read_sweep(str(several)))
    listed = {(entry.table, name) for entry in left if entry.kind == "number" for name in entry.names}
    for table in tables:
        own = {f"{line.row} | {line.column}" for line in table.lines}
        for claim in claims():
            if claim.table == table.item.id:
                name = f"{claim.row} | {claim.column}"
                found = (claim.table, name) in listed or ("", f"{claim.table}, {name}") in listed
                assert found != (name in own), claim
    why = {name: entry.why for entry in left if entry.kind == "number" for name in entry.names}
    assert why["SOTA | RC− | Top-1"] == "no trial with method=baseline"
    assert why["¶c | α=1 | RC− | TV"] == "no measurement of total_variation"
    assert why["¶t | α=10 | RC− | Top-1"] == "no trial with method=pilcro, variant=target, alpha=10"


def test_the_best_of_several_k_leaves_the_others(tmp_path: Path, record: Record) -> None:
    for pixels, top1 in ((8, 0.7), (32, 0.8), (128, 0.75)):
        for fold in range(3):
            columns = {**TOP_GAP, "model": "efficientnet-b0", "width": 32, "dataset": "coco"}
            record(tmp_path, f"{pixels}{fold}", fold=fold, top1=top1 + 0.001 * fold, pixels=pixels, **columns)
    ours = _Ours(read_sweep(str(tmp_path)))
    table = _check(ours, "topgap-3")
    assert {line.setting for line in table.lines} == {"pixels=32"}
    assert settings(unmatched(ours, [table])) == {"another is the best of the tested k": 2}


def test_the_command_and_the_report_list_them(several: Path, command: Command, tmp_path: Path) -> None:
    code, out, _ = command(paper.main, several)
    assert code == 0
    assert "4 settings of the sweep in no line of these tables:" in out
    assert "alpha is another (papers: 1, 10, 100)" in out
    with (several / "analysis" / "unmatched.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert sum(row["kind"] == "setting" for row in rows) == 4
    assert {tuple(row) for row in rows} == {("kind", "table", "name", "why")}
    page = report(read_sweep(str(several)))
    assert "Settings of this sweep that no number of the papers is about: 4" in page
    assert "alpha is another (papers: 1, 10, 100)" in page
