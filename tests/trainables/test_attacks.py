"""Attacks against foolbox and torchattacks on a trained network; and cases worked by hand.

Longer than 600 lines: all parts share one trained network, and what it costs to train it.
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import asdict
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from analysis.command_line import InputError
from trainables.configuration import ModelConfig, TrainingConfig, TrialConfig
from trainables.data import DataConfig, Images, load
from trainables.method import Method
from trainables.metrics import METRICS, Moment
from trainables.metrics import attacks as module
from trainables.metrics.apgd import dlr, targeted_dlr
from trainables.metrics.attacks import (
    Attacks,
    SquareDraws,
    apgd,
    apgd_targeted,
    checkpoints,
    fgsm,
    fraction,
    in_ball,
    pgd,
    predictions,
    square_attack,
    square_share,
)
from trainables.metrics.flags import MetricFlags
from trainables.metrics.planned import planned
from trainables.models import build_model
from trainables.models.pixels import PixelModel
from trainables.top_gap import TopGap
from trainables.training import Run

CPU = torch.device("cpu")


class Trained:
    """LeNet-5 on digits at 16² pixels, trained for some epochs, with its normalisation inside; all test images, and
    those that it classifies rightly. In float64 it is compared with libraries: a gradient that is zero but for
    rounding has either sign, and each step doubles what differs."""

    def __init__(self) -> None:
        data = load("digits", "unused", DataConfig("digits", image_size=16))
        assert isinstance(data, Images)
        training = TrainingConfig(epochs=8, batch_size=64, optimizer="adam", learning_rate=2e-3, schedule="constant")
        run = Run(TrialConfig(Method(), ModelConfig("lenet5", 6), data.config, training, 0), data)
        while not run.finished:
            run.train_epoch()
        assert run.final["top1"] is not None
        assert run.final["top1"] > 0.8
        self.data, self.run, self.network = data, run, run.model.eval()
        self.model = PixelModel(self.network, data)
        inputs, self.labels = data.select("test", torch.arange(data.count("test")), device=CPU)
        self.images = self.model.pixels(inputs)
        self.predicted = predictions(self.model, self.images)
        right = self.predicted == self.labels
        exact = build_model("lenet5", channels=1, size=16, classes=10, width=6, seed=0).double()
        exact.load_state_dict(self.network.state_dict())
        self.exact = PixelModel(exact.eval(), data).double().to(memory_format=torch.contiguous_format)
        self.right = self.images[right][:64].double()
        self.classes = self.labels[right][:64]


@pytest.fixture(scope="module")
def trained(one_thread: None) -> Trained:
    return Trained()


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def kept(model: Any, images: Tensor, labels: Tensor) -> float:
    return float((predictions(model, images) == labels).double().mean())


# --- torchattacks -----------------------------------------------------------------------------------------------------


class TestAgreesWithTorchattacks:
    """torchattacks 3.5.1, which `uv sync` installs; pip cannot resolve its pin of requests."""

    @pytest.fixture(autouse=True)
    def library(self) -> None:
        self.lib = pytest.importorskip("torchattacks")

    @pytest.mark.parametrize("epsilon", [4 / 255, 16 / 255, 40 / 255])
    def test_fgsm(self, epsilon: float, trained: Trained) -> None:
        wanted = self.lib.FGSM(trained.exact, eps=epsilon)(trained.right, trained.classes)
        found = fgsm(trained.exact, trained.right, trained.classes, epsilon=epsilon)
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)

    @pytest.mark.parametrize(("epsilon", "steps"), [(8 / 255, 20), (16 / 255, 50), (40 / 255, 10)])
    def test_pgd(self, epsilon: float, steps: int, trained: Trained) -> None:
        attack = self.lib.PGD(trained.exact, eps=epsilon, alpha=epsilon / 4, steps=steps, random_start=False)
        wanted = attack(trained.right, trained.classes)
        options: dict[str, Any] = {"epsilon": epsilon, "steps": steps, "random_start": False}
        found = pgd(trained.exact, trained.right, trained.classes, **options)
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)
        accuracy = kept(trained.exact, wanted, trained.classes)
        assert kept(trained.exact, found, trained.classes) == accuracy
        # what is left alone once lost: the same for those that are not, and as many of them
        skipped = pgd(trained.exact, trained.right, trained.classes, **options, skip_lost=True)
        still = predictions(trained.exact, skipped) == trained.classes
        torch.testing.assert_close(skipped[still], wanted[still], rtol=0, atol=1e-6)
        assert float(still.double().mean()) == accuracy

    def test_pgd_in_float32(self, trained: Trained) -> None:
        """64 images, a power of two: the mean that torchattacks takes rounds like our sum. 99.9% of the pixels to
        1e-6, as gradients that are zero but for rounding may have either sign."""
        images, epsilon = trained.right.float(), 16 / 255
        attack = self.lib.PGD(trained.model, eps=epsilon, alpha=epsilon / 4, steps=20, random_start=False)
        wanted = attack(images, trained.classes)
        found = pgd(trained.model, images, trained.classes, epsilon=epsilon, steps=20, random_start=False)
        assert float(((found - wanted).abs() < 1e-6).double().mean()) > 0.999
        assert kept(trained.model, found, trained.classes) == kept(trained.model, wanted, trained.classes)

    def test_pgd_with_random_starts(self, trained: Trained) -> None:
        """Mean robust accuracy over five draws within 1%, of 64 images, each with its own."""
        ours, theirs = [], []
        epsilon, images, labels = 16 / 255, trained.right.float(), trained.classes
        for seed in range(5):
            found = pgd(trained.model, images, labels, epsilon=epsilon, steps=10, generator=seeded(seed))
            ours.append(kept(trained.model, found, labels))
            torch.manual_seed(seed)
            attack = self.lib.PGD(trained.model, eps=epsilon, alpha=epsilon / 4, steps=10)
            theirs.append(kept(trained.model, attack(images, labels), labels))
        assert sum(ours) / 5 == pytest.approx(sum(theirs) / 5, abs=0.01)
        assert 0.05 < sum(ours) / 5 < 0.95

    @pytest.mark.parametrize(("epsilon", "steps"), [(8 / 255, 20), (16 / 255, 50), (40 / 255, 7)])
    def test_apgd(self, epsilon: float, steps: int, trained: Trained) -> None:
        """Equal draws: the same images lost, and of the others the same point of highest loss, to 1e-6."""
        attack = self.lib.APGD(trained.exact, eps=epsilon, steps=steps, loss="ce")
        torch.manual_seed(3)
        best, keeps, _, _ = attack.attack_single_run(trained.right, trained.classes)
        found = apgd(trained.exact, trained.right, trained.classes, epsilon=epsilon, steps=steps, generator=seeded(3))
        still = predictions(trained.exact, found) == trained.classes
        assert torch.equal(still, keeps)
        torch.testing.assert_close(found[still], best[still], rtol=0, atol=1e-6)

    @pytest.mark.parametrize("epsilon", [8 / 255, 16 / 255])
    def test_apgd_on_dlr(self, epsilon: float, trained: Trained) -> None:
        """AutoAttack's loss, from the same start: the same images lost, and of the others the same best point."""
        attack = self.lib.APGD(trained.exact, eps=epsilon, steps=25, loss="dlr")
        torch.manual_seed(3)
        best, keeps, _, _ = attack.attack_single_run(trained.right, trained.classes)
        options: dict[str, Any] = {"epsilon": epsilon, "steps": 25, "loss": "dlr"}
        found = apgd(trained.exact, trained.right, trained.classes, **options, generator=seeded(3))
        still = predictions(trained.exact, found) == trained.classes
        assert torch.equal(still, keeps)
        assert 0 < int(still.sum()) < len(still)
        torch.testing.assert_close(found[still], best[still], rtol=0, atol=1e-6)

    @pytest.mark.parametrize("epsilon", [8 / 255, 16 / 255])
    def test_apgd_targeted(self, epsilon: float, trained: Trained) -> None:
        """AutoAttack's APGD-T with the same draws: the same images lost, whatever class each run was for; and after a
        single run of the first target the same best point."""
        attack = self.lib.APGDT(trained.exact, eps=epsilon, steps=20, n_classes=10, seed=5)
        keeps, _ = attack.perturb(trained.right, trained.classes)
        options: dict[str, Any] = {"epsilon": epsilon, "steps": 20}
        found = apgd_targeted(trained.exact, trained.right, trained.classes, **options, generator=seeded(5))
        still = predictions(trained.exact, found) == trained.classes
        assert torch.equal(still, keeps)
        assert 0 < int(still.sum()) < len(still)
        attack.target_class = 2
        torch.manual_seed(7)
        best, keeps, _, _ = attack.attack_single_run(trained.right, trained.classes)
        once = apgd_targeted(trained.exact, trained.right, trained.classes, **options, targets=1, generator=seeded(7))
        assert torch.equal(predictions(trained.exact, once) == trained.classes, keeps)
        torch.testing.assert_close(once[keeps], best[keeps], rtol=0, atol=1e-6)

    @pytest.mark.parametrize("epsilon", [16 / 255, 32 / 255])
    def test_square(self, epsilon: float, trained: Trained) -> None:
        """Equal draws (the library draws one square for all images, and none that touches the last row or column): the
        same images lost, and the same perturbations, to 1e-6."""

        class Theirs(SquareDraws):
            def signs(self, *shape: int) -> Tensor:
                return (2 * torch.rand(shape) - 1).sign().to(self.images)

            def stripes(self) -> Tensor:
                number, channels, _, width = self.images.shape
                return self.signs(number, channels, 1, width)

            def square(self, side: int) -> tuple[Tensor, Tensor, Tensor]:
                number, channels, height, width = self.images.shape
                row, column = (((size - side) * torch.rand(1)).long() for size in (height, width))
                return row.expand(number), column.expand(number), self.signs(channels).expand(number, -1)

        attack = self.lib.Square(trained.exact, eps=epsilon, n_queries=200, loss="margin", seed=1)
        attack.init_hyperparam(trained.right)
        torch.manual_seed(1)
        _, theirs = attack.attack_single_run(trained.right, trained.classes)
        draws = Theirs(trained.right, None)
        torch.manual_seed(1)
        ours = square_attack(trained.exact, trained.right, trained.classes, epsilon=epsilon, queries=200, draws=draws)
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
        assert 0 < kept(trained.exact, ours, trained.classes) < 1

    def test_square_with_own_draws(self, trained: Trained) -> None:
        """Mean robust accuracy over four draws within 5% of the library's on 64 images: it draws one square for all
        of them, so that its runs differ by 2 to 3% themselves."""
        ours, theirs = [], []
        epsilon, images, labels = 24 / 255, trained.right.float(), trained.classes
        for seed in range(4):
            found = square_attack(trained.model, images, labels, epsilon=epsilon, queries=100, generator=seeded(seed))
            ours.append(kept(trained.model, found, labels))
            attack = self.lib.Square(trained.model, eps=epsilon, n_queries=100, loss="margin", seed=seed)
            theirs.append(kept(trained.model, attack(images, labels), labels))
        assert sum(ours) / 4 == pytest.approx(sum(theirs) / 4, abs=0.05)


