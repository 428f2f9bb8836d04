"""The papers' tables and figures beside ours.

    python -m analysis.paper results/pilcro                      every table the sweep has something of
    python -m analysis.paper results/pilcro --table pilcro-1     one table or figure
    python -m analysis.paper [results/pilcro] --list             every ID, what it needs, and whether the sweep has it

The papers' numbers are in `claims.csv` (one row each: paper, table, row, column, value, …, and which trials and which
quantity of a record they are about), what they say without a number in `trends.csv`. A number of ours is a mean over
seeds with its 95% t interval; with cross-validation over the runs of all folds and seeds, as if they were independent
(see `groups.replicate`). The verdict is

- `agrees`: the paper's value lies in our interval, or the order of settings that it claims holds (one-sided paired or
  Welch t-test, p < .05 after Holm's adjustment over the table); for a trend, Spearman's ρ has its sign (p < .05, Holm);
- `differs`: neither;
- `not comparable`: another data set, network, number of epochs or the like than the paper's (it says which), or too few
  seeds for an interval.
"""

from __future__ import annotations

import csv
import functools
import importlib.resources
import io
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy import stats
from tyro.conf import Positional

from analysis.command_line import InputError, parse, print_table, run
from analysis.comparisons import compare
from analysis.correlations import Correlations, correlations
from analysis.figures import files
from analysis.groups import (
    GROUPING,
    Group,
    Quantity,
    Row,
    check_finished,
    check_rows,
    count,
    differing,
    grouped,
    label,
    out_folder,
    quantities,
    replicate,
    values_of,
)
from analysis.multiplicity import adjust
from analysis.paper_figures import FIGURES, draw, missing
from analysis.records import Sweep, read_sweep, write_file
from analysis.schema import HYPERPARAMETERS, SCHEMA_VERSION, TABLES
from analysis.theorems import theorem_quantities
from analysis.tipping_points import TippingPoints, located, tipping_points

Judgement = Literal["agrees", "differs", "not comparable"]
SIGNIFICANCE = 0.05

# printed strengths are rounded: 1.15e7 for 10^(2 + 31·8/49)
_ROUNDED = 0.01
_LEVEL_ROUNDED = 0.02

# of which Spearman's ρ = 0.5 has a two-sided p of .05
_MODELS_FOR_NO_TREND = 16


@dataclass(frozen=True)
class Item:
    """A table or figure of a paper, and what of a record it needs."""

    id: str
    title: str
    needs: str


ITEMS = {
    item.id: item
    for item in (
        Item("pilcro-1", "CIFAR-100, ResNet-50, RC− and RC+: Top-1, Top-5, TV, loss", "sweep over variant × α × crop"),
        Item("pilcro-2", "ImageNet, ResNet-50: the same without RC", "sweep over variant × α"),
        Item("pilcro-3", "CIFAR-100, RC−: curves over epochs of Top-1 and TV; landscapes", "epochs, maps"),
        Item("pilcro-4", "CIFAR-100, RC+: curves over epochs of Top-1 and TV; landscapes", "epochs, maps"),
        Item("pilcro-5", "ImageNet: convergence, first epochs zoomed", "epochs"),
        Item("pilcro-6", "top-K ablation by Integrated Gradients, AUC", "measurements salience_ablation"),
        Item("pilcro-e", "corruption robustness by category and severity", "measurements corruption_accuracy"),
        Item("pilcro-p1", "Proposition 1: importance at initialisation and path counts", "--measure paths; maps"),
        Item("loco-1", "distributions of filter weights (illustration)", "nothing: settings of the paper"),
        Item("loco-3", "architectures of VGG13 and MobileNet", "nothing: settings of the paper"),
        Item("loco-4", "locality m(c, n), m(n, co): all, lower, upper half of the layers", "measurements locality"),
        Item("loco-5", "test errors, plain and LOCO-REG", "two-stage sweep of LOCO-REG, 20 seeds"),
        Item("loco-6", "(γ_l, η_l) per layer for c", "first-stage sweep of LOCO-REG"),
        Item("loco-5x5", "distance classes of 5×5 filters", "sweep of LOCO-REG with 5×5 filters"),
        Item("loco-t1", "Theorem 1: bound on ε", "nothing: computed, see `python -m analysis.theorems`"),
        Item(
            "loco-t2", "Theorem 2: expectation against variance", "nothing: computed, see `python -m analysis.theorems`"
        ),
        Item("topgap-1", "parameter counts of the modified models", "measurements parameters"),
        Item("topgap-2", "ERF distance", "measurements erf_distance"),
        Item("topgap-3", "FGSM, PGD and clean accuracy", "sweep of Top-GAP over k, 5 folds"),
        Item("topgap-4", "CIFAR-10: PGD-20, PGD-50, clean", "sweep of Top-GAP over k, 5 seeds"),
        Item("topgap-5", "CUB, ResNet-18, beside non-adversarial defences", "sweep of Top-GAP"),
        Item("topgap-6", "accuracy under shift", "measurements shift_accuracy"),
        Item("topgap-7", "2³ ablation of FPN, ℓ1, Top-GAP", "sweep of Top-GAP over its switches"),
        Item("topgap-a1", "ERF at the centre", "measurements erf"),
        Item("topgap-a2", "ERF in the corner", "measurements erf"),
        Item("topgap-a3", "sparsity ‖X‖₁ of the CAM", "measurements cam_sparsity"),
        Item("topgap-a4", "IoU with masks", "measurements iou"),
        Item("topgap-a5", "CIFAR-10 over seeds, chosen for robustness", "sweep of Top-GAP over k, 5 seeds"),
        Item("topgap-a6", "combination with adversarial training", "nothing: other authors' methods"),
        Item("topgap-a7", "ℓ1 on the last or all activations: ERF, accuracy", "sweep over λ and its place"),
        Item("topgap-a8", "sparsity by ℓ1 alone and ours", "sweep over λ and k"),
        Item("topgap-a9", "ℓ1 on the last or all activations: robustness", "sweep over λ and its place"),
        Item("topgap-f1", "class activation maps as k grows", "maps cam"),
        Item("topgap-f3", "sparsity as k grows", "measurements cam_sparsity"),
        Item("topgap-f4", "class activation maps, Top-GAP and standard", "maps cam"),
        Item("topgap-f5", "class activation maps of the ablation", "maps cam"),
        Item("topgap-fa3", "robust accuracy as PGD steps grow", "measurements robust_accuracy by level"),
        Item("deform-3", "sensitivity by layer, before and after training", "measurements deformation_sensitivity"),
        Item("deform-4", "sensitivity by layer at initialisation as σ grows", "measurements deformation_sensitivity"),
        Item("deform-5", "smoothness of trained filters as C grows", "measurements filter_total_variation"),
        Item("deform-6", "smoothness by layer, real and random labels", "measurements filter_total_variation"),
        Item("deform-7", "sensitivity by layer with random labels", "measurements deformation_sensitivity"),
        Item("deform-t", "both along the epochs (future work there)", "both measurements by epoch"),
        Item("gradreg-1", "accuracy against α, with the tipping point", "sweep of gradient_reg over α"),
        Item("gradreg-2", "Faithfulness Estimate against α", "--measure faithfulness"),
        Item("gradreg-3", "local Lipschitz, Max-Sensitivity against α", "--measure local_lipschitz max_sensitivity"),
        Item("gradreg-4", "entropy against α", "--measure entropy"),
        Item("gradreg-b", "saliency panels along α", "--measure saliency_maps"),
    )
}


