"""PILCRO's quantities against numbers computed by hand and against a slow per-image implementation in numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn

from trainables.method import Step, evaluation_mode
from trainables.models import build_model
from trainables.pilcro import (
    Pilcro,
    curvature_penalty,
    data_smoothness,
    expected_landscape,
    importance_landscape,
    landscape_of_batches,
    laplacian,
    path_importance,
    target_penalty,
    total_variation,
)

# float64 sums of a few hundred terms; 1e-10 leaves four digits of slack
EXACT = {"rtol": 1e-10, "atol": 1e-12}


def small_network(seed: int = 0, channels: int = 2, classes: int = 4) -> nn.Module:
    torch.manual_seed(seed)
    network = nn.Sequential(
        nn.Conv2d(channels, 5, 3, padding=1), nn.BatchNorm2d(5), nn.ReLU(), nn.Flatten(), nn.Linear(5 * 36, classes)
    ).double()
    network[1].running_mean.uniform_(-0.5, 0.5)
    network[1].running_var.uniform_(0.5, 2.0)
    return network.eval()


def slow_squares(network: nn.Module, images: torch.Tensor, weights: np.ndarray) -> np.ndarray:
    """Σ_b Σ_y weights[b, y] (∂f_y/∂x_b)², one image and one class at a time."""
    total = np.zeros(tuple(images.shape[1:]))
    for b in range(len(images)):
        for y in range(weights.shape[1]):
            image = images[b : b + 1].clone().requires_grad_()
            network(image)[0, y].backward()
            total += weights[b, y] * image.grad[0].numpy() ** 2
    return total


def slow_normalised(squares: np.ndarray) -> np.ndarray:
    height, width = squares.shape[1:]
    result = np.empty((height, width))
    for i in range(height):
        for j in range(width):
            result[i, j] = math.sqrt(height * width) * math.sqrt((squares[:, i, j] ** 2).sum())
    return result / math.sqrt((squares**2).sum())


class TestLandscape:
    def test_of_a_linear_model_by_hand(self) -> None:
        # f_0 = x_00 + 2 x_01, f_1 = 3 x_10: with target 0, I² = [[1, 4], [0, 0]]; ‖I²‖ = √17, √(HW) = 2
        def model(x: torch.Tensor) -> torch.Tensor:
            flat = x.flatten(1)
            return torch.stack([flat[:, 0] + 2 * flat[:, 1], 3 * flat[:, 2]], 1)

        landscape = importance_landscape(model, torch.randn(3, 1, 2, 2).double(), torch.zeros(3, dtype=torch.int64))
        expected = torch.tensor([[1, 4], [0, 0]]).double() * 2 / math.sqrt(17)
        torch.testing.assert_close(landscape, expected, **EXACT)

    def test_two_targets_average_the_squares(self) -> None:
        # one image on class 0, one on class 1: I² = mean of [1, 4, 0, 0] and [0, 0, 9, 0]
        def model(x: torch.Tensor) -> torch.Tensor:
            flat = x.flatten(1)
            return torch.stack([flat[:, 0] + 2 * flat[:, 1], 3 * flat[:, 2]], 1)

        landscape = importance_landscape(model, torch.randn(2, 1, 2, 2).double(), torch.tensor([0, 1]))
        expected = torch.tensor([[0.5, 2], [4.5, 0]]).double() * 2 / math.sqrt(0.25 + 4 + 20.25)
        torch.testing.assert_close(landscape, expected, **EXACT)

    def test_equals_per_image_autograd(self) -> None:
        network = small_network()
        images = torch.randn(7, 2, 6, 6, dtype=torch.float64)
        targets = torch.tensor([0, 1, 2, 3, 0, 1, 2])
        weights = np.eye(4)[targets.numpy()]
        expected = slow_normalised(slow_squares(network, images, weights))
        landscape = importance_landscape(network, images, targets)
        np.testing.assert_allclose(landscape.numpy(), expected, rtol=1e-10)
        assert not landscape.requires_grad
        assert float(landscape.square().mean()) == pytest.approx(1, rel=1e-12)

    def test_expectation_equals_per_class_autograd(self) -> None:
        network = small_network(1)
        images = torch.randn(5, 2, 6, 6, dtype=torch.float64)
        weights = network(images).softmax(1).detach().numpy()
        expected = slow_normalised(slow_squares(network, images, weights))
        np.testing.assert_allclose(expected_landscape(network, images).numpy(), expected, rtol=1e-10)

    def test_sampled_classes_follow_the_prediction(self) -> None:
        # logits that do not depend on the image's content but whose gradients tell the class: p = (.2, .3, .5)
        probabilities = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)

        def model(x: torch.Tensor) -> torch.Tensor:
            return probabilities.log() + (x - x.detach()).flatten(1)[:, :3]

        images = torch.zeros(20000, 1, 2, 2, dtype=torch.float64)
        landscape = importance_landscape(model, images, generator=torch.Generator().manual_seed(3)).flatten()
        shares = landscape[:3] / landscape[:3].sum()
        # standard error of a share at n = 20000 is at most .0035: four of them
        torch.testing.assert_close(shares, probabilities, rtol=0, atol=0.014)
        assert landscape[3] == 0

    def test_sampling_depends_on_the_generator_alone(self) -> None:
        network, images = small_network(), torch.randn(16, 2, 6, 6, dtype=torch.float64)
        first = importance_landscape(network, images, generator=torch.Generator().manual_seed(1))
        torch.manual_seed(99)
        assert torch.equal(first, importance_landscape(network, images, generator=torch.Generator().manual_seed(1)))
        assert not torch.equal(first, importance_landscape(network, images, generator=torch.Generator().manual_seed(2)))

    def test_of_a_split_is_that_of_one_large_batch(self) -> None:
        network, images = small_network(), torch.randn(12, 2, 6, 6, dtype=torch.float64)
        whole = expected_landscape(network, images)
        parts = landscape_of_batches(network, images.split(5), expectation="exact")
        torch.testing.assert_close(parts, whole, **EXACT)

    def test_does_not_depend_on_the_gradients_scale(self) -> None:
        # squares of squares of 1e-15 are 1e-60: far below float32
        images = torch.randn(4, 2, 6, 6)
        network = small_network().float()
        targets = torch.zeros(4, dtype=torch.int64)
        tiny = importance_landscape(lambda x: 1e-15 * network(x), images, targets)
        torch.testing.assert_close(tiny, importance_landscape(network, images, targets), rtol=1e-5, atol=1e-6)

    def test_refuses_what_is_no_batch_of_images(self) -> None:
        with pytest.raises(ValueError, match=r"\(B, C, H, W\)"):
            importance_landscape(small_network(), torch.randn(2, 6, 6))


class TestLaplacian:
    def test_of_an_impulse_by_hand(self) -> None:
        # kernel: ones with centre -8, over 16
        impulse = torch.zeros(5, 5, dtype=torch.float64)
        impulse[2, 2] = 1
        expected = torch.zeros(5, 5, dtype=torch.float64)
        expected[1:4, 1:4] = 1 / 16
        expected[2, 2] = -8 / 16
        torch.testing.assert_close(laplacian(impulse), expected, **EXACT)

    @pytest.mark.parametrize("width", [3, 5, 7])
    def test_equals_scipy_with_replicated_borders(self, width: int) -> None:
        values = np.random.default_rng(0).normal(size=(9, 8))
        kernel = np.ones((width, width))
        kernel[width // 2, width // 2] = 1 - width**2
        kernel /= np.abs(kernel).sum()
        expected = ndimage.correlate(values, kernel, mode="nearest")
        np.testing.assert_allclose(laplacian(torch.from_numpy(values), width).numpy(), expected, atol=1e-12)

    @pytest.mark.parametrize("width", [1, 2, 4, 9, -3])
    def test_refuses_widths(self, width: int) -> None:
        with pytest.raises(ValueError, match="laplacian_width"):
            laplacian(torch.zeros(8, 8), width)


class TestPenalties:
    def test_curvature_by_hand(self) -> None:
        # the impulse's Laplacian has mean 0, eight entries of 1/16 and one of 1/2: variance (8/256 + 1/4) / 25
        impulse = torch.zeros(5, 5, dtype=torch.float64)
        impulse[2, 2] = 1
        assert float(curvature_penalty(impulse)) == pytest.approx((8 / 256 + 1 / 4) / 25, rel=1e-12)

    def test_target_by_hand(self) -> None:
        landscape = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64)
        smoothness = torch.tensor([[1.0, 0.0], [3.5, 4.0]], dtype=torch.float64)
        assert float(target_penalty(landscape, smoothness, "sum")) == pytest.approx(4.25)
        assert float(target_penalty(landscape, smoothness)) == pytest.approx(4.25 / 4)

    def test_target_refuses(self) -> None:
        with pytest.raises(ValueError, match="reduction"):
            target_penalty(torch.ones(2, 2), torch.ones(2, 2), "median")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="smoothness"):
            target_penalty(torch.ones(2, 2), torch.ones(2, 3))

    def test_total_variation_by_hand(self) -> None:
        # across: (1-2)² + (3-5)² = 5; down: (1-3)² + (2-5)² = 13; four pairs
        assert float(total_variation(torch.tensor([[1.0, 2.0], [3.0, 5.0]]))) == pytest.approx(18 / 4)

    def test_total_variation_weighs_every_pair_alike(self) -> None:
        # 2×3: three vertical pairs and four horizontal ones
        values = torch.tensor([[0.0, 1.0, 3.0], [0.0, 0.0, 0.0]])
        assert float(total_variation(values)) == pytest.approx((1 + 4 + 0 + 0 + 0 + 1 + 9) / 7)

    @pytest.mark.parametrize("variant", ["curvature", "target"])
    def test_gradient_with_respect_to_the_weights(self, variant: str) -> None:
        """Double backward against central differences in float64 (step 1e-6: truncation and rounding near 1e-9)."""
        network = small_network(2)
        images = torch.randn(6, 2, 6, 6, dtype=torch.float64)
        targets = torch.tensor([0, 1, 2, 3, 0, 1])
        smoothness = torch.rand(6, 6, dtype=torch.float64)

        def penalty(create_graph: bool) -> torch.Tensor:
            landscape = importance_landscape(network, images, targets, create_graph=create_graph)
            return curvature_penalty(landscape) if variant == "curvature" else target_penalty(landscape, smoothness)

        penalty(True).backward()
        step = 1e-6
        for parameter in (network[0].weight, network[1].weight, network[4].weight):
            gradient = parameter.grad.flatten()
            for index in range(0, gradient.numel(), max(1, gradient.numel() // 5)):
                with torch.no_grad():
                    flat = parameter.view(-1)
                    flat[index] += step
                    above = float(penalty(False))
                    flat[index] -= 2 * step
                    below = float(penalty(False))
                    flat[index] += step
                assert float(gradient[index]) == pytest.approx((above - below) / (2 * step), rel=1e-4, abs=1e-8)

    def test_can_be_stacked_and_vectorised(self) -> None:
        """Two networks' penalties under vmap equal those one after the other."""
        networks = [small_network(seed) for seed in (0, 1)]
        images = torch.randn(4, 2, 6, 6, dtype=torch.float64)
        targets = torch.tensor([0, 1, 2, 3])
        parameters, buffers = torch.func.stack_module_state(networks)

        def penalty(state: tuple[dict, dict]) -> torch.Tensor:
            def model(x: torch.Tensor) -> torch.Tensor:
                return torch.func.functional_call(networks[0], state, (x,))

            return curvature_penalty(importance_landscape(model, images, targets, create_graph=True))

        stacked = torch.func.vmap(penalty)((parameters, buffers))
        single = [curvature_penalty(importance_landscape(network, images, targets)) for network in networks]
        torch.testing.assert_close(stacked, torch.stack(single), rtol=1e-10, atol=1e-12)