# --- foolbox ----------------------------------------------------------------------------------------------------------


class TestAgreesWithFoolbox:
    """foolbox 3.3.4, the library of Top-GAP's paper."""

    def attacked(self, attack: Any, model: nn.Module, images: Tensor, labels: Tensor, epsilon: float) -> Tensor:
        import foolbox

        _, adversarial, _ = attack(foolbox.PyTorchModel(model, bounds=(0, 1)), images, labels, epsilons=epsilon)
        return adversarial

    @pytest.mark.parametrize("epsilon", [8 / 255, 32 / 255])
    def test_fgsm(self, epsilon: float, trained: Trained) -> None:
        import foolbox

        found = fgsm(trained.exact, trained.right, trained.classes, epsilon=epsilon)
        attack = foolbox.attacks.LinfFastGradientAttack(random_start=False)
        wanted = self.attacked(attack, trained.exact, trained.right, trained.classes, epsilon)
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)

    @pytest.mark.parametrize(("epsilon", "steps", "part"), [(8 / 255, 20, 1 / 30), (16 / 255, 50, 1 / 4)])
    def test_pgd(self, epsilon: float, steps: int, part: float, trained: Trained) -> None:
        """Also with the library's own step, ε/30, which `eps/30` asks for."""
        import foolbox

        attack = foolbox.attacks.LinfPGD(rel_stepsize=part, steps=steps, random_start=False)
        assert foolbox.attacks.LinfPGD().rel_stepsize == pytest.approx(1 / 30)
        wanted = self.attacked(attack, trained.exact, trained.right, trained.classes, epsilon)
        options: dict[str, Any] = {"epsilon": epsilon, "steps": steps, "random_start": False}
        found = pgd(trained.exact, trained.right, trained.classes, step_size=part * epsilon, **options)
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)
        accuracy = kept(trained.exact, wanted, trained.classes)
        assert kept(trained.exact, found, trained.classes) == accuracy
        assert 0 < accuracy < 1