METHODS = {
    "pilcro": "pilcro",
    "loco": "loco_reg",
    "topgap": "top_gap",
    "deform": "deformation",
    "gradreg": "gradient_reg",
}
"""The method of each paper, as in the trials table."""


# --- the papers -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Claim:
    """A number of a paper: the columns of `claims.csv`."""

    paper: str
    table: str
    row: str
    column: str
    value: float
    printed: str
    std: float | None
    unit: str
    n: int | None
    note: str
    protocol: dict[str, Any]
    """Columns of the trials table that make a trial of ours comparable."""
    settings: dict[str, Any]
    """Columns of the trials table that say which trials the number is about."""
    quantity: str
    direction: str
    against: str
    """`row`, or `row || column`, of the number that it is compared with."""


@dataclass(frozen=True)
class Trend:
    """What a paper says without a number: the columns of `trends.csv`."""

    paper: str
    table: str
    statement: str
    trend: Literal["up", "down", "none", "tips"]
    strength: str
    quantity: str
    protocol: dict[str, Any]
    settings: dict[str, Any]


def _typed(words: str) -> dict[str, Any]:
    """ "alpha=1 fpn=true variant=target" with values of the columns' types."""
    return {name: _value(name, text) for name, _, text in (word.partition("=") for word in words.split())}


def _value(name: str, text: str) -> Any:
    kind = TABLES["trials"].field(name).type
    if pa.types.is_boolean(kind):
        return {"true": True, "false": False}[text]
    return float(text) if pa.types.is_floating(kind) else int(text) if pa.types.is_integer(kind) else text


def _read(name: str) -> list[dict[str, str]]:
    text = importlib.resources.files("analysis").joinpath(name).read_text(encoding="utf-8")
    return list(csv.DictReader(io.StringIO(text, newline="")))


@functools.cache
def claims() -> tuple[Claim, ...]:
    """Every number of the papers' tables."""
    found = []
    for row in _read("claims.csv"):
        typed: dict[str, Any] = {
            "value": float(row["value"]),
            "std": float(row["std"]) if row["std"] else None,
            "n": int(row["n"]) if row["n"] else None,
            "protocol": _typed(row["protocol"]),
            "settings": _typed(row["settings"]),
        }
        found.append(Claim(**{**row, **typed}, printed=row["value"]))
    return tuple(found)


@functools.cache
def trends() -> tuple[Trend, ...]:
    """What the papers say about the effect of strength without a number."""
    found = []
    for row in _read("trends.csv"):
        typed: dict[str, Any] = {"protocol": _typed(row["protocol"]), "settings": _typed(row["settings"])}
        found.append(Trend(**{**row, **typed}))
    return tuple(found)


