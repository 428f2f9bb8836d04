"""Masks of class folders and of Oxford's pets in the order of their images, and their overlap with maps, by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from analysis.command_line import InputError
from sweeps.gradient_reg import GradientSweep
from sweeps.plan import make_plan
from trainables.configuration import ModelConfig, TrainingConfig, TrialConfig
from trainables.data import (
    DataConfig,
    Images,
    SharedData,
    StreamedImages,
    check_masks,
    identify,
    load,
    load_each,
    memory,
)
from trainables.method import Method
from trainables.metrics import METRICS, Moment
from trainables.metrics.class_activation import cams
from trainables.metrics.flags import MetricFlags
from trainables.metrics.mask_overlap import THRESHOLDS, MaskOverlap, overlaps
from trainables.models import build_model
from trainables.training import Run

CPU = torch.device("cpu")


def picture(size: tuple[int, int], corner: tuple[int, int]) -> NDArray[np.uint8]:
    """A bright square of 6 pixels on black: its own mask."""
    values = np.zeros(size, dtype=np.uint8)
    values[corner[0] : corner[0] + 6, corner[1] : corner[1] + 6] = 255
    return values


def write_folder(top: Path, *, size: tuple[int, int] = (16, 16), split: bool = False, classes: str = "ab") -> None:
    """Class folders, and masks beside them; every image's mask is where it is bright."""
    draw = np.random.default_rng(0)
    for part in ("train", "test") if split else ("",):
        for name in classes:
            for number in range(10):
                corner = draw.integers(0, size[0] - 6), draw.integers(0, size[1] - 6)
                values = picture(size, corner)
                below = Path(part) / name / f"{number}.bmp"
                for path in (top / below, (top / "masks" / below).with_suffix(".png")):
                    path.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(values).save(path)


def bright(data: Images | StreamedImages, start: int = 0, end: int = 99) -> torch.Tensor:
    """Where the network's images are bright: in [0, 1], at least half."""
    images, _ = data.select("test", torch.arange(start, min(end, data.count("test"))), device=CPU)
    return images.amax(1) >= 127.5 / 255


CONFIG = DataConfig("x", scaling="unit")


@pytest.mark.parametrize("split", [True, False])
@pytest.mark.parametrize("size", [None, 8])
def test_a_folders_masks_are_those_of_its_test_images_in_their_order(tmp_path: Path, split: bool, size: int) -> None:
    write_folder(tmp_path, split=split)
    data = load(f"folder:{tmp_path}", "unused", DataConfig("x", scaling="unit", image_size=size), masks=True)
    assert isinstance(data, Images)
    assert data.class_names == ("a", "b")  # masks is no class
    assert data.masks is not None
    assert data.masks.shape == (data.count("test"), size or 16, size or 16)
    assert data.count("test") == (20 if split else 4)
    assert torch.equal(data.test_masks(0, 99), bright(data))
    assert torch.equal(data.test_masks(1, 3), bright(data, 1, 3))
    assert len(torch.unique(data.test_masks(0, 99).flatten(1).float(), dim=0)) > 2  # they differ


def test_masks_of_images_that_are_not_square_are_cut_as_they_are(tmp_path: Path) -> None:
    write_folder(tmp_path, size=(16, 24))
    data = load(f"folder:{tmp_path}", "unused", DataConfig("x", scaling="unit", image_size=12), masks=True)
    assert torch.equal(data.test_masks(0, 99), bright(data))


def test_a_streamed_folders_masks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path, size=(16, 20), split=True)
    monkeypatch.setattr(memory, "MEMORY_LIMIT", 0)
    config = DataConfig("x", scaling="unit", image_size=12, evaluation_size=16)
    data = load(f"folder:{tmp_path}", "unused", config, masks=True)
    assert isinstance(data, StreamedImages)
    data.workers = 0
    assert torch.equal(data.test_masks(0, 99), bright(data))
    assert torch.equal(data.test_masks(3, 5), bright(data, 3, 5))