# --- by hand ----------------------------------------------------------------------------------------------------------


def two_classes(images: Tensor) -> Tensor:
    """Logits (x₀ + 2x₁ − 3x₂, 0.4) of an image of three pixels."""
    x = images.flatten(1)
    first = x @ x.new_tensor([1.0, 2.0, -3.0])
    return torch.stack([first, torch.full_like(first, 0.4)], 1)


IMAGE = torch.tensor([[[[0.5, 0.95, 0.0]]]], dtype=torch.float64)
CLASS = torch.tensor([0])


def test_linear_model_by_hand() -> None:
    """Class 0 is left against its weights' signs: (−, −, +). From class 1 along them, as far as [0, 1] reaches. Every
    attack that follows gradients, and Square with enough queries, ends at the same corner."""
    lower, upper = IMAGE.new_tensor([[[[0.4, 0.85, 0.1]]]]), IMAGE.new_tensor([[[[0.6, 1.0, 0.0]]]])
    for label, wanted in ((CLASS, lower), (CLASS + 1, upper)):
        torch.testing.assert_close(fgsm(two_classes, IMAGE, label, epsilon=0.1), wanted)
        for start in (True, False):
            found = pgd(two_classes, IMAGE, label, epsilon=0.1, steps=12, random_start=start, generator=seeded(0))
            torch.testing.assert_close(found, wanted)
    # class 0 is kept in the whole ball: 0.4 + 1.7 − 0.3 = 1.8 > 0.4
    torch.testing.assert_close(apgd(two_classes, IMAGE, CLASS, epsilon=0.1, steps=10, generator=seeded(0)), lower)
    found = square_attack(two_classes, IMAGE, CLASS, epsilon=0.1, queries=200, generator=seeded(0))
    # one row: the square is a pixel, and the channel's sign its own
    torch.testing.assert_close(found, lower)


def test_pgd_steps_by_hand() -> None:
    """Two steps of 0.03 in a ball of 0.05: 0.03, then the ball's face; the default step is ε/4."""
    one, two = (
        pgd(two_classes, IMAGE, CLASS, epsilon=0.05, steps=n, step_size=0.03, random_start=False) for n in (1, 2)
    )
    torch.testing.assert_close(one, IMAGE + IMAGE.new_tensor([-0.03, -0.03, 0.03]))
    torch.testing.assert_close(two, IMAGE + IMAGE.new_tensor([-0.05, -0.05, 0.05]))
    default = pgd(two_classes, IMAGE, CLASS, epsilon=0.08, steps=1, random_start=False)
    torch.testing.assert_close(default, IMAGE + IMAGE.new_tensor([-0.02, -0.02, 0.02]))


def test_checkpoints_by_hand() -> None:
    """Croce and Hein: 22% of 100 steps, then periods of 19, 16, 13, 10, 7 and 6%."""
    assert checkpoints(100) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert checkpoints(20) == [4, *range(7, 8), 9, *range(10, 21)]