# --- ours -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    """A number of the paper, or something it says, beside ours. nan: there is none, `why` says the reason."""

    row: str
    column: str
    paper: str
    """As printed, with its deviation; or the statement."""
    value: float
    unit: str
    setting: str
    """Which trials of ours, where several settings of the record are candidates."""
    n: int
    ours: float
    low: float
    high: float
    difference: float
    order: str
    """What the paper's order of this number and the one it compares it with comes to in ours."""
    order_p: float
    verdict: Judgement | Literal[""]
    why: str


def _same(name: str, ours: Any, theirs: Any) -> bool:
    if isinstance(theirs, float) and isinstance(ours, float):
        return math.isclose(ours, theirs, rel_tol=_ROUNDED, abs_tol=0)
    if name == "dataset" and isinstance(ours, str):
        return theirs in (ours, _short(ours))
    return bool(ours == theirs)


def _short(dataset: str) -> str:
    """ "pets" of a folder's or a Parquet set's name in the record, "folder:pets@1a2b3c4d"."""
    kind, separator, rest = dataset.partition(":")
    return rest.rpartition("@")[0] or rest if separator and kind in ("folder", "parquet") else dataset


def _unlike(row: Row, claim: Claim | Trend) -> list[str]:
    """In what a trial is not as in the paper: "dataset is digits (paper: cifar100)"."""
    found = [
        f"{name} is {'not set' if row[name] is None else _shown(row[name])} (paper: {_shown(theirs)})"
        for name, theirs in claim.protocol.items()
        if not _same(name, row[name], theirs)
    ]
    if claim.protocol:
        # no paper trains on a part of its data set, or holds a part of it out
        data = json.loads(_configuration(row)).get("data", {}) if (row["config"] or "").startswith("{") else {}
        if data.get("train_images"):
            found.append(f"{data['train_images']} training images (paper: all)")
        if data.get("validation"):
            found.append(f"{100 * data['validation']:g}% of the training images held out (paper: none, --validation 0)")
        if data.get("folds") and claim.paper != "topgap":
            found.append(f"cross-validation over {data['folds']} folds (paper: none)")
        if claim.quantity == "parameters":
            found += _unlike_classes(row, claim.protocol.get("model", ""))
        else:
            found += _unlike_images(row, claim, data.get("image_size"))
        found += _unlike_attack(row, claim)
    return found


# pixels a side of the sets' own images, to which no paper resizes them but LOCO-REG's Fashion-MNIST
_OWN_SIZE = {
    "digits": 8,
    **dict.fromkeys(("mnist", "mnist-tasks", "fashion-mnist", "kmnist"), 28),
    **dict.fromkeys(("cifar10", "cifar100"), 32),
}
_RESIZED = {("loco", "fashion-mnist"): 32}
_LARGE = 224


def _unlike_images(row: Row, claim: Claim | Trend, size: int | None) -> list[str]:
    """Of another size than the paper's, or a network that did not begin with ImageNet's weights."""
    theirs = claim.protocol.get("dataset")
    found = []
    expected = _RESIZED.get((claim.paper, theirs or ""), _OWN_SIZE.get(theirs or ""))
    if expected is None and claim.paper == "topgap" and theirs is not None:
        expected = _LARGE
    # a set's own size where there is none; a folder's is not known, and 224 where its images differ in size
    own = _OWN_SIZE.get(theirs or "") if size is None and _same("dataset", row["dataset"], theirs) else size
    if expected is not None and own not in (None, expected):
        found.append(f"images of {own} pixels (paper: {expected})")
    if claim.paper == "topgap" and theirs not in (None, "cifar10") and not row["pretrained"]:
        found.append("not pretrained (paper: with ImageNet's weights)")
    return found


_CLASSES = {
    **dict.fromkeys(("digits", "mnist", "fashion-mnist", "kmnist", "cifar10", "imagenette"), 10),
    "cifar100": 100,
    "oxford-pets": 37,
    "cub-200-2011": 200,
    "imagenet": 1000,
}


def _unlike_classes(row: Row, model: str) -> list[str]:
    """Parameters are counted with the last layer: the paper's counts are those with so many classes."""
    theirs = 53 if model == "efficientnet-b0" else 1000
    ours = _CLASSES.get(_short(row["dataset"] or ""))
    if ours == theirs:
        return []
    return [f"{'number of classes not known' if ours is None else f'{ours} classes'} (paper: {theirs})"]


def _unlike_attack(row: Row, claim: Claim | Trend) -> list[str]:
    """PGD by other steps than ε/30, Foolbox's default and so Top-GAP's."""
    match = re.fullmatch(r"robust_accuracy:pgd\d*@(\d+(?:\.\d+)?)", claim.quantity)
    if match is None or not row["measured"]:
        return []
    try:
        options = json.loads(row["measured"]).get("attacks")
        step = None if options is None else str(options.get("step_size", "eps/4"))
    except (ValueError, AttributeError):
        return []
    if step is None or _is_thirtieth(step, float(match[1])):
        return []
    return [f"PGD by steps of {step} (paper: eps/30)"]