class TestDataSmoothness:
    def test_equals_scipy_image_by_image(self) -> None:
        images = np.random.default_rng(1).integers(0, 256, (5, 3, 7, 6)).astype(np.uint8)
        kernel = np.ones((3, 3))
        kernel[1, 1] = -8
        kernel /= 16
        maps = []
        for image in images.astype(float):
            edges = np.stack([ndimage.correlate(channel, kernel, mode="nearest") for channel in image])
            maps.append(math.sqrt(42) * np.sqrt((edges**2).sum(0)) / np.sqrt((edges**2).sum()))
        expected = np.mean(maps, axis=0)
        np.testing.assert_allclose(data_smoothness(torch.from_numpy(images)).numpy(), expected, rtol=1e-6)
        scaled = torch.from_numpy(images).double() / 255
        np.testing.assert_allclose(data_smoothness(scaled).numpy(), expected, rtol=1e-12)

    def test_leaves_out_images_without_edges(self) -> None:
        image = torch.rand(1, 1, 5, 5, dtype=torch.float64)
        constant = torch.full((1, 1, 5, 5), 0.5, dtype=torch.float64)
        torch.testing.assert_close(data_smoothness(torch.cat([image, constant])), data_smoothness(image), **EXACT)
        with pytest.raises(ValueError, match="constant"):
            data_smoothness(constant)


