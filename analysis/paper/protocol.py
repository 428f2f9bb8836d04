"""In what a trial is not as in the paper: data, network, epochs, attack."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from analysis.groups import Row, short
from analysis.paper.printed import Claim, Trend, trained_as

# printed strengths are rounded: 1.15e7 for 10^(2 + 31·8/49)
_ROUNDED = 0.01
_LEVEL_ROUNDED = 0.02


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
        found += _unlike_training(row, claim)
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


def _unlike_training(row: Row, claim: Claim | Trend) -> list[str]:
    """In what a trial was not trained as in the paper, which says it in words that numbers are not the only ones of."""
    found = []
    for name, theirs in trained_as(claim).items():
        ours = row.get(name)
        if ours is None and name == "labels":
            ours = "real"
        # a record from before there was such a choice
        if ours is None or _is_as(ours, theirs):
            continue
        paper = "above 0" if theirs == ">0" else theirs
        found.append(f"{short(name)} is {_shown(ours)} (paper: {paper})")
    return found


def _is_as(ours: Any, theirs: str) -> bool:
    """Whether a value of ours is the paper's, as `protocols.csv` has it."""
    if isinstance(ours, bool):
        return str(ours).lower() == theirs
    if theirs == ">0":
        return isinstance(ours, int | float) and ours > 0
    try:
        return math.isclose(float(ours), float(theirs), rel_tol=_ROUNDED, abs_tol=0)
    except ValueError:
        return bool(ours == theirs)


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