def _is_thirtieth(step: str, epsilon: float) -> bool:
    try:
        if step.startswith("eps/"):
            return math.isclose(float(step.removeprefix("eps/")), 30)
        number, _, divisor = step.partition("/")
        return math.isclose(30 * float(number) / float(divisor or 1), epsilon, rel_tol=_LEVEL_ROUNDED)
    except (ValueError, ZeroDivisionError):
        return False


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _configuration(row: Row) -> str:
    """The whole configuration but the seed and the fold, and what comes of the fold."""
    try:
        whole = json.loads(row["config"] or "{}")
    except ValueError:
        return str(row["config"])
    whole.pop("seed", None)
    if "fold" in whole.get("data", {}):
        del whole["data"]["fold"]
        whole["method"].pop("layers", None)  # LOCO-REG's coefficients are those of the fold's own networks
    return json.dumps(whole, sort_keys=True)


class _Ours:
    """A sweep's finished trials, and their values by quantity."""

    def __init__(self, sweep: Sweep) -> None:
        check_finished(sweep)
        self.sweep = sweep
        self.rows = [row for row in sweep.trials.to_pylist() if row["status"] != "failed"]
        check_rows(self.rows)
        self.known = quantities(sweep)
        self._values: dict[str, dict[str, float]] = {}
        self._groups: dict[tuple[tuple[str, Any], ...], list[Group]] = {}

    def quantity(self, name: str) -> tuple[Quantity, float, float, str] | None:
        """The record's quantity of this name, (scale, shift) from it to the claim's, and in what it is unlike; None if
        the record has none.

        "error" is 1 − top1; "metric#0" is measured at initialisation. Levels match within 2%, since printed ones are
        rounded (8/255 as 0.0314); at another level than the paper's a quantity is not comparable.
        """
        if name == "error":
            return None if "top1" not in self.known else (self.known["top1"], -1.0, 1.0, "")
        name, _, epoch = name.partition("#")
        stem, _, level = name.partition("@")
        if epoch:
            metric, _, component = stem.partition(":")
            return Quantity(metric, component, measured=True, epoch=int(epoch)), 1.0, 0.0, ""
        if not level:
            found = self.known.get(name)
            return None if found is None else (found, 1.0, 0.0, "")
        same = [
            quantity
            for quantity in self.known.values()
            if quantity.measured
            and stem == f"{quantity.metric}{f':{quantity.component}' if quantity.component else ''}"
        ]
        for quantity in same:
            at = quantity.at
            if at is not None and math.isclose(at, float(level), rel_tol=_LEVEL_ROUNDED):
                return quantity, 1.0, 0.0, ""
        if not same:
            return None
        return (
            same[0],
            1.0,
            0.0,
            f"level is {'not recorded' if same[0].at is None else f'{same[0].at:.4g}'} (paper: {level})",
        )

    def is_of(self, table: str) -> bool:
        """Whether the record has trials of the table's method, and not only unregularised ones."""
        method = METHODS[table.partition("-")[0]]
        return any(row["method"] == method for row in self.rows)

    def values(self, quantity: Quantity) -> dict[str, float]:
        key = f"{quantity.name}#{quantity.epoch}"
        if key not in self._values:
            found = {trial: value.value for trial, value in values_of(self.sweep, quantity).items()}
            self._values[key] = {trial: value for trial, value in found.items() if math.isfinite(value)}
        return self._values[key]

    def candidates(self, settings: dict[str, Any]) -> list[Group]:
        """The settings of the record that a claim's settings leave open, each with its seeds."""
        if not settings:
            return []  # of another author's method, or of one that no column tells
        key = tuple(sorted(settings.items()))
        if key not in self._groups:
            rows = [row for row in self.rows if all(_same(name, row[name], value) for name, value in settings.items())]
            found = []
            for group in grouped(rows, differing(rows)):
                # what no column tells apart, the whole configuration does
                parts: dict[str, list[Row]] = {}
                for row in group.trials:
                    parts.setdefault(_configuration(row), []).append(row)
                found += [Group(group.values, part, ()) for part in parts.values()]
            self._groups[key] = found
        return self._groups[key]

    def closest(self, claim: Claim) -> list[tuple[Group, list[str]]]:
        """The settings that are least unlike the paper's, and in what."""
        found = [(group, _unlike(group.trials[0], claim)) for group in self.candidates(claim.settings)]
        least = min((len(unlike) for _, unlike in found), default=0)
        return [(group, unlike) for group, unlike in found if len(unlike) == least]


Run = tuple[int, ...]
"""A repetition of a setting, see `groups.replicate`."""

# what a setting and its reference have to share: all but the method and its hyperparameters
_TRAINING = tuple(name for name in GROUPING if name != "method" and name not in HYPERPARAMETERS)


def _by_run(group: Group, values: dict[str, float]) -> dict[Run, float]:
    return {replicate(row): values[row["trial_id"]] for row in group.trials if row["trial_id"] in values}


def _scaled(values: dict[Run, float], claim: Claim, scale: float, shift: float) -> dict[Run, float]:
    percent = 100.0 if claim.unit == "%" else 1.0
    return {run: percent * (shift + scale * value) for run, value in values.items()}


def _interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and 95% t interval; nan where there is one value."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, math.nan, math.nan
    half = float(stats.t.ppf(0.975, len(values) - 1)) * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return mean, mean - half, mean + half


@dataclass(frozen=True)
class _Order:
    """A claimed order, tested: p one-sided, before adjustment."""

    text: str
    p_value: float