def test_square_schedule_by_hand() -> None:
    shares = [square_share(query, 10_000) for query in (0, 10, 11, 50, 51, 201, 501, 1001, 2001, 4001, 6001, 8001)]
    assert shares == [0.8, 0.8, 0.4, 0.4, 0.2, *(0.8 / 2**n for n in (3, 4, 5, 6, 7, 8, 9))]
    assert square_share(11, 5000) == square_share(22, 10_000)


def test_squares_are_uniform_over_all_places() -> None:
    """Side 2 in 5×4 pixels: 12 places, each a twelfth of 6000 draws within 25% (8 standard deviations)."""
    rows, columns, signs = SquareDraws(torch.zeros(6000, 2, 5, 4), seeded(0)).square(2)
    counts = torch.bincount(rows * 3 + columns)
    assert len(counts) == 12
    assert int((counts - 500).abs().max()) < 125
    assert set(signs.unique().tolist()) == {-1.0, 1.0}
    assert abs(float(signs.mean())) < 0.05


def test_fractions() -> None:
    assert fraction("epsilon", "8/255") == 8 / 255
    assert fraction("epsilon", "0.03") == 0.03
    for text in ("8/0", "-1", "nan", "a", "1/2/3", ""):
        with pytest.raises(InputError, match="epsilon"):
            fraction("epsilon", text)


# --- what every attack holds to ---------------------------------------------------------------------------------------


def attack_of(name: str, model: Any, images: Tensor, labels: Tensor, epsilon: float, **more: Any) -> Tensor:
    if name == "fgsm":
        more.pop("generator", None)
        return fgsm(model, images, labels, epsilon=epsilon, **more)
    more.setdefault("generator", seeded(0))
    if name == "square":
        return square_attack(model, images, labels, epsilon=epsilon, queries=40, **more)
    if name == "apgd-dlr":
        more["loss"] = "dlr"
    function: Any = {"pgd": pgd, "apgd-t": apgd_targeted}.get(name, apgd)
    return function(model, images, labels, epsilon=epsilon, steps=10, **more)


@pytest.mark.parametrize("name", module.ATTACKS)
class TestEveryAttack:
    def test_stays_in_the_ball_and_in_the_unit_interval(self, name: str, trained: Trained) -> None:
        """Also from pixels at 0 and 1, of which the digits have many; it uses the ball, and nothing outside it."""
        images, labels = trained.images[:64], trained.predicted[:64]
        assert {0.0, 1.0} <= set(images.unique().tolist())
        for epsilon in (1 / 255, 8 / 255, 0.3, 1.0):
            found = attack_of(name, trained.model, images, labels, epsilon)
            distance = (found - images).abs()
            assert float(distance.max()) <= epsilon + 2e-7
            assert float(distance.max()) > 0.9 * epsilon
            assert 0 <= float(found.min()) <= float(found.max()) <= 1

    def test_a_ball_of_nothing_changes_nothing(self, name: str, trained: Trained) -> None:
        images = trained.images[:16]
        assert torch.equal(attack_of(name, trained.model, images, trained.predicted[:16], 0.0), images)

    def test_larger_balls_are_worse(self, name: str, trained: Trained) -> None:
        images, labels = trained.images[:128], trained.predicted[:128]
        accuracies = [
            kept(trained.model, attack_of(name, trained.model, images, labels, epsilon), labels)
            for epsilon in (0.0, 8 / 255, 24 / 255, 64 / 255)
        ]
        assert accuracies == sorted(accuracies, reverse=True)
        assert accuracies[0] == 1
        assert accuracies[-1] < 0.5

    def test_does_not_depend_on_the_chunk(self, name: str, trained: Trained) -> None:
        """In float64, and for APGD one stream of draws for all chunks."""
        arguments = name, trained.exact, trained.right[:20], trained.classes[:20], 24 / 255
        whole, parts = attack_of(*arguments), attack_of(*arguments, chunk=7)
        torch.testing.assert_close(whole, parts, rtol=0, atol=1e-9)

    def test_leaves_model_and_random_numbers_alone(self, name: str) -> None:
        """A network in training mode, with BatchNorm and dropout, is attacked as it evaluates."""
        network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten(), nn.Linear(144, 5))
        images, labels = torch.rand(6, 1, 8, 8, generator=seeded(0)), torch.tensor([0, 1, 2, 0, 1, 2])
        with torch.no_grad():
            wanted = attack_of(name, network.eval(), images, labels, 0.1)
        network.train()
        network[2].eval()
        before = {key: value.clone() for key, value in network.state_dict().items()}
        state, given = torch.get_rng_state(), images.clone()
        found = attack_of(name, network, images, labels, 0.1)
        assert torch.equal(found, wanted)
        assert torch.equal(torch.get_rng_state(), state)
        assert torch.equal(images, given)
        assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
        assert [part.training for part in network] == [True, True, False, True, True]
        assert all(parameter.grad is None for parameter in network.parameters())
        assert not found.requires_grad

    def test_equal_generators_give_equal_images(self, name: str, trained: Trained) -> None:
        arguments = name, trained.model, trained.images[:16], trained.predicted[:16], 8 / 255
        assert torch.equal(attack_of(*arguments), attack_of(*arguments))
        other = attack_of(*arguments, generator=seeded(1))
        assert torch.equal(other, attack_of(*arguments)) == (name == "fgsm")

    def test_refuses(self, name: str) -> None:
        for epsilon in (-0.1, math.inf, math.nan):
            with pytest.raises(InputError, match="epsilon"):
                attack_of(name, two_classes, IMAGE, CLASS, epsilon)
        for wrong in (IMAGE - 0.1, IMAGE + 0.1, IMAGE * math.nan):
            with pytest.raises(InputError, match=r"allowed is \[0, 1\]"):
                attack_of(name, two_classes, wrong, CLASS, 0.1)

    def test_nothing_to_attack(self, name: str) -> None:
        assert attack_of(name, two_classes, IMAGE[:0], CLASS[:0], 0.1).shape == (0, 1, 1, 3)