class TestPaths:
    def test_figure_1(self) -> None:
        """Two layers of kernel 3: the centre has three paths to the output unit, its neighbour two, the next one."""
        network = nn.Sequential(nn.Conv2d(1, 1, (1, 3)), nn.ReLU(), nn.Conv2d(1, 1, (1, 3)))
        counts = path_importance(network, (1, 1, 5))[0]
        torch.testing.assert_close(counts / counts[0], torch.tensor([1.0, 2, 3, 2, 1], dtype=torch.float64), **EXACT)
        assert float(counts.square().mean()) == pytest.approx(1)

    def test_deep_regular_network_follows_the_multinomial_formula(self) -> None:
        """L layers of kernel 3: #paths to offset i is Σ L!/(a! b! c!) over a + b + c = L with -a + c = i."""
        depth = 8
        network = nn.Sequential(*[nn.Conv2d(1, 1, (1, 3), bias=False) for _ in range(depth)])
        expected = []
        for offset in range(-depth, depth + 1):
            paths = 0
            for right in range(depth + 1):
                left = right - offset
                stay = depth - left - right
                if left >= 0 and stay >= 0:
                    factorials = math.factorial(left) * math.factorial(stay) * math.factorial(right)
                    paths += math.factorial(depth) // factorials
            expected.append(paths)
        assert sum(expected) == 3**depth
        counts = path_importance(network, (1, 1, 2 * depth + 1))[0]
        wanted = torch.tensor(expected, dtype=torch.float64)
        torch.testing.assert_close(counts / counts[0], wanted / wanted[0], **EXACT)

    def test_several_channels_and_outputs_sum_over_outputs(self) -> None:
        # 'same' convolution of width 3 on three pixels: an edge pixel reaches 2 outputs, the centre 3
        network = nn.Conv2d(2, 7, (1, 3), padding=(0, 1))
        counts = path_importance(network, (2, 1, 3))[0]
        torch.testing.assert_close(counts / counts[0], torch.tensor([1.0, 1.5, 1.0], dtype=torch.float64), **EXACT)

    def test_a_residual_branch_is_weighted_by_its_variance(self) -> None:
        class Residual(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.conv = nn.Conv2d(1, 1, (1, 3), padding=(0, 1), bias=False)
                self.act = nn.ReLU()

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return x + self.act(self.conv(x))

        network = Residual()
        with torch.no_grad():
            network.conv.weight.copy_(torch.tensor([[[[1.0, 2.0, 4.0]]]]))  # mean square 7
        counts = path_importance(network, (1, 1, 3))[0]
        torch.testing.assert_close(counts / counts[0], torch.tensor([15.0, 22.0, 15.0]).double() / 15, **EXACT)

    @pytest.mark.parametrize(
        ("pool", "expected"),
        [
            (nn.MaxPool2d((1, 2)), [0.5, 0.5, 0.5, 0.5]),
            (nn.AvgPool2d((1, 2)), [0.25, 0.25, 0.25, 0.25]),
            # windows (pad, 0, 1), (1, 2, 3): pads are no candidates for the maximum
            (nn.MaxPool2d((1, 3), (1, 2), (0, 1)), [1 / 2, 1 / 2 + 1 / 3, 1 / 3, 1 / 3]),
            # averages divide by 3 whether padded or not
            (nn.AvgPool2d((1, 3), (1, 2), (0, 1)), [1 / 9, 2 / 9, 1 / 9, 1 / 9]),
            (nn.AvgPool2d((1, 3), (1, 2), (0, 1), count_include_pad=False), [1 / 4, 1 / 4 + 1 / 9, 1 / 9, 1 / 9]),
            (nn.AdaptiveAvgPool2d(1), [1 / 16] * 4),
        ],
    )
    def test_pooling_by_hand(self, pool: nn.Module, expected: list[float]) -> None:
        counts = path_importance(nn.Sequential(pool, nn.Identity()), (1, 1, 4))[0]
        wanted = torch.tensor(expected, dtype=torch.float64)
        torch.testing.assert_close(counts / counts.norm(), wanted / wanted.norm(), **EXACT)

    def test_strided_convolution_skips_pixels(self) -> None:
        network = nn.Conv2d(1, 1, 1, stride=2)
        counts = path_importance(network, (1, 4, 4))
        assert (counts > 0).nonzero().tolist() == [[0, 0], [0, 2], [2, 0], [2, 2]]

    @pytest.mark.parametrize(
        ("name", "shape"),
        [
            ("lenet5", (1, 28, 28)),
            ("resnet8", (1, 8, 8)),
            ("resnet18", (3, 32, 32)),
            ("resnet50-imagenet", (3, 64, 64)),
        ],
    )
    def test_every_kind_of_registered_model(self, name: str, shape: tuple[int, int, int]) -> None:

        model = build_model(name, channels=shape[0], size=shape[1], classes=10, seed=0)
        before = {key: value.clone() for key, value in model.state_dict().items()}
        counts = path_importance(model, shape)
        assert counts.shape == shape[1:]
        assert bool((counts >= 0).all())
        assert float(counts.square().mean()) == pytest.approx(1)
        assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())

    def test_predicts_the_measured_landscape(self) -> None:
        """Proposition 1 itself: 300 initialisations of a linear-by-parts network against its path counts."""
        total = torch.zeros(9, 9, dtype=torch.float64)
        images = torch.randn(8, 1, 9, 9)
        for seed in range(300):
            torch.manual_seed(seed)
            network = nn.Sequential(
                nn.Conv2d(1, 6, 3),
                nn.ReLU(),
                nn.Conv2d(6, 6, 3),
                nn.ReLU(),
                nn.Conv2d(6, 1, 3),
                nn.AdaptiveAvgPool2d(1),
                nn.Flatten(),
            )
            total += importance_landscape(network, images).double()
        predicted = path_importance(network, (1, 9, 9))
        correlation = torch.corrcoef(torch.stack([total.flatten(), predicted.flatten()]))[0, 1]
        assert float(correlation) > 0.98

    def test_refuses_layers_it_cannot_count(self) -> None:
        with pytest.raises(ValueError, match=r"layer 1 is a LayerNorm"):
            path_importance(nn.Sequential(nn.Conv2d(1, 1, 3), nn.LayerNorm(3)), (1, 5, 5))
        with pytest.raises(ValueError, match=r"nn\.Module"):
            path_importance(lambda x: x, (1, 5, 5))


