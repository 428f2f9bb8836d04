"""Which files a data set has and how its images are opened: folders, streamed sets, Parquet and masks alike."""

from __future__ import annotations

import hashlib
import io
import os
import random
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import s3fs
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from analysis.command_line import InputError
from tests.trainables.test_data import as_set, in_memory, pictures, png, stream, write_folder, write_parquet
from trainables.data import DataConfig, Images, StreamedImages, describe, identify, load, memory
from trainables.data import cache as data_cache

CPU = torch.device("cpu")


@pytest.fixture
def long_ago(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files count as settled at once, which real ones do after seconds (their times of change cannot be set)."""
    monkeypatch.setattr(data_cache, "_SETTLED", -60.0)


def plain_name(top: Path, files: list[Path]) -> str:
    """The fingerprint of ordinary folders, as trials have been recorded with it."""
    digest = hashlib.sha256()
    for file in sorted(files, key=str):
        digest.update(f"{file.relative_to(top)}\0{file.stat().st_size}\n".encode() + file.read_bytes())
    return f"folder:{top.name}@{digest.hexdigest()[:8]}"


def rows(items: list[tuple[NDArray[np.uint8], Any]], image: str = "image", label: str | None = "label") -> pa.Table:
    table = [{image: {"bytes": png(array), "path": ""}} for array, _ in items]
    if label is not None:
        table = [{**row, label: value} for row, (_, value) in zip(table, items, strict=True)]
    return pa.Table.from_pylist(table)


def write(folder: Path, splits: dict[str, pa.Table]) -> str:
    for name, table in splits.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, folder / f"{name}.parquet")
    return f"parquet:{folder}"


def told(spec: str, channels: int | None = None) -> str:
    info = describe(spec, "unused")
    return "\n".join(info.told(info.size, channels or info.channels))


# --- changed data are other data -------------------------------------------------------------------------------------


def test_shuffled_labels_are_other_data_and_written_otherwise_the_same(tmp_path: Path, s3: str) -> None:
    """Names, sizes and footers of the two are equal: the labels are the same ones in another order."""
    items = pictures(40)
    labels = [label for _, label in items[2:28]]
    random.Random(0).shuffle(labels)
    shuffled = [
        *items[:2],
        *((array, label) for (array, _), label in zip(items[2:28], labels, strict=True)),
        *items[28:30],
    ]
    for name, train in (("a", items[:30]), ("b", shuffled)):
        write_parquet(str(tmp_path / name / "x" / "train.parquet"), train)
        write_parquet(str(tmp_path / name / "x" / "test.parquet"), items[30:])
    sizes = [(tmp_path / name / "x" / "train.parquet").stat().st_size for name in "ab"]
    assert sizes[0] == sizes[1]
    assert identify(f"parquet:{tmp_path}/a/x", "") != identify(f"parquet:{tmp_path}/b/x", "")
    other = write(tmp_path / "c" / "x", {
        "data/train-00000-of-00002": rows(items[:7]),
        "data/train-00001-of-00002": rows(items[7:30]),
        "data/test-00000-of-00001": rows(items[30:]),
    })  # fmt: skip
    assert identify(other, "") == identify(f"parquet:{tmp_path}/a/x", "")
    s3fs.S3FileSystem().put(str(tmp_path / "a" / "x"), "bucket/x", recursive=True)
    assert identify(f"parquet:{s3}/x", "") == identify(other, "")


def test_names_of_ordinary_folders_are_as_they_were(tmp_path: Path) -> None:
    write_folder(tmp_path / "x", pictures(20))
    write_folder(tmp_path / "y" / "train", pictures(20))
    write_folder(tmp_path / "y" / "val", pictures(8, seed=1))
    for name in "xy":
        assert identify(f"folder:{tmp_path}/{name}", "") == plain_name(
            tmp_path / name, list((tmp_path / name).rglob("*.png"))
        )


@pytest.mark.usefixtures("long_ago")
class TestCache:
    def opened(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        names: list[str] = []
        for module in ("folders", "parquet"):
            look = __import__(f"trainables.data.{module}", fromlist=["look"]).look
            monkeypatch.setattr(
                f"trainables.data.{module}.look",
                lambda content, name, look=look: (names.append(name), look(content, name))[1],
            )
        return names

    @pytest.mark.parametrize("kind", ["folder", "parquet"])
    def test_it_is_read_once_and_again_when_it_changes(
        self, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        items = pictures(20)
        if kind == "folder":
            write_folder(tmp_path / "x", items)
            file = tmp_path / "x" / "cat" / "000.png"
        else:
            spec = write(tmp_path / "x", {"train": rows(items), "test": rows(items[:4])})
            file = tmp_path / "x" / "train.parquet"
        spec = f"{kind}:{tmp_path}/x"
        opened = self.opened(monkeypatch)
        first = describe(spec, "")
        assert len(opened) >= 20
        opened.clear()
        assert describe(spec, "") == first
        assert not opened
        content, times = file.read_bytes(), (file.stat().st_atime_ns, file.stat().st_mtime_ns)
        place = content.index(b"IDAT") + 8
        changed = content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
        file.write_bytes(changed)
        os.utime(file, ns=times)  # as rsync and cp -p would leave it
        assert identify(spec, "") != first.name
        file.write_bytes(content)
        assert identify(spec, "") == first.name

    def test_what_has_just_changed_is_not_kept(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Within a tick of the file system's clock it may change again, and its time not."""
        monkeypatch.undo()
        write_folder(tmp_path, pictures(20))
        opened = self.opened(monkeypatch)
        for number in (1, 2):
            identify(f"folder:{tmp_path}", "")
            assert len(opened) == 20 * number

    def test_a_cache_that_cannot_be_written_or_is_damaged(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write_folder(tmp_path / "x", pictures(20))
        first = describe(f"folder:{tmp_path}/x", "")
        (kept,) = (data_cache.cache_folder() / "data").iterdir()
        for content in ("{", "[]", '{"fingerprint": "00000000"}'):
            kept.write_text(content)
            assert describe(f"folder:{tmp_path}/x", "") == first
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
        assert describe(f"folder:{tmp_path}/x", "") == first


# --- every image is looked at, and named -----------------------------------------------------------------------------


def huge() -> bytes:
    """A PNG that says it has 14,000×14,000 pixels."""
    header = struct.pack(">IIBBBBB", 14000, 14000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    made = (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(made)


def deep() -> bytes:
    return png(np.full((12, 12), 40000, np.uint16))  # type: ignore[arg-type]


@pytest.mark.parametrize(("content", "why"), [
    (huge(), "196000000 pixels, allowed are at most 178956970"),
    (deep(), "pixels of I;16 mode, allowed are 8 bits a channel"),
    (b"GIF89a", "no readable image"),
    (b"", r"no readable image \(empty\)"),
])  # fmt: skip
@pytest.mark.parametrize("kind", ["streamed", "folder", "parquet"])
def test_every_image_is_checked_before_anything_starts(
    kind: str, content: bytes, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that is not among the fifty that once decided."""
    items = pictures(150, size=4)
    if kind == "parquet":
        table = rows(items).to_pylist()
        table[101]["image"]["bytes"] = content
        spec = write(tmp_path, {"train": pa.Table.from_pylist(table), "test": rows(items[:4])})
        name = r"train\.parquet: image 101"
    else:
        write_folder(tmp_path, items)
        (tmp_path / "dog" / "101.png").write_bytes(content)
        spec, name = f"folder:{tmp_path}", r"dog/101\.png"
    if kind == "streamed":
        monkeypatch.setattr(memory, "MEMORY_LIMIT", 0)
    with pytest.raises(InputError, match=f"{name}: {why}") as caught:
        describe(spec, "")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_image_of_a_streamed_set_is_named(
    workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path, pictures(20))
    victim = tmp_path / "dog" / "007.png"
    victim.write_bytes(victim.read_bytes()[:200])
    monkeypatch.setattr(memory, "MEMORY_LIMIT", 0)
    data = stream(f"folder:{tmp_path}", validation=0.0)
    data.workers = workers
    for read in (
        lambda: list(data.training_batches(8, generator=torch.Generator(), device=CPU)),
        lambda: list(data.training_pixels()),
        lambda: data.select("train", torch.arange(data.count("train")), device=CPU),
    ):
        with pytest.raises(InputError, match=rf"^{victim}: no readable image \(.*\)$"):
            read()


# --- what a viewer shows ---------------------------------------------------------------------------------------------


def with_orientation(array: NDArray[np.uint8], orientation: int, kind: str = "PNG") -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind, exif=exif)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["folder", "streamed", "parquet"])
def test_images_are_turned_as_their_exif_data_say(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = [with_orientation(array, 1 + i % 8) for i, (array, _) in enumerate(pictures(32, size=6))]
    expected = [np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(content)))) for content in contents]
    if kind == "parquet":
        table = [{"image": {"bytes": content, "path": ""}, "label": i % 2} for i, content in enumerate(contents)]
        spec = write(tmp_path, {split: pa.Table.from_pylist(table) for split in ("train", "test")})
    else:
        for split in ("train", "test"):
            for i, content in enumerate(contents):
                (tmp_path / split / f"c{i % 2}").mkdir(parents=True, exist_ok=True)
                (tmp_path / split / f"c{i % 2}" / f"{i}.png").write_bytes(content)
        spec = f"folder:{tmp_path}"
    assert "56 turned by their EXIF data" in told(spec)
    if kind == "streamed":
        monkeypatch.setattr(memory, "MEMORY_LIMIT", 0)
    data = load(spec, "", DataConfig(identify(spec, ""), scaling="unit"))
    if isinstance(data, StreamedImages):
        data.workers = 0
    images, _ = data.select("test", torch.arange(32), device=CPU)
    found = {(image * 255).round().byte().permute(1, 2, 0).numpy().tobytes() for image in images}
    assert found == {array.tobytes() for array in expected}


def test_turned_and_transparent_images_make_another_name(tmp_path: Path) -> None:
    """Trials are recorded under the name without, of what these files were taken for."""
    items = pictures(20)
    for name in ("plain", "turned", "transparent", "opaque"):
        write_folder(tmp_path / name, items)
    (tmp_path / "turned" / "cat" / "000.png").write_bytes(with_orientation(items[0][0], 3))
    for name, alpha in (("transparent", 128), ("opaque", 255)):
        picture = Image.fromarray(items[0][0]).convert("RGBA")
        picture.putalpha(alpha)
        picture.save(tmp_path / name / "cat" / "000.png")
    same = {
        name: identify(f"folder:{tmp_path}/{name}", "")
        == plain_name(tmp_path / name, list((tmp_path / name).rglob("*.png")))
        for name in ("plain", "turned", "transparent", "opaque")
    }
    assert same == {"plain": True, "turned": False, "transparent": False, "opaque": True}
    assert told(f"folder:{tmp_path}/opaque") == ""
    assert told(f"folder:{tmp_path}/transparent") == "converted: 1 transparent, put on white"


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_is_white(mode: str, tmp_path: Path) -> None:
    """A quarter hides red, or black, under nothing; half-transparent black on white is grey."""
    alpha = np.full((8, 8), 255, np.uint8)
    alpha[:4, :4], alpha[4:, 4:] = 0, 127
    base = Image.fromarray(np.full((8, 8, 3), (200, 0, 0), np.uint8) * (alpha[..., None] == 0))
    if mode == "P":
        picture = base.quantize(2)
        picture.info["transparency"] = picture.getpixel((0, 0))
    else:
        picture = base.convert(mode)
        picture.putalpha(Image.fromarray(alpha))
    items = [(np.zeros((8, 8, 3), np.uint8) + i, i % 2) for i in range(20)]
    write_folder(tmp_path, items)
    picture.save(tmp_path / "cat" / "000.png")
    data = in_memory(f"folder:{tmp_path}", validation=0.0, channels=3)
    every = np.concatenate([data.train.images, data.test.images])
    expected = np.where(alpha == 0, 255, np.where((alpha == 127) & (mode != "P"), 128, 0))
    assert sum(np.array_equal(image, np.stack([expected] * 3)) for image in every) == 1


@pytest.mark.parametrize("streamed", [False, True])
def test_a_turned_image_and_its_mask_lie_on_each_other(
    streamed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mask as a viewer shows the image, or the image itself: not square, turned by a quarter."""
    for i in range(20):
        name = f"{'ab'[i % 2]}/{i}"
        values = np.zeros((16, 24), np.uint8)
        values[2 : 6 + i % 5, 3:7] = 255
        content = with_orientation(values, 6)
        mask = content if i % 4 < 2 else png(np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(content)))))
        for path, what in ((tmp_path / f"{name}.png", content), (tmp_path / "masks" / f"{name}.png", mask)):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(what)
    if streamed:
        monkeypatch.setattr(memory, "MEMORY_LIMIT", 0)
    data = load(f"folder:{tmp_path}", "", DataConfig("x", scaling="unit", image_size=16), masks=True)
    if isinstance(data, StreamedImages):
        data.workers = 0
    images, _ = data.select("test", torch.arange(data.count("test")), device=CPU)
    assert torch.equal(data.test_masks(0, 99), images.amax(1) > 0.5)
    assert data.channels == 1


# --- which files -----------------------------------------------------------------------------------------------------


def test_hidden_and_system_entries_are_no_data_and_counted(tmp_path: Path) -> None:
    items = pictures(20)
    write_folder(tmp_path / "clean", items)
    write_folder(tmp_path / "x", items)
    copy = png(items[0][0])
    for name in (
        ".ipynb_checkpoints/000-checkpoint.png",
        "._000.png",
        "__MACOSX/000.png",
        "Thumbs.db",
        ".thumbs/a.png",
    ):
        path = tmp_path / "x" / "cat" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(copy)
    for name in ("notes.txt", "loose.png"):
        (tmp_path / "x" / name).write_bytes(copy)
    assert told(f"folder:{tmp_path}/x") == (
        "skipped: hidden or system entries: 5 (cat/._000.png, cat/.ipynb_checkpoints, cat/.thumbs, …); images in no "
        "class folder: 1 (loose.png); files that are no images by their names: 1 (notes.txt)"
    )
    same = [identify(f"folder:{tmp_path}/{name}", "").rpartition("@")[2] for name in ("x", "clean")]
    assert same[0] == same[1]


def test_images_of_all_kinds_and_behind_links_are_found(tmp_path: Path) -> None:
    write_folder(tmp_path / "x", pictures(20))
    array = pictures(1, seed=3)[0][0]
    cat = tmp_path / "x" / "cat"
    for name, kind in (("a.jfif", "JPEG"), ("b.AVIF", "AVIF"), ("c", "PNG"), ("d", "JPEG"), ("e.jpe", "JPEG")):
        Image.fromarray(array).save(cat / name, kind)
    (cat / "LICENSE").write_text("no image")
    write_folder(tmp_path / "elsewhere", pictures(6, seed=4))
    (cat / "linked").symlink_to(tmp_path / "elsewhere" / "dog")
    (tmp_path / "x" / "bird").symlink_to(tmp_path / "elsewhere" / "cat")
    (cat / "gone.png").symlink_to(tmp_path / "nothing")
    info = describe(f"folder:{tmp_path}/x", "")
    assert info.class_names == ("bird", "cat", "dog")
    assert info.train_images + info.test_images == 20 + 5 + 3 + 3
    assert info.skipped == (
        "links to nothing: 1 (cat/gone.png)",
        "files that are no images by their names: 1 (cat/LICENSE)",
    )
    (cat / "loop").symlink_to(tmp_path / "x")
    with pytest.raises(InputError, match="cat/loop is a link to a folder that it lies in"):
        describe(f"folder:{tmp_path}/x", "")
    assert describe(f"folder:{tmp_path}/x", "", ("loop",)).classes == 3


@pytest.mark.parametrize("names", [
    ("train", "val", "test"), ("Train", "Validation", "Test"), ("training", "valid", "TESTING")
])  # fmt: skip
@pytest.mark.parametrize("streamed", [False, True])
def test_splits_are_what_they_are_called(
    names: tuple[str, ...], streamed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = {name: pictures(number, seed=number) for name, number in zip(names, (20, 8, 6), strict=True)}
    for name, items in parts.items():
        write_folder(tmp_path / name, items)
    info = describe(f"folder:{tmp_path}", "")
    config = DataConfig(info.name, validation=0.3)
    assert (info.train_images, info.validation_images, info.test_images) == (20, 8, 6)
    assert (info.training_images(config), info.skipped) == (20, ())
    if streamed:
        monkeypatch.setattr(memory, "MEMORY_LIMIT", 0)
    data = load(f"folder:{tmp_path}", "", config)
    for split, items in zip(("train", "validation", "test"), parts.values(), strict=True):
        expected = {(array.transpose(2, 0, 1).tobytes(), label) for array, label in items}
        if isinstance(data, Images):
            assert as_set(getattr(data, split)) == expected
        else:
            files, labels = data.files[split]
            found = {
                (np.asarray(Image.open(file)).transpose(2, 0, 1).tobytes(), label)
                for file, label in zip(files, labels.tolist(), strict=True)
            }
            assert found == expected
    folds = [load(f"folder:{tmp_path}", "", DataConfig(info.name, folds=2, fold=fold)) for fold in (0, 1)]
    assert sum(fold.count("test") for fold in folds) == 34


def test_masks_of_a_folder_with_its_own_validation_split(tmp_path: Path) -> None:
    for name, seed in (("train", 0), ("val", 1), ("test", 2)):
        items = [(np.uint8(255) * (array > 128), label) for array, label in pictures(8, channels=1, seed=seed)]
        write_folder(tmp_path / name, items)
        write_folder(tmp_path / "masks" / name, items)
    data = in_memory(f"folder:{tmp_path}", scaling="unit", validation=0.0)
    data = load(f"folder:{tmp_path}", "", data.config, masks=True)  # type: ignore[assignment]
    images, _ = data.select("test", torch.arange(8), device=CPU)
    assert torch.equal(data.test_masks(0, 8), images[:, 0] > 0.5)


def test_folders_that_are_no_clear_splits(tmp_path: Path) -> None:
    def refused(name: str, *folders: str, why: str) -> None:
        for folder in folders:
            write_folder(tmp_path / name / folder, pictures(8))
        with pytest.raises(InputError, match=why):
            describe(f"folder:{tmp_path / name}", "")

    refused("a", "train", "val", "validation", why="val/ and validation/ are both its validation split")
    refused("b", "test", "val", why="has test, val/ and no train/ beside it")
    refused("c", "train", why="has train/ and neither test/ nor val/ beside it")
    refused("d", "train", "Train", "test", why="Train/ and train/ are both its train split")
    write_folder(tmp_path / "e", pictures(12), ("train", "truck"))
    assert describe(f"folder:{tmp_path}/e", "").class_names == ("train", "truck")
    # a test split without labels, as ImageNet's
    write_folder(tmp_path / "f" / "train", pictures(12))
    write_folder(tmp_path / "f" / "val", pictures(6))
    (tmp_path / "f" / "test").mkdir()
    (tmp_path / "f" / "test" / "1.png").write_bytes(png(pictures(1)[0][0]))
    info = describe(f"folder:{tmp_path}/f", "")
    assert (info.test_images, info.skipped) == (6, ("images of a test split without labels: 1 (test/1.png)",))


def test_images_in_two_splits_are_told(tmp_path: Path) -> None:
    items = pictures(20)
    write_folder(tmp_path / "f" / "train", items)
    write_folder(tmp_path / "f" / "test", [*items[:4], *pictures(7, seed=1)])
    told_of = "4 of 11 test images are in its training split, too (equal byte for byte)"
    assert told(f"folder:{tmp_path}/f") == told_of
    assert (
        told(write(tmp_path / "p", {"train": rows(items), "test": rows([*items[:4], *pictures(7, seed=1)])})) == told_of
    )


def test_exclude(tmp_path: Path) -> None:
    write_folder(tmp_path / "x", pictures(20))
    plain = describe(f"folder:{tmp_path}/x", "")
    write_folder(tmp_path / "x" / "annotations", pictures(4))
    write_folder(tmp_path / "x" / "cat" / "masks", pictures(4))
    (tmp_path / "x" / "dog" / "001_mask.png").write_bytes(png(pictures(1)[0][0]))
    info = describe(f"folder:{tmp_path}/x", "", ("annotations/", "cat/masks", "*_mask.*", "nothing"))
    assert info.name == plain.name
    assert info.matched == ("annotations/", "cat/masks", "*_mask.*")
    assert info.skipped == ("by --exclude: 3 (annotations, cat/masks, dog/001_mask.png)",)
    data = load(f"folder:{tmp_path}/x", "", DataConfig(info.name, exclude=info.matched))
    assert data.class_names == ("cat", "dog")
    with pytest.raises(InputError, match="exclude: an empty pattern"):
        describe(f"folder:{tmp_path}/x", "", ("",))


# --- channels and size -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["folder", "streamed", "parquet"])
@pytest.mark.parametrize("first", [1, 3])
@pytest.mark.parametrize("most", [1, 3])
def test_channels_and_size_are_the_majoritys(
    kind: str, first: int, most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever image comes first; another size among them changes nothing for the others."""
    items = pictures(20, channels=most)
    odd = pictures(1, size=20, channels=4 - most)[0]
    items.insert(0 if first != most else 11, odd)
    if kind == "parquet":
        spec = write(tmp_path, {"train": rows(items), "test": rows(pictures(4, channels=most, seed=2))})
    else:
        write_folder(tmp_path / "train", items)
        write_folder(tmp_path / "test", pictures(4, channels=most, seed=2))
        spec = f"folder:{tmp_path}"
    info = describe(spec, "")
    assert (info.channels, info.size) == (most, 12)
    change = "1 grey to colour" if most == 3 else "1 colour to grey"
    assert told(spec) == f"converted: {change}, 1 resized to 12×12"
    assert f"{20 + 4} " in told(spec, channels=4 - most)
    if kind == "streamed":
        monkeypatch.setattr(memory, "MEMORY_LIMIT", 0)
    for channels in (None, 1, 3):
        data = load(spec, "", DataConfig(info.name, channels=channels, scaling="unit", validation=0.0))
        if isinstance(data, StreamedImages):
            data.workers = 0
        images, _ = data.select("train", torch.arange(data.count("train")), device=CPU)
        assert images.shape == (21, channels or most, 12, 12)
        assert data.channels == (channels or most)
        picture = Image.fromarray(items[3][0]).convert("L" if (channels or most) == 1 else "RGB")
        expected = torch.from_numpy(np.asarray(picture).reshape(12, 12, -1).transpose(2, 0, 1) / np.float32(255))
        assert (images - expected).abs().amax((1, 2, 3)).min() < 1e-6


def test_named_sets_in_other_channels() -> None:
    grey, colour = in_memory("digits"), in_memory("digits", channels=3)
    assert np.array_equal(colour.train.images, np.repeat(grey.train.images, 3, 1))
    with pytest.raises(InputError, match=r"channels: 2, allowed are 1 \(grey\) and 3 \(colour\)"):
        DataConfig("digits", channels=2)


def test_grey_images_that_are_streamed_are_other_data_than_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They were trained on in three channels."""
    write_folder(tmp_path / "x", pictures(20, channels=1))
    files = list((tmp_path / "x").rglob("*.png"))
    assert identify(f"folder:{tmp_path}/x", "") == plain_name(tmp_path / "x", files)
    monkeypatch.setattr(memory, "MEMORY_LIMIT", 0)
    data = stream(f"folder:{tmp_path}/x")
    assert data.name != plain_name(tmp_path / "x", files)
    assert (data.channels, len(data.mean)) == (1, 1)
