"""Path counts of whatever a network's graph may be, against moments computed densely and choices enumerated."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from analysis.command_line import InputError
from trainables.models import build_model
from trainables.models.pooling import TopGapPooling
from trainables.pilcro import path_importance
from trainables.top_gap import TopGap

EXACT = {"rtol": 1e-10, "atol": 1e-12}


def jacobian(function: Callable[[Tensor], Tensor], shape: tuple[int, ...]) -> Tensor:
    """The matrix (outputs, inputs) of a linear function of one image, float64."""
    zeros = torch.zeros(1, *shape, dtype=torch.float64)
    found = torch.autograd.functional.jacobian(function, zeros)
    return found.reshape(-1, math.prod(shape))  # type: ignore[no-any-return]


def by_moments(layers: list[nn.Module], shape: tuple[int, int, int]) -> Tensor:
    """The landscape of a chain from the whole matrix of moments E[∂h/∂x_i ∂h/∂x_j], from the output back: AᵀMA through
    a layer without weights, and through one with weights, whose products have mean zero, the diagonal alone."""
    shapes, value = [shape], torch.zeros(1, *shape, dtype=torch.float64)
    for layer in layers:
        value = layer.double()(value)
        shapes.append(tuple(value.shape[1:]))  # type: ignore[arg-type]
    moments = torch.eye(value.numel(), dtype=torch.float64)
    for layer, before in zip(reversed(layers), reversed(shapes[:-1]), strict=True):
        if isinstance(layer, nn.Conv2d | nn.Linear):
            ones = type(layer).forward
            with torch.no_grad():
                variance = float(layer.weight.square().mean())
                kept, layer.weight.data = layer.weight.data, torch.ones_like(layer.weight)
                reached = jacobian(lambda x, layer=layer, ones=ones: ones(layer, x), before)  # type: ignore[misc]
                layer.weight.data = kept
            moments = torch.diag(variance * (moments.diagonal() @ reached))
        else:
            matrix = jacobian(layer, before)
            moments = matrix.T @ moments @ matrix
    squares = moments.diagonal().reshape(shape)
    per_pixel = squares.norm(dim=0)
    return per_pixel / per_pixel.square().mean().sqrt()


def conv(inputs: int, outputs: int, kernel: int = 3, **options: object) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, bias=False, **options)  # type: ignore[arg-type]


def norm(channels: int) -> nn.Module:
    layer = nn.BatchNorm2d(channels)
    with torch.no_grad():
        layer.weight.uniform_(-2, 2)
        assert layer.running_var is not None
        layer.running_var.uniform_(0.5, 2)
    return layer.eval()


def test_overlapping_pools_by_hand() -> None:
    """Two pools of 2×2, one pixel apart, are one of weights (1, 2, 1)/4 along each side: of 3×3 pixels the corner has a
    quarter of the centre's weight, a sixteenth of its square."""
    network = nn.Sequential(nn.AvgPool2d(2, 1), nn.AvgPool2d(2, 1), nn.Conv2d(1, 1, 1))
    counts = path_importance(network, (1, 3, 3))
    assert float(counts[0, 0] / counts[1, 1]) == pytest.approx(0.0625)
    assert float(counts[0, 1] / counts[1, 1]) == pytest.approx(0.25)


CHAINS: dict[str, Callable[[], list[nn.Module]]] = {
    "pools": lambda: [nn.AvgPool2d(2, 1), nn.AvgPool2d(3, 1, 1), conv(2, 3)],
    "between convolutions": lambda: [conv(2, 3), nn.AvgPool2d(3, 1), nn.AvgPool2d((2, 1), 1), conv(3, 2, 1)],
    "then global": lambda: [conv(2, 3), nn.AvgPool2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4)],
    "global alone": lambda: [nn.AvgPool2d(2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()],
    "padding that counts or not": lambda: [
        nn.AvgPool2d(3, 2, 1, count_include_pad=False),
        nn.AvgPool2d(2, 1, divisor_override=3),
        conv(2, 2, 1),
    ],
    "rounded up": lambda: [nn.AvgPool2d(2, 2, 1, ceil_mode=True), nn.AvgPool2d(2, 1), nn.Flatten(), nn.Linear(18, 2)],
    "adaptive, overlapping": lambda: [conv(2, 3), nn.AdaptiveAvgPool2d((3, 4)), nn.AdaptiveAvgPool2d((4, None))],
    "a gain of each channel": lambda: [norm(2), conv(2, 4), norm(4), nn.AvgPool2d(2, 1), norm(4), nn.Flatten()],
    "strides, groups, dilation": lambda: [
        conv(2, 4, 3, stride=2, groups=2),
        nn.AvgPool2d(2, 1, 1),
        conv(4, 4, 2, padding=1, dilation=2),
    ],
    "reflected borders": lambda: [conv(2, 2, 3, padding=1, padding_mode="reflect"), nn.AvgPool2d(2, 1), conv(2, 1)],
    "enlarged": lambda: [conv(2, 2), nn.Upsample(scale_factor=2), nn.AvgPool2d(3, 1), nn.AdaptiveAvgPool2d(2)],
    "enlarged smoothly": lambda: [nn.Upsample(9, mode="bilinear"), nn.AvgPool2d(2), conv(2, 2)],
    "nothing": lambda: [nn.Identity(), conv(2, 1), nn.Sequential(), nn.Dropout(0.5).eval()],
}