def test_masks_and_the_same_folder_without_are_the_same_data(tmp_path: Path) -> None:
    write_folder(tmp_path / "with" / "x")
    with_masks = identify(f"folder:{tmp_path}/with/x", "unused")
    (tmp_path / "with" / "x" / "masks").rename(tmp_path / "elsewhere")
    assert identify(f"folder:{tmp_path}/with/x", "unused") == with_masks


def test_a_class_may_be_called_masks(tmp_path: Path) -> None:
    for name in ("masks", "hats"):
        (tmp_path / name / "inner").mkdir(parents=True)
        for number in range(5):
            Image.fromarray(picture((8, 8), (number % 2, 0))).save(tmp_path / name / "inner" / f"{number}.png")
    data = load(f"folder:{tmp_path}", "unused", CONFIG)
    assert data.class_names == ("hats", "masks")


@pytest.mark.parametrize(
    ("mode", "values"),
    [("L", [0, 1]), ("L", [0, 255]), ("P", [0, 3]), ("1", [0, 1]), ("RGB", [0, 9]), ("RGBA", [0, 9])],
)
def test_what_is_not_0_is_the_objects(tmp_path: Path, mode: str, values: list[int]) -> None:
    write_folder(tmp_path)
    for path in (tmp_path / "masks").rglob("*.png"):
        inside = np.asarray(Image.open(path)) > 0
        chosen = np.where(inside, values[1], values[0]).astype(np.uint8)
        if mode == "P":
            mask = Image.fromarray(chosen, "P")
            mask.putpalette([0, 0, 0, 9, 9, 9, 9, 9, 9, 0, 0, 0])
        elif mode == "1":
            mask = Image.fromarray(inside)
        elif mode == "L":
            mask = Image.fromarray(chosen)
        else:
            channels = [np.zeros_like(chosen), np.zeros_like(chosen), chosen, np.full_like(chosen, 255)]
            mask = Image.fromarray(np.stack(channels[: len(mode)], 2), mode)
        mask.save(path)
    data = load(f"folder:{tmp_path}", "unused", CONFIG, masks=True)
    assert torch.equal(data.test_masks(0, 99), bright(data))


def write_pets(root: Path) -> None:
    """Oxford's pets as torchvision unpacks them, with two breeds; a trimap is 1 in the pet, 3 around it, 2 outside."""
    base = root / "oxford-iiit-pet"
    (base / "images").mkdir(parents=True)
    (base / "annotations" / "trimaps").mkdir(parents=True)
    draw = np.random.default_rng(1)
    for split in ("trainval", "test"):
        lines = []
        for number in range(12):
            breed = number % 2
            name = f"{['Abyssinian', 'beagle'][breed]}_{split}{number}"
            corner = draw.integers(0, 10), draw.integers(0, 10)
            values = picture((16, 16), corner)
            Image.fromarray(values).convert("RGB").save(base / "images" / f"{name}.jpg", quality=100, subsampling=0)
            trimap = np.where(values > 0, 3, 2).astype(np.uint8)
            trimap[corner[0] + 2 : corner[0] + 4, corner[1] + 2 : corner[1] + 4] = 1
            Image.fromarray(trimap).save(base / "annotations" / "trimaps" / f"{name}.png")
            lines.append(f"{name} {breed + 1} {breed + 1} 1")
        (base / "annotations" / f"{split}.txt").write_text("\n".join(lines) + "\n")


def test_the_trimaps_of_pets(tmp_path: Path) -> None:
    write_pets(tmp_path)
    config = DataConfig("oxford-pets", scaling="unit", image_size=16)
    data = load("oxford-pets", str(tmp_path), config, masks=True)
    assert data.count("test") == 12
    assert torch.equal(data.test_masks(0, 99), bright(data))
    check_masks("oxford-pets", str(tmp_path))


def test_shared_data_have_their_masks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "shared"))
    (tmp_path / "shared").mkdir()
    monkeypatch.setattr("tempfile.tempdir", None)
    write_folder(tmp_path / "x")
    spec = f"folder:{tmp_path}/x"
    config = DataConfig(identify(spec, "unused"), scaling="unit")
    data = SharedData(spec, "unused", (config,), masks=True).load()[config]
    assert torch.equal(data.test_masks(0, 99), bright(data))
    with pytest.raises(ValueError, match="loaded without masks"):
        SharedData(spec, "unused", (config,)).load()[config].test_masks(0, 1)


