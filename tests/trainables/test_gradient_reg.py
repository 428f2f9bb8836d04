"""Double backpropagation against the analytic penalty of a linear model, finite differences, and per-image autograd."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.configuration import ModelConfig, TrainingConfig, TrialConfig
from trainables.data import DataConfig, Images, load
from trainables.gradient_reg import (
    STRENGTH_COLUMNS,
    Convention,
    GradientRegularisation,
    batch_statistics,
    converted_strength,
    input_gradient_penalty,
)
from trainables.method import Step
from trainables.models import build_model
from trainables.training import Run

DATA = DataConfig("digits", train_images=200)


def linear_case(batch: int = 7, seed: int = 0) -> tuple[nn.Module, Tensor, Tensor]:
    """A linear softmax model on images (1, 2, 3) with 4 classes, float64."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 4)).double()
    return model, torch.randn(batch, 1, 2, 3, dtype=torch.float64), torch.randint(0, 4, (batch,))


def norms_by_hand(weight: Tensor, bias: Tensor, images: Tensor, labels: Tensor) -> Tensor:
    """‖Wᵀ(p − e_y)‖² of each image: the gradient of the softmax cross-entropy of a linear model."""
    logits = images.flatten(1) @ weight.T + bias
    residual = torch.exp(logits - torch.logsumexp(logits, 1, keepdim=True)) - F.one_hot(labels, 4)
    return (residual @ weight).square().sum(1)


# of Σ_b ‖∇ of an image's own loss‖² for 7 images of 6 values
FACTORS = [("batch", 1 / 49), ("element", 1 / (49 * 7 * 6)), ("pixel", 1 / (49 * 6)), ("image", 1 / 7)]


class TestLinearModel:
    """Tolerance 1e-12 relative: both sides in float64, some hundred operations."""

    @pytest.mark.parametrize(("convention", "factor"), FACTORS)
    def test_value(self, convention: Convention, factor: float) -> None:
        model, images, labels = linear_case()
        weight, bias = model[1].weight, model[1].bias
        expected = factor * norms_by_hand(weight, bias, images, labels).sum()
        found = input_gradient_penalty(model, images, labels, convention=convention)
        assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-12)

    @pytest.mark.parametrize(("convention", "factor"), FACTORS)
    def test_gradient_in_closed_form(self, convention: Convention, factor: float) -> None:
        """d/dW Σ_b ‖Wᵀr_b‖² with r = p − e_y: 2 r gᵀ + 2 (diag(p) − ppᵀ) W g xᵀ, g = Wᵀr, summed over images."""
        model, images, labels = linear_case()
        weight, bias = model[1].weight.detach(), model[1].bias.detach()
        x = images.flatten(1)
        p = torch.softmax(x @ weight.T + bias, 1)
        wanted_weight, wanted_bias = torch.zeros_like(weight), torch.zeros_like(bias)
        for b in range(len(x)):
            r = p[b] - F.one_hot(labels[b], 4)
            g = weight.T @ r
            through_p = 2 * (torch.diag(p[b]) - torch.outer(p[b], p[b])) @ weight @ g
            wanted_weight += factor * (2 * torch.outer(r, g) + torch.outer(through_p, x[b]))
            wanted_bias += factor * through_p
        penalty = input_gradient_penalty(model, images, labels, convention=convention)
        found_weight, found_bias = torch.autograd.grad(penalty, list(model.parameters()))
        torch.testing.assert_close(found_weight, wanted_weight, rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(found_bias, wanted_bias, rtol=1e-12, atol=1e-14)


def small_network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(12, 3)
    ).double()