@pytest.mark.parametrize("name", CHAINS)
def test_chains_against_dense_moments(name: str) -> None:
    torch.manual_seed(0)
    layers = CHAINS[name]()
    expected = by_moments(layers, (2, 6, 6))
    torch.testing.assert_close(path_importance(nn.Sequential(*layers), (2, 6, 6)), expected, **EXACT)


class Branches(nn.Module):
    """x, half of it smoothed, and a convolution's share, added."""

    def __init__(self) -> None:
        super().__init__()
        self.pool, self.conv = nn.AvgPool2d(3, 1, 1), conv(1, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + 0.5 * self.pool(x) + self.conv(x)


def test_branches_without_weights_are_added_before_they_are_squared() -> None:
    network = Branches()
    with torch.no_grad():
        network.conv.weight.fill_(0.3)
    matrix = jacobian(lambda x: x + 0.5 * network.pool(x), (1, 4, 4))
    reached = jacobian(lambda x: F.conv2d(x, torch.ones(1, 1, 3, 3, dtype=torch.float64), padding=1), (1, 4, 4))
    expected = (matrix.square().sum(0) + 0.09 * reached.sum(0)).reshape(4, 4)
    found = path_importance(network, (1, 4, 4))
    torch.testing.assert_close(found / found.norm(), expected / expected.norm(), rtol=1e-6, atol=1e-8)


class Joined(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.pool, self.last = conv(1, 2, 3, padding=1), nn.AvgPool2d(3, 1, 1), conv(4, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.cat([self.left(x), x, self.pool(x)], 1))


def test_joined_channels_meet_different_weights() -> None:
    """Through the last layer's own weights for each: squares are added, and x's path is none of the pool's."""
    network = Joined()
    with torch.no_grad():
        network.left.weight.fill_(0.5)
        network.last.weight.fill_(2.0)
    pool = jacobian(network.pool, (1, 4, 4))
    reached = jacobian(lambda x: F.conv2d(x, torch.ones(1, 1, 3, 3, dtype=torch.float64), padding=1), (1, 4, 4))
    expected = (2 * 0.25 * reached.sum(0) + 1 + pool.square().sum(0)).reshape(4, 4)
    found = path_importance(network, (1, 4, 4))
    torch.testing.assert_close(found / found.norm(), expected / expected.norm(), **EXACT)


# --- what chooses among its inputs: the mean over all choices ---------------------------------------------------------


def of_choices(choices: list[Tensor], before: Tensor, after: Tensor) -> Tensor:
    """The mean over equally likely matrices of the squares of after · choice · before, summed over outputs."""
    squares = torch.stack([(after @ choice @ before).square().sum(0) for choice in choices]).mean(0)
    return squares / squares.square().mean().sqrt()


@pytest.mark.parametrize("before", [None, nn.AvgPool2d((1, 2), 1)])
@pytest.mark.parametrize("after", [nn.Identity(), nn.AdaptiveAvgPool2d(1), nn.AvgPool2d((1, 2), 1)])
def test_overlapping_maxima_by_enumeration(before: nn.Module | None, after: nn.Module) -> None:
    """Windows (0, 1), (1, 2), (2, 3) of four values, each passing one of its two: eight equally likely choices."""
    choices = []
    for chosen in itertools.product((0, 1), repeat=3):
        matrix = torch.zeros(3, 4, dtype=torch.float64)
        for window, which in enumerate(chosen):
            matrix[window, window + which] = 1
        choices.append(matrix)
    width = 4 if before is None else 5
    first = torch.eye(4, dtype=torch.float64) if before is None else jacobian(before, (1, 1, width))
    expected = of_choices(choices, first, jacobian(after, (1, 1, 3)))
    network = nn.Sequential(*([] if before is None else [before]), nn.MaxPool2d((1, 2), 1), after)
    torch.testing.assert_close(path_importance(network, (1, 1, width))[0], expected, **EXACT)


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_top_gap_after_pooling_by_enumeration(k: int) -> None:
    """The means of k of four values, every choice equally likely, of overlapping averages of five."""
    before = nn.AvgPool2d((1, 2), 1)
    choices = []
    for chosen in itertools.combinations(range(4), k):
        matrix = torch.zeros(1, 4, dtype=torch.float64)
        matrix[0, list(chosen)] = 1 / k
        choices.append(matrix)
    expected = of_choices(choices, jacobian(before, (1, 1, 5)), torch.eye(1, dtype=torch.float64))
    pool = TopGapPooling(k, 2)
    found = path_importance(nn.Sequential(before, pool), (1, 1, 5))[0]
    torch.testing.assert_close(found, expected, **EXACT)


# --- graphs -----------------------------------------------------------------------------------------------------------


class TwoNames(nn.Module):
    def __init__(self, shared: bool) -> None:
        super().__init__()
        self.first = nn.AvgPool2d(2, 1)
        self.second = self.first if shared else nn.AvgPool2d(2, 1)
        self.last = nn.Conv2d(1, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.second(self.first(x)))


def test_a_pool_under_two_names_is_two_pools() -> None:
    shared, apart = (path_importance(TwoNames(value), (1, 5, 5)) for value in (True, False))
    torch.testing.assert_close(shared, apart, **EXACT)


class Calls(nn.Module):
    """A convolution, then something in `forward`."""

    def __init__(self, function: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.function = conv(1, 1, 3, padding=1), function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.conv, x)


@pytest.mark.parametrize(
    "function",
    [
        lambda conv, x: F.relu(conv(x)),
        lambda conv, x: nn.ReLU()(conv(x)),
        lambda conv, x: conv(x).relu_() / 2,
        lambda conv, x: torch.tanh(conv(x)).view(x.size(0), -1) + 1,
        lambda conv, x: conv(x) if x.shape[-1] > 3 else x,
    ],
)
def test_nonlinearities_views_and_sizes_in_forward_are_seen(function: Callable[[nn.Module, Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    found = path_importance(Calls(function), (1, 5, 5))
    torch.testing.assert_close(found, path_importance(conv(1, 1, 3, padding=1), (1, 5, 5)), **EXACT)


@pytest.mark.parametrize(
    ("function", "named"),
    [
        (lambda conv, x: F.avg_pool2d(conv(x), 2), "as it calls avg_pool2d"),
        (lambda conv, x: nn.AvgPool2d(2)(conv(x)), "as it calls avg_pool2d"),
        (lambda conv, x: F.max_pool2d(conv(x), 2), "as it calls"),
        (lambda conv, x: conv(x).mean((2, 3)), "as it calls mean"),
        (lambda conv, x: conv(x) * x, "as it calls mul"),
        (lambda conv, x: conv(conv(x)), "as its weights are used twice"),
        (lambda conv, x: conv(x) + x[:, :, :1], "of tensors of different shapes|as it calls getitem"),
        (lambda conv, x: conv(x) if bool(x.sum() > 0) else x, "cannot be traced"),
        (lambda conv, x: {"logits": conv(x)}, "returns no tensor of logits"),
        (lambda conv, x: torch.softmax(conv(x), 1), "as it calls softmax"),
    ],
)
def test_what_is_not_understood_is_refused(function: Callable[[nn.Module, Tensor], Tensor], named: str) -> None:
    with pytest.raises(InputError, match=named) as caught:
        path_importance(Calls(function), (1, 6, 6))
    assert "\n" not in str(caught.value)


def test_torchvisions_squeeze_and_excitation_is_refused() -> None:
    from torchvision.ops import SqueezeExcitation

    with pytest.raises(
        InputError, match=r"layer 1 is a SqueezeExcitation, whose paths cannot be counted, as it calls mul"
    ):
        path_importance(nn.Sequential(nn.Conv2d(1, 4, 3), SqueezeExcitation(4, 2)), (1, 6, 6))


@pytest.mark.parametrize("name", ["vgg11_bn", "alexnet", "resnet18"])
def test_torchvisions_networks(name: str) -> None:
    import torchvision

    model = getattr(torchvision.models, name)(weights=None, num_classes=5)
    counts = path_importance(model, (3, 96, 96))
    assert float(counts.square().mean()) == pytest.approx(1)
    assert bool((counts > 0).any())
    # more paths to the middle than to the border
    assert float(counts[40:56, 40:56].mean()) > float(counts[0].mean())


def test_networks_of_the_registry_with_functions_in_forward() -> None:
    """timm's DenseNet: BatchNorm by a function, joined channels; Top-GAP's pyramid: enlarged maps, added."""
    dense = build_model("densenet-121", channels=1, size=32, classes=3, seed=0)
    plain = build_model("resnet8", channels=1, size=16, classes=3, width=4, seed=0)
    from trainables.models.top_gap import TopGapNetwork

    pyramid = TopGapNetwork(plain, (1, 16, 16), TopGap(4, fpn_channels=4))
    for model, size in ((dense, 32), (pyramid, 16)):
        before = {name: value.clone() for name, value in model.state_dict().items()}
        counts = path_importance(model, (1, size, size))
        assert float(counts.square().mean()) == pytest.approx(1)
        assert float(counts[size // 2, size // 2]) > float(counts[0, 0]) > 0
        assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
        assert model.training
