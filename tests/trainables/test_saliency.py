"""Saliency metrics against Quantus, explainers against captum, on a trained network; and cases worked by hand."""

from __future__ import annotations

import gc
import math
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trainables.configuration import ModelConfig, TrainingConfig, TrialConfig
from trainables.data import DataConfig, Images, load
from trainables.method import Method
from trainables.metrics import METRICS, Moment, saliency
from trainables.metrics.saliency import (
    EXPLAINERS,
    Entropy,
    Explainer,
    Faithfulness,
    LocalLipschitz,
    MaxSensitivity,
    SaliencyMaps,
    chunk_size,
    completeness_gap,
    deeplift,
    entropy,
    faithfulness_estimate,
    input_gradient,
    integrated_gradients,
    local_lipschitz,
    max_sensitivity,
    prediction_changes,
)
from trainables.models import MODELS, build_model
from trainables.training import Run

CPU = torch.device("cpu")


class Trained:
    """LeNet-5 on digits at 16² pixels, trained for some epochs, and a few test images."""

    def __init__(self) -> None:
        data = load("digits", "unused", DataConfig("digits", image_size=16, scaling="symmetric"))
        assert isinstance(data, Images)
        training = TrainingConfig(epochs=6, batch_size=64, optimizer="adam", learning_rate=2e-3, schedule="constant")
        run = Run(TrialConfig(Method(), ModelConfig("lenet5", 6), data.config, training, 0), data)
        while not run.finished:
            run.train_epoch()
        assert run.final["top1"] is not None
        assert run.final["top1"] > 0.8
        self.data, self.run, self.model = data, run, run.model.eval()
        self.images, self.labels = data.select("test", torch.arange(6), device=CPU)


@pytest.fixture(scope="module")
def trained() -> Trained:
    return Trained()


# --- Quantus ----------------------------------------------------------------------------------------------------------


def quantus_of(explain: Explainer, metric: Any, trained: Trained, attributions: Tensor) -> NDArray[np.float64]:
    def function(model: nn.Module, inputs: Any, targets: Any, **_: Any) -> NDArray[np.float32]:
        images = torch.as_tensor(np.asarray(inputs), dtype=torch.float32)
        return explain(model, images, torch.as_tensor(np.asarray(targets))).numpy()

    scores = metric(
        model=trained.model,
        x_batch=trained.images.numpy(),
        y_batch=trained.labels.numpy(),
        a_batch=attributions.numpy().copy(),
        channel_first=True,
        softmax=False,
        explain_func=function,
        device="cpu",
    )
    return np.asarray(scores, dtype=np.float64)


QUIET: dict[str, Any] = {"normalise": False, "disable_warnings": True}