def test_masks_go_with_a_fold_s_test_images(tmp_path: Path) -> None:
    write_pets(tmp_path)
    config = DataConfig("oxford-pets", scaling="unit", image_size=16, folds=3, fold=0)
    loaded = load_each("oxford-pets", str(tmp_path), config.each_fold(), masks=True)
    assert len(loaded) == 3
    for data in loaded.values():
        assert torch.equal(data.test_masks(0, 99), bright(data))


class TestErrors:
    def test_a_set_without_masks(self, tmp_path: Path) -> None:
        for spec in ("digits", "imagenet"):
            with pytest.raises(
                InputError, match=f"dataset: {spec} has no masks, allowed are oxford-pets and a folder:"
            ):
                check_masks(spec, str(tmp_path))
        with pytest.raises(InputError, match="dataset: digits has no masks"):
            load("digits", "unused", DataConfig("digits"), masks=True)
        with pytest.raises(InputError, match="dataset: digits was loaded without masks"):
            load("digits", "unused", DataConfig("digits")).test_masks(0, 1)

    def test_a_missing_mask_is_named_before_anything_starts(self, tmp_path: Path) -> None:
        write_folder(tmp_path, split=True)
        gone = tmp_path / "masks" / "test" / "b" / "7.png"
        gone.unlink()
        (tmp_path / "masks" / "train" / "b" / "7.png").unlink()  # not needed
        expected = f"dataset: 1 of 20 test images of folder:{tmp_path} have no mask, allowed is one for each: {gone} is"
        for attempt in (
            lambda: check_masks(f"folder:{tmp_path}", "unused"),
            lambda: load(f"folder:{tmp_path}", "unused", CONFIG, masks=True),
            lambda: make_plan(GradientSweep(dataset=(f"folder:{tmp_path}",), measure=("iou",))),
        ):
            with pytest.raises(InputError, match=expected):
                attempt()
        make_plan(GradientSweep(dataset=(f"folder:{tmp_path}",), measure=("erf",)))

    def test_a_plan_on_a_set_without_masks(self) -> None:
        with pytest.raises(InputError, match="dataset: digits has no masks"):
            make_plan(GradientSweep(measure=("iou",)))

    def test_a_mask_of_another_size_and_a_damaged_one(self, tmp_path: Path) -> None:
        write_folder(tmp_path, split=True)
        wrong = tmp_path / "masks" / "test" / "a" / "3.png"
        Image.fromarray(np.zeros((16, 8), dtype=np.uint8)).save(wrong)
        with pytest.raises(InputError, match=f"{wrong}: 8×16 pixels, allowed are the 16×16 of its image"):
            load(f"folder:{tmp_path}", "unused", CONFIG, masks=True)
        wrong.write_bytes(b"nothing")
        with pytest.raises(InputError, match=f"{wrong}: no readable mask"):
            load(f"folder:{tmp_path}", "unused", CONFIG, masks=True)


