"""Stratified cross-validation: every image is tested on once, whatever the seed; in memory once; a sweep's record."""

from __future__ import annotations

import itertools
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from analysis.comparisons import comparisons
from analysis.records import read_sweep
from sweeps.flags import read_flags
from sweeps.pilcro import PRESETS, PilcroSweep
from sweeps.plan import make_plan
from tests.trainables.test_data import as_set, make, pictures, write_folder
from trainables.data import (
    DataConfig,
    Images,
    SharedData,
    StreamedImages,
    describe,
    identify,
    load,
    load_each,
    memory,
    shared,
)
from trainables.data.configuration import fold_splits
from trainables.data.images import Split
from trainables.kept_models import model_file, read_model
from trainables.metrics.__main__ import Flags, _Data
from trainables.pilcro import Pilcro, data_smoothness, smoothness_of
from trainables.trainable import Trial, TrialOptions

CPU = torch.device("cpu")


def folds_of(spec: str, folds: int, root: Path | str = "unused", validation: float = 0.1) -> list[Images]:
    config = DataConfig(identify(spec, str(root)), validation=validation, folds=folds, fold=0)
    found = list(load_each(spec, str(root), config.each_fold()).values())
    assert [data.config.fold for data in found] == list(range(folds))
    assert all(isinstance(data, Images) for data in found)
    return found  # type: ignore[return-value]


def chosen(split: Split) -> Split:
    assert split.rows is not None
    return Split(split.images[split.rows], split.labels)


@pytest.mark.parametrize("kind", ["digits", "mnist", "parquet", "folder", "split folder"])
def test_every_image_is_tested_on_once(kind: str, tmp_path: Path) -> None:
    spec = make(kind, tmp_path)
    whole = load(spec, str(tmp_path), DataConfig(identify(spec, str(tmp_path)), validation=0.0))
    assert isinstance(whole, Images)
    everything = as_set(whole.train) | as_set(whole.test)
    images = whole.count("train") + whole.count("test")
    labels = np.concatenate([whole.train.labels, whole.test.labels])
    counts = np.bincount(labels)
    tested = np.zeros(images, int)
    for data in folds_of(spec, 3, tmp_path):
        rows = {name: getattr(data, name).rows for name in ("train", "validation", "test")}
        assert sorted(np.concatenate(list(rows.values())).tolist()) == list(range(images))
        tested[rows["test"]] += 1
        # each class within an image of its share
        assert (abs(np.bincount(data.test.labels) - counts / 3) < 1).all()
        assert data.count("validation") == round(0.1 * (images - data.count("test")))
        parts = [as_set(chosen(split)) for split in (data.train, data.validation, data.test)]
        assert set.union(*parts) == everything
        if kind != "mnist":  # here a stand-in with fewer images than the real set
            info = describe(spec, str(tmp_path))
            assert info.training_images(data.config) == data.count("train")
            assert info.rarest in (None, counts.min())
    assert (tested == 1).all()


def test_digits_keep_their_labels() -> None:
    original = load_digits()
    known = {}
    for image, label in zip(np.rint(original.images * (255 / 16)).astype(np.uint8), original.target, strict=True):
        known[image.tobytes()] = int(label)
    for data in folds_of("digits", 5):
        for image, label in itertools.chain(as_set(chosen(data.train)), as_set(chosen(data.test))):
            assert known[image] == label


def test_the_folds_are_these() -> None:
    """What a fold is must never change: under its trials' ids there would be other trials."""
    labels = np.arange(12) % 3
    config = DataConfig("x", validation=0.25, folds=2, fold=0)
    splits = [[rows.tolist() for rows in fold_splits(labels, fold)] for fold in config.each_fold()]
    assert splits == [
        [[2, 5, 7, 6], [9, 1], [10, 11, 8, 0, 3, 4]],
        [[0, 8, 11, 10], [4, 3], [7, 9, 6, 1, 2, 5]],
    ]


def test_without_a_validation_split_the_fold_stands_in() -> None:
    for data in folds_of("digits", 2, validation=0.0):
        assert data.validation is data.test
        assert data.count("train") + data.count("test") == 1797


def test_streamed_folds_are_those_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path / "big" / "train", pictures(30, size=20))
    write_folder(tmp_path / "big" / "val", pictures(12, size=20, seed=1))
    spec = f"folder:{tmp_path / 'big'}"
    whole = folds_of(spec, 3)
    monkeypatch.setattr(memory, "MEMORY_LIMIT", 1000)
    config = whole[0].config
    paths: list[str] = []
    for data, own in zip(load_each(spec, "unused", config.each_fold()).values(), whole, strict=True):
        assert isinstance(data, StreamedImages)
        paths += data.files["test"][0]
        for split in ("train", "validation", "test"):
            assert data.files[split][1].tolist() == getattr(own, split).labels.tolist()
        data.mean, data.std, data.workers = own.mean, own.std, 0
        images, labels = next(iter(data.batches("test", 100, device=CPU)))
        mine, mine_labels = next(iter(own.batches("test", 100, device=CPU)))
        assert torch.equal(labels, mine_labels)
        torch.testing.assert_close(images, mine)
    assert len(paths) == len(set(paths)) == 42