@pytest.mark.parametrize("name", ["gradient", "deeplift"])
class TestAgreesWithQuantus:
    """Quantus 0.6 on the same attributions and the same noise: 1e-5 per image, as float32 forward passes in batches of
    another size allow."""

    def test_faithfulness(self, name: str, trained: Trained) -> None:
        import quantus

        def mirror(arr: NDArray[Any], indices: Any, **_: Any) -> NDArray[Any]:
            rows, out = np.arange(len(arr))[:, None], arr.copy()
            out[rows, indices] = (arr.min(1, keepdims=True) + arr.max(1, keepdims=True) - arr)[rows, indices]
            return out

        metric = quantus.FaithfulnessEstimate(
            similarity_func=quantus.similarity_func.correlation_pearson,
            features_in_step=1,
            abs=False,
            perturb_func=mirror,
            **QUIET,
        )
        attributions = EXPLAINERS[name](trained.model, trained.images, trained.labels)
        wanted = quantus_of(EXPLAINERS[name], metric, trained, attributions)
        found = faithfulness_estimate(trained.model, trained.images, trained.labels, attributions)
        np.testing.assert_allclose(found.numpy(), wanted, atol=1e-5, rtol=0)
        assert len(np.unique(wanted.round(3))) == 6

    def test_local_lipschitz(self, name: str, trained: Trained) -> None:
        import quantus

        metric = quantus.LocalLipschitzEstimate(nr_samples=12, perturb_mean=0.0, perturb_std=0.1, abs=False, **QUIET)
        explain = EXPLAINERS[name]
        attributions = explain(trained.model, trained.images, trained.labels)
        shape = (len(trained.images), trained.images[0].numel())
        np.random.seed(5)
        wanted = quantus_of(explain, metric, trained, attributions)
        np.random.seed(5)
        noise = [torch.from_numpy(np.random.normal(0, 0.1, shape)).float().view_as(trained.images) for _ in range(12)]
        found = local_lipschitz(trained.model, trained.images, trained.labels, explain, noise=noise)
        np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-5)

    def test_max_sensitivity(self, name: str, trained: Trained) -> None:
        import quantus

        metric = quantus.MaxSensitivity(nr_samples=12, lower_bound=-0.2, upper_bound=0.2, abs=False, **QUIET)
        explain = EXPLAINERS[name]
        attributions = explain(trained.model, trained.images, trained.labels)
        shape = (len(trained.images), trained.images[0].numel())
        np.random.seed(6)
        wanted = quantus_of(explain, metric, trained, attributions)
        np.random.seed(6)
        noise = [torch.from_numpy(np.random.uniform(-0.2, 0.2, shape)).float() for _ in range(12)]
        found = max_sensitivity(
            trained.model,
            trained.images,
            trained.labels,
            explain,
            noise=[draw.view_as(trained.images) for draw in noise],
        )
        np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-5)

    def test_entropy(self, name: str, trained: Trained) -> None:
        import quantus

        attributions = EXPLAINERS[name](trained.model, trained.images, trained.labels)
        wanted = quantus_of(EXPLAINERS[name], quantus.Complexity(abs=True, **QUIET), trained, attributions)
        np.testing.assert_allclose(entropy(attributions).numpy(), wanted, atol=1e-5, rtol=0)


# --- captum -----------------------------------------------------------------------------------------------------------


def test_deeplift_agrees_with_captum(trained: Trained) -> None:
    """LeNet-5 (ReLU, max pooling, linear layers), zeros for a reference: 1e-4 of the largest attribution, float32."""
    from captum.attr import DeepLift

    wanted = DeepLift(trained.model).attribute(trained.images, target=trained.labels).detach()
    found = deeplift(trained.model, trained.images, trained.labels)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4 * float(wanted.abs().max()))
    assert float(wanted.abs().max()) > 0.1


def test_deeplift_of_a_residual_network_agrees_with_captum() -> None:
    from captum.attr import DeepLift

    model = trained_statistics(build_model("resnet8", channels=2, size=8, classes=5, width=8, seed=1))
    images, labels = torch.randn(4, 2, 8, 8), torch.tensor([0, 1, 2, 4])
    wanted = DeepLift(model).attribute(images, target=labels).detach()
    found = deeplift(model, images, labels)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4 * float(wanted.abs().max()))


@pytest.mark.parametrize("layer", [nn.Tanh(), nn.Sigmoid(), nn.ELU(), nn.LeakyReLU(0.2), nn.Softplus(), nn.ReLU(True)])
def test_deeplift_of_each_nonlinearity_agrees_with_captum(layer: nn.Module) -> None:
    from captum.attr import DeepLift

    torch.manual_seed(3)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), layer, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(12, 4)).double().eval()
    images, labels = torch.randn(5, 1, 6, 6, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 0])
    found = deeplift(model, images, labels)
    wanted = DeepLift(model).attribute(images, target=labels).detach()
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)


def test_integrated_gradients_agree_with_captum(trained: Trained) -> None:
    from captum.attr import IntegratedGradients

    wanted = IntegratedGradients(trained.model).attribute(
        trained.images, target=trained.labels, n_steps=50, method="gausslegendre"
    )
    found = integrated_gradients(trained.model, trained.images, trained.labels)
    torch.testing.assert_close(found, wanted.float(), rtol=0, atol=1e-5 * float(wanted.abs().max()))