def test_steps_and_queries_are_at_least_one() -> None:
    for call in (
        lambda: pgd(two_classes, IMAGE, CLASS, epsilon=0.1, steps=0),
        lambda: apgd(two_classes, IMAGE, CLASS, epsilon=0.1, steps=0),
        lambda: square_attack(two_classes, IMAGE, CLASS, epsilon=0.1, queries=0),
    ):
        with pytest.raises(InputError, match="at least 1"):
            call()
    with pytest.raises(InputError, match="step_size"):
        pgd(two_classes, IMAGE, CLASS, epsilon=0.1, steps=1, step_size=-1.0)


def test_what_leaves_the_ball_is_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    assert in_ball(IMAGE, (IMAGE + 0.1).clamp(0, 1), 0.1)
    assert not in_ball(IMAGE, IMAGE + 0.1, 0.1)  # 1.05
    assert not in_ball(IMAGE, IMAGE * math.nan, 0.1)
    monkeypatch.setattr(module, "_project", lambda adversarial, images, epsilon: adversarial)
    for name in ("fgsm", "pgd", "square"):
        with pytest.raises(RuntimeError, match="left the ball"):
            attack_of(name, two_classes, IMAGE, CLASS + 1, 0.3)


def test_lost_images_are_not_attacked(trained: Trained) -> None:
    """So many images go through the model at each step as still have their class; they stay what they were then."""
    seen: list[int] = []

    def counted(images: Tensor) -> Tensor:
        seen.append(len(images))
        return trained.exact(images)

    images, labels = trained.right, trained.classes
    options: dict[str, Any] = {"epsilon": 24 / 255, "steps": 12, "random_start": False, "chunk": 500}
    found = pgd(counted, images, labels, **options, skip_lost=True)
    expected = pgd(trained.exact, images, labels, **options)
    lost_after = torch.full_like(labels, 12)
    for steps in range(11, 0, -1):
        iterate = pgd(trained.exact, images, labels, **{**options, "steps": steps})
        lost = predictions(trained.exact, iterate) != labels
        lost_after[lost] = steps
        expected = torch.where(lost.reshape(-1, 1, 1, 1), iterate, expected)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
    # the step at which an image is found to be lost is the last it goes through
    assert seen == [len(images), *(int((lost_after >= done).sum()) for done in range(1, 12))]
    for attack in (apgd, square_attack):
        seen.clear()
        attack(counted, images, labels, epsilon=40 / 255, chunk=500, generator=seeded(0), **COUNTS[attack.__name__])
        assert seen == sorted(seen, reverse=True)
        assert seen[-1] < 50


COUNTS: dict[str, Any] = {"apgd": {"steps": 8}, "square_attack": {"queries": 60}}


def test_masked_gradients(trained: Trained) -> None:
    """Logits times 1000 in float32: where the network is sure the cross-entropy is 0 and its gradient too, and PGD from
    the image stays there. Square asks for the margin and is not deceived."""

    def masked(images: Tensor) -> Tensor:
        return 1000 * trained.model(images)

    images, labels = trained.right.float(), trained.classes
    options: dict[str, Any] = {"epsilon": 32 / 255}
    plain = pgd(trained.model, images, labels, steps=10, random_start=False, **options)
    hidden = pgd(masked, images, labels, steps=10, random_start=False, **options)
    square = square_attack(masked, images, labels, queries=300, generator=seeded(0), **options)
    accuracies = {name: kept(masked, x, labels) for name, x in (("pgd", hidden), ("square", square), ("plain", plain))}
    assert accuracies["pgd"] > 0.8
    assert accuracies["square"] < accuracies["pgd"] - 0.3
    assert accuracies["plain"] < accuracies["pgd"] - 0.3


def test_dlr_by_hand() -> None:
    """Logits (5, 4, 2, 1): −(5 − 4)/(5 − 2) of class 0, −(4 − 5)/(5 − 2) of class 1; targeted, from class 0 to class 2,
    −(5 − 2)/(5 − (2 + 1)/2). Neither changes with the logits' scale."""
    logits = torch.tensor([[5.0, 4.0, 2.0, 1.0]], dtype=torch.float64)
    for scaled in (logits, 30 * logits, logits - 7):
        assert float(dlr(torch.tensor([0]))(scaled)) == pytest.approx(-1 / 3)
        assert float(dlr(torch.tensor([1]))(scaled)) == pytest.approx(1 / 3)
        assert float(targeted_dlr(torch.tensor([0]), torch.tensor([2]))(scaled)) == pytest.approx(-3 / 3.5)