def test_overlaps_by_hand() -> None:
    maps = torch.tensor([[[0.0, 0.2], [0.6, 1.0]], [[1.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
    masks = torch.tensor([[[0, 1], [0, 1]], [[0, 0], [0, 0]], [[1, 0], [0, 0]]]).bool()
    found = overlaps(maps, masks, (0.2, 0.5, 0.7))
    expected = [[2 / 3, 1 / 3, 1 / 2], [float("nan")] * 3, [0.0, 0.0, 0.0]]
    torch.testing.assert_close(found, torch.tensor(expected).double(), equal_nan=True)


class TestAsAMetric:
    def test_its_rows(self, tmp_path: Path) -> None:
        write_folder(tmp_path, split=True)
        data = load(f"folder:{tmp_path}", "unused", CONFIG, masks=True)
        model: nn.Module = build_model("resnet8", channels=1, size=16, classes=2, width=4, seed=3).eval()
        moment = Moment(model, data, "test", 1, True, 0, CPU, lambda _: model)
        measured = MaskOverlap(images=15).measure(moment)
        images, labels = data.select("test", torch.arange(15), device=CPU)
        table = np.zeros((15, len(THRESHOLDS)))
        for number, (cam, mask) in enumerate(
            zip(cams(model, images, labels).numpy(), bright(data, 0, 15), strict=True)
        ):
            inside = {(i, j) for i, j in np.argwhere(mask.numpy()).tolist()}
            for column, threshold in enumerate(THRESHOLDS):
                predicted = {(i, j) for i, j in np.argwhere(cam >= np.float32(threshold)).tolist()}
                table[number, column] = len(inside & predicted) / len(inside | predicted)
        best = table.mean(0).argmax()
        iou, threshold_row, *each = measured.measurements
        assert iou["metric"] == "iou"
        assert iou["value"] == pytest.approx(table.mean(0).max())
        assert iou["std"] == pytest.approx(table[:, best].std(ddof=1))
        assert (iou["component"], iou["level"], iou["n"], iou["unit"]) == ("", None, 15, "fraction")
        assert iou["direction"] == "max"
        assert (threshold_row["metric"], threshold_row["value"]) == ("iou_threshold", THRESHOLDS[best])
        assert [row["level"] for row in each] == list(THRESHOLDS)
        assert [row["value"] for row in each] == pytest.approx(table.mean(0).tolist())
        assert {row["metric"] for row in each} == {"iou_at_threshold"}

    def test_maps_that_are_the_masks_overlap_wholly(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write_folder(tmp_path, split=True)
        data = load(f"folder:{tmp_path}", "unused", CONFIG, masks=True)
        monkeypatch.setattr("trainables.metrics.mask_overlap.cams", lambda _model, images, _labels: images.amax(1))
        moment = Moment(nn.Identity(), data, "test", 1, True, 0, CPU, lambda _: nn.Identity())
        assert MaskOverlap().measure(moment).measurements[0]["value"] == 1

    def test_images_without_an_object_do_not_count(self, tmp_path: Path) -> None:
        write_folder(tmp_path, split=True)
        empty = np.zeros((16, 16), dtype=np.uint8)
        paths = sorted((tmp_path / "masks" / "test").rglob("*.png"))
        for path in paths[:5]:
            Image.fromarray(empty).save(path)
        model: nn.Module = build_model("resnet8", channels=1, size=16, classes=2, width=4, seed=3).eval()

        def measure() -> int:
            data = load(f"folder:{tmp_path}", "unused", CONFIG, masks=True)
            moment = Moment(model, data, "test", 1, True, 0, CPU, lambda _: model)
            return int(MaskOverlap().measure(moment).measurements[0]["n"])

        assert measure() == 15
        for path in paths:
            Image.fromarray(empty).save(path)
        with pytest.raises(InputError, match="no object in the masks of its first 20 test images"):
            measure()

    def test_a_run_measures_it_at_the_end_and_refuses_data_without_masks_at_its_start(self, tmp_path: Path) -> None:
        write_folder(tmp_path, split=True)
        config = DataConfig("x", validation=0.2)
        training = TrainingConfig(epochs=1, batch_size=8)
        trial = TrialConfig(Method(), ModelConfig("resnet8", 4), config, training, 0)
        run = Run(trial, load(f"folder:{tmp_path}", "unused", config, masks=True), metrics={"iou": MaskOverlap()})
        run.begin()
        run.train_epoch()
        assert run.status == "completed"
        assert len(run.measurements) == 2 + len(THRESHOLDS)
        run = Run(trial, load(f"folder:{tmp_path}", "unused", config), metrics={"iou": MaskOverlap()})
        with pytest.raises(InputError, match="loaded without masks"):
            run.begin()

    def test_its_flags(self) -> None:
        options = MetricFlags(iou_images=7).metric_options(["iou"], "measure")
        assert METRICS["iou"](**options["iou"]) == MaskOverlap(7)
        with pytest.raises(InputError, match="images: 0, allowed are whole numbers of at least 1"):
            MetricFlags(iou_images=0).metric_options(["iou"], "measure")