def test_input_gradient_is_that_of_the_labels_logit(trained: Trained) -> None:
    image = trained.images[:1].clone().requires_grad_(True)
    trained.model(image)[0, trained.labels[0]].backward()
    found = input_gradient(trained.model, trained.images, trained.labels)[0]
    torch.testing.assert_close(found, image.grad[0], rtol=1e-4, atol=1e-6)  # type: ignore[index]


# --- DeepLIFT on every network of the registry ------------------------------------------------------------------------


def trained_statistics(model: nn.Module) -> nn.Module:
    """BatchNorm with statistics that are not those of initialisation."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean += 0.1 * torch.randn(module.running_mean.shape, generator=generator)
            module.running_var *= 0.5 + torch.rand(module.running_var.shape, generator=generator)
    return model.eval()


# where what is pooled differs from place to place for the reference, too, the rule of max pooling leaves a rest
POOLED = ("vgg13", "vgg13-5x5", "vgg-cifar", "vgg-imagenet", "mobilenet", "vgg11-bn")
REFUSED = {"efficientnet-b0": "SqueezeExcite", "convnext-tiny": "LayerNorm2d"}


@pytest.mark.parametrize("name", MODELS)
def test_deeplift_is_complete_on_every_network(name: str) -> None:
    """The attributions sum to f(x) − f(0), in float64 to 1e-8: also with layers used twice and in place. With max
    pooling of padded convolutions they need not, and are captum's."""
    size = max(MODELS[name].smallest, 16)
    width = 8 if MODELS[name].any_width else MODELS[name].width
    model = trained_statistics(build_model(name, channels=3, size=size, classes=7, width=width, seed=0).double())
    images, labels = torch.randn(3, 3, size, size, dtype=torch.float64), torch.tensor([0, 3, 6])
    if name in REFUSED:
        with pytest.raises(ValueError, match=f"is a {REFUSED[name]}, which DeepLIFT has no rule for"):
            deeplift(model, images, labels)
        return
    if name in POOLED:
        from captum.attr import DeepLift

        theirs = DeepLift(model).attribute(images, torch.zeros_like(images), target=labels)
        torch.testing.assert_close(deeplift(model, images, labels), theirs.detach(), rtol=1e-8, atol=1e-10)
        return
    with torch.no_grad():
        difference = model(images) - model(torch.zeros_like(images))
    wanted = difference.gather(1, labels.unsqueeze(1)).squeeze(1)
    found = deeplift(model, images, labels).flatten(1).sum(1)
    torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-10)


def test_deeplift_refuses_what_it_has_no_rule_for() -> None:
    images, labels = torch.randn(2, 1, 4, 4), torch.tensor([0, 1])
    normalised = nn.Sequential(nn.Flatten(), nn.LayerNorm(16), nn.Linear(16, 2)).eval()
    with pytest.raises(ValueError, match="1 is a LayerNorm"):
        deeplift(normalised, images, labels)
    with pytest.raises(ValueError, match="training mode"):
        deeplift(nn.Sequential(nn.Flatten(), nn.Linear(16, 2)), images, labels)
    with pytest.raises(ValueError, match="function"):
        deeplift(lambda x: x.flatten(1), images, labels)


class InForward(nn.Module):
    """Two convolutions with ReLUs, max pooling and a sum, by whatever ReLU is given."""

    def __init__(self, relu: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.last = nn.Conv2d(1, 3, 3), nn.Conv2d(3, 3, 3, padding=1), nn.Linear(12, 4)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.first(x))
        x = self.relu(self.second(x)) + x
        return self.last(nn.functional.max_pool2d(x, 2).view(x.size(0), -1))