@pytest.mark.parametrize("convention", ["batch", "image", "element", "pixel"])
def test_gradient_by_finite_differences(convention: Convention) -> None:
    """Central differences of step 1e-5 in float64: their error is of the order of 1e-9 relative; tolerance 1e-6."""
    model = small_network()
    images, labels = torch.randn(3, 2, 4, 4, dtype=torch.float64), torch.tensor([0, 2, 1])
    parameters = list(model.parameters())
    gradients = torch.autograd.grad(
        input_gradient_penalty(model, images, labels, convention=convention), parameters, allow_unused=True
    )
    for parameter, gradient in zip(parameters, gradients, strict=True):
        flat = parameter.data.view(-1)
        for index in range(0, flat.numel(), max(1, flat.numel() // 4)):
            values = []
            for step in (1e-5, -2e-5):
                flat[index] += step
                values.append(float(input_gradient_penalty(model, images, labels, convention=convention).detach()))
            flat[index] += 1e-5
            wanted = (values[0] - values[1]) / 2e-5
            found = 0.0 if gradient is None else float(gradient.reshape(-1)[index])
            assert found == pytest.approx(wanted, rel=1e-6, abs=1e-10)


def test_against_a_loop_over_images() -> None:
    """The image form is the mean over images of each one's own squared norm, one backward pass each (1e-12)."""
    model = small_network()
    images, labels = torch.randn(5, 2, 4, 4, dtype=torch.float64), torch.tensor([0, 2, 1, 1, 0])
    norms = []
    for image, label in zip(images, labels, strict=True):
        one = image.unsqueeze(0).requires_grad_(True)
        F.cross_entropy(model(one), label.unsqueeze(0)).backward()
        norms.append(float(one.grad.square().sum()))  # type: ignore[union-attr]
    found = input_gradient_penalty(model, images, labels, convention="image").detach()
    assert float(found) == pytest.approx(sum(norms) / 5, rel=1e-12)


def test_the_image_form_does_not_depend_on_the_batch_size_and_the_batch_form_does() -> None:
    model, images, labels = linear_case()
    for repeats in (2, 5):
        many, their = images.repeat(repeats, 1, 1, 1), labels.repeat(repeats)
        image, batch = (
            float(input_gradient_penalty(model, many, their, convention=convention))  # type: ignore[arg-type]
            for convention in ("image", "batch")
        )
        assert image == pytest.approx(float(input_gradient_penalty(model, images, labels, convention="image")))
        assert batch * repeats == pytest.approx(float(input_gradient_penalty(model, images, labels)))


def test_element_is_the_mean_of_squares() -> None:
    """`grad.pow(2).mean()`, as it is often written; `pixel` the sum over images of each one's mean."""
    model, images, labels = linear_case()
    inputs = images.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(F.cross_entropy(model(inputs), labels), inputs)
    squares = gradient.pow(2)
    for convention, wanted in (("element", squares.mean()), ("pixel", squares.flatten(1).mean(1).sum())):
        found = input_gradient_penalty(model, images, labels, convention=convention)  # type: ignore[arg-type]
        assert float(found.detach()) == pytest.approx(float(wanted), rel=1e-12)


def test_equal_strength_in_all_conventions() -> None:
    """The columns are what makes each convention's term equal to the batch form's, at any batch size."""
    model, images, labels = linear_case(batch=6)
    columns = GradientRegularisation(1e4).columns(6, (1, 2, 3))
    assert columns == {
        "alpha_batch": 1e4,
        "alpha_element": 1e4 * 6 * 6,
        "alpha_pixel": 1e4 * 6,
        "alpha_per_image": 1e4 / 6,
    }
    wanted = float(1e4 * input_gradient_penalty(model, images, labels))
    for convention, column in STRENGTH_COLUMNS.items():
        alpha = columns[column]
        found = alpha * input_gradient_penalty(model, images, labels, convention=convention)
        assert float(found) == pytest.approx(wanted, rel=1e-12)
        back = GradientRegularisation(alpha, convention).columns(6, (1, 2, 3))
        assert back == pytest.approx(columns, rel=1e-15)
        assert back[column] == alpha


def test_conversions_by_hand() -> None:
    """MNIST in batches of 128: 10^3.9 in `batch` is 10^6.8 in `pixel` and 10^8.9 in `element`, as 28² = 784."""
    options: Any = {"batch_size": 128, "image": (1, 28, 28)}
    found = {name: converted_strength(10**3.9, "batch", name, **options) for name in STRENGTH_COLUMNS}  # type: ignore[arg-type]
    logs = {name: math.log10(alpha) for name, alpha in found.items()}
    assert logs == pytest.approx({"batch": 3.9, "pixel": 6.794, "element": 8.902, "image": 1.793}, abs=1e-3)
    assert converted_strength(1.15e7, "pixel", "batch", **options) == 1.15e7 / 784
    assert converted_strength(3.0, "element", "image", **options) == 3 / (128 * 128 * 784)
    # rounded once: 1/3 · 3 is 1 when each is an exact fraction's nearest float
    assert converted_strength(7.0, "image", "batch", batch_size=3, image=(3, 1, 1)) == 21.0
    with pytest.raises(ValueError, match="convention: 'sum', allowed are batch, image, element, pixel"):
        converted_strength(1.0, "batch", "sum", **options)  # type: ignore[arg-type]


class TestShortBatches:
    """A last batch of b images is as strong on each of them as a full one of B: alpha_per_image is true of it."""

    @pytest.mark.parametrize("convention", STRENGTH_COLUMNS)
    def test_by_hand(self, convention: Convention) -> None:
        """4 of 16 images of 6 values: α_per_image of the norms' mean, in every convention."""
        model, images, labels = linear_case(batch=4)
        norms = norms_by_hand(model[1].weight, model[1].bias, images, labels)
        method = GradientRegularisation(3.0, convention)
        found = input_gradient_penalty(model, images, labels, convention=convention, batch_size=16)
        wanted = method.columns(16, (1, 2, 3))["alpha_per_image"] * float(norms.detach().mean())
        assert 3.0 * float(found.detach()) == pytest.approx(wanted, rel=1e-12)
        # without it those of batch, pixel and element would be 4, 4 and 16 times as strong
        alone = float(input_gradient_penalty(model, images, labels, convention=convention).detach())
        assert alone / float(found.detach()) == pytest.approx({"image": 1, "element": 16}.get(convention, 4), rel=1e-12)

    def test_a_full_batch_is_bit_for_bit_what_it_was(self, data: Images) -> None:
        model = build_model("resnet8", channels=1, size=8, classes=10, width=4, seed=0).train()
        step = batch_of(data, model, batch_size=32)
        images = step.images.clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(F.cross_entropy(model(images), step.labels), images)
        with batch_statistics(model):
            for convention, scale in (("batch", 1), ("image", 32)):
                found = GradientRegularisation(1.0, convention).penalty(step)  # type: ignore[arg-type]
                assert found is not None
                assert torch.equal(found.value.detach(), gradient.square().sum() * scale)


def test_columns_without_the_images_shape_or_beyond_floats_are_null() -> None:
    unknown = {"alpha_batch": 640.0, "alpha_element": None, "alpha_pixel": None, "alpha_per_image": 10.0}
    assert GradientRegularisation(10.0, "image").columns(64) == unknown
    wanted = {"alpha_batch": None, "alpha_element": None, "alpha_pixel": 10.0, "alpha_per_image": None}
    assert GradientRegularisation(10.0, "pixel").columns(64) == wanted
    assert GradientRegularisation(1e308).columns(64, (3, 320, 320))["alpha_element"] is None


def test_every_convention_trains_the_same_where_scales_are_powers_of_two() -> None:
    """128 images of 8² values in batches of 32: strengths and penalties are scaled exactly, so that weights are equal
    bit for bit, and the recorded penalties are the batch form's, scaled. Twice as strong they are not."""
    settings = DataConfig("digits", train_images=128)
    digits = load("digits", "unused", settings)
    assert isinstance(digits, Images)
    assert digits.count("train") == 128
    runs = {}
    for convention, column in STRENGTH_COLUMNS.items():
        alpha = GradientRegularisation(64.0).columns(32, (1, 8, 8))[column]
        for strength in (alpha, alpha * 2):
            method = GradientRegularisation(strength, convention)
            training = TrainingConfig(epochs=2, batch_size=32, learning_rate=0.05)
            run = Run(TrialConfig(method, ModelConfig("resnet8", 4), settings, training, 0), digits)
            while not run.finished:
                run.train_epoch()
            runs[convention, strength / alpha] = run
            assert run.tables()[0].items() >= method.columns(32, (1, 8, 8)).items()
    batch = runs["batch", 1.0]
    for convention, scale in (("element", 32 * 64), ("pixel", 64), ("image", 1 / 32)):
        run = runs[convention, 1.0]
        for left, right in zip(batch.model.state_dict().values(), run.model.state_dict().values(), strict=True):
            assert torch.equal(left, right)
        assert [row["penalty"] * scale for row in run.epochs] == [row["penalty"] for row in batch.epochs]
        assert run.epochs[-1]["train_loss"] == batch.epochs[-1]["train_loss"]
        assert runs[convention, 2.0].epochs[-1]["train_loss"] != batch.epochs[-1]["train_loss"]


def batch_of(data: Images, model: nn.Module, **fields: object) -> Step:
    images, labels = data.select("train", torch.arange(32), device=torch.device("cpu"))
    return Step(model, images, labels, 1, torch.Generator().manual_seed(0), data, **fields)  # type: ignore[arg-type]


class TestBatchNorm:
    def model(self) -> nn.Module:
        network = build_model("resnet8", channels=1, size=8, classes=10, width=4, seed=0)
        with torch.no_grad():
            for module in network.modules():
                if isinstance(module, nn.BatchNorm2d):  # statistics that no batch has
                    module.running_mean += 0.3  # type: ignore[operator]
                    module.running_var *= 2  # type: ignore[operator]
        return network.train()

    def test_training_mode_uses_the_batch(self, data: Images) -> None:
        """From the step's own loss, and from a forward pass of its own, by train-mode autograd in this test."""
        model = self.model()
        step = batch_of(data, model)
        images = step.images.clone().requires_grad_(True)
        before = {name: values.clone() for name, values in model.state_dict().items()}
        own = GradientRegularisation(1.0).penalty(step)
        assert own is not None
        assert all(torch.equal(before[name], values) for name, values in model.state_dict().items())
        loss = F.cross_entropy(model(images), step.labels)
        (gradient,) = torch.autograd.grad(loss, images, retain_graph=True, create_graph=True)
        reused = GradientRegularisation(1.0).penalty(
            Step(model, images, step.labels, 1, step.generator, data, 0.0, loss)
        )
        assert reused is not None
        # float32, two orders of summation: 1e-5 relative
        assert float(own.value.detach()) == pytest.approx(float(gradient.detach().square().sum()), rel=1e-5)
        assert float(reused.value.detach()) == pytest.approx(float(own.value.detach()), rel=1e-5)
        wanted, found = (
            torch.autograd.grad(value, list(model.parameters()), allow_unused=True)
            for value in (own.value, reused.value)
        )
        for left, right in zip(wanted, found, strict=True):
            if left is not None and right is not None:
                torch.testing.assert_close(left, right, rtol=1e-3, atol=1e-5 * float(left.abs().max()))

    def test_evaluation_mode_uses_the_running_statistics(self, data: Images) -> None:
        model = self.model()
        step = batch_of(data, model)
        train, evaluation = (GradientRegularisation(1.0, batchnorm=mode).penalty(step) for mode in ("train", "eval"))  # type: ignore[arg-type]
        assert train is not None
        assert evaluation is not None
        model.eval()
        images = step.images.clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(F.cross_entropy(model(images), step.labels), images)
        assert float(evaluation.value.detach()) == pytest.approx(float(gradient.square().sum()), rel=1e-5)
        assert float(train.value.detach()) != pytest.approx(float(evaluation.value.detach()), rel=0.01)

    def test_statistics_are_left_alone_and_tracked_again(self) -> None:
        model = self.model()
        layers = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
        with batch_statistics(model):
            assert not any(layer.track_running_stats for layer in layers)
        assert all(layer.track_running_stats for layer in layers)


def test_label_smoothing_is_part_of_the_loss() -> None:
    model, images, labels = linear_case()
    smooth = input_gradient_penalty(model, images, labels, label_smoothing=0.2)
    inputs = images.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(F.cross_entropy(model(inputs), labels, label_smoothing=0.2), inputs)
    assert float(smooth) == pytest.approx(float(gradient.square().sum()), rel=1e-12)


def test_training_follows_the_penalised_loss(data: Images) -> None:
    """One epoch of `Run` against the loop written out: same batches, the loss CE + α‖∇CE‖² (equal to 1e-5), of the last
    batch of 8 images 8/64 of it."""
    config = TrialConfig(
        GradientRegularisation(50.0),
        ModelConfig("resnet8", 4),
        DATA,
        TrainingConfig(epochs=1, batch_size=64, learning_rate=0.05, label_smoothing=0.1),
        3,
    )
    run = Run(config, data)
    model = build_model("resnet8", channels=1, size=8, classes=10, width=4, seed=3).train()
    order = torch.Generator()
    order.set_state(run.generators["data"].get_state())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    penalties, sizes = [], []
    for images, labels in data.training_batches(64, generator=order, device=torch.device("cpu")):
        images.requires_grad_(True)
        loss = F.cross_entropy(model(images), labels, label_smoothing=0.1)
        (gradient,) = torch.autograd.grad(loss, images, create_graph=True)
        penalty = (gradient**2).sum() * len(images) / 64
        sizes.append(len(images))
        optimizer.zero_grad()
        (loss + 50 * penalty).backward()
        optimizer.step()
        penalties.append(float(penalty.detach()))
    run.train_epoch()
    assert sizes == [64, 64, 64, 8]
    for left, right in zip(model.state_dict().values(), run.model.state_dict().values(), strict=True):
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-5)
    assert run.epochs[0]["penalty"] == pytest.approx(sum(penalties) / len(penalties), rel=1e-4)


@pytest.mark.parametrize(
    ("field", "value"),
    [("alpha", -1.0), ("alpha", math.inf), ("alpha", math.nan), ("convention", "mean"), ("batchnorm", "none")],
)
def test_refuses(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        GradientRegularisation(**{"alpha": 1.0, field: value})  # type: ignore[arg-type]


def test_refuses_other_shapes_and_conventions() -> None:
    model, images, labels = linear_case()
    with pytest.raises(ValueError, match="images, labels"):
        input_gradient_penalty(model, images, labels[:3])
    with pytest.raises(ValueError, match="convention"):
        input_gradient_penalty(model, images, labels, convention="sum")  # type: ignore[arg-type]