def _order(claim: Claim, own: dict[Run, float], group: Group, ours: _Ours) -> _Order:
    row, _, column = claim.against.partition(" || ")
    other = next(
        it for it in claims() if it.table == claim.table and it.row == row and it.column == (column or claim.column)
    )
    if other.value == claim.value:
        return _Order("the paper's are equal", math.nan)
    sign, words = (1, "above") if claim.value > other.value else (-1, "below")
    theirs: dict[Run, float] = {}
    found = ours.quantity(other.quantity)
    for candidate in ours.candidates(other.settings) if found is not None and not found[3] else []:
        if all(candidate.trials[0][name] == group.trials[0][name] for name in _TRAINING):
            assert found is not None
            values = _scaled(_by_run(candidate, ours.values(found[0])), other, found[1], found[2])
            theirs = values if len(values) > len(theirs) else theirs
    name = other.row if other.column == claim.column else f"{other.row}, {other.column}"
    if not theirs:
        return _Order(f"{words} {name}: no trial of it", math.nan)
    # as `comparisons` pairs: one shared seed makes no pair
    shared = sorted(own.keys() & theirs.keys())
    paired = len(shared) > 1
    first = [own[run] for run in shared] if paired else list(own.values())
    second = [theirs[run] for run in shared] if paired else list(theirs.values())
    test = compare(first, second, paired=paired, alternative="greater" if sign > 0 else "less")
    if test.reason:
        return _Order(f"{words} {name}: not testable, {test.reason}", math.nan)
    return _Order(f"{words} {name}", test.p_value)


def _numbers(ours: _Ours, table: str) -> list[Line]:
    """The numbers of a table of which the record has something."""
    drafts: list[tuple[Claim, Group, list[str], dict[Run, float], _Order]] = []
    for claim in claims():
        found = ours.quantity(claim.quantity) if claim.table == table and claim.quantity else None
        if found is None or not claim.settings:
            continue
        quantity, scale, shift, level = found
        for group, unlike in ours.closest(claim):
            unlike = [*unlike, level] if level else unlike
            own = _scaled(_by_run(group, ours.values(quantity)), claim, scale, shift)
            if own:
                order = _order(claim, own, group, ours) if claim.against else _Order("", math.nan)
                drafts.append((claim, group, unlike, own, order))
    # a family of tests is what the verdicts rest on; those of another protocol are one of their own
    adjusted = np.full(len(drafts), math.nan)
    for comparable in (True, False):
        own_family = [index for index, draft in enumerate(drafts) if (not draft[2]) == comparable]
        adjusted[own_family] = adjust([drafts[index][-1].p_value for index in own_family])
    lines = []
    for (claim, group, unlike, own, order), p_value in zip(drafts, adjusted, strict=True):
        mean, low, high = _interval(list(own.values()))
        holds = p_value < SIGNIFICANCE
        told = order.text
        if not math.isnan(p_value):
            told = f"{order.text}: {'holds' if holds else 'not shown'}, p = {p_value:.3g}"
        verdict: Judgement
        if unlike:
            verdict, why = "not comparable", "; ".join(unlike)
        elif claim.quantity in _SAME_FOR_SEEDS:
            equal = _is_printed(mean, claim)
            verdict, why = ("agrees" if equal else "differs"), f"{'equal' if equal else 'not equal'} as printed"
        elif low <= claim.value <= high:
            verdict, why = "agrees", "the paper's value lies in our interval"
        elif holds:
            verdict, why = "agrees", "the order of settings holds"
        elif math.isnan(low):
            verdict, why = "not comparable", "one seed: no interval, add --seeds"
        else:
            verdict, why = "differs", "outside our interval" + (", the order is not shown" if claim.against else "")
        spread = "" if claim.std is None else f" ± {claim.std:g}"
        unit = {"fraction": "", "%": "%"}.get(claim.unit, f" {claim.unit}".rstrip())
        lines.append(
            Line(
                claim.row,
                claim.column,
                f"{claim.printed}{spread}{unit}",
                claim.value,
                claim.unit,
                _setting(group, claim),
                len(own),
                mean,
                low,
                high,
                mean - claim.value,
                told,
                float(p_value),
                verdict,
                why,
            )
        )
    return lines


# the same for every seed, so that there is no interval
_SAME_FOR_SEEDS = ("parameters",)


def _is_printed(ours: float, claim: Claim) -> bool:
    """Whether ours differs from the paper's by less than a unit of the last printed decimal."""
    decimals = claim.printed.partition(".")[2]
    return abs(ours - claim.value) < (10.0 ** -len(decimals) if decimals else 1e-6)