class TestConfiguration:
    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("alpha", -1.0),
            ("alpha", math.inf),
            ("alpha", math.nan),
            ("interval", 0),
            ("laplacian_width", 4),
            ("laplacian_width", 1),
            ("variant", "both"),
            ("reduction", "max"),
            ("reduction", "mean"),
        ],
    )
    def test_refuses(self, field: str, value: object) -> None:
        variant = "target" if value == "max" else "curvature"
        with pytest.raises(ValueError, match=field):
            Pilcro(**{"alpha": 1.0, "variant": variant, field: value})  # type: ignore[arg-type]

    def test_a_width_that_does_not_fit_the_images(self) -> None:
        Pilcro(1.0, laplacian_width=7).check(8, 8, 10)
        with pytest.raises(ValueError, match="laplacian_width: 9"):
            Pilcro(1.0, laplacian_width=9).check(8, 8, 10)

    def test_an_interval_that_no_step_reaches(self) -> None:
        Pilcro(1.0, interval=30).check(8, 8, 30)
        with pytest.raises(ValueError, match="interval: 31, allowed are at most the 30 steps"):
            Pilcro(1.0, interval=31).check(8, 8, 30)

    def test_the_mean_is_the_targets_default(self) -> None:
        assert Pilcro(1.0, variant="target") == Pilcro(1.0, variant="target", reduction="mean")
        assert Pilcro(1.0).reduction is None


