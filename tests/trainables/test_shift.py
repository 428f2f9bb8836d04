"""Testing on other data sets of the same classes: a loop over the files for a witness, and what does not match."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import nn

from analysis.command_line import InputError
from sweeps.driver.manifest import contents
from sweeps.gradient_reg import GradientSweep
from sweeps.plan import make_plan
from tests.trainables.test_data import pictures
from tests.trainables.test_data import write_parquet as write_images
from trainables.configuration import ModelConfig, TrainingConfig, TrialConfig
from trainables.data import (
    DataConfig,
    Images,
    SharedData,
    StreamedImages,
    check_others,
    identify,
    load,
    load_others,
    memory,
)
from trainables.data.shift import match
from trainables.method import Method
from trainables.metrics import METRICS, Moment
from trainables.metrics.flags import MetricFlags
from trainables.metrics.shift import Shift, short_name
from trainables.models import build_model
from trainables.training import Run

CPU = torch.device("cpu")
NAMES = ("ant", "bee", "cat")


def write_folder(top: Path, *, seed: int, names: tuple[str, ...] = NAMES, split: bool = False, number: int = 6) -> str:
    """Class folders of random grey images, 12 pixels a side; the folder's name as a data set."""
    draw = np.random.default_rng(seed)
    for part in ("train", "test") if split else ("",):
        for name in names:
            folder = top / part / name
            folder.mkdir(parents=True)
            for index in range(number):
                Image.fromarray(draw.integers(0, 256, (12, 12), dtype=np.uint8)).save(folder / f"{index}.png")
    return f"folder:{top}"


@pytest.fixture
def home(tmp_path: Path) -> str:
    return write_folder(tmp_path / "home", seed=0)


def trained_on(spec: str, **options: object) -> Images | StreamedImages:
    return load(spec, "unused", DataConfig(identify(spec, "unused"), **options))  # type: ignore[arg-type]


def network() -> nn.Module:
    torch.manual_seed(0)
    model = build_model("resnet8", channels=1, size=12, classes=3, width=4, seed=1)
    for _ in range(5):
        model(torch.randn(32, 1, 12, 12))
    return model.eval()


def moment(model: nn.Module, data: Images | StreamedImages, split: str = "test", epoch: int = 1) -> Moment:
    return Moment(model, data, split, epoch, True, 0, CPU, lambda _: model)


@pytest.mark.parametrize("split", [True, False])
def test_accuracy_by_a_loop_over_the_files(tmp_path: Path, home: str, split: bool) -> None:
    away = write_folder(tmp_path / "away", seed=1, split=split)
    data = trained_on(home)
    model = network()
    load_others([data], home, [away], "unused")
    (name,) = data.others
    assert name == identify(away, "unused")
    (row,) = Shift((name,)).measure(moment(model, data)).measurements
    right = images = 0
    for path in sorted((tmp_path / "away").rglob("*.png")):
        if "train" in path.parts:
            continue
        pixels = torch.from_numpy(np.asarray(Image.open(path), dtype=np.float32) / 255)[None, None]
        with torch.no_grad():
            found = int(model((pixels - data.mean[0]) / data.std[0]).argmax())
        right += NAMES[found] == path.parent.name
        images += 1
    assert images == 18
    assert 0 < right < images
    assert row == {
        "metric": "shift_accuracy",
        "component": "away",
        "level": None,
        "value": right / images,
        "std": None,
        "n": images,
        "unit": "fraction",
        "direction": "max",
    }