def test_batches_are_those_of_a_set_of_its_own() -> None:
    data = folds_of("digits", 3)[1]
    train, validation, test = (chosen(split) for split in (data.train, data.validation, data.test))
    alone = Images(data.config, data.class_names, train, validation, test)
    assert (alone.mean, alone.std) == (data.mean, data.std)
    for split in ("train", "validation", "test"):
        both = [list(it.batches(split, 100, device=CPU, limit=250)) for it in (data, alone)]
        for (x, y), (u, v) in zip(*both, strict=True):
            assert torch.equal(x, u)
            assert torch.equal(y, v)
    runs = [
        list(it.training_batches(64, generator=torch.Generator().manual_seed(1), device=CPU)) for it in (data, alone)
    ]
    for (x, y), (u, v) in zip(*runs, strict=True):
        assert torch.equal(x, u)
        assert torch.equal(y, v)
    which = torch.tensor([5, 0, 7])
    assert all(map(torch.equal, data.select("test", which, device=CPU), alone.select("test", which, device=CPU)))
    assert torch.equal(torch.cat(list(data.training_pixels())), torch.cat(list(alone.training_pixels())))


def test_the_images_are_in_memory_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where Ray or `SharedData` give them to other processes, with what a method derives from each fold."""
    folds = folds_of("digits", 5)
    assert len({id(data.train.images) for data in folds}) == 1
    content = pickle.dumps(folds, protocol=5)
    # beside them a label and a row, eight bytes each, for each image and fold
    assert len(content) < folds[0].train.images.nbytes + 5 * 1797 * 16 + 10_000
    again = pickle.loads(content)
    assert len({id(data.train.images) for data in again} | {id(data.test.images) for data in again}) == 1
    for data in again:
        next(iter(data.batches("test", 10, device=CPU)))
    assert len({id(data.moved) for data in again}) == 1
    # one tensor of the images, and labels and rows of each fold
    assert len(again[0].moved) == 1 + 2 * 5

    monkeypatch.setattr(shared.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(shared, "_IN_USE", {})
    method = Pilcro(alpha=1.0, interval=1, laplacian_width=3, variant="target")
    configs = tuple(data.config for data in folds)
    loaded = SharedData("digits", ".", configs, (method,)).load()
    assert tuple(loaded) == configs
    assert len({id(data.train.images) for data in loaded.values()}) == 1  # type: ignore[union-attr]
    maps = []
    for data, own in zip(loaded.values(), folds, strict=True):
        assert isinstance(data, Images)
        assert not data.train.images.flags.writeable
        assert as_set(chosen(data.test)) == as_set(chosen(own.test))
        pixels = torch.from_numpy(chosen(own.train).images)
        torch.testing.assert_close(smoothness_of(data, 3).double(), data_smoothness(pixels, 3).double())
        maps.append(data.memo[next(iter(data.memo))].tobytes())
    assert len(set(maps)) == 5


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"folds": 1, "fold": 0}, "folds: 1"),
        ({"folds": 5}, "fold: None, allowed with 5 folds are 0 to 4"),
        ({"folds": 5, "fold": 5}, "fold: 5, allowed with 5 folds are 0 to 4"),
        ({"folds": 5, "fold": -1}, "fold: -1"),
        ({"fold": 1}, "fold: 1, allowed with folds alone"),
    ],
)
def test_bad_folds_are_named(fields: dict[str, int], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        DataConfig("digits", **fields)  # type: ignore[arg-type]


def test_too_many_folds_for_a_class_are_named_when_it_is_loaded() -> None:
    with pytest.raises(ValueError, match="folds: 175, allowed are at most the 174 images of the rarest class"):
        load("digits", "unused", DataConfig("digits", folds=175, fold=0))


def test_a_sweep_with_folds(tmp_path: Path) -> None:
    """Trials without Ray, their record, what is measured of them later, and their comparison."""
    argv = ["--folds", "2", "--seeds", "1", "--epochs", "1", "--width", "2", "--measure", "landscape"]
    flags = read_flags(PilcroSweep, PRESETS, [*argv, "--alpha", "1", "--variant", "target", "--interval", "5"], "")
    plan = make_plan(flags)
    sweep = tmp_path / "s"
    options = TrialOptions(str(sweep), "s", flags.metrics(), 0.0, False, True, 1, 1.0, 0.0, None, None, "0")
    data = load_each("digits", "unused", list(dict.fromkeys(trial.config.data for trial in plan.trials)))
    for trial in plan.trials:
        actor = Trial.__new__(Trial)
        actor.setup({"trial": trial.payload()}, data={"digits": data}, options=options)
        assert actor.step()["status"] == "completed"
    record = read_sweep(str(sweep))
    rows = record.trials.to_pylist()
    assert {row["class_names"] for row in rows} == {'["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]'}
    assert sorted((row["method"], row["fold"], row["seed"]) for row in rows) == [
        (method, fold, 0) for method in ("baseline", "pilcro") for fold in range(2)
    ]
    (tested,) = comparisons(record).tested
    assert tested.comparison.n == 2
    assert tested.comparison.test == "paired t"
    top1 = {(row["method"], row["fold"]): row["top1"] for row in rows}
    expected = np.mean([top1["pilcro", fold] - top1["baseline", fold] for fold in range(2)])
    assert tested.comparison.difference == pytest.approx(expected)

    data_of = _Data(Flags(sweep=str(sweep)))
    for trial in plan.trials:
        kept = read_model(model_file(str(sweep), trial.id))
        measured_on = data_of(trial.config, kept)
        assert isinstance(measured_on, Images)
        own = data[trial.config.data]
        assert isinstance(own, Images)
        assert measured_on.test.rows is not None
        assert measured_on.test.rows.tolist() == own.test.rows.tolist()  # type: ignore[union-attr]
        assert (measured_on.mean, measured_on.std) == (own.mean, own.std)
    assert len(data_of.loaded) == 2