class TestPenaltyOfAStep:
    def step(self, network: nn.Module, number: int) -> Step:
        images = torch.rand(8, 2, 6, 6, dtype=torch.float64)
        generator = torch.Generator().manual_seed(0)
        return Step(network, images, torch.zeros(8, dtype=torch.int64), number, generator, data=None)  # type: ignore[arg-type]

    def test_every_interval_th_step_times_alpha_and_interval(self) -> None:
        network = small_network()
        method = Pilcro(2.5, interval=4)
        due = [number for number in range(1, 13) if method.penalty(self.step(network, number)) is not None]
        assert due == [4, 8, 12]
        penalty = method.penalty(self.step(network, 4))
        assert penalty is not None
        assert penalty.weight == 10.0
        assert penalty.value.requires_grad

    def test_without_the_interval_factor_alpha_alone(self) -> None:
        with_it, without = (Pilcro(2.5, interval=4, interval_factor=given) for given in (True, False))
        left, right = (method.penalty(self.step(small_network(), 4)) for method in (with_it, without))
        assert left is not None
        assert right is not None
        assert (left.weight, right.weight) == (10.0, 2.5)

    def test_uses_evaluation_mode_and_leaves_the_running_statistics(self) -> None:
        network = small_network().train()
        network[2].eval()  # a module that the user froze stays frozen
        before = {key: value.clone() for key, value in network.state_dict().items()}
        images = self.step(network, 1).images
        penalty = Pilcro(1.0, interval=1).penalty(
            Step(network, images, torch.zeros(8, dtype=torch.int64), 1, torch.Generator().manual_seed(0), data=None)  # type: ignore[arg-type]
        )
        assert penalty is not None
        assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
        assert network[1].training
        assert not network[2].training
        with evaluation_mode(network):
            expected = curvature_penalty(
                importance_landscape(network, images, generator=torch.Generator().manual_seed(0))
            )
        torch.testing.assert_close(penalty.value.detach(), expected, **EXACT)

    def test_a_dead_network_has_no_landscape(self) -> None:
        network = small_network()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.zero_()
        images = torch.rand(2, 2, 6, 6, dtype=torch.float64)
        assert not importance_landscape(network, images).any()
        penalty = target_penalty(importance_landscape(network, images, create_graph=True), torch.ones(6, 6).double())
        penalty.backward()
        assert all(not p.grad.any() for p in network.parameters() if p.grad is not None)


@pytest.mark.parametrize("pixels", [1, 3, 16])
def test_paths_through_top_gap_pooling_are_those_of_average_pooling(pixels: int) -> None:
    """k of n inputs pass with weight 1/k, each equally likely: up to a factor, which is normalised, k = n's."""
    from trainables.models.pooling import TopGapPooling

    torch.manual_seed(0)
    convolution = nn.Conv2d(1, 3, 3, padding=1)
    average = nn.Sequential(convolution, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    pooled = nn.Sequential(convolution, TopGapPooling(pixels, 4), nn.Flatten())
    expected = path_importance(average, (1, 4, 4))
    torch.testing.assert_close(path_importance(pooled, (1, 4, 4)), expected, rtol=1e-12, atol=1e-12)


def test_networks_that_multiply_have_no_path_counts() -> None:
    model = build_model("efficientnet-b0", channels=1, size=32, classes=3, seed=0).eval()
    with pytest.raises(ValueError, match="is a SqueezeExcite, whose paths cannot be counted"):
        path_importance(model, (1, 32, 32))