@pytest.mark.parametrize(
    "relu",
    [
        nn.functional.relu,
        torch.relu,
        lambda x: nn.functional.relu(x, inplace=True),
        lambda x: x.relu_(),
        lambda x: nn.ReLU()(x),
        nn.ReLU(inplace=True),
    ],
)
def test_deeplift_finds_a_relu_wherever_it_is(relu: Callable[[Tensor], Tensor]) -> None:
    """The same attributions as with layers, which are captum's, complete, and not gradient times input."""
    wanted_of, model = InForward(nn.ReLU()).double().eval(), InForward(relu).double().eval()
    images, labels = torch.randn(5, 1, 6, 6, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 0])
    found = deeplift(model, images, labels)
    torch.testing.assert_close(found, deeplift(wanted_of, images, labels), rtol=1e-12, atol=1e-14)
    assert float((found - input_gradient(model, images, labels) * images).abs().max()) > 1e-3
    # the maps of the zeros are constant, but at the border that the second convolution pads
    slopes = completeness_gap(model, images, labels, found)
    assert slopes.shape == (5,)
    assert float(slopes.max()) < 0.5


class Overwritten(nn.Module):
    """A branch that reads what a ReLU has overwritten, as networks with ReLU(inplace=True) on a shortcut do."""

    def __init__(self, inplace: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.relu, self.last = nn.Conv2d(1, 2, 3), nn.ReLU(inplace), nn.Linear(32, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        y = self.relu(x)
        return self.last((y + (x if self.relu.inplace else y)).flatten(1))


def test_deeplift_reads_what_was_overwritten_as_the_network_does() -> None:
    models = [Overwritten(inplace).double().eval() for inplace in (False, True)]
    images, labels = torch.randn(3, 1, 6, 6, dtype=torch.float64), torch.tensor([0, 1, 1])
    torch.testing.assert_close(*(model(images) for model in models))
    found = [deeplift(model, images, labels) for model in models]
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-14)
    gaps = completeness_gap(models[1], images, labels, found[1])
    assert float(gaps.max()) < 1e-9


@pytest.mark.parametrize(
    ("function", "named"),
    [
        (lambda x: x * x.sigmoid(), "as it calls mul"),
        (lambda x: x / x.mean((1, 2, 3), keepdim=True), "as it calls truediv"),
        (lambda x: torch.softmax(x, 1), "as it calls softmax"),
        (lambda x: x.clamp(min=0), "as it calls clamp"),
        (lambda x: x.abs(), "as it calls abs"),
        (lambda x: x if bool(x.sum() > 0) else -x, "cannot be traced"),
    ],
)
def test_deeplift_refuses_what_is_neither_linear_nor_elementwise(
    function: Callable[[Tensor], Tensor], named: str
) -> None:
    model = InForward(function).eval()
    with pytest.raises(ValueError, match=named) as caught:
        deeplift(model, torch.randn(2, 1, 6, 6), torch.tensor([0, 1]))
    assert "\n" not in str(caught.value)


def test_a_network_that_is_changed_is_traced_anew_and_none_is_kept() -> None:
    images, labels = torch.randn(2, 1, 6, 6), torch.tensor([0, 1])
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 2)).eval()
    before = deeplift(model, images, labels)
    torch.testing.assert_close(deeplift(model, images, labels), before)
    model[1] = nn.Tanh()
    fresh = nn.Sequential(*model).eval()
    changed = deeplift(model, images, labels)
    torch.testing.assert_close(changed, deeplift(fresh, images, labels))
    assert not torch.allclose(changed, before)
    known = weakref.ref(model)
    del model
    gc.collect()
    assert known() is None


def test_completeness_gaps_by_hand() -> None:
    """Logits 2x₀ + 4x₁ and 0: differences 6 (at (1, 1)) and none; attributions that sum to 5, 3 and 1."""

    def linear(x: Tensor) -> Tensor:
        first = x.flatten(1) @ x.new_tensor([2.0, 4.0])
        return torch.stack([first + 7, 0 * first], 1)

    images = torch.ones(3, 1, 1, 2)
    attributions = torch.tensor([[4.0, 1.0], [1.0, 2.0], [1.0, 0.0]]).reshape(3, 1, 1, 2)
    gaps = completeness_gap(linear, images, torch.tensor([0, 0, 1]), attributions)
    assert gaps.tolist()[:2] == pytest.approx([1 / 6, 1 / 2])
    assert math.isnan(gaps[2])