def test_a_grey_set_too_large_for_memory_is_streamed(
    tmp_path: Path, home: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = write_folder(tmp_path / "away", seed=1)
    data = trained_on(home)
    load_others([data], home, [away], "unused")
    expected, _ = data.others.popitem()[1].select("test", torch.arange(18), device=CPU)
    monkeypatch.setattr(memory, "MEMORY_LIMIT", 0)
    load_others([data], home, [away], "unused")
    (other,) = data.others.values()
    assert isinstance(other, StreamedImages)
    other.workers = 0
    torch.testing.assert_close(other.select("test", torch.arange(18), device=CPU)[0], expected)


def test_a_streamed_set_is_read_as_the_one_trained_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seed in (("home", 0), ("away", 1)):
        write_folder(tmp_path / name, seed=seed)
        for path in (tmp_path / name).rglob("*.png"):
            Image.open(path).convert("RGB").save(path)
    home, away = (f"folder:{tmp_path / name}" for name in ("home", "away"))
    in_memory = trained_on(home, scaling="unit")
    load_others([in_memory], home, [away], "unused")
    monkeypatch.setattr(memory, "MEMORY_LIMIT", 0)
    streamed = trained_on(home, scaling="unit")
    assert isinstance(streamed, StreamedImages)
    load_others([streamed], home, [away], "unused")
    (one,), (other,) = in_memory.others.values(), streamed.others.values()
    assert isinstance(one, Images)
    assert isinstance(other, StreamedImages)
    other.workers = 0
    everything = torch.arange(18)
    found = [part.select("test", everything, device=CPU) for part in (one, other)]
    for left, right in zip(*found, strict=True):
        torch.testing.assert_close(left, right)


def test_images_are_resized_and_scaled_as_those_trained_on(tmp_path: Path, home: str) -> None:
    away = write_folder(tmp_path / "away", seed=1)
    for path in (tmp_path / "away").rglob("*.png"):
        Image.open(path).resize((24, 30), Image.Resampling.NEAREST).save(path)
    data = trained_on(home, image_size=8)
    load_others([data], home, [away], "unused")
    (other,) = data.others.values()
    assert (other.mean, other.std, other.class_names) == (data.mean, data.std, data.class_names)
    images, _ = other.select("test", torch.arange(18), device=CPU)
    assert images.shape == (18, 1, 8, 8)


def test_classes_are_matched_by_name() -> None:
    assert match(("a", "b", "c"), ("c", "a", "b"), "x", "y").tolist() == [2, 0, 1]
    with pytest.raises(
        InputError, match=r"shift: y has d, e, which x has not, and lacks b, c; allowed are sets of the"
    ):
        match(("a", "b", "c"), ("d", "a", "e"), "x", "y")
    with pytest.raises(InputError, match=r"^shift: y lacks b; allowed are sets of the same classes$"):
        match(("a", "b"), ("a",), "x", "y")
    # by number where one has no names but those
    assert match(("a", "b"), ("0", "1"), "x", "y").tolist() == [0, 1]
    with pytest.raises(InputError, match="shift: y has 3 classes, allowed are the 2 of x"):
        match(("0", "1"), ("a", "b", "c"), "x", "y")
    many = tuple(f"n{number:03}" for number in range(300))
    with pytest.raises(InputError, match="n019 and 280 more, which x has not, and lacks a, b; allowed"):
        match(("a", "b"), many, "x", "y")


def test_a_plan_refuses_classes_that_do_not_match(tmp_path: Path, home: str) -> None:
    away = write_folder(tmp_path / "away", seed=1, names=("ant", "bee", "dog"))
    flags = GradientSweep(dataset=(home,), shift=(away,), measure=())
    with pytest.raises(InputError, match=f"shift: {away} has dog, which {home} has not, and lacks cat"):
        make_plan(flags)
    with pytest.raises(InputError, match="shift: digits has 10 classes, allowed are the 3 of"):
        make_plan(GradientSweep(dataset=(home,), shift=("digits",), measure=()))
    with pytest.raises(InputError, match=f"shift: {home} is what is trained on, allowed are other data sets"):
        make_plan(GradientSweep(dataset=(home,), shift=(home,), measure=()))
    with pytest.raises(InputError, match=f"no folder {tmp_path}/absent"):
        make_plan(GradientSweep(dataset=(home,), shift=(f"folder:{tmp_path}/absent",), measure=()))
    with pytest.raises(InputError, match="shift: none, allowed are names"):
        make_plan(GradientSweep(dataset=(home,), measure=("shift",)))


def test_the_record_holds_names_and_no_path(tmp_path: Path, home: str) -> None:
    away = write_folder(tmp_path / "away", seed=1)
    flags = GradientSweep(dataset=(home,), shift=(away,), measure=("parameters",))
    assert flags.metrics() == {"parameters": {}, "shift": {"sets": [identify(away, "unused")]}}
    found = contents(flags, make_plan(flags))
    assert found["shift sets"] == [[identify(away, "unused")]]
    assert str(tmp_path) not in str(found)


def write_parquet(folder: Path, labels: list[int], seed: int) -> str:
    folder.mkdir()
    draw = np.random.default_rng(seed)
    for split in ("train", "test"):
        images = []
        for label in labels:
            path = folder / "one.png"
            Image.fromarray(draw.integers(0, 256, (12, 12), dtype=np.uint8)).save(path)
            images.append({"bytes": path.read_bytes(), "path": f"{label}"})
        pq.write_table(pa.table({"image": images, "label": labels}), folder / f"{split}.parquet")
    return f"parquet:{folder}"


def test_parquet_is_matched_by_number_and_its_test_split_taken(tmp_path: Path, home: str) -> None:
    away = write_parquet(tmp_path / "away", [2, 0, 1, 1], 3)
    data = trained_on(home)
    check_others(home, [away], "unused")
    load_others([data], home, [away], "unused")
    (other,) = data.others.values()
    expected = load(away, "unused", DataConfig("x", validation=0.0))
    assert isinstance(other, Images)
    assert isinstance(expected, Images)
    assert np.array_equal(other.test.images, expected.test.images)
    assert np.array_equal(other.test.labels, expected.test.labels)
    with pytest.raises(InputError, match=r"shift: .* has 4 classes, allowed are the 3 of"):
        check_others(home, [write_parquet(tmp_path / "more", [0, 1, 2, 3], 3)], "unused")


def test_a_named_set(tmp_path: Path) -> None:
    home = write_folder(tmp_path / "home", seed=0, names=tuple("0123456789"))
    data = trained_on(home)
    load_others([data], home, ["digits"], "unused")
    other = data.others["digits"]
    assert (other.size, other.count("test"), other.mean) == (12, 360, data.mean)
    (row,) = Shift(("digits",)).measure(moment(build_model(
        "resnet8", channels=1, size=12, classes=10, width=4, seed=1).eval(), data)).measurements  # fmt: skip
    assert (row["component"], row["n"]) == ("digits", 360)


@pytest.mark.parametrize("kind", ["folder", "parquet"])
def test_a_set_of_other_channels_has_those_of_the_one_trained_on(kind: str, tmp_path: Path, home: str) -> None:
    away = write_folder(tmp_path / "away", seed=1) if kind == "folder" else ""
    for path in (tmp_path / "away").rglob("*.png"):
        Image.open(path).convert("RGB").save(path)
    if kind == "parquet":
        items = [(array, label) for array, label in pictures(18, classes=3)]
        for split in ("train", "test"):
            write_images(str(tmp_path / "away" / f"{split}.parquet"), items)
        away = f"parquet:{tmp_path}/away"
    data = trained_on(home, scaling="unit")
    load_others([data], home, [away], "unused")
    (other,) = data.others.values()
    images, _ = other.select("test", torch.arange(18), device=CPU)
    found = {(image * 255).round().byte().numpy().tobytes() for image in images}
    if kind == "folder":
        expected = {Image.open(path).convert("L").tobytes() for path in (tmp_path / "away").rglob("*.png")}
    else:
        expected = {Image.fromarray(array).convert("L").tobytes() for array, _ in items}
    assert found == expected


def test_shared_data_have_the_others(tmp_path: Path, home: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "shared"))
    (tmp_path / "shared").mkdir()
    monkeypatch.setattr("tempfile.tempdir", None)
    away = write_folder(tmp_path / "away", seed=1)
    config = DataConfig(identify(home, "unused"))
    data = SharedData(home, "unused", (config,), shift=(away,)).load()[config]
    here = trained_on(home)
    load_others([here], home, [away], "unused")
    name = identify(away, "unused")
    model = network()
    assert Shift((name,)).measure(moment(model, data)) == Shift((name,)).measure(moment(model, here))