@pytest.fixture(scope="module")
def sure(one_thread: None) -> tuple[nn.Module, Images]:
    data = load("digits", "unused", DataConfig("digits", image_size=16))
    assert isinstance(data, Images)
    training = TrainingConfig(epochs=6, batch_size=64, optimizer="adam", learning_rate=5e-3, schedule="constant")
    method = TopGap(8, 0.0, fpn_channels=16)
    run = Run(TrialConfig(method, ModelConfig("resnet8", 8), data.config, training, 0), data)
    while not run.finished:
        run.train_epoch()
    assert run.final["top1"] is not None
    assert run.final["top1"] > 0.8
    return nn.Sequential(run.model, Times30()).eval(), data


class TestTopGapThatIsVerySure:
    """A Top-GAP network whose logits are scaled by 30: the cross-entropy has no gradient left of the images that it is
    surest of, which attacks on it leave as they are; the DLR loss finds them all."""

    def test_the_metric_tells(self, sure: tuple[nn.Module, Images]) -> None:
        model, data = sure
        metric = Attacks(("fgsm", "pgd", "apgd", "apgd-dlr", "apgd-t"), ("32/255",), (20,), images=64)
        moment = Moment(model, data, "test", 6, True, 0, CPU, lambda seed: model)
        found = {(row["metric"], row["component"]): row["value"] for row in metric.measure(moment).measurements}
        hidden = found["zero_gradient_share", "pgd20"]
        assert hidden > 0.1
        # who has no gradient is not attacked
        assert found["robust_accuracy", "pgd20"] >= hidden
        assert found["robust_accuracy", "apgd20"] >= 0.1
        assert found["robust_accuracy", "apgd-dlr20"] == 0
        assert found["robust_accuracy", "apgd-t20"] == 0
        assert found["zero_gradient_share", "apgd-dlr20"] == found["zero_gradient_share", "apgd-t20"] == 0
        assert ("zero_gradient_share", "fgsm") in found

    def test_as_the_authors(self, sure: tuple[nn.Module, Images]) -> None:
        lib = pytest.importorskip("torchattacks")
        model, data = sure
        pixels = PixelModel(model, data)
        images = pixels.pixels(data.select("test", torch.arange(64), device=CPU)[0])
        labels = predictions(pixels, images)
        shares = {
            loss: kept(pixels, lib.APGD(pixels, eps=32 / 255, steps=20, loss=loss)(images, labels), labels)
            for loss in ("ce", "dlr")
        }
        assert shares["dlr"] == 0
        assert shares["ce"] > 0.1


class Times30(nn.Module):
    def forward(self, logits: Tensor) -> Tensor:
        return 30 * logits


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_logits_that_are_no_numbers_are_refused(bad: float, trained: Trained) -> None:
    """Of one image of six; class 0 of nan, which comes first, counted as kept."""

    def broken(images: Tensor) -> Tensor:
        logits = trained.model(images)
        return torch.where(torch.arange(len(images)).unsqueeze(1) == 2, bad, logits)

    images, labels = trained.images[:6], torch.zeros(6, dtype=torch.int64)
    with pytest.raises(InputError, match="logits of 1 of 6 images are nan or infinite"):
        predictions(broken, images)
    for name in module.ATTACKS:
        with pytest.raises(InputError, match="are nan or infinite"):
            attack_of(name, broken, images, labels, 8 / 255, chunk=6)


def test_a_gradient_that_is_nan_is_refused() -> None:
    def rooted(images: Tensor) -> Tensor:
        x = images.flatten(1)
        return torch.stack([(x - x.detach()).sum(1).sqrt() * 0, x[:, 0]], 1)

    with pytest.raises(InputError, match="gradient of an image is nan"):
        pgd(rooted, IMAGE, CLASS, epsilon=0.1, steps=2, random_start=False)


@pytest.mark.parametrize(("name", "classes"), [("apgd-dlr", 2), ("apgd-t", 3)])
def test_too_few_classes_are_refused_before_training(name: str, classes: int, trained: Trained) -> None:
    def few(images: Tensor) -> Tensor:
        return trained.model(images)[:, :classes]

    with pytest.raises(InputError, match=f"{classes} classes, allowed with this loss are {classes + 1} and more"):
        attack_of(name, few, trained.images[:4], torch.zeros(4, dtype=torch.int64), 0.1)
    data = dataclasses.replace(trained.data, class_names=trained.data.class_names[:classes])
    moment = Moment(trained.network, data, "validation", 0, False, 0, CPU, lambda seed: trained.network)
    with pytest.raises(InputError, match=f"attacks: {name} with {classes} classes, allowed are {classes + 1} and more"):
        Attacks((name,)).measure(moment)


def test_random_starts_fill_the_ball() -> None:
    """Of 3 × 400 images of three pixels without a gradient: the range of ±ε to 1%, a mean of 0 within 0.01, four
    standard deviations."""
    images, labels = torch.full((1200, 1, 1, 3), 0.5), torch.zeros(1200, dtype=torch.int64)

    def flat(x: Tensor) -> Tensor:
        return 0 * x.flatten(1)[:, :2]

    found = pgd(flat, images, labels, epsilon=0.3, steps=1, generator=seeded(0)) - 0.5
    assert float(found.min()) == pytest.approx(-0.3, abs=3e-3)
    assert float(found.max()) == pytest.approx(0.3, abs=3e-3)
    assert abs(float(found.mean())) < 0.012
    assert float(found.std()) == pytest.approx(0.3 / math.sqrt(3), rel=0.03)