def test_the_gap_of_padded_max_pools_is_captums() -> None:
    """vgg-cifar: a good part of the difference, and the same with captum."""
    from captum.attr import DeepLift

    model = trained_statistics(build_model("vgg-cifar", channels=3, size=16, classes=7, width=8, seed=0).double())
    images, labels = torch.randn(4, 3, 16, 16, dtype=torch.float64), torch.tensor([0, 3, 6, 1])
    theirs = DeepLift(model).attribute(images, torch.zeros_like(images), target=labels).detach()
    ours = completeness_gap(model, images, labels, deeplift(model, images, labels))
    torch.testing.assert_close(ours, completeness_gap(model, images, labels, theirs), rtol=1e-6, atol=1e-9)
    assert float(ours.mean()) > 0.05


# --- by hand ----------------------------------------------------------------------------------------------------------


def quadratic(images: Tensor) -> Tensor:
    """Two logits of an image of two pixels: x₀² + 3x₁, and x₀x₁."""
    x = images.flatten(1)
    return torch.stack([x[:, 0] ** 2 + 3 * x[:, 1], x[:, 0] * x[:, 1]], 1)


IMAGE = torch.tensor([[[[1.0, 3.0]]]], dtype=torch.float64)


def test_explainers_by_hand() -> None:
    """At (1, 3): gradient (2, 3) and (3, 1); integrated gradients (x₀², 3x₁) and x₀x₁/2 each."""
    images, labels = IMAGE.repeat(2, 1, 1, 1), torch.tensor([0, 1])
    torch.testing.assert_close(input_gradient(quadratic, images, labels).flatten(1), IMAGE.new_tensor([[2, 3], [3, 1]]))
    found = integrated_gradients(quadratic, images, labels).flatten(1)
    torch.testing.assert_close(found, IMAGE.new_tensor([[1.0, 9.0], [1.5, 1.5]]))


def test_prediction_changes_by_hand() -> None:
    """Mirrored, 1 becomes 3 and 3 becomes 1. Logit 0: 10 → 18 and 10 → 4; logit 1: 3 → 9 and 3 → 1."""
    changes = prediction_changes(quadratic, IMAGE.repeat(2, 1, 1, 1), torch.tensor([0, 1]), chunk=1)
    torch.testing.assert_close(changes, IMAGE.new_tensor([[-8, 6], [-6, 2]]))
    only = prediction_changes(quadratic, IMAGE, torch.tensor([0]), torch.tensor([1]))
    torch.testing.assert_close(only, IMAGE.new_tensor([[6]]))


def test_faithfulness_by_hand() -> None:
    """Changes (−8, 6, 1) against attributions (1, 3, 2): r = 14 / sqrt(2 · 302/3), by Pearson's formula."""
    changes = torch.tensor([[-8.0, 6.0, 1.0]])
    images = torch.zeros(1, 1, 1, 3)
    found = faithfulness_estimate(
        quadratic, images, torch.tensor([0]), torch.tensor([[[[1.0, 3.0, 2.0]]]]), changes=changes
    )
    mean = -1 / 3
    wanted = 14 / math.sqrt(2 * ((-8 - mean) ** 2 + (6 - mean) ** 2 + (1 - mean) ** 2))
    assert float(found) == pytest.approx(wanted, rel=1e-12)


def test_robustness_by_hand() -> None:
    """The gradient of x₀² + 3x₁ changes by (2ε₀, 0): the ratios are 2|ε₀|/‖ε‖ and 2|ε₀|/‖(2, 3)‖."""
    noise = [IMAGE.new_tensor([[[[0.3, 0.4]]]]), IMAGE.new_tensor([[[[-0.1, 0.0]]]])]
    options: dict[str, Any] = {"explain": input_gradient, "noise": noise}
    lipschitz = local_lipschitz(quadratic, IMAGE, torch.tensor([0]), **options)
    assert float(lipschitz) == pytest.approx(max(0.6 / 0.5, 0.2 / 0.1), rel=1e-8)
    sensitivity = max_sensitivity(quadratic, IMAGE, torch.tensor([0]), **options)
    assert float(sensitivity) == pytest.approx(0.6 / math.sqrt(13), rel=1e-12)