class TestAsAMetric:
    def test_names(self) -> None:
        assert short_name("folder:waterbirds@1a2b3c4d") == "waterbirds"
        assert short_name("parquet:a@b@1a2b3c4d") == "a@b"
        assert short_name("kmnist") == "kmnist"
        with pytest.raises(InputError, match="sets: 2 data sets called x, allowed are different names"):
            Shift(("folder:x@11111111", "parquet:x@22222222"))

    def test_what_was_not_loaded_is_refused_at_the_start(self, home: str) -> None:
        data = trained_on(home)
        with pytest.raises(InputError, match=r"shift: kmnist was not loaded with folder:home@\w+, loaded were none"):
            Shift(("kmnist",)).measure(moment(network(), data, "validation", 0))
        assert Shift(("kmnist",)).measure(moment(network(), data, "validation", 1)).measurements == []

    def test_a_run_measures_it_at_its_end(self, tmp_path: Path, home: str) -> None:
        data = trained_on(home)
        load_others([data], home, [write_folder(tmp_path / "away", seed=1)], "unused")
        training = TrainingConfig(epochs=2, batch_size=8)
        config = TrialConfig(Method(), ModelConfig("resnet8", 4), data.config, training, 0)
        run = Run(config, data, metrics={"shift": Shift(tuple(data.others))})
        run.begin()
        while not run.finished:
            run.train_epoch()
        assert [(row["epoch"], row["component"]) for row in run.measurements] == [(2, "away")]

    def test_its_flags(self, tmp_path: Path) -> None:
        away = write_folder(tmp_path / "away", seed=1)
        options = MetricFlags(shift=(away,)).metric_options([], "measure")
        assert METRICS["shift"](**options["shift"]) == Shift((identify(away, "unused"),))
        assert MetricFlags().metric_options([], "measure") == {}
