"""What every method must hold to; a new one is found by its line in the registry and needs an example here."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from analysis.schema import HYPERPARAMETERS
from trainables.configuration import ModelConfig, TrainingConfig, TrialConfig
from trainables.data import DataConfig, Images
from trainables.deformation import Deformation
from trainables.gradient_reg import GradientRegularisation
from trainables.loco_reg import LocoReg
from trainables.method import Method, Step
from trainables.methods import METHODS
from trainables.metrics import METRICS
from trainables.models import build_model
from trainables.pilcro import Pilcro
from trainables.top_gap import TopGap
from trainables.training import Run

EXAMPLES: dict[str, list[Method]] = {
    "baseline": [Method()],
    "deformation": [Deformation(0.0), Deformation(1.0)],
    "gradient_reg": [
        GradientRegularisation(10.0),
        GradientRegularisation(0.1, convention="image"),
        GradientRegularisation(1e5, convention="element"),
        GradientRegularisation(1e3, convention="pixel"),
        GradientRegularisation(10.0, batchnorm="eval"),
    ],
    "loco_reg": [
        LocoReg(0.5, 2.0),
        LocoReg(modulation=1.5, variant="absolute", layers=((0.5, 2.0),) * 7),
    ],
    "pilcro": [
        Pilcro(1.0, interval=1),
        Pilcro(1.0, interval=1, laplacian_width=5, variant="target"),
        Pilcro(0.1, interval=1, variant="target", reduction="sum"),
    ],
    "top_gap": [
        TopGap(4),
        TopGap(4, fpn=False, fpn_channels=None),
        TopGap(16, 0.0),
        TopGap(4, dropout=0.5, fpn_channels=16),
        TopGap(4, 0.1, fpn=False, fpn_channels=None, variant="last", reduction="sum"),
        TopGap(1, 1e-3, variant="all"),
    ],
}
DATA = DataConfig("digits", train_images=200)
ALL = [pytest.param(method, id=f"{name}-{i}") for name, group in EXAMPLES.items() for i, method in enumerate(group)]


def step(method: Method, data: Images, number: int = 1, seed: int = 0) -> Step:
    """As the training loop makes it: the penalty follows the pass of the cross-entropy."""
    images, labels = next(
        iter(data.training_batches(32, generator=torch.Generator().manual_seed(seed), device=torch.device("cpu")))
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = build_model("resnet8", channels=1, size=8, classes=10, width=8, seed=seed)
        model = method.build(network, data).train()
        model(images)
    return Step(model, images, labels, number, torch.Generator().manual_seed(seed), data)


def test_every_registered_method_has_an_example() -> None:
    assert set(EXAMPLES) == set(METHODS)
    assert all(type(method) is METHODS[name] for name, group in EXAMPLES.items() for method in group)


@pytest.mark.parametrize("method", ALL)
class TestEveryMethod:
    def test_is_a_documented_frozen_configuration(self, method: Method) -> None:
        assert dataclasses.is_dataclass(method)
        assert type(method).__doc__
        assert hash(method) == hash(dataclasses.replace(method))
        for field in dataclasses.fields(method):
            with pytest.raises(dataclasses.FrozenInstanceError):
                setattr(method, field.name, 1)

    def test_survives_json(self, method: Method) -> None:
        config = TrialConfig(method, ModelConfig("resnet8", 8), DATA, TrainingConfig(epochs=1), 0)
        assert TrialConfig.from_canonical(json.loads(json.dumps(config.canonical()))) == config

    def test_its_metrics_are_registered(self, method: Method) -> None:
        assert set(method.metrics) <= set(METRICS)

    def test_its_hyperparameters_reach_the_record(self, method: Method) -> None:
        config = TrialConfig(method, ModelConfig("resnet8", 8), DATA, TrainingConfig(epochs=1), 0)
        columns = config.columns()
        for field in dataclasses.fields(method):
            if field.name in HYPERPARAMETERS:
                assert columns[field.name] == getattr(method, field.name)

    def test_penalty_changes_nothing_but_the_graph(self, method: Method, data: Images) -> None:
        now = step(method, data)
        before = {key: value.clone() for key, value in now.model.state_dict().items()}
        modes = [module.training for module in now.model.modules()]
        images = now.images.clone()
        torch.manual_seed(0)
        state = torch.get_rng_state()
        method.penalty(now)
        assert torch.equal(torch.get_rng_state(), state)
        assert [module.training for module in now.model.modules()] == modes
        assert torch.equal(images, now.images)
        assert not now.images.requires_grad
        assert all(torch.equal(before[key], value) for key, value in now.model.state_dict().items())
        assert all(parameter.grad is None for parameter in now.model.parameters())

    def test_penalty_is_finite_differentiable_and_repeatable(self, method: Method, data: Images) -> None:
        first, second = method.penalty(step(method, data)), method.penalty(step(method, data))
        if first is None or second is None:
            assert first is second
            return
        assert first.value.dim() == 0
        assert torch.equal(first.value, second.value)
        assert float(first.value.detach()) >= 0
        now = step(method, data)
        penalty = method.penalty(now)
        assert penalty is not None
        penalty.value.backward()
        gradients = [parameter.grad for parameter in now.model.parameters() if parameter.grad is not None]
        assert gradients
        assert all(bool(gradient.isfinite().all()) for gradient in gradients)
        assert any(bool(gradient.abs().sum() > 0) for gradient in gradients)

    def test_an_image_of_a_short_batch_counts_as_one_of_a_full_batch(self, method: Method, data: Images) -> None:
        """32 images, of batches of 64, against the same 32 twice: the same term of the loss and the same gradients (to
        1e-4 of the largest: float32 sums of another length)."""
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = method.build(build_model("resnet8", channels=1, size=8, classes=10, width=8, seed=0), data).train()
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = 0.0  # the passes below leave its statistics
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        if isinstance(method, Pilcro):
            with torch.no_grad():
                model[-1].weight *= 1e4  # type: ignore[index]  # so that the class drawn is the same for an image twice
        images, labels = data.select("train", torch.arange(32), device=torch.device("cpu"))
        terms, gradients = [], []
        for times in (1, 2):
            some, their = images.repeat(times, 1, 1, 1), labels.repeat(times)
            model(some)
            generator = torch.Generator().manual_seed(0)
            penalty = method.penalty(Step(model, some, their, 1, generator, data, batch_size=64))
            if penalty is None:
                return
            term = penalty.weight * penalty.value
            found = torch.autograd.grad(term, list(model.parameters()), materialize_grads=True)
            terms.append(float(term.detach()))
            gradients.append(torch.cat([values.flatten() for values in found]))
        assert terms[0] == pytest.approx(terms[1], rel=1e-4)
        assert terms[0] > 0
        torch.testing.assert_close(*gradients, rtol=0, atol=1e-4 * float(gradients[1].abs().max()))

    def test_trains_and_resumes_to_the_same_numbers(self, method: Method, data: Images) -> None:
        training = TrainingConfig(epochs=2, batch_size=64, learning_rate=0.01)
        config = TrialConfig(method, ModelConfig("resnet8", 8), DATA, training, 3)
        whole, parts = Run(config, data), Run(config, data)
        whole.train_epoch()
        parts.train_epoch()
        resumed = Run(config, data)
        resumed.restore(parts.state())
        whole.train_epoch()
        resumed.train_epoch()
        assert whole.status == resumed.status == "completed"
        assert whole.final == resumed.final
        for left, right in zip(whole.model.state_dict().values(), resumed.model.state_dict().values(), strict=True):
            assert torch.equal(left, right)


def test_the_room_knows_no_ray() -> None:
    """Everything but trainable.py imports and runs without Ray."""
    code = """
import sys
sys.modules["ray"] = None
import pkgutil, importlib, trainables
for module in pkgutil.walk_packages(trainables.__path__, "trainables."):
    if module.name != "trainables.trainable":
        importlib.import_module(module.name)
import sweeps.plan
"""
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=root)
    assert done.returncode == 0, done.stderr
