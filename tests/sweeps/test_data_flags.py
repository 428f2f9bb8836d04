"""What a plan says of its data, what the data's flags make of trials; refused commands leave nothing behind."""

from __future__ import annotations

import dataclasses
import json
import os
import urllib.error
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from analysis.command_line import InputError
from analysis.records import read_sweep, write_trial
from sweeps.driver.manifest import contents
from sweeps.driver.summary import print_plan
from sweeps.launch import main
from sweeps.pilcro import PRESETS, PilcroSweep
from sweeps.plan import make_plan, trial_id
from tests.trainables.test_data import pictures, write_folder, write_mnist
from trainables.configuration import TrialConfig
from trainables.data import DataConfig, Images, describe, load
from trainables.data.named import NAMED
from trainables.trainable import TrialOptions, trial_row

SMALL = PilcroSweep(alpha=(1.0,), interval=(1,), variant=("curvature",), seeds=1, measure=())


def plan(folder: Path, **options: Any) -> Any:
    return make_plan(dataclasses.replace(SMALL, dataset=(f"folder:{folder}",), **options))


def only(folder: Path, **options: Any) -> Any:
    """The configuration of the data, and the trial's identity."""
    (trial, *_) = plan(folder, **options).trials
    return trial.config.data, trial.id


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A set with something of everything."""
    items = pictures(20)
    write_folder(tmp_path / "x" / "train", items)
    write_folder(tmp_path / "x" / "val", pictures(4, seed=1))
    write_folder(tmp_path / "x" / "test", [*items[:1], *pictures(7, seed=2)])
    write_folder(tmp_path / "x" / "train" / "annotations", pictures(2))
    Image.fromarray(items[0][0]).convert("L").resize((20, 30)).save(tmp_path / "x" / "train" / "cat" / "odd.png")
    (tmp_path / "x" / "train" / ".DS_Store").write_text("")
    return tmp_path / "x"


def test_a_plan_says_what_the_data_are(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_folder(tmp_path / "away", pictures(6, channels=1))
    flags = dataclasses.replace(
        SMALL,
        dataset=(f"folder:{folder}", "digits"),
        exclude=("annotations",),
        storage=str(tmp_path / "results"),
        shift=(),
    )
    print_plan(flags, make_plan(flags))
    spec = f"data folder:{folder}"
    out = [line for line in capsys.readouterr().out.splitlines() if line.startswith("data ")]
    assert out == [
        f"{spec}: 2 classes (cat, dog), images 21 to train + 4 to validate + 8 to test, 12×12 in colour",
        "data digits: 10 classes (0, 1, 2, …), images 1437 to train + 360 to test, 8×8 grey",
        f"{spec}: skipped: hidden or system entries: 1 (train/.DS_Store); by --exclude: 1 (train/annotations)",
        f"{spec}: converted: 1 grey to colour, 1 resized to 12×12",
        f"{spec}: 1 of 8 test images are in its training split, too (equal byte for byte)",
    ]
    flags = dataclasses.replace(flags, dataset=(f"folder:{folder}",), shift=(f"folder:{tmp_path}/away",), image_size=8)
    print_plan(flags, make_plan(flags))
    out = [line for line in capsys.readouterr().out.splitlines() if "away" in line]
    assert out == [f"data folder:{tmp_path}/away (--shift): converted: 6 grey to colour, 6 resized to 8×8"]


@pytest.mark.parametrize("name", [name for name in NAMED if NAMED[name].folder])
def test_a_named_set_is_missing_until_all_of_it_is_there(name: str, tmp_path: Path) -> None:
    """An empty folder, or one with a part of the files, or with folders in which nothing is, is not the set."""
    top = tmp_path / NAMED[name].folder
    top.mkdir(parents=True)
    for file in NAMED[name].files:
        assert not describe(name, str(tmp_path)).present
        if name in ("imagenet", "imagenette", "oxford-pets"):
            (top / file).mkdir()
            assert not describe(name, str(tmp_path)).present
            (top / file / "x").write_text("")
        else:
            (top / (f"{file}.gz" if name == "mnist" else file)).write_text("x")
    assert describe(name, str(tmp_path)).present


def test_names_of_classes_are_torchvisions() -> None:
    from torchvision import datasets

    for name in ("mnist", "fashion-mnist", "kmnist"):
        assert tuple(getattr(datasets, NAMED[name].source).classes[:3]) == NAMED[name].first
    names = datasets.Imagenette._WNID_TO_CLASS
    assert tuple(names[wnid][0] for wnid in sorted(names)[:3]) == NAMED["imagenette"].first


def test_channels_and_exclude_are_part_of_a_trial_where_they_change_it(folder: Path) -> None:
    plain = only(folder, exclude=("annotations",))
    assert plain[0].exclude == ("annotations",)
    assert plain[0].channels is None
    assert only(folder, exclude=("annotations",), channels=3) == plain  # as it is
    grey = only(folder, exclude=("annotations",), channels=1)
    (trial, *_) = plan(folder, exclude=("annotations",), channels=1).trials
    assert trial_id(TrialConfig.from_canonical(json.loads(trial.payload()["json"]))) == trial.id
    assert (grey[0].channels, grey[1] == plain[1]) == (1, False)
    assert load(f"folder:{folder}", "", grey[0]).channels == 1
    with pytest.raises(InputError, match="exclude: 'anotations', allowed are patterns of what is there: it matches"):
        plan(folder, exclude=("annotations", "anotations"))
    with pytest.raises(InputError, match=r"channels: 2, allowed are 1 \(grey\) and 3 \(colour\)"):
        plan(folder, exclude=("annotations",), channels=2)
    # a data set in which nothing matches is what it is without
    both = make_plan(dataclasses.replace(SMALL, dataset=(f"folder:{folder}", "digits"), exclude=("annotations",)))
    alone = make_plan(SMALL)
    assert {trial.id for trial in alone.trials} < {trial.id for trial in both.trials}


def test_steps_are_counted_of_images_that_are_trained_on(folder: Path) -> None:
    """Where the validation images are its own none is taken from the others: 21 in batches of 7."""
    plan(folder, exclude=("annotations",), batch_size=(7,), epochs=(1,), interval=(3,))
    with pytest.raises(InputError, match="interval: 4, allowed are at most the 3 steps"):
        plan(folder, exclude=("annotations",), batch_size=(7,), epochs=(1,), interval=(4,))


@pytest.mark.parametrize("there", [False, True])
def test_a_refused_command_leaves_nothing_behind(
    there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(url: str, download_root: str, *_: Any, **__: Any) -> None:
        Path(download_root, "half").write_text("")
        raise urllib.error.URLError("no network")

    monkeypatch.setattr("torchvision.datasets.mnist.download_and_extract_archive", refuse)
    monkeypatch.setenv("RAY_ADDRESS", "local")
    root = tmp_path / "some" / "new"
    if there:
        (root / "MNIST" / "raw").mkdir(parents=True)
        (root / "MNIST" / "raw" / "mine.txt").write_text("")
    before = sorted(tmp_path.rglob("*"))
    argv = ["--dataset", "mnist", "--data-root", str(root), "--storage", str(tmp_path / "my" / "results")]
    with pytest.raises(SystemExit) as stop:
        main(PilcroSweep, PRESETS, "", argv)
    assert stop.value.code == 2
    assert "the download failed" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_download_is_put_in_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(url: str, download_root: str, *_: Any, **__: Any) -> None:
        write_mnist(Path(download_root).parents[1], compress=False)

    monkeypatch.setattr("torchvision.datasets.mnist.download_and_extract_archive", fetch)
    (tmp_path / "MNIST" / "raw").mkdir(parents=True)
    data = load("mnist", str(tmp_path), DataConfig("mnist"))
    assert isinstance(data, Images)
    assert data.count("test") == 20
    assert sorted(os.listdir(tmp_path)) == ["MNIST"]
    assert len(list((tmp_path / "MNIST" / "raw").iterdir())) == 4


# --- what the data are declared to be ---------------------------------------------------------------------------------


@pytest.fixture
def ten(tmp_path: Path) -> Path:
    """A folder of ten classes, as MNIST and CIFAR-10 have."""
    for number, (picture, _) in enumerate(pictures(40)):
        path = tmp_path / "ten" / f"class{number % 10}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path)
    return tmp_path / "ten"


def test_declared_data_are_said_and_trials_are_the_same(
    ten: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = plan(ten)
    flags = dataclasses.replace(SMALL, dataset=(f"folder:{ten}",), as_=("cifar10",), storage=str(tmp_path / "results"))
    declared = make_plan(flags)
    assert declared.ids == plain.ids
    assert [trial.payload() for trial in declared.trials] == [trial.payload() for trial in plain.trials]
    (name,) = {trial.config.data.dataset for trial in declared.trials}
    assert (plain.declared, declared.declared) == ({}, {name: "cifar10"})
    assert contents(flags, declared) == contents(dataclasses.replace(flags, as_=()), plain)  # --as may come later
    print_plan(flags, declared)
    out = capsys.readouterr().out
    assert "12×12 in colour, declared as cifar10" in out
    assert "trained once, which gives no interval" in out


@pytest.mark.parametrize(
    ("dataset", "said", "told"),
    [
        (("folder",), ("birds",), "as: 'birds', allowed are cifar10, cifar100, coco, cub-200-2011, fashion-mnist"),
        (("folder",), ("cub-200-2011",), "as: cub-200-2011, allowed are data sets of 200 classes; folder:ten@"),
        (("digits",), ("mnist",), "as: mnist, allowed is none for digits, which is known to be that"),
        (("folder", "digits"), ("mnist",), "as: mnist, allowed is one name for each --dataset, 2"),
    ],
)
def test_what_cannot_be_declared(dataset: tuple[str, ...], said: tuple[str, ...], told: str, ten: Path) -> None:
    specs = tuple(f"folder:{ten}" if spec == "folder" else spec for spec in dataset)
    with pytest.raises(InputError) as error:
        make_plan(dataclasses.replace(SMALL, dataset=specs, as_=said))
    assert str(error.value).startswith(told)


def test_a_record_that_says_otherwise_or_nothing(ten: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = dataclasses.replace(SMALL, dataset=(f"folder:{ten}",), as_=("cifar10",), storage=str(tmp_path / "results"))
    planned = make_plan(flags)
    url = str(tmp_path / "results" / "pilcro")
    for trial in planned.trials:
        row = {"trial_id": trial.id, "status": "completed", "dataset": trial.config.data.dataset, "method": "pilcro"}
        write_trial(url, {**row, "declared": None}, [], [], [])
    print_plan(flags, planned)
    assert f"python -m analysis.paper {url} --as cifar10 takes them for it" in capsys.readouterr().out
    said = {**row, "trial_id": "another", "declared": "imagenette"}
    write_trial(url, said, [], [], [])
    with pytest.raises(InputError, match=f"as: cifar10, allowed is imagenette, which {url} has for folder:ten@"):
        print_plan(flags, planned)


@pytest.mark.ray
def test_declared_data_are_in_the_record(ten: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of completed trials, and of those that failed."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.chdir(tmp_path)
    small = [
        "--dataset",
        f"folder:{ten}",
        "--as",
        "cifar10",
        "--epochs",
        "1",
        "--width",
        "2",
        "--alpha",
        "1",
        "--interval",
        "1",
    ]
    small += ["--seeds", "1", "--variant", "curvature", "--measure", "--storage", str(tmp_path / "results")]
    main(PilcroSweep, PRESETS, "", small)
    trials = read_sweep(str(tmp_path / "results" / "pilcro")).trials
    assert trials["declared"].to_pylist() == ["cifar10", "cifar10"]
    config = TrialConfig.from_canonical(json.loads(trials["config"][0].as_py()))
    options = TrialOptions(
        "", "", {}, 1.0, False, False, 1, 1.0, 0.0, None, None, "1", declared={config.data.dataset: "cifar10"}
    )
    lost = trial_row("lost", config, "{}", options, 1, torch.device("cpu"))
    assert lost["declared"] == "cifar10"
