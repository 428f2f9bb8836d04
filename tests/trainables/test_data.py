"""Data sets: exact pixels from each kind of source, fixed splits, augmentation against a slow reference."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import struct
import urllib.error
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import s3fs
import torch
from numpy.typing import NDArray
from PIL import Image

from trainables.data import DataConfig, Images, StreamedImages, describe, identify, load, memory
from trainables.data import pictures as decoded
from trainables.data.configuration import split_indices, stratified
from trainables.data.images import Split, channel_statistics, shift_and_flip

CPU = torch.device("cpu")
SAMPLE = Path(__file__).resolve().parents[1] / "data"
WHOLE = os.environ.get("SWEEPS_TEST_DATA")


def real(sample: tuple[Any, ...], whole: tuple[Any, ...]) -> list[Any]:
    """The sample in the repository and, where it is named, the whole set, each with its numbers."""
    cases = [pytest.param(SAMPLE, *sample, id="sample")]
    return [*cases, pytest.param(Path(WHOLE), *whole, id="whole")] if WHOLE else cases


Pictures = list[tuple[NDArray[np.uint8], int]]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(n: int, size: int = 12, channels: int = 3, classes: int = 2, seed: int = 0) -> Pictures:
    draw = np.random.default_rng(seed)
    shape = (size, size) if channels == 1 else (size, size, channels)
    return [(draw.integers(0, 256, shape).astype(np.uint8), i % classes) for i in range(n)]


def png(array: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def write_parquet(path: str, items: Pictures, fs: Any = None) -> None:
    rows = [
        {"image": {"bytes": png(array), "path": f"{i}.png"}, "label": label} for i, (array, label) in enumerate(items)
    ]
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer)
    if fs is None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(buffer.getvalue())
    else:
        fs.pipe_file(path, buffer.getvalue())


def write_folder(path: Path, items: Pictures, names: tuple[str, ...] = ("cat", "dog")) -> None:
    for i, (array, label) in enumerate(items):
        (path / names[label]).mkdir(parents=True, exist_ok=True)
        (path / names[label] / f"{i:03d}.png").write_bytes(png(array))


def write_idx(path: Path, array: NDArray[np.uint8], compress: bool = False) -> None:
    content = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    if compress:
        with gzip.open(path.with_name(path.name + ".gz"), "wb") as file:
            file.write(content)
    else:
        path.write_bytes(content)


def write_mnist(root: Path, compress: bool) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    draw = np.random.default_rng(0)
    raw = root / "MNIST" / "raw"
    images = draw.integers(0, 256, (70, 28, 28)).astype(np.uint8)
    labels = (np.arange(70) % 10).astype(np.uint8)
    write_idx(raw / "train-images-idx3-ubyte", images[:50], compress)
    write_idx(raw / "train-labels-idx1-ubyte", labels[:50], compress)
    write_idx(raw / "t10k-images-idx3-ubyte", images[50:], compress)
    write_idx(raw / "t10k-labels-idx1-ubyte", labels[50:], compress)
    return images, labels


def in_memory(spec: str, root: str | Path = "unused", **options: Any) -> Images:
    loaded = load(spec, str(root), DataConfig(identify(spec, str(root)), **options))
    assert isinstance(loaded, Images)
    return loaded


def as_set(split: Split) -> set[tuple[bytes, int]]:
    return {(image.tobytes(), int(label)) for image, label in zip(split.images, split.labels, strict=True)}


# --- conformance: what every data set holds to -----------------------------------------------------------------------


def make(kind: str, root: Path) -> str:
    """A data set of this kind below root, and its spec."""
    items = pictures(60)
    if kind == "parquet":
        write_parquet(str(root / "p" / "train-0.parquet"), items[:40])
        write_parquet(str(root / "p" / "test-0.parquet"), items[40:])
        return f"parquet:{root / 'p'}"
    if kind == "folder":
        write_folder(root / "f", items)
        return f"folder:{root / 'f'}"
    if kind == "split folder":
        write_folder(root / "s" / "train", items[:40])
        write_folder(root / "s" / "val", items[40:])
        return f"folder:{root / 's'}"
    if kind == "mnist":
        write_mnist(root, compress=False)
    return kind


@pytest.mark.parametrize("kind", ["digits", "mnist", "parquet", "folder", "split folder"])
class TestEveryDataSet:
    def test_splits_types_and_ranges(self, kind: str, tmp_path: Path) -> None:
        spec = make(kind, tmp_path)
        data = in_memory(spec, tmp_path, validation=0.2)
        info = describe(spec, str(tmp_path))
        assert info.present
        assert (info.name, info.channels, info.size, info.classes) == (
            data.name,
            data.channels,
            data.size,
            data.classes,
        )
        if kind != "mnist":  # here a stand-in with fewer images than the real set
            assert info.train_images == data.count("train") + data.count("validation")
            assert info.test_images == data.count("test")
        for split in (data.train, data.validation, data.test):
            assert split.images.dtype == np.uint8
            assert split.labels.dtype == np.int64
            assert split.images.shape[1:] == (data.channels, data.size, data.size)
            assert set(split.labels.tolist()) == set(range(data.classes))
        assert data.count("validation") == round(0.2 * (data.count("train") + data.count("validation")))
        assert not as_set(data.train) & as_set(data.validation)
        assert not (as_set(data.train) | as_set(data.validation)) & as_set(data.test) or kind == "digits"

    def test_scaling(self, kind: str, tmp_path: Path) -> None:
        spec = make(kind, tmp_path)
        unit, symmetric, standard = (
            in_memory(spec, tmp_path, scaling=scaling) for scaling in ("unit", "symmetric", "standardise")
        )
        raw = torch.from_numpy(unit.train.images.copy()).double()
        batches = [
            torch.cat([images for images, _ in data.batches("train", 7, device=CPU)])
            for data in (unit, symmetric, standard)
        ]
        torch.testing.assert_close(batches[0].double(), raw / 255, rtol=0, atol=1e-6)
        torch.testing.assert_close(batches[1].double(), raw / 127.5 - 1, rtol=0, atol=1e-6)
        assert batches[2].dtype == torch.float32
        # exact statistics of the training split: mean 0, deviation 1 in each channel, to float32's rounding
        torch.testing.assert_close(
            batches[2].double().mean((0, 2, 3)), torch.zeros(unit.channels).double(), rtol=0, atol=1e-4
        )
        std = batches[2].double().std((0, 2, 3), correction=0)
        torch.testing.assert_close(std, torch.ones(unit.channels).double(), rtol=0, atol=1e-4)

    def test_an_epoch_has_every_image_once(self, kind: str, tmp_path: Path) -> None:
        data = in_memory(make(kind, tmp_path), tmp_path, scaling="unit")
        seen = [
            (image, label)
            for x, y in data.training_batches(16, generator=generator(), device=CPU)
            for image, label in zip(x, y, strict=True)
        ]
        found = {((image * 255).round().to(torch.uint8).numpy().tobytes(), int(label)) for image, label in seen}
        assert found == as_set(data.train)
        assert len(seen) == data.count("train")

    def test_equal_generators_give_equal_batches(self, kind: str, tmp_path: Path) -> None:
        data = in_memory(make(kind, tmp_path), tmp_path, crop=2, flip=True)
        runs = [list(data.training_batches(16, generator=generator(seed), device=CPU)) for seed in (1, 1, 2)]
        assert all(torch.equal(a, b) for (a, _), (b, _) in zip(runs[0], runs[1], strict=True))
        assert not torch.equal(runs[0][0][0], runs[2][0][0])

    def test_pickles_without_tensors_and_works_read_only(self, kind: str, tmp_path: Path) -> None:
        data = in_memory(make(kind, tmp_path), tmp_path)
        before = next(iter(data.batches("test", 8, device=CPU)))[0]
        data.memo["derived"] = np.ones(3)
        again = pickle.loads(pickle.dumps(data))
        assert np.array_equal(again.memo["derived"], np.ones(3))
        for split in (again.train, again.validation, again.test):
            split.images.flags.writeable = False
            split.labels.flags.writeable = False
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert torch.equal(next(iter(again.batches("test", 8, device=CPU)))[0], before)
            next(iter(again.training_batches(8, generator=generator(), device=CPU)))

    def test_splits_are_the_same_every_time(self, kind: str, tmp_path: Path) -> None:
        spec = make(kind, tmp_path)
        first, second = in_memory(spec, tmp_path), in_memory(spec, tmp_path)
        assert np.array_equal(first.train.images, second.train.images)
        assert np.array_equal(first.validation.labels, second.validation.labels)
        whole = in_memory(spec, tmp_path, validation=0.0)
        assert whole.count("train") == first.count("train") + first.count("validation")
        assert whole.validation is whole.test


# --- exactness by source ---------------------------------------------------------------------------------------------


def test_digits_are_scikit_learns() -> None:
    from sklearn.datasets import load_digits

    data = in_memory("digits")
    original = load_digits()
    found = np.concatenate([data.train.images, data.validation.images, data.test.images])[:, 0]
    wanted = np.rint(original.images * 255 / 16).astype(np.uint8)
    assert sorted(image.tobytes() for image in found) == sorted(image.tobytes() for image in wanted)
    assert (data.count("train"), data.count("validation"), data.count("test")) == (1293, 144, 360)


@pytest.mark.parametrize("compress", [False, True])
def test_mnist_files(tmp_path: Path, compress: bool) -> None:
    images, labels = write_mnist(tmp_path, compress)
    before = sorted(path.name for path in tmp_path.rglob("*"))
    data = in_memory("mnist", tmp_path, validation=0.0)
    wanted = {(image.tobytes(), int(label)) for image, label in zip(images[50:], labels[50:], strict=True)}
    assert as_set(data.test) == wanted
    assert data.count("train") == 50
    assert sorted(path.name for path in tmp_path.rglob("*")) == before  # a read-only root would do


def test_damaged_mnist_is_named(tmp_path: Path) -> None:
    write_mnist(tmp_path, compress=True)
    victim = tmp_path / "MNIST" / "raw" / "t10k-images-idx3-ubyte.gz"
    victim.write_bytes(victim.read_bytes()[:-200])
    with pytest.raises(ValueError, match=r"t10k-images-idx3-ubyte\.gz: damaged"):
        in_memory("mnist", tmp_path)


@pytest.mark.parametrize(
    ("root", "counts", "labels", "mean", "std"),
    real(
        # as tests/data/sample.py prints them
        ((540, 60, 200), [17, 28, 16, 16, 28, 20, 20, 24, 10, 21], 0.1256, 0.3020),
        # the numbers everybody uses for MNIST's 60,000 training images
        ((54000, 6000, 10000), [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009], 0.1307, 0.3081),
    ),
)
def test_the_real_mnist(root: Path, counts: tuple[int, ...], labels: list[int], mean: float, std: float) -> None:
    data = in_memory("mnist", root)
    assert (data.count("train"), data.count("validation"), data.count("test")) == counts
    assert np.bincount(data.test.labels).tolist() == labels
    whole = in_memory("mnist", root, validation=0.0)
    assert (round(whole.mean[0], 4), round(whole.std[0], 4)) == (mean, std)


@pytest.mark.parametrize(("root", "counts"), real(((200, 100),), ((50000, 10000),)))
def test_the_real_cifar10_in_parquet(root: Path, counts: tuple[int, int]) -> None:
    info = describe(f"parquet:{root / 'cifar10-jpeg'}", "unused")
    assert (info.channels, info.size, info.classes) == (3, 32, 10)
    assert (info.train_images, info.test_images) == counts


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_in_torchvisions_layout(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision import datasets

    kind = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
    draw = np.random.default_rng(0)
    key, classes = ("labels", 10) if name == "cifar10" else ("fine_labels", 100)
    folder = tmp_path / kind.base_folder
    folder.mkdir()
    flat: list[bytes] = []
    for filename, _ in [*kind.train_list, *kind.test_list]:
        pixels = draw.integers(0, 256, (200, 3072)).astype(np.uint8)
        if (filename, None) not in [(f, None) for f, _ in kind.test_list]:
            flat += [row.tobytes() for row in pixels]
        (folder / filename).write_bytes(pickle.dumps({"data": pixels, key: [i % classes for i in range(200)]}))
    (folder / kind.meta["filename"]).write_bytes(pickle.dumps({kind.meta["key"]: [f"c{i}" for i in range(classes)]}))
    monkeypatch.setattr(kind, "_check_integrity", lambda self: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    data = in_memory(name, tmp_path, validation=0.0)
    # torchvision's rows are three planes of 32×32: exactly (C, H, W)
    assert sorted(image.tobytes() for image in data.train.images) == sorted(flat)
    assert data.class_names[3] == "c3"
    assert data.classes == classes


def test_parquet_pixels_are_exact_and_gray_stays_gray(tmp_path: Path) -> None:
    for channels in (1, 3):
        items = pictures(30, channels=channels)
        folder = tmp_path / str(channels)
        write_parquet(str(folder / "train-00000-of-00002.parquet"), items[:10])
        write_parquet(str(folder / "train-00001-of-00002.parquet"), items[10:20])
        write_parquet(str(folder / "test.parquet"), items[20:])
        data = in_memory(f"parquet:{folder}", validation=0.0)
        wanted = {
            ((array[None] if channels == 1 else array.transpose(2, 0, 1)).tobytes(), label)
            for array, label in items[:20]
        }
        assert data.channels == channels
        assert as_set(data.train) == wanted


def test_parquet_on_s3(s3: str) -> None:
    items = pictures(30)
    fs = s3fs.S3FileSystem()
    write_parquet("bucket/set/train.parquet", items[:20], fs)
    write_parquet("bucket/set/test.parquet", items[20:], fs)
    data = in_memory(f"parquet:{s3}/set", validation=0.0)
    assert as_set(data.train) == {(array.transpose(2, 0, 1).tobytes(), label) for array, label in items[:20]}
    assert data.name.startswith("parquet:set@")
    with pytest.raises(ValueError, match=f"{s3}/none"):
        describe(f"parquet:{s3}/none", "unused")


def test_names_hold_no_path_and_tell_contents_apart(tmp_path: Path) -> None:
    items = pictures(60)
    for folder in ("a/pets", "b/pets", "c/pets"):
        write_folder(tmp_path / folder, items if folder != "c/pets" else items[:50])
        rows = items[: 40 if folder != "c/pets" else 39]
        write_parquet(str(tmp_path / "parquet" / folder / "train.parquet"), rows)
        write_parquet(str(tmp_path / "parquet" / folder / "test.parquet"), items[40:])
    for kind, top in (("folder", tmp_path), ("parquet", tmp_path / "parquet")):
        names = [identify(f"{kind}:{top / folder}", "x") for folder in ("a/pets", "b/pets", "c/pets")]
        assert names[0] == names[1] != names[2]
        assert names[0].startswith(f"{kind}:pets@")


def test_folder_of_other_sizes_is_resized(tmp_path: Path) -> None:
    items = [*pictures(20, size=30), *pictures(20, size=44, seed=1)]
    write_folder(tmp_path / "f", items)
    assert describe(f"folder:{tmp_path / 'f'}", "x").size == 224
    data = in_memory(f"folder:{tmp_path / 'f'}", image_size=16)
    assert data.size == 16


def test_resizing_keeps_the_centre() -> None:
    wide = np.zeros((10, 30, 3), dtype=np.uint8)
    wide[:, 10:20] = 200  # the middle third is all that a square crop keeps
    square = decoded.as_array(decoded.square(Image.fromarray(wide), 10))
    assert np.array_equal(square, np.full((3, 10, 10), 200, dtype=np.uint8))


# --- splits ----------------------------------------------------------------------------------------------------------


def test_stratified_takes_each_class_in_proportion() -> None:
    labels = np.repeat(np.arange(3), [50, 30, 20]).astype(np.int64)
    chosen = stratified(labels, 10, seed=0)
    assert np.bincount(labels[chosen]).tolist() == [5, 3, 2]
    assert len(set(chosen.tolist())) == 10
    # 7 of 100: exact shares 3.5, 2.1, 1.4; the largest remainder gets the last one
    assert np.bincount(labels[stratified(labels, 7, seed=0)]).tolist() == [4, 2, 1]
    assert not np.array_equal(stratified(labels, 10, seed=0), stratified(labels, 10, seed=1))


def test_a_subset_leaves_the_validation_split_alone() -> None:
    labels = (np.arange(1000) % 10).astype(np.int64)
    everything = split_indices(labels, DataConfig("digits"))
    some = split_indices(labels, DataConfig("digits", train_images=200))
    assert np.array_equal(everything[1], some[1])
    assert len(some[0]) == 200
    assert set(some[0]) < set(everything[0])
    assert np.bincount(labels[some[0]]).tolist() == [20] * 10
    with pytest.raises(ValueError, match="train_images"):
        split_indices(labels, DataConfig("digits", train_images=950))


def test_statistics_are_exact() -> None:
    images = np.random.default_rng(0).integers(0, 256, (50, 3, 9, 9)).astype(np.uint8)
    mean, std = channel_statistics(images)
    wanted = images.astype(np.float64) / 255
    np.testing.assert_allclose(mean, wanted.mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(std, wanted.std((0, 2, 3)), rtol=1e-12)
    assert channel_statistics(np.full((2, 1, 3, 3), 7, np.uint8))[1] == (1.0,)


# --- augmentation ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("padding", ["reflect", "zero"])
@pytest.mark.parametrize("shape", [(3, 7, 7), (1, 6, 9)])
def test_one_gather_equals_pad_crop_and_flip(padding: str, shape: tuple[int, int, int]) -> None:
    draw = np.random.default_rng(0)
    crop = 4
    images = draw.integers(0, 256, (40, *shape)).astype(np.uint8)
    down, right = draw.integers(-crop, crop + 1, (2, 40))
    flip = draw.random(40) < 0.5
    moved = shift_and_flip(
        torch.from_numpy(images), torch.from_numpy(down), torch.from_numpy(right), torch.from_numpy(flip), padding
    )
    for index, image in enumerate(images):
        mode: Any = {"reflect": "reflect", "zero": "constant"}[padding]
        padded = np.pad(image, ((0, 0), (crop, crop), (crop, crop)), mode=mode)
        top, left = crop + down[index], crop + right[index]
        wanted = padded[:, top : top + shape[1], left : left + shape[2]]
        wanted = wanted[:, :, ::-1] if flip[index] else wanted
        assert np.array_equal(moved[index].numpy(), wanted)


def test_all_shifts_and_both_flips_occur() -> None:
    image = np.arange(25, dtype=np.uint8).reshape(1, 1, 5, 5)
    many = Split(np.repeat(image, 4000, 0), np.zeros(4000, dtype=np.int64))
    data = Images(DataConfig("x", crop=1, flip=True, scaling="unit"), ("a", "b"), many, many, many)
    batch = next(iter(data.training_batches(4000, generator=generator(), device=CPU)))[0]
    kinds, counts = np.unique((batch * 255).round().numpy().reshape(4000, -1), axis=0, return_counts=True)
    assert len(kinds) == 3 * 3 * 2
    # 4000 / 18 = 222 each, standard deviation 14.5: within five of them
    assert counts.min() > 150
    assert counts.max() < 295


def test_a_last_batch_of_one_is_dropped() -> None:
    split = Split(np.zeros((9, 1, 4, 4), np.uint8), np.zeros(9, np.int64))
    data = Images(DataConfig("x"), ("a", "b"), split, split, split)
    assert [len(y) for _, y in data.training_batches(4, generator=generator(), device=CPU)] == [4, 4]
    assert [len(y) for _, y in data.batches("train", 4, device=CPU)] == [4, 4, 1]
    assert [len(y) for _, y in data.batches("train", 4, device=CPU, limit=6)] == [4, 2]


# --- streamed --------------------------------------------------------------------------------------------------------


@pytest.fixture
def streamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(memory, "MEMORY_LIMIT", 1000)
    write_folder(tmp_path / "big" / "train", pictures(30, size=20))
    write_folder(tmp_path / "big" / "val", pictures(12, size=20, seed=1))
    return f"folder:{tmp_path / 'big'}"


def stream(spec: str, **options: Any) -> StreamedImages:
    loaded = load(spec, "unused", DataConfig(identify(spec, "unused"), **options))
    assert isinstance(loaded, StreamedImages)
    return loaded


def test_streamed_batches_do_not_depend_on_the_workers(streamed: str) -> None:
    runs = []
    for workers in (0, 2):
        data = stream(streamed, zoom=True, flip=True, image_size=16, evaluation_size=24)
        data.workers = workers
        train = list(data.training_batches(8, generator=generator(5), device=CPU))
        runs.append((train, list(data.batches("test", 5, device=CPU))))
    for part in (0, 1):
        for (left, labels), (right, others) in zip(runs[0][part], runs[1][part], strict=True):
            assert torch.equal(left, right)
            assert torch.equal(labels, others)
    assert runs[0][0][0][0].shape == (8, 3, 16, 16)
    assert runs[0][1][0][0].shape == (5, 3, 24, 24)


def test_streamed_equals_in_memory_without_augmentation(streamed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = stream(streamed, scaling="unit")
    data.workers = 0
    monkeypatch.undo()
    memory = load(streamed, "unused", DataConfig(identify(streamed, "unused"), scaling="unit"))
    for split in ("train", "validation", "test"):
        found, wanted = (torch.cat([x for x, _ in d.batches(split, 50, device=CPU)]) for d in (data, memory))
        assert torch.equal(found, wanted)
    pixels = torch.cat(list(data.training_pixels()))
    assert torch.equal(pixels, torch.cat(list(memory.training_pixels())))


def check_selection(data: Images | StreamedImages) -> None:
    """Selected images, their labels and scaling are those of the batches."""
    images, labels = (torch.cat(parts) for parts in zip(*data.batches("test", 4, device=CPU), strict=True))
    rows = torch.tensor([3, 0, 5])
    chosen, their = data.select("test", rows, device=CPU)
    assert torch.equal(chosen, images[rows])
    assert torch.equal(their, labels[rows])


def test_images_are_selected_by_index() -> None:
    check_selection(in_memory("digits"))


def test_streamed_images_are_selected_by_index(streamed: str) -> None:
    check_selection(stream(streamed, evaluation_size=24))


def test_streamed_random_state_is_left_alone(streamed: str) -> None:
    data = stream(streamed, zoom=True)
    data.workers = 0
    torch.manual_seed(3)
    state = torch.get_rng_state()
    for _ in data.training_batches(8, generator=generator(), device=CPU):
        assert torch.equal(torch.get_rng_state(), state)


def test_zoom_is_for_streamed_sets() -> None:
    with pytest.raises(ValueError, match="zoom"):
        in_memory("digits", zoom=True)


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        ("cifar", "cifar10"),
        ("folder:", "folder:/path"),
        ("folder:{absent}", "{absent}"),
        ("parquet:{absent}", "{absent}"),
        ("imagenet", "imagenet"),
    ],
)
def test_missing_and_unknown(spec: str, named: str, tmp_path: Path) -> None:
    absent = tmp_path / "absent"
    spec, named = spec.format(absent=absent), named.format(absent=absent)
    with pytest.raises(ValueError, match=named) as caught:
        load(spec, str(tmp_path), DataConfig(spec))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["mnist", "fashion-mnist", "kmnist", "cifar10", "cifar100", "imagenette", "oxford-pets"]
)
def test_a_missing_set_is_downloaded_and_a_failure_explained(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to the download itself: torchvision's own is asked for the right set in the right folder."""
    asked: list[str] = []

    def refuse(*arguments: Any, **named: Any) -> None:
        asked.append(f"{arguments} {named}")
        raise urllib.error.URLError("no network")

    for module in ("mnist", "cifar", "imagenette", "oxford_iiit_pet"):
        monkeypatch.setattr(f"torchvision.datasets.{module}.download_and_extract_archive", refuse)
    with pytest.raises(ValueError, match="download failed") as caught:
        in_memory(name, tmp_path)
    assert asked
    assert str(tmp_path) in asked[0]
    assert str(tmp_path) in str(caught.value)
    assert "--data-root" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_root_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot be written"):
        in_memory("cifar10", tmp_path / "file" / "below")


