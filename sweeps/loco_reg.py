"""LOCO-REG: does it pay to decay weights far from a filter's centre more, and how much more may it be?

Paper: Schneider, "Locality-Promoting Representation Learning" (Section 7, Tables 3 to 6): VGG13, MobileNet, ResNet-18
on CIFAR-10, CIFAR-100, Fashion-MNIST; plain L2 against LOCO-REG, whose coefficients (γ_l, η_l) come layer by layer
from the networks trained with plain L2, modulated by c; 20 seeds; and the locality of the filters.

    python sweeps/loco_reg.py                                            # digits, fixed γ, where accuracy tips by η
    python sweeps/loco_reg.py --stages two --name loco-two               # plain L2 first, then c = 0.5, 1, 1.5, 2.5
    python sweeps/loco_reg.py --preset cifar100 --stages two             # the paper's protocol, one network at a time

With --stages two the networks of the first stage are those of this sweep with plain L2 (method "baseline"), over all
seeds; the second begins when they are recorded. Interrupted anywhere, the same command goes on where it was.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from analysis.bounds import POSITIVE, Bound
from analysis.command_line import InputError
from analysis.records import read_table, scan
from sweeps.driver.manifest import sweep_url
from sweeps.flags import Setting, SweepFlags
from sweeps.launch import main
from sweeps.plan import Plan
from sweeps.proposers.stages import Later
from trainables.configuration import ModelConfig, TrainingConfig
from trainables.data import DataConfig
from trainables.loco_reg import LocoReg, layer_coefficients, spatial_convolutions
from trainables.models import MODELS, build_model

Statistic = Literal["signed", "absolute"]
Ratios = Sequence[Mapping[str, Mapping[str, float]]]
"""Of each network and layer, the ratios of the layer's classes of weights."""
Key = tuple[str, DataConfig, ModelConfig, TrainingConfig]
"""Statistic, data set, network and training that networks share."""


@dataclass(frozen=True)
class LocoSweep(SweepFlags):
    """The sweep over LOCO-REG."""

    NAME: ClassVar[str] = "loco_reg"
    STRENGTH: ClassVar[str] = "eta"

    stages: Literal["one", "two"] = "one"
    """one: fixed --gamma and --eta for all layers; two: those of each layer from the networks trained with plain L2."""
    gamma: tuple[float, ...] = (0.25, 0.5, 1.0)
    """γ, what the decay of a filter's centre is multiplied by, relative to its direct neighbours'."""
    eta: tuple[float, ...] = (1.0, 2.0, 4.0)
    """η, the same for its corners; in larger filters it goes on as a power of the distance."""
    modulation: tuple[float, ...] = (0.5, 1.0, 1.5, 2.5)
    """c: how far the coefficients of a layer are from 1, in units of what its ratios say (--stages two)."""
    statistic: tuple[Statistic, ...] = ("signed",)
    """Ratios of sums of signed weights, as in the paper, or of their magnitudes (--stages two)."""
    printed_eta: bool = False
    """η in the form that Table 6 prints, which decays corners less where they are weaker (--stages two)."""

    BOUNDS: ClassVar[Mapping[str, Bound]] = {
        "gamma": Bound(0, 1e6, "beside so strong a decay of some weights the others have none"),
        "eta": Bound(0, 1e6, "beside so strong a decay of some weights the others have none"),
        "modulation": POSITIVE,
    }

    def __post_init__(self) -> None:
        if min(self.weight_decay, default=1.0) == 0:
            raise InputError("weight_decay: 0, allowed are numbers above 0: LOCO-REG distributes it over the weights")

    def default_metrics(self) -> tuple[str, ...]:
        return LocoReg.metrics

    def without_effect(self) -> Iterator[tuple[str, str]]:
        yield from super().without_effect()
        of_stage = {"one": ("modulation", "statistic", "printed_eta"), "two": ("gamma", "eta")}
        other = "one" if self.stages == "two" else "two"
        yield from ((name, f"--stages {other}") for name in of_stage[self.stages])

    def methods(self) -> Iterator[LocoReg]:
        if self.stages == "one":
            for gamma, eta in itertools.product(self.gamma, self.eta):
                if (gamma, eta) != (1, 1) or not self.baseline:  # that is plain L2, which the baseline has
                    yield LocoReg(gamma, eta)

    def only_grid(self) -> str:
        return "--stages two" if self.stages == "two" else ""

    def later(self, plan: Plan) -> Later | None:
        if self.stages == "one":
            return None
        if not self.baseline:
            raise InputError("--no-baseline: given, allowed with --stages two is --baseline: the second stage needs it")
        if "locality" not in self.metrics():
            raise InputError("measure: without locality, which the second stage needs; add it")
        if self.printed_eta and any(_beyond_3x3(name) for name in self.model):
            raise InputError("printed_eta: given, allowed are networks whose filters are 3×3")
        _check_families(self, plan)
        number = len(plan.trials) * len(self.modulation) * len(self.statistic)
        values = ", ".join(f"{modulation:g}" for modulation in self.modulation)
        times = number / len(plan.trials)
        return Later(number, f"{number} trials with c = {values}, at {times:g} times that cost", self._second_stage)

    def _second_stage(self, plan: Plan) -> SweepFlags:
        given = {entry.name: getattr(self, entry.name) for entry in dataclasses.fields(self)}
        return _SecondStage(**given, ratios=_ratios(self, plan))