def test_entropy_by_hand() -> None:
    attributions = torch.tensor([[1.0, -1.0, 2.0, 0.0], [0.0, 0.0, 5.0, 0.0], [1.0, 1.0, 1.0, 1.0]]).view(3, 1, 2, 2)
    wanted = torch.tensor([1.5 * math.log(2), 0.0, math.log(4)])
    torch.testing.assert_close(entropy(attributions), wanted)


def test_what_is_not_defined_is_nan() -> None:
    """A network that answers the same to everything has no faithful, no sensitive and no simple explanation."""
    images, labels = torch.randn(2, 1, 3, 3), torch.tensor([0, 1])

    def constant(x: Tensor) -> Tensor:
        return (0 * x).flatten(1)[:, :2]

    nothing = torch.zeros_like(images)
    assert faithfulness_estimate(constant, images, labels, nothing).isnan().all()
    assert entropy(nothing).isnan().all()
    assert max_sensitivity(constant, images, labels, input_gradient, samples=2).isnan().all()
    assert (local_lipschitz(constant, images, labels, input_gradient, samples=2) == 0).all()


def test_tiny_attributions_keep_their_correlation() -> None:
    """Gradients of an over-regularised network, 1e-30 in float32, whose squares are zero in float32."""
    changes = torch.randn(3, 9, generator=torch.Generator().manual_seed(0))
    values = torch.randn(3, 1, 3, 3, generator=torch.Generator().manual_seed(1))
    images, labels = torch.zeros(3, 1, 3, 3), torch.zeros(3, dtype=torch.int64)
    plain, tiny = (
        faithfulness_estimate(quadratic, images, labels, scale * values, changes=changes) for scale in (1, 1e-30)
    )
    torch.testing.assert_close(plain, tiny, rtol=1e-5, atol=1e-6)


# --- sampling, chunks -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", [local_lipschitz, max_sensitivity])
def test_equal_generators_give_equal_numbers_at_any_chunk(function: Any, trained: Trained) -> None:
    def values(seed: int, **options: Any) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        arguments = trained.model, trained.images, trained.labels, input_gradient
        return function(*arguments, samples=5, generator=generator, **options)

    assert torch.equal(values(0), values(0))
    assert not torch.equal(values(0), values(1))
    torch.testing.assert_close(values(0), values(0, chunk=4), rtol=1e-4, atol=1e-6)
    state = torch.get_rng_state()
    values(0)
    assert torch.equal(torch.get_rng_state(), state)


def test_noise_is_what_it_says() -> None:
    """200 draws over 400 pixels: the deviation of N(0, 0.1²) within 1%, the range of ±0.2 within 1e-4 and filled."""
    seen: list[Tensor] = []

    def spy(_model: Any, images: Tensor, _labels: Tensor) -> Tensor:
        seen.append(images)
        return images

    images, labels = torch.zeros(4, 1, 10, 10), torch.zeros(4, dtype=torch.int64)
    local_lipschitz(quadratic, images, labels, spy, generator=torch.Generator().manual_seed(0))
    draws = torch.stack(seen[1:])
    assert len(draws) == 200
    assert float(draws.std()) == pytest.approx(0.1, rel=0.01)
    assert float(draws.mean()) == pytest.approx(0, abs=0.002)
    seen.clear()
    max_sensitivity(quadratic, images, labels, spy, generator=torch.Generator().manual_seed(0))
    draws = torch.stack(seen[1:])
    assert float(draws.abs().max()) <= 0.2
    assert float(draws.max()) == pytest.approx(0.2, abs=1e-4)
    assert float(draws.min()) == pytest.approx(-0.2, abs=1e-4)


def test_chunks_follow_the_networks_memory() -> None:
    small = build_model("lenet5", channels=1, size=28, classes=10, seed=0).eval()
    assert chunk_size(small, torch.zeros(2, 1, 28, 28)) == 256
    large = build_model("resnet18-imagenet", channels=3, size=320, classes=10, seed=0).eval()
    assert 1 <= chunk_size(large, torch.zeros(1, 3, 320, 320)) < 16