def _computed(table: str) -> list[Line]:
    """The numbers of a theorem, which need no record: equal if they differ by less than a unit of the last printed
    decimal (the paper also cuts off, 0.725… for 0.7258); whole numbers are exact."""
    lines = []
    for claim in claims():
        if claim.table != table or claim.settings or claim.quantity not in theorem_quantities():
            continue
        ours = theorem_quantities()[claim.quantity]
        difference = ours - claim.value
        verdict: Judgement = "agrees" if _is_printed(ours, claim) else "differs"
        why = "computed"
        if claim.row == "center against corner":
            own = theorem_quantities()["cohesion_bound:c-co"]
            why = f"computed: the bound of all cases; this one's own is {own:.4g}"
        if claim.quantity.startswith("minimax_weight"):
            # the theorem says nothing of the weights' bound, on which it depends
            verdict = "not comparable"
            why = "it depends on how w is bounded: ours has ‖w‖ = 1, g = exp(-|x|); 0 with Σ|w| = 1 or w ≥ 0"
        blank: dict[str, Any] = {"setting": "", "n": 1, "low": math.nan, "high": math.nan, "order_p": math.nan}
        lines.append(
            Line(
                row=claim.row,
                column=claim.column,
                paper=claim.printed,
                value=claim.value,
                unit=claim.unit,
                ours=ours,
                difference=difference,
                order="",
                verdict=verdict,
                why=why,
                **blank,
            )
        )
    return lines


def _setting(group: Group, claim: Claim) -> str:
    """What tells our setting apart that the paper's own words do not say."""
    rest = {name: value for name, value in group.values.items() if name not in claim.settings and value is not None}
    return label(rest) if rest else ""


# --- what a paper says without a number -------------------------------------------------------------------------------


def _statements(ours: _Ours, table: str) -> list[Line]:
    told = [trend for trend in trends() if trend.table == table]
    drafts: list[tuple[Trend, Line]] = []
    for strength in dict.fromkeys(trend.strength for trend in told):
        those = [trend for trend in told if trend.strength == strength]
        if all(not ours.candidates(trend.settings) for trend in those):
            continue
        metrics = sorted({trend.quantity for trend in those if trend.trend != "tips"} & ours.known.keys())
        points: TippingPoints | None = None
        problem = ""
        tests: Correlations | None = None
        try:
            points = tipping_points(ours.sweep, strength=strength)
            if metrics:
                tests = correlations(ours.sweep, strength=strength, metrics=metrics, by=points.by, points=points)
        except InputError as error:
            problem = str(error)
        for trend in those:
            if trend.trend == "tips":
                drafts += [(trend, line) for line in _tips(trend, points, problem)]
            elif trend.quantity in metrics:
                drafts += [(trend, line) for line in _follows(trend, tests, problem)]
    # of several data sets' statements, those about the one of the record; all of them if it has none of these
    exact = [(trend, line) for trend, line in drafts if not line.why.startswith("dataset is")]
    seen: set[tuple[str, str, str]] = set()
    lines = []
    for trend, line in exact or drafts:
        key = (trend.quantity, trend.trend, line.setting)
        if exact or key not in seen:
            lines.append((trend, line))
        seen.add(key)
    adjusted = adjust([line.order_p for _, line in lines])
    return [_judged(trend, line, float(p_value)) for (trend, line), p_value in zip(lines, adjusted, strict=True)]


def _draft(trend: Trend, group: Group | None, **columns: Any) -> Line:
    unlike = _unlike(group.trials[0], trend) if group is not None else []
    text = f"{trend.quantity} {_TRENDS[trend.trend]} with {trend.strength}"
    blank: dict[str, Any] = {
        "row": trend.statement,
        "column": trend.quantity,
        "paper": text,
        "value": math.nan,
        "unit": "",
        "setting": group.label() if group is not None and group.values else "",
        "n": 0 if group is None else len(group.trials),
        "ours": math.nan,
        "low": math.nan,
        "high": math.nan,
        "difference": math.nan,
        "order": "",
        "order_p": math.nan,
        "verdict": "not comparable" if unlike else "",
        "why": "; ".join(unlike),
    }
    return Line(**{**blank, **columns})


_TRENDS = {"up": "rises", "down": "falls", "none": "has no trend", "tips": "tips over"}


def _matches(group: Group, trend: Trend) -> bool:
    return all(_same(name, group.trials[0][name], value) for name, value in trend.settings.items())


def _tips(trend: Trend, points: TippingPoints | None, problem: str) -> list[Line]:
    if points is None:
        return [_draft(trend, None, verdict="not comparable", why=problem)]
    lines = []
    for curve in points.curves:
        if not _matches(curve.group, trend):
            continue
        if curve.fit is None:
            lines.append(_draft(trend, curve.group, verdict="not comparable", why=curve.reason))
            continue
        where = located(curve.fit, trend.strength) or curve.fit.status
        numbers = {"ours": curve.fit.log10_strength, "low": curve.fit.low, "high": curve.fit.high}
        lines.append(_draft(trend, curve.group, **numbers, order=where, order_p=curve.fit.p_value))
    return lines


def _follows(trend: Trend, tests: Correlations | None, problem: str) -> list[Line]:
    if tests is None:
        return [_draft(trend, None, verdict="not comparable", why=problem)]
    lines = []
    for test in tests.tests:
        if test.quantity.name != trend.quantity or not _matches(test.group, trend):
            continue
        if test.reason:
            lines.append(_draft(trend, test.group, verdict="not comparable", why=test.reason))
            continue
        told = f"ρ = {test.rho.rho:.2f} ({test.kept} models, {test.dropped} beyond the threshold)"
        lines.append(_draft(trend, test.group, n=test.kept, ours=test.rho.rho, order=told, order_p=test.rho.p_value))
    return lines


