"""LOCO-REG: the penalty against the formula written out and autograd, coefficients of layers by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from analysis.command_line import InputError
from trainables.configuration import ModelConfig, TrainingConfig, TrialConfig
from trainables.data import DataConfig, Images
from trainables.loco_reg import (
    LocoReg,
    coefficients_in,
    distance_classes,
    layer_coefficients,
    locality_coefficients,
    locality_penalty,
    modulated,
    spatial_convolutions,
    weight_ratios,
)
from trainables.method import Method
from trainables.models import build_model
from trainables.training import Run

DATA = DataConfig("digits", train_images=300)


# --- coefficients ----------------------------------------------------------------------------------------------------


def test_equation_6_1_by_hand() -> None:
    """γ = 0.5, η = 2: Z = (0.5 + 4·3)/9 = 12.5/9."""
    z = 12.5 / 9
    expected = torch.tensor([[2, 1, 2], [1, 0.5, 1], [2, 1, 2]], dtype=torch.float64) / z
    torch.testing.assert_close(locality_coefficients(3, 0.5, 2.0), expected, rtol=1e-15, atol=0)


@pytest.mark.parametrize("size", [1, 3, 5, 7])
def test_without_preference_it_is_plain_l2(size: int) -> None:
    assert torch.equal(locality_coefficients(size, 1.0, 1.0), torch.ones(size, size, dtype=torch.float64))


@pytest.mark.parametrize(("size", "gamma", "eta"), [(3, 0.1, 3.0), (5, 0.3, 2.0), (7, 2.0, 0.5), (5, 0.0, 0.0)])
def test_coefficients_average_one_and_depend_on_the_distance_alone(size: int, gamma: float, eta: float) -> None:
    found = locality_coefficients(size, gamma, eta)
    assert float(found.mean()) == pytest.approx(1, abs=1e-15)
    assert torch.equal(found, found.T)
    assert torch.equal(found, found.flip(0))
    by_distance: dict[float, set[float]] = {}
    for i in range(size):
        for j in range(size):
            distance = math.hypot(i - size // 2, j - size // 2)
            by_distance.setdefault(round(distance, 9), set()).add(float(found[i, j]))
    assert all(len(values) == 1 for values in by_distance.values())
    assert len(by_distance) == len(distance_classes(size))
    ((neighbour,), (corner,), (centre,)) = (by_distance[key] for key in (1.0, round(math.sqrt(2), 9), 0.0))
    assert centre / neighbour == pytest.approx(gamma, rel=1e-12)
    assert corner / neighbour == pytest.approx(eta, rel=1e-12)


def test_classes_of_5x5_are_the_papers() -> None:
    assert [math.sqrt(d) for d in distance_classes(5)] == pytest.approx([0, 1, 2**0.5, 2, 5**0.5, 8**0.5])


def test_5x5_goes_on_as_a_power_of_the_distance_or_as_told() -> None:
    """η = 2 is the squared distance: by hand, 1 at 1, 2 at √2, 4 at 2, 5 at √5, 8 at √8, and γ = 0.5 in the centre."""
    row = [[8, 5, 4, 5, 8], [5, 2, 1, 2, 5], [4, 1, 0.5, 1, 4], [5, 2, 1, 2, 5], [8, 5, 4, 5, 8]]
    expected = torch.tensor(row, dtype=torch.float64)
    torch.testing.assert_close(locality_coefficients(5, 0.5, 2.0), expected / expected.mean())
    torch.testing.assert_close(locality_coefficients(5, 0.5, [2.0, 4.0, 5.0, 8.0]), expected / expected.mean())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((4, 1.0, 1.0), "kernel_size: 4, allowed are odd whole numbers"),
        ((3, -1.0, 1.0), "gamma: -1.0, allowed are finite numbers of at least 0"),
        ((3, 1.0, math.inf), "eta: inf, allowed are finite numbers of at least 0"),
        ((5, 1.0, [1.0, 2.0]), "eta: 2 numbers, allowed are 1 and 4 for 5×5"),
        ((5, 1.0, 1e200), "eta: 1e\\+200, too large"),
    ],
)
def test_bad_coefficients_are_refused(arguments: tuple[int, float, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        locality_coefficients(*arguments)


# --- the penalty -----------------------------------------------------------------------------------------------------


def test_the_penalty_is_the_formula_slice_by_slice() -> None:
    """Equation 6.1 with loops over slices and indices, depth-wise filters too."""
    generator = torch.Generator().manual_seed(0)
    gamma, eta, decay = 0.3, 1.7, 5e-4
    corners, neighbours = [(0, 0), (2, 0), (0, 2), (2, 2)], [(0, 1), (1, 0), (1, 2), (2, 1)]
    for shape in [(4, 3, 3, 3), (6, 1, 3, 3)]:
        weight = torch.randn(shape, generator=generator, dtype=torch.float64)
        total = 0.0
        for w in weight.flatten(0, 1).tolist():
            z = (gamma + 4 * (1 + eta)) / 9
            inner = gamma * w[1][1] ** 2 + sum(w[i][j] ** 2 for i, j in neighbours)
            total += decay / z * (inner + sum(eta * w[i][j] ** 2 for i, j in corners))
        assert float(locality_penalty(weight, gamma, eta, decay)) == pytest.approx(total, rel=1e-12)


def _networks() -> list[tuple[str, nn.Module, LocoReg]]:
    def net(name: str, size: int) -> nn.Module:
        return build_model(name, channels=3, size=size, classes=10, width=8, seed=0)

    layered = LocoReg(
        modulation=1.5,
        variant="absolute",
        layers=tuple((0.1 * (i + 1), 1.0 + 0.2 * i) for i in range(10)),
    )
    return [
        ("residual", net("resnet8", 32), LocoReg(0.2, 3.0)),
        ("by layer", net("vgg13", 32), layered),
        ("5×5 and 3×3", net("vgg13-5x5", 32), LocoReg(0.5, 2.0)),
        ("depth-wise", net("mobilenet", 32), LocoReg(0.0, 5.0)),
    ]


@pytest.mark.parametrize(
    ("name", "model", "method"), _networks(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_the_gradient_is_that_of_the_loss(name: str, model: nn.Module, method: LocoReg, data: Images) -> None:
    """The optimiser's weight decay and `adjust_gradients` together are autograd's gradient of λ·(Equation 6.1 over
    spatial convolutions + squares of all else), weight_decay = 2λ: to 1e-6 of each tensor's norm (rounding is 6e-8)."""
    decay = 0.05
    model = method.build(model, data)
    images, labels = torch.randn(8, 3, 32, 32), torch.arange(8)
    parameters = dict(model.named_parameters())
    loss = F.cross_entropy(model.eval()(images), labels)
    spatial = {f"{layer}.weight": index for index, (layer, _) in enumerate(spatial_convolutions(model))}
    penalty = torch.zeros(())
    for key, parameter in parameters.items():
        if key in spatial:
            gamma, eta = method.layers[spatial[key]] if method.layers else (method.gamma, method.eta)
            assert gamma is not None
            assert eta is not None
            penalty = penalty + locality_penalty(parameter, gamma, eta, decay / 2)
        else:
            penalty = penalty + decay / 2 * parameter.square().sum()
    expected = torch.autograd.grad(loss + penalty, list(parameters.values()), retain_graph=True)
    loss.backward()
    method.adjust_gradients(model, decay)
    for (key, parameter), wanted in zip(parameters.items(), expected, strict=True):
        assert parameter.grad is not None
        found = parameter.grad + decay * parameter.detach()  # as the optimiser has it
        assert float((found - wanted).norm()) <= 1e-6 * float(wanted.norm()), key