# --- normalisation ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scaling", ["standardise", "unit", "symmetric"])
def test_normalisation_inside_the_model(scaling: Any) -> None:
    """What the network is given is what the data set gives it, to rounding; the pixels are k/255, exactly."""
    data = load("digits", "unused", DataConfig("digits", scaling=scaling))
    inputs, _ = data.select("test", torch.arange(50), device=CPU)
    assert isinstance(data, Images)
    given: list[Tensor] = []

    class Spy(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            given.append(images)
            return images.flatten(1)

    model = PixelModel(Spy(), data)
    pixels = model.pixels(inputs)
    assert torch.equal(pixels, torch.from_numpy(data.test.images[:50]) / 255)
    model(pixels)
    torch.testing.assert_close(given[0], inputs, rtol=1e-6, atol=1e-6)


def test_channels_are_normalised_by_their_own() -> None:
    """Two channels: (x − 0.5)/0.25 and (x − 0.2)/0.5, by hand."""
    data = load("digits", "unused", DataConfig("digits"))
    data.mean, data.std = (0.5, 0.2), (0.25, 0.5)
    model = PixelModel(nn.Flatten(), data)
    found = model(torch.tensor([[[[0.5, 1.0]], [[0.2, 0.7]]]]))
    torch.testing.assert_close(found, torch.tensor([[0.0, 2.0, 0.0, 1.0]]))


# --- as a metric ------------------------------------------------------------------------------------------------------


def moment_of(trained: Trained, split: str = "test", epoch: int = 8) -> Moment:
    return Moment(trained.network, trained.data, split, epoch, True, 0, CPU, lambda seed: trained.network)


def values(metric: Attacks, trained: Trained) -> dict[tuple[str, str, float], float]:
    rows = metric.measure(moment_of(trained)).measurements
    return {(row["metric"], row["component"], row["level"]): row["value"] for row in rows}


class TestAsMetric:
    def test_rows(self, trained: Trained) -> None:
        metric = Attacks(module.ATTACKS, ("8/255", "0.1"), (5, 10), queries=30, images=60)
        rows = metric.measure(moment_of(trained)).measurements
        groups = [["fgsm"], ["pgd5", "pgd10"], ["square30"]]
        groups += [[f"{name}5", f"{name}10"] for name in ("apgd", "apgd-dlr", "apgd-t")]
        directions = {"robust_accuracy": "max", "robust_accuracy_correct": "max", "zero_gradient_share": "none"}
        assert {row["metric"] for row in rows} == directions.keys()
        for name, direction in directions.items():
            own = [row for row in rows if row["metric"] == name]
            assert [(row["component"], row["level"]) for row in own] == [
                (component, level)
                for group in groups
                if name != "zero_gradient_share" or group != ["square30"]
                for level in (8 / 255, 0.1)
                for component in group
            ]
            assert {(row["n"], row["std"], row["unit"], row["direction"]) for row in own} == {
                (60, None, "fraction", direction)
            }
            assert all(0 <= row["value"] <= 1 for row in own)
        # what a search is told beforehand
        known = [(row["metric"], row["component"], row["level"]) for row in planned({"attacks": asdict(metric)})]
        assert known == [(row["metric"], row["component"], row["level"]) for row in rows][: len(known)]
        assert {name for name, *_ in known} == {"robust_accuracy", "robust_accuracy_correct"}

    def test_the_two_accuracies(self, trained: Trained) -> None:
        """Of images attacked by hand: the class is what was predicted, and it is the label too."""
        found = values(Attacks(("fgsm",), ("1/255",), images=200), trained)
        unchanged, correct = (found[name, "fgsm", 1 / 255] for name in ("robust_accuracy", "robust_accuracy_correct"))
        images, labels, predicted = trained.images[:200], trained.labels[:200], trained.predicted[:200]
        attacked = predictions(trained.model, fgsm(trained.model, images, predicted, epsilon=1 / 255))
        assert unchanged == float((attacked == predicted).double().mean())
        assert correct == float(((attacked == predicted) & (predicted == labels)).double().mean())
        assert 1 > unchanged > correct
        # an image that is classified wrongly is lost, though attacking its label may have made it right
        assert correct <= float((predicted == labels).double().mean())

    def test_without_a_ball_it_is_the_clean_accuracy(self, trained: Trained) -> None:
        found = values(Attacks(("fgsm", "pgd"), ("0",), (3,), images=10_000), trained)
        for component in ("fgsm", "pgd3"):
            assert found["robust_accuracy", component, 0.0] == 1
            assert found["robust_accuracy_correct", component, 0.0] == pytest.approx(trained.run.final["top1"])

    @pytest.mark.parametrize("restarts", [1, 3])
    def test_several_numbers_of_steps_are_one_run(self, restarts: int, trained: Trained) -> None:
        """The same numbers as separate runs, and never rising with the steps."""
        options: dict[str, Any] = {"epsilon": ("16/255",), "images": 200, "restarts": restarts}
        together = values(Attacks(("pgd",), steps=(20, 2, 5), **options), trained)
        apart = {}
        for steps in (2, 5, 20):
            apart |= values(Attacks(("pgd",), steps=(steps,), **options), trained)
        assert together == apart
        found = [together["robust_accuracy", f"pgd{steps}", 16 / 255] for steps in (2, 5, 20)]
        assert found == sorted(found, reverse=True)
        assert found[0] > found[2]

    def test_restarts_are_the_worst_of_them(self, trained: Trained) -> None:
        options: dict[str, Any] = {"epsilon": ("16/255",), "images": 200, "steps": (5,), "queries": 40}
        attacks = ("pgd", "apgd", "square")
        once, often = (values(Attacks(attacks, restarts=number, **options), trained) for number in (1, 4))
        assert all(often[key] <= once[key] for key in once)
        assert often != once

    def test_agrees_with_the_libraries(self, trained: Trained) -> None:
        """The share of images that torchattacks' PGD leaves with their class, from the same starts."""
        lib = pytest.importorskip("torchattacks")
        found = values(Attacks(("pgd",), ("16/255",), (20,), images=200), trained)
        images, predicted = trained.images[:200], trained.predicted[:200]
        attack = lib.PGD(trained.model, eps=16 / 255, alpha=4 / 255, steps=20)
        shares = []
        for seed in range(3):
            torch.manual_seed(seed)
            shares.append(kept(trained.model, attack(images, predicted), predicted))
        # three draws of starts: within one image in a hundred of their mean
        assert found["robust_accuracy", "pgd20", 16 / 255] == pytest.approx(sum(shares) / 3, abs=0.01)

    def test_only_after_training(self, trained: Trained) -> None:
        for epoch in (0, 2, 8):
            nothing = Attacks().measure(moment_of(trained, "validation", epoch))
            assert (nothing.columns, nothing.measurements, nothing.maps) == ({}, [], {})

    def test_measuring_changes_nothing(self, trained: Trained) -> None:
        """A run with attacks ends as one without, whatever its random streams, and the same each time."""
        metric = Attacks(("pgd", "square"), steps=(2,), queries=3, images=20)
        runs = []
        for metrics in ({}, {"attacks": metric}, {"attacks": metric}):
            config = TrialConfig(
                Method(), ModelConfig("resnet8", 8), trained.data.config, TrainingConfig(epochs=1), seed=1
            )
            run = Run(config, trained.data, metrics=metrics)
            run.begin()
            run.train_epoch()
            runs.append(run)
        states = [run.state() for run in runs]
        for state in states[1:]:
            for name, value in states[0]["model"].items():
                assert torch.equal(value, state["model"][name])
            for name, value in states[0]["generators"].items():
                assert torch.equal(value, state["generators"][name])
        assert runs[1].measurements == runs[2].measurements
        assert len(runs[1].measurements) == 5

    def test_flags_and_what_is_recorded(self) -> None:
        """The options that the record keeps in `measured` say how each number came about, and give the metric again."""
        flags = MetricFlags(
            attacks=("fgsm,pgd", "apgd"), epsilon=("8/255,1/255",), attack_steps=(20, 50), step_size="eps/30"
        )
        options = json.loads(json.dumps(flags.metric_options(["attacks"], "measure")))
        assert options == {
            "attacks": {
                "attacks": ["fgsm", "pgd", "apgd"],
                "epsilon": ["8/255", "1/255"],
                "steps": [20, 50],
                "step_size": "eps/30",
                "restarts": 1,
                "queries": 5000,
                "images": 500,
                "seed": 0,
            }
        }
        metric = METRICS["attacks"](**options["attacks"])
        assert isinstance(metric, Attacks)
        assert metric.step(8 / 255) == pytest.approx(8 / 255 / 30)
        assert Attacks().step(8 / 255) == pytest.approx(2 / 255)
        assert Attacks(step_size="2/255").step(1.0) == 2 / 255

    def test_cost(self) -> None:
        """In training steps of an image: 500 clean predictions (a third each); FGSM and PGD-50 take 51 gradients (two
        thirds each) and two predictions, at each of two ε."""
        metric = Attacks(epsilon=("1/255", "8/255"), images=500)
        assert metric.image_passes(64) == pytest.approx(500 * (1 / 3 + 2 * (51 * 2 / 3 + 2 / 3)))
        square = Attacks(("square",), images=10, queries=30)
        assert square.image_passes(64) == pytest.approx(10 * (1 / 3 + 1 / 3 + 30 / 3))

    @pytest.mark.parametrize(
        ("options", "named"),
        [
            ({"attacks": ("deepfool",)}, "attacks: 'deepfool', allowed are fgsm, pgd, square, apgd"),
            ({"attacks": ()}, "attacks: none"),
            ({"epsilon": ()}, "epsilon: none"),
            ({"epsilon": ("8",)}, r"epsilon: '8', allowed are numbers and fractions in \[0, 1\]"),
            ({"epsilon": ("8/0",)}, "epsilon: '8/0'"),
            ({"epsilon": ("-1/255",)}, "epsilon: '-1/255'"),
            ({"steps": ()}, "steps: none"),
            ({"steps": (20, 0)}, "steps: 0"),
            ({"step_size": "eps*4"}, "step_size: 'eps"),
            ({"step_size": "eps/0"}, "step_size"),
            ({"step_size": "0"}, "step_size: '0'"),
            ({"restarts": 0}, "restarts: 0"),
            ({"queries": 0}, "queries: 0"),
            ({"images": 0}, "images: 0"),
        ],
    )
    def test_refuses(self, options: dict[str, Any], named: str) -> None:
        with pytest.raises(InputError, match=named):
            Attacks(**options)