def test_prediction_changes_do_not_depend_on_the_chunk(trained: Trained) -> None:
    whole = prediction_changes(trained.model, trained.images, trained.labels)
    parts = prediction_changes(trained.model, trained.images, trained.labels, chunk=37)
    assert whole.shape == (6, 256)
    torch.testing.assert_close(whole, parts, rtol=1e-4, atol=1e-5)


# --- as metrics -------------------------------------------------------------------------------------------------------


def moment_of(trained: Trained, split: str = "test", epoch: int = 6) -> Moment:
    return Moment(trained.model, trained.data, split, epoch, True, 0, CPU, lambda seed: trained.model)


SMALL: dict[str, Any] = {"images": 5, "explainers": ("gradient", "deeplift")}


@pytest.fixture(scope="module")
def measured(trained: Trained) -> Iterator[dict[str, Any]]:
    metrics = {
        "faithfulness": Faithfulness(**SMALL, per_image=True),
        "local_lipschitz": LocalLipschitz(**SMALL, samples=3),
        "max_sensitivity": MaxSensitivity(**SMALL, samples=3),
        "entropy": Entropy(**SMALL),
        "saliency_maps": SaliencyMaps(**SMALL, panels=2),
    }
    return {name: metric.measure(moment_of(trained)) for name, metric in metrics.items()}