def test_plain_l2_is_the_baseline_bit_for_bit(data: Images) -> None:
    """(γ, η) = (1, 1): Section 6."""
    training = TrainingConfig(epochs=2, batch_size=32, learning_rate=0.05, weight_decay=1e-3)
    states = []
    for method in (Method(), LocoReg(1.0, 1.0)):
        run = Run(TrialConfig(method, ModelConfig("resnet8", 4), DATA, training, 0), data)
        while not run.finished:
            run.train_epoch()
        states.append(run.model.state_dict())
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_a_training_step_is_sgd_on_the_loss_written_out(data: Images) -> None:
    """An epoch of `Run` against torch's SGD without weight decay on CE + penalty, weights to 1e-5 of their norm."""
    training = TrainingConfig(epochs=1, batch_size=100, learning_rate=0.05, weight_decay=0.02, schedule="constant")
    method = LocoReg(0.25, 4.0)
    run = Run(TrialConfig(method, ModelConfig("resnet8", 4), DATA, training, 3), data)
    model = build_model("resnet8", channels=1, size=8, classes=10, width=4, seed=3).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    generator = torch.Generator()
    generator.set_state(run.generators["data"].get_state())
    for images, labels in data.training_batches(100, generator=generator, device=torch.device("cpu")):
        penalty = torch.zeros(())
        for parameter in model.parameters():
            if parameter.ndim == 4 and parameter.shape[-1] == 3:
                penalty = penalty + locality_penalty(parameter, 0.25, 4.0, 0.01)
            else:
                penalty = penalty + 0.01 * parameter.square().sum()
        optimizer.zero_grad()
        (F.cross_entropy(model(images), labels) + penalty).backward()
        optimizer.step()
    run.train_epoch()
    for (key, found), wanted in zip(run.model.named_parameters(), model.parameters(), strict=True):
        found, wanted = found.detach(), wanted.detach()
        assert float((found - wanted).norm()) <= 1e-5 * float(wanted.norm()) + 1e-7, key


