"""Random labels, and tasks whose classes are deformations of an image: against the functions they are made of."""

from __future__ import annotations

import dataclasses
import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from trainables.data import DataConfig, Images, load, load_each
from trainables.data.configuration import TASKS
from trainables.deformation import deform, random_deformations

CPU = torch.device("cpu")
CONFIG = DataConfig(
    TASKS, scaling="unit", deformation_strength=2.0, task_classes=5, task_images=20, task_tests=8, validation=0.25
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> str:
    return small_mnist(tmp_path_factory.mktemp("data"))


def small_mnist(top: Path) -> str:
    """MNIST's four files, small; where they are."""
    folder = top / "MNIST" / "raw"
    folder.mkdir(parents=True)
    draw = np.random.default_rng(0)
    for name, number in (("train", 40), ("t10k", 10)):
        images = draw.integers(0, 256, (number, 28, 28), dtype=np.uint8)
        labels = np.arange(number, dtype=np.uint8) % 10
        for kind, header, values in (
            ("images-idx3", struct.pack(">IIII", 2051, number, 28, 28), images),
            ("labels-idx1", struct.pack(">II", 2049, number), labels),
        ):
            with gzip.open(folder / f"{name}-{kind}-ubyte.gz", "wb") as file:
                file.write(header + values.tobytes())
            (folder / f"{name}-{kind}-ubyte").write_bytes(header + values.tobytes())
    return str(folder.parents[1])


def tasks(root: str, **changed: object) -> Images:
    data = load(TASKS, root, dataclasses.replace(CONFIG, **changed))  # type: ignore[arg-type]
    assert isinstance(data, Images)
    return data


class TestTasks:
    def test_each_class_is_one_image(self, root: str) -> None:
        """Undeformed, all examples of a class are equal, and those of two classes are not."""
        data = tasks(root, deformation_strength=0.0)
        assert (data.classes, data.count("train"), data.count("validation"), data.count("test")) == (5, 75, 25, 40)
        images, labels = next(iter(data.batches("test", 100, device=CPU)))
        assert torch.equal(labels.bincount(), torch.full((5,), 8))
        for label in range(5):
            own = images[labels == label]
            assert torch.equal(own, own[:1].expand_as(own))
        assert len(torch.unique(images.flatten(1), dim=0)) == 5

    def test_examples_are_its_deformations(self, root: str) -> None:
        plain, data = tasks(root, deformation_strength=0.0), tasks(root)
        images, labels = next(iter(data.batches("test", 100, device=CPU)))
        bases, again = next(iter(plain.batches("test", 100, device=CPU)))
        assert torch.equal(labels, again)
        for place in (0, 7, 39):
            generator = torch.Generator().manual_seed(place)
            field = random_deformations(1, 28, 28, 3, 2.0, generator=generator)
            expected = deform(bases[place : place + 1] * 255, field).round() / 255
            torch.testing.assert_close(images[place : place + 1], expected, rtol=0, atol=1e-6)
        assert len(torch.unique(images.flatten(1), dim=0)) == 40

    def test_no_split_has_another_s_deformations(self, root: str) -> None:
        """Seeds that differ beyond the 32 bits that torch takes would give each split the same ones."""
        data = tasks(root, task_images=16, task_tests=8, validation=0.5)
        splits = [next(iter(data.batches(name, 100, device=CPU)))[0] for name in ("train", "validation", "test")]
        assert {len(images) for images in splits} == {40}
        assert len(torch.unique(torch.cat(splits).flatten(1), dim=0)) == 120

    def test_are_the_same_however_they_are_asked_for(self, root: str) -> None:
        data = tasks(root)
        whole, labels = next(iter(data.batches("validation", 100, device=CPU)))
        parts = torch.cat([images for images, _ in data.batches("validation", 7, device=CPU)])
        assert torch.equal(whole, parts)
        chosen, own = data.select("validation", torch.tensor([3, 20]), device=CPU)
        assert torch.equal(chosen, whole[[3, 20]])
        assert torch.equal(own, labels[[3, 20]])

    def test_training_draws_anew_from_the_generator(self, root: str) -> None:
        data = tasks(root)

        def epoch(generator: torch.Generator) -> torch.Tensor:
            batches = list(data.training_batches(30, generator=generator, device=CPU))
            return torch.cat([images for images, _ in batches])

        generator = torch.Generator().manual_seed(0)
        first, second = epoch(generator), epoch(generator)
        assert first.shape == (75, 1, 28, 28)
        assert len(torch.unique(torch.cat([first, second]).flatten(1), dim=0)) == 150
        assert torch.equal(first, epoch(torch.Generator().manual_seed(0)))

    def test_stronger_ones_move_more(self, root: str) -> None:
        plain = next(iter(tasks(root, deformation_strength=0.0).batches("test", 100, device=CPU)))[0]
        apart = []
        for strength in (0.2, 1.0):
            images = next(iter(tasks(root, deformation_strength=strength).batches("test", 100, device=CPU)))[0]
            apart.append(float((images - plain).abs().mean()))
        assert 0 < apart[0] < apart[1]

    @pytest.mark.parametrize(
        ("changed", "message"),
        [
            (
                {"task_classes": None},
                "dataset: mnist-tasks without task_classes; sweeps/deformation.py has these tasks",
            ),
            ({"task_classes": 1}, "task_classes: 1, allowed"),
            ({"deformation_strength": None}, "deformation_strength: None, allowed with mnist-tasks are numbers"),
            ({"deformation_strength": -1.0}, "deformation_strength: -1.0, allowed"),
            ({"folds": 2, "fold": 0}, "folds: 2, allowed with mnist-tasks is none"),
            ({"dataset": "digits"}, "task_classes: 5, allowed are none but of mnist-tasks"),
            ({"labels": "wrong"}, "labels: 'wrong', allowed are real, random"),
        ],
    )
    def test_refuses_what_it_cannot_mean(self, changed: dict[str, object], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(CONFIG, **changed)  # type: ignore[arg-type]

    def test_refuses_more_classes_than_images(self, root: str) -> None:
        with pytest.raises(ValueError, match="task_classes: 41, allowed are at most the 40 images"):
            tasks(root, task_classes=41)


class TestRandomLabels:
    def test_are_the_training_images_alone(self) -> None:
        config = DataConfig("digits")
        loaded = load_each("digits", "unused", [config, dataclasses.replace(config, labels="random")])
        real, random = loaded.values()
        assert isinstance(real, Images)
        assert isinstance(random, Images)
        assert random.train.images is real.train.images
        assert random.test is real.test
        assert random.validation is real.validation
        # uniform: of 1293 each class has 129 ± 11; of the real ones a tenth is met by chance, 129 ± 11
        counts = np.bincount(random.train.labels, minlength=10)
        assert counts.min() > 129 - 5 * 11
        assert counts.max() < 129 + 5 * 11
        assert abs(int((random.train.labels == real.train.labels).sum()) - 129) < 5 * 11

    def test_are_the_same_in_every_epoch_and_trial(self) -> None:
        config = DataConfig("digits", labels="random")
        first, again = (load("digits", "unused", config) for _ in range(2))
        assert isinstance(first, Images)
        assert isinstance(again, Images)
        assert np.array_equal(first.train.labels, again.train.labels)

    def test_of_streamed_images(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from PIL import Image

        from trainables.data import StreamedImages, identify, memory

        for name in ("a", "b"):
            (tmp_path / name).mkdir()
            for index in range(30):
                Image.new("RGB", (8, 8), (index, 0, 0)).save(tmp_path / name / f"{index}.png")
        spec = f"folder:{tmp_path}"
        monkeypatch.setattr(memory, "MEMORY_LIMIT", 0)
        config = DataConfig(identify(spec, "unused"), labels="random", validation=0.0)
        random, real = load(spec, "unused", config), load(spec, "unused", dataclasses.replace(config, labels="real"))
        assert isinstance(random, StreamedImages)
        assert isinstance(real, StreamedImages)
        assert random.files["train"][0] == real.files["train"][0]
        assert not np.array_equal(random.files["train"][1], real.files["train"][1])
        assert np.array_equal(random.files["test"][1], real.files["test"][1])