def _judged(trend: Trend, line: Line, p_value: float) -> Line:
    """The line with its p adjusted over the table, and its verdict where it is comparable.

    That there is no trend is not shown by too few models to show one: enough are those of which ρ = 0.5 would be
    significant (p < .05, not adjusted, as adjusting would make it easier to find nothing).
    """
    columns = dict(vars(line))
    raw = line.order_p
    shown = p_value < SIGNIFICANCE
    holds = {
        "tips": shown and not math.isnan(line.ours),
        "up": shown and line.ours > 0,
        "down": shown and line.ours < 0,
        "none": raw >= SIGNIFICANCE,
    }[trend.trend]
    few = trend.trend == "none" and holds and line.n < _MODELS_FOR_NO_TREND
    p = raw if trend.trend == "none" else p_value
    if not math.isnan(p):
        told = "too few models to tell" if few else "holds" if holds else "does not hold"
        columns |= {"order": f"{line.order}, p = {p:.3g}: {told}", "order_p": p}
    if not line.verdict:
        if few:
            why = f"{line.n} models, {_MODELS_FOR_NO_TREND} would show ρ = 0.5: no trend is not shown by that"
            columns |= {"verdict": "not comparable", "why": why}
        else:
            why = f"{line.paper} (p < .05)" if holds and trend.trend != "none" else f"p = {p:.3g}"
            columns |= {"verdict": "agrees" if holds else "differs", "why": why}
    return Line(**columns)


# --- tables -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Table:
    """A table of a paper beside ours; where the sweep has nothing of it, `lines` is empty and `why` says why."""

    item: Item
    lines: list[Line]
    of: int
    """How many numbers and statements of the paper there are to check."""
    why: str


def check(sweep: Sweep, table: str) -> Table:
    """A table of a paper beside ours. Raises `InputError` for an unknown ID."""
    return _check(_Ours(sweep), table)


def check_all(sweep: Sweep) -> list[Table]:
    """Every table of the papers whose methods the sweep has, beside ours."""
    ours = _Ours(sweep)
    return [_check(ours, table) for table in ITEMS if ours.is_of(table)]


def _check(ours: _Ours, table: str) -> Table:
    if table not in ITEMS:
        raise InputError(f"--table {table}: no such table; there are {', '.join(ITEMS)}")
    item = ITEMS[table]
    computed = _computed(table)
    checkable = [claim for claim in claims() if claim.table == table and claim.quantity and claim.settings]
    told = [trend for trend in trends() if trend.table == table]
    lines = [*_numbers(ours, table), *_statements(ours, table), *computed]
    why = ""
    if not lines and (checkable or told):
        why = _lacking(ours, [*checkable, *told])
    elif not lines:
        why = "no number of the paper's text that a sweep could be checked against"
    return Table(item, lines, len(checkable) + len(told) + len(computed), why)


def _lacking(ours: _Ours, wanted: Sequence[Claim | Trend]) -> str:
    if not any(ours.candidates(entry.settings) for entry in wanted):
        some = wanted[-1].settings
        return f"no trial with {', '.join(f'{name}={value}' for name, value in some.items())}"
    names = sorted({entry.quantity for entry in wanted} - set(ours.known))
    return f"no measurement of {', '.join(names[:4])}{' …' if len(names) > 4 else ''}"


def rows_of(table: Table) -> pa.Table:
    """A checked table as Arrow: `verdict` and `why`, the paper's and our numbers."""
    fields = [pa.field(name, pa.string()) for name in ("table", "row", "column", "paper", "unit", "setting")]
    fields += [pa.field("n", pa.int64())]
    fields += [pa.field(name, pa.float64()) for name in ("value", "ours", "low", "high", "difference", "order_p")]
    fields += [pa.field(name, pa.string()) for name in ("order", "verdict", "why")]
    rows = []
    for line in table.lines:
        row = {"table": table.item.id, **vars(line)}
        rows.append({name: None if isinstance(v, float) and math.isnan(v) else v for name, v in row.items()})
    return pa.Table.from_pylist(rows, schema=pa.schema(fields, {"schema_version": str(SCHEMA_VERSION)}))


# --- command ----------------------------------------------------------------------------------------------------------


@dataclass
class Flags:
    """The papers' tables and figures beside ours."""

    sweep: Positional[str | None] = None
    """Folder or s3:// prefix of the sweep; may be left out with --list."""
    table: str | None = None
    """ID of one table or figure; default: all that the sweep has something of."""
    list: bool = False
    """Every ID, what it needs, and whether the sweep has it; nothing is written."""
    out: str | None = None
    """Folder or s3:// prefix for the tables and figures; default: analysis/ in the sweep's folder."""


def _number(value: float, unit: str = "") -> str:
    return "" if math.isnan(value) else f"{value:.2f}" if unit == "%" else f"{value:.4g}"