def test_corners_end_up_smaller(data: Images) -> None:
    """What it is for: with η = 20 the corners of trained filters are smaller than with plain L2."""
    training = TrainingConfig(epochs=4, batch_size=32, learning_rate=0.05, weight_decay=0.02)
    shares = []
    for method in (Method(), LocoReg(0.1, 20.0)):
        run = Run(TrialConfig(method, ModelConfig("resnet8", 4), DATA, training, 0), data)
        while not run.finished:
            run.train_epoch()
        weights = torch.cat([module.weight.detach().flatten(0, 1) for _, module in spatial_convolutions(run.model)])
        squares = weights.square().mean(0)
        shares.append(float(squares[::2, ::2].mean() / squares.mean()))
    assert shares[1] < 0.7 * shares[0]


# --- coefficients of layers ------------------------------------------------------------------------------------------


def test_ratios_by_hand() -> None:
    """Two slices; centres 2 and 4, neighbours 1 and −1 ±…, corners −1 and 3."""
    weight = torch.zeros(2, 1, 3, 3)
    weight[0, 0] = torch.tensor([[-1, 1, -1], [1, 2, 1], [-1, 1, -1]])
    weight[1, 0] = torch.tensor([[3, 2, 3], [2, 4, 2], [3, 2, 3]])
    # Σ m(c) = 6, Σ m(n) = 3, Σ m(co) = 2; magnitudes: 6, 3, 4
    assert weight_ratios(weight) == pytest.approx({"n-c": 3 / 6, "n-co": 3 / 2, "co-n": 2 / 3})
    assert weight_ratios(weight, absolute=True) == pytest.approx({"n-c": 3 / 6, "n-co": 3 / 4, "co-n": 4 / 3})
    assert set(weight_ratios(torch.ones(1, 1, 5, 5))) == {"n-c", "n-co", "co-n", "r4-n", "r5-n", "r8-n"}
    assert math.isnan(weight_ratios(torch.zeros(1, 1, 3, 3))["n-c"])


def test_coefficients_of_a_layer_by_hand() -> None:
    """Table 6 with r(n, c) = 0.8, r(co, n) = 0.5, r(n, co) = 2, c = 1.5: a = 0.7, 0.25, 2.5."""
    networks = [{"conv": {"n-c": 0.7, "n-co": 1.5, "co-n": 0.4}}, {"conv": {"n-c": 0.9, "n-co": 2.5, "co-n": 0.6}}]
    assert modulated(0.8, 1.5) == pytest.approx(0.7)
    assert layer_coefficients(networks, 1.5)[0] == pytest.approx((0.7, 1 / 0.25))
    assert layer_coefficients(networks, 1.5, printed=True)[0] == pytest.approx((0.7, 1 / 2.5))