def test_damaged_parquet_and_images_are_named(tmp_path: Path) -> None:
    items = pictures(20)
    write_parquet(str(tmp_path / "train.parquet"), items)
    write_parquet(str(tmp_path / "test.parquet"), items)
    content = (tmp_path / "train.parquet").read_bytes()
    (tmp_path / "train.parquet").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"train\.parquet"):
        in_memory(f"parquet:{tmp_path}")
    rows = [
        {"image": {"bytes": b"no image", "path": "x"}, "label": 0},
        {"image": {"bytes": png(items[0][0]), "path": "y"}, "label": 1},
    ]
    pq.write_table(pa.Table.from_pylist(rows[::-1] * 5), tmp_path / "train.parquet")
    with pytest.raises(ValueError, match=r"train\.parquet: image 1: no readable image"):
        in_memory(f"parquet:{tmp_path}")
    pq.write_table(pa.table({"picture": [1]}), tmp_path / "train.parquet")
    with pytest.raises(ValueError, match=r"train\.parquet"):
        in_memory(f"parquet:{tmp_path}")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("validation", 1.0),
        ("validation", -0.1),
        ("crop", -1),
        ("image_size", 0),
        ("train_images", 0),
        ("padding", "mirror"),
        ("scaling", "none"),
    ],
)
def test_refused_settings(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=field):
        DataConfig("digits", **{field: value})


def test_crops_as_large_as_the_image() -> None:
    with pytest.raises(ValueError, match="crop"):
        in_memory("digits", crop=8)
    assert in_memory("digits", crop=7).size == 8