def _print(table: Table) -> None:
    print(f"{table.item.id}: {table.item.title}")
    if not table.lines:
        print(f"  {table.why}")
        return
    rows = []
    # what makes a sweep not comparable is the same for many lines
    reasons: dict[str, int] = {}
    for line in table.lines:
        ours = _number(line.ours, line.unit)
        if not math.isnan(line.low):
            ours += f" [{_number(line.low, line.unit)}, {_number(line.high, line.unit)}]"
        where = f"{line.row} | {line.column}" + (f" ({line.setting})" if line.setting else "")
        verdict = f"{line.verdict}: {line.why}" if line.why else line.verdict
        if line.verdict == "not comparable":
            verdict = f"{line.verdict} ({reasons.setdefault(line.why, len(reasons) + 1)})"
        rows.append((where, line.paper, ours, str(line.n), _number(line.difference, line.unit), line.order, verdict))
    print_table(
        ("the paper's row | column", "paper", "ours [95%]", "n", "difference", "order", "verdict"),
        rows,
        wrap=(0, 1, 2, 5, 6),
    )
    for reason, number in reasons.items():
        print(f"({number}) {reason}")
    print(f"{summary(table)}; {count(len(table.lines), 'line')} for {table.of} numbers and statements of the paper")


def summary(table: Table) -> str:
    """ "3 agree, 1 differs, 2 not comparable"."""
    counts = {
        name: sum(line.verdict == name for line in table.lines) for name in ("agrees", "differs", "not comparable")
    }
    parts = [
        f"{counts['agrees']} agree{'s' if counts['agrees'] == 1 else ''}",
        f"{counts['differs']} differ{'s' if counts['differs'] == 1 else ''}",
        f"{counts['not comparable']} not comparable",
    ]
    return ", ".join(part for part, n in zip(parts, counts.values(), strict=True) if n)


def _print_list(sweep: Sweep | None) -> None:
    ours = None if sweep is None else _Ours(sweep)
    tables = {} if ours is None else {name: _check(ours, name) for name in ITEMS}
    rows = []
    for item in ITEMS.values():
        numbers = sum(claim.table == item.id for claim in claims())
        row: tuple[str, ...] = (item.id, item.title, item.needs, str(numbers))
        if sweep is not None and ours is not None:
            row += (_has(sweep, tables[item.id], ours.is_of(item.id)),)
        rows.append(row)
    columns: tuple[str, ...] = ("ID", "table or figure", "needs", "numbers")
    if sweep is not None:
        columns += (f"in {sweep.name}",)
    print_table(columns, rows, wrap=(0, 1, 2, 4))


def _has(sweep: Sweep, table: Table, is_of: bool) -> str:
    figure = table.item.id in FIGURES
    lacking = missing(sweep, table.item.id) if figure else ""
    parts = []
    if table.lines:
        what = "yes" if is_of else "unregularised trials only"
        parts.append(f"{what}: {count(len(table.lines), 'line')}, {summary(table)}")
    elif table.of:
        parts.append(f"no: {table.why}")
    if figure:
        parts.append(f"figure: {lacking}" if lacking else "figure: yes")
    return "; ".join(parts) or "nothing to check in a sweep"


def main() -> None:
    flags = parse(Flags, prog="python -m analysis.paper")
    if flags.table is not None and flags.table not in ITEMS:
        raise InputError(f"--table {flags.table}: no such table; there are {', '.join(ITEMS)}")
    if flags.list:
        _print_list(None if flags.sweep is None else read_sweep(flags.sweep))
        return
    if flags.sweep is None:
        raise InputError("sweep: missing; give the folder or s3:// prefix of a sweep, or --list")
    sweep = read_sweep(flags.sweep)
    ours = _Ours(sweep)
    chosen = [flags.table] if flags.table else [name for name in ITEMS if ours.is_of(name)]
    tables = [_check(ours, name) for name in chosen]
    drawable = [name for name in chosen if name in FIGURES and not missing(sweep, name)]
    if not drawable and not any(table.lines for table in tables):
        table = tables[0] if tables else _check(ours, "pilcro-1")
        lacking = missing(sweep, table.item.id) if table.item.id in FIGURES and not table.of else table.why
        if flags.table:
            raise InputError(
                f"--table {flags.table}: {sweep.path} has nothing of it ({lacking}); needs {table.item.needs}"
            )
        raise InputError(f"{sweep.path}: has nothing of any paper's tables; --list says what each needs")
    folder = out_folder(flags.out, sweep)
    contents = {}
    for table in tables:
        if table.lines:
            buffer = io.BytesIO()
            pq.write_table(rows_of(table), buffer)
            contents[f"{folder}/{table.item.id}.parquet"] = buffer.getvalue()
    problems = []
    for name in drawable:
        try:
            parts = draw(sweep, name)
        except InputError as error:
            if flags.table:
                raise
            problems.append(f"no figure {name}: {error}")
            continue
        for drawn in parts:
            contents |= files(drawn.figure, f"{folder}/{name}{drawn.suffix}", sweep, images=drawn.images)
    written = [write_file(name, whole) for name, whole in contents.items()]
    for table in tables:
        if table.lines:
            _print(table)
    rest = [table.item.id for table in tables if not table.lines and table.item.id not in drawable]
    if rest and not flags.table:
        print(f"nothing of {', '.join(rest)}: --list says what each needs")
    for problem in problems:
        print(problem)
    for path in written:
        print(path)


if __name__ == "__main__":
    run(main)