@dataclass(frozen=True)
class _SecondStage(LocoSweep):
    """The same with what the first stage has found, by statistic, data set and fold (networks of other folds have seen
    its test images), network and training."""

    ratios: Mapping[Key, Ratios] = field(default_factory=dict)

    def methods_for(self, setting: Setting) -> Iterator[LocoReg]:
        data, model, training = setting.data, setting.model, setting.training
        for statistic, modulation in itertools.product(self.statistic, self.modulation):
            networks = self.ratios[statistic, data, model, training]
            try:
                layers = layer_coefficients(networks, modulation, printed=self.printed_eta)
            except ValueError as error:
                way_out = "a smaller --modulation"
                if statistic == "signed":
                    way_out = f"--statistic absolute (sums of signed weights may cancel) or {way_out}"
                raise InputError(
                    f"{model.model} of width {model.width} on {data.dataset}, weight decay {training.weight_decay:g}, "
                    f"--statistic {statistic}: {error}; the first stage is recorded, go on with {way_out}"
                ) from None
            variant = f"{statistic}-printed" if self.printed_eta else statistic
            yield LocoReg(modulation=modulation, variant=variant, layers=layers)  # type: ignore[arg-type]


def _beyond_3x3(name: str) -> bool:
    model = build_model(name, channels=1, size=MODELS[name].smallest, classes=2, width=1, seed=0)
    return any(convolution.kernel_size != (3, 3) for _, convolution in spatial_convolutions(model))


def _check_families(flags: LocoSweep, plan: Plan) -> None:
    """Refuse other seeds than those whose networks gave the coefficients of trials that are recorded: there would be
    two kinds of trials with the same c. Raises `InputError`."""
    url = sweep_url(flags)
    if not scan(url).statuses:
        return
    recorded: dict[str, set[str]] = {}
    second: set[str] = set()
    for row in read_table(url, "trials", ["trial_id", "method", "variant", "config"]).to_pylist():
        config = json.loads(row["config"])
        key = json.dumps([config[part] for part in ("data", "model", "training")], sort_keys=True)
        if row["method"] == "baseline":
            recorded.setdefault(key, set()).add(row["trial_id"])
        elif row["method"] == LocoReg.name and row["variant"] != "fixed":
            second.add(key)
    planned: dict[str, set[str]] = {}
    for trial in plan.trials:
        canonical = trial.config.canonical()
        key = json.dumps([canonical[part] for part in ("data", "model", "training")], sort_keys=True)
        planned.setdefault(key, set()).add(trial.id)
    for key in second & planned.keys():
        if planned[key] != recorded.get(key):
            number = len(recorded.get(key, ()))
            raise InputError(
                f"seeds: {flags.seeds}, allowed is {number}: the coefficients of the second stage that {url} has come "
                f"from {number} networks; give this one another --name"
            )


def _ratios(flags: LocoSweep, plan: Plan) -> dict[Key, Ratios]:
    """The ratios of the recorded networks of the first stage, those that diverged or failed left out."""
    url = sweep_url(flags)
    statuses = scan(url).statuses
    completed = {trial.id: trial for trial in plan.trials if statuses[trial.id] == "completed"}
    table = read_table(url, "measurements", ["trial_id", "epoch", "metric", "component", "value"])
    found: dict[Key, dict[str, dict[str, dict[str, float]]]] = {}
    statistics = {"weight_ratio": "signed", "weight_ratio_absolute": "absolute"}
    for row in table.to_pylist():
        trial = completed.get(row["trial_id"])
        statistic = statistics.get(row["metric"])
        if trial is None or statistic is None or row["epoch"] != trial.config.training.epochs:
            continue
        pair, layer = row["component"].split("/", 1)
        config = trial.config
        key = (statistic, config.data, config.model, config.training)
        value = math.nan if row["value"] is None else row["value"]
        found.setdefault(key, {}).setdefault(trial.id, {}).setdefault(layer, {})[pair] = value
    for trial in plan.trials:
        config = trial.config
        if ("signed", config.data, config.model, config.training) not in found:
            raise InputError(
                f"{config.model.model} on {config.data.dataset}: all networks with plain L2 diverged, and the second "
                "stage has nothing to go by; give another --name with a smaller --learning-rate"
            )
    return {key: [networks[trial] for trial in sorted(networks)] for key, networks in found.items()}


# Section 7: 250 epochs, SGD with momentum 0.9, batch 128, lr 0.1 times 0.316 after epochs 70, 140, 190, 230, 245; flips
# and crops of the padded image (4 pixels); λ = 5e-4, which PyTorch counts twice; 20 runs. 10,000 images are to test on,
# the rest is trained on. [reading] The paper gives no grid of fixed (γ, η).
PAPER = LocoSweep(
    dataset=("cifar100",),
    model=("vgg13",),
    epochs=(250,),
    batch_size=(128,),
    learning_rate=(0.1,),
    weight_decay=(1e-3,),
    schedule="step",
    milestones=(70, 140, 190, 230, 245),
    decay=0.316,
    flip=True,
    crop=True,
    padding="zero",
    validation=0.0,
    seeds=20,
)

PRESETS = {
    # scikit-learn's 8×8 digits, small enough for a first look
    "digits": LocoSweep(
        preset="digits",
        epochs=(30,),
        learning_rate=(0.1,),
        weight_decay=(1e-3,),
        gamma=(0.25, 1.0),
        eta=(1.0, 4.0),
        statistic=("absolute",),
        seeds=3,
        search="tipping",
    ),
    "cifar10": dataclasses.replace(PAPER, preset="cifar10", about="Table 5", dataset=("cifar10",)),
    "cifar100": dataclasses.replace(PAPER, preset="cifar100", about="Tables 4 to 6"),
    "fashion-mnist": dataclasses.replace(
        PAPER, preset="fashion-mnist", about="Table 5", dataset=("fashion-mnist",), image_size=32
    ),
}


if __name__ == "__main__":
    main(LocoSweep, PRESETS, __doc__ or "")