class TestAsMetrics:
    def test_rows(self, measured: dict[str, Any]) -> None:
        for name, level, direction in (
            ("faithfulness", 256.0, "max"),
            ("local_lipschitz", 0.1, "min"),
            ("max_sensitivity", 0.2, "min"),
            ("entropy", None, "min"),
        ):
            rows = [row for row in measured[name].measurements if row["metric"] == name]
            assert [row["component"] for row in rows] == ["gradient", "deeplift"]
            assert {(row["n"], row["level"], row["direction"]) for row in rows} == {(5, level, direction)}
            assert all(math.isfinite(row["value"]) and row["std"] > 0 for row in rows)
        assert measured["entropy"].measurements[0]["unit"] == "nat"

    def test_the_gap_is_measured_beside_the_maps(self, measured: dict[str, Any], trained: Trained) -> None:
        """LeNet-5's first pool follows a padded convolution; of the gradient there is nothing to complete."""
        (row,) = measured["saliency_maps"].measurements
        assert (row["metric"], row["component"], row["n"]) == ("completeness_gap", "deeplift", 5)
        _, images, labels = SaliencyMaps(**SMALL).batch(moment_of(trained))
        gaps = completeness_gap(trained.model, images, labels, deeplift(trained.model, images, labels))
        assert row["value"] == pytest.approx(float(gaps.mean()), rel=1e-5)

    def test_mean_deviation_and_images(self, measured: dict[str, Any], trained: Trained) -> None:
        """The row is the mean and the n − 1 deviation of the images' values, which name images of the test split."""
        rows = measured["faithfulness"].measurements
        single = [row for row in rows if row["metric"] == "faithfulness_per_image" and row["component"] == "deeplift"]
        indices = torch.tensor([int(row["level"]) for row in single])
        images, labels = trained.data.select("test", indices, device=CPU)
        wanted = faithfulness_estimate(trained.model, images, labels, deeplift(trained.model, images, labels))
        np.testing.assert_allclose([row["value"] for row in single], wanted.numpy(), atol=1e-6)
        row = next(row for row in rows if row["metric"] == "faithfulness" and row["component"] == "deeplift")
        assert row["value"] == pytest.approx(np.mean([row["value"] for row in single]))
        assert row["std"] == pytest.approx(np.std([row["value"] for row in single], ddof=1))
        assert len(set(indices.tolist())) == 5

    def test_maps(self, measured: dict[str, Any], trained: Trained) -> None:
        maps = measured["saliency_maps"].maps
        assert len(maps) == 2 + 2 * 4
        first = next(int(name.split("/")[1]) for name in maps if name.startswith("image/"))
        image, label = trained.data.select("test", torch.tensor([first]), device=CPU)
        torch.testing.assert_close(maps[f"image/{first}"], image[0, 0])
        assert maps[f"label/{first}"].tolist() == [[int(label)]]
        torch.testing.assert_close(
            maps[f"saliency/gradient/{first}"], input_gradient(trained.model, image, label)[0, 0]
        )
        assert maps["saliency_mean/deeplift"].shape == (16, 16)
        assert float(maps["saliency_mean/deeplift"].min()) >= 0

    def test_the_batch_is_every_trials_and_chosen_by_the_seed(self, trained: Trained) -> None:
        chosen = [Entropy(images=5, seed=seed).batch(moment_of(trained))[0].tolist() for seed in (0, 0, 1)]
        assert chosen[0] == chosen[1] != chosen[2]
        assert len(Entropy(images=10_000).batch(moment_of(trained))[0]) == trained.data.count("test")

    def test_a_subset_of_pixels(self, trained: Trained) -> None:
        """The same draw each time, recorded as the level, and the correlation over those features alone."""
        some, again = (Faithfulness(**SMALL, pixels=40).measure(moment_of(trained)) for _ in range(2))
        assert some == again
        assert {row["level"] for row in some.measurements} == {40.0}
        _indices, images, labels = Faithfulness(**SMALL).batch(moment_of(trained))
        generator = Faithfulness().generator("saliency pixels")
        features = torch.randperm(256, generator=generator)[:40].sort().values
        values = faithfulness_estimate(
            trained.model, images, labels, input_gradient(trained.model, images, labels), features=features
        )
        assert some.measurements[0]["value"] == pytest.approx(float(values.mean()), rel=1e-6)
        whole = Faithfulness(**SMALL, pixels=10_000).measure(moment_of(trained))
        assert {row["level"] for row in whole.measurements} == {256.0}

    def test_one_sweep_of_perturbed_predictions_serves_all_explainers(
        self, trained: Trained, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        swept: list[int] = []

        def counted(*arguments: Any, **options: Any) -> Tensor:
            swept.append(1)
            return prediction_changes(*arguments, **options)

        monkeypatch.setattr(saliency, "prediction_changes", counted)
        some = Faithfulness(images=2, explainers=tuple(EXPLAINERS), pixels=4).measure(moment_of(trained))
        assert len(swept) == 1
        assert [row["component"] for row in some.measurements] == list(EXPLAINERS)

    def test_only_after_training(self, trained: Trained) -> None:
        for name in ("faithfulness", "local_lipschitz", "max_sensitivity", "entropy", "saliency_maps"):
            metric = METRICS[name]()
            for epoch in (0, 2, 6):
                nothing = metric.measure(moment_of(trained, "validation", epoch))
                assert (nothing.columns, nothing.measurements, nothing.maps) == ({}, [], {})

    def test_a_network_without_rules_fails_before_it_is_trained(self, trained: Trained) -> None:
        model = nn.Sequential(nn.Flatten(), nn.LayerNorm(256), nn.Linear(256, 10)).eval()
        moment = Moment(model, trained.data, "validation", 0, False, 0, CPU, lambda seed: model)
        with pytest.raises(ValueError, match="LayerNorm"):
            Entropy().measure(moment)
        Entropy(explainers=("gradient",)).measure(moment)

    @pytest.mark.parametrize(
        ("kind", "options", "named"),
        [
            (Entropy, {"images": 0}, "images: 0"),
            (Entropy, {"explainers": ("lime",)}, "explainers"),
            (Entropy, {"explainers": ()}, "explainers"),
            (Faithfulness, {"pixels": 0}, "pixels: 0"),
            (LocalLipschitz, {"samples": 0}, "samples: 0"),
            (LocalLipschitz, {"std": 0.0}, "std"),
            (MaxSensitivity, {"radius": math.inf}, "radius"),
            (SaliencyMaps, {"panels": 0}, "panels: 0"),
        ],
    )
    def test_refuses(self, kind: Any, options: dict[str, Any], named: str) -> None:
        with pytest.raises(ValueError, match=named):
            kind(**options)