def test_ratios_that_cannot_be_used_name_the_layer() -> None:
    usable = {"n-c": 0.8, "n-co": 2.0, "co-n": 0.5}
    for bad, message in [
        ({**usable, "n-c": -0.5}, r"layer b: r\(n, c\) = -0.5 in one of 2 networks, allowed are numbers above 0"),
        ({**usable, "co-n": 0.1}, r"layer b: r\(co, n\) = 0.3, of which c = 1.5 makes -0.05, allowed"),
        ({**usable, "n-c": math.nan}, r"layer b: r\(n, c\) = nan in one of 2 networks"),
    ]:
        with pytest.raises(InputError, match=message):
            layer_coefficients([{"a": usable, "b": usable}, {"a": usable, "b": bad}], 1.5)
    with pytest.raises(InputError, match=r"layer b: filters larger than 3×3"):
        layer_coefficients([{"b": weight_ratios(torch.ones(1, 1, 5, 5))}], 1.0, printed=True)


def test_ratios_that_average_out_are_refused() -> None:
    """7 and −5 have the mean 1, which would be plain L2 by the name of LOCO-REG."""
    networks = [{"a": {"n-c": value, "co-n": 1.0, "n-co": 1.0}} for value in (7.0, -5.0)]
    with pytest.raises(InputError, match=r"layer a: r\(n, c\) = -5 in one of 2 networks"):
        layer_coefficients(networks, 1.5)


def test_the_models_coefficients_are_those_asked_for(data: Images) -> None:
    model = build_model("vgg13-5x5", channels=3, size=32, classes=10, width=4, seed=0)
    layers = tuple((0.5, 2.0, 3.0, 4.0, 5.0) if i < 6 else (0.25, 1.5) for i in range(10))
    found = dict(coefficients_in(LocoReg(modulation=1.0, variant="signed", layers=layers).build(model, data)))
    assert len(found) == 10
    for asked, (_, coefficients) in zip(layers, found.items(), strict=True):
        assert [value for _, value in coefficients] == pytest.approx(asked, rel=1e-6)
        assert [distance for distance, _ in coefficients] == [0, 2, 4, 5, 8][: len(asked)]


def test_its_coefficients_are_no_part_of_the_networks_state(data: Images) -> None:
    model = build_model("resnet8", channels=1, size=8, classes=10, width=4, seed=0)
    before = set(model.state_dict())
    assert set(LocoReg(0.5, 2.0).build(model, data).state_dict()) == before


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "gamma: None, allowed with variant fixed is a number"),
        ({"gamma": 1.0, "eta": -1.0}, "eta: -1.0, allowed are finite numbers of at least 0"),
        ({"gamma": 1.0, "eta": 1.0, "modulation": 1.5}, "allowed with variant fixed are neither"),
        ({"variant": "signed", "modulation": 1.5}, "layers: none, allowed with variant signed"),
        ({"variant": "signed", "layers": ((1.0, 1.0),)}, "modulation: None, allowed are finite numbers above 0"),
        ({"variant": "signed", "modulation": 1.0, "layers": ((1.0,),)}, "allowed are γ and η"),
        ({"variant": "other", "gamma": 1.0, "eta": 1.0}, "variant: 'other', allowed are fixed"),
        ({"variant": "signed", "gamma": 1.0, "modulation": 1.0, "layers": ((1.0, 1.0),)}, "is none"),
    ],
)
def test_bad_configurations_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LocoReg(**fields)  # type: ignore[arg-type]


def test_networks_it_cannot_work_on_are_refused(data: Images) -> None:
    with pytest.raises(InputError, match="has no locality"):
        LocoReg(1.0, 1.0).build(nn.Sequential(nn.Conv2d(1, 1, 1)), data)
    model = build_model("resnet8", channels=1, size=8, classes=10, width=4, seed=0)
    with pytest.raises(InputError, match="layers: 1, allowed with this network are 7"):
        LocoReg(modulation=1.0, variant="signed", layers=((1.0, 1.0),)).build(model, data)
