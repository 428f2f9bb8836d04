"""In what a trial is not as in the paper: data, network, epochs, attack."""

from __future__ import annotations

import json
import math
from typing import Any

from analysis.groups import Row, short
from analysis.options import UNKNOWN, options_of
from analysis.paper.printed import CLASSES, TEST_IMAGES, Said, measured_as, trained_as

# printed strengths are rounded: 1.15e7 for 10^(2 + 31·8/49)
_ROUNDED = 0.01
_LEVEL_ROUNDED = 0.02


def _same(name: str, ours: Any, theirs: Any) -> bool:
    if isinstance(theirs, float) and isinstance(ours, float):
        return math.isclose(ours, theirs, rel_tol=_ROUNDED, abs_tol=0)
    if name == "dataset" and isinstance(ours, str):
        return theirs in (ours, _short(ours))
    if name == "labels" and ours is None:
        ours = "real"  # of a record from before there was the choice
    return bool(ours == theirs)


def _short(dataset: str) -> str:
    """ "pets" of a folder's or a Parquet set's name in the record, "folder:pets@1a2b3c4d"."""
    kind, separator, rest = dataset.partition(":")
    return rest.rpartition("@")[0] or rest if separator and kind in ("folder", "parquet") else dataset


def _data_set(row: Row) -> str | None:
    """The data set's name: what a folder's images are declared to be, else what it is called in the record."""
    declared: str | None = row.get("declared")
    return declared or row["dataset"]


def told_of_declared(row: Row, claim: Said) -> str:
    """That a trial's data are the paper's because somebody has said so; "" where they are by their name."""
    declared, theirs = row.get("declared"), claim.protocol.get("dataset")
    if declared is None or declared != theirs or _same("dataset", row["dataset"], theirs):
        return ""
    return f"data declared as {declared}"


def _unlike(row: Row, claim: Said) -> list[str]:
    """In what a trial is not as in the paper: "dataset is digits (paper: cifar100)"."""
    found = []
    for name, theirs in claim.protocol.items():
        ours = _data_set(row) if name == "dataset" else row[name]
        if not _same(name, ours, theirs):
            told = "not set" if ours is None else _shown(row[name])
            told += f", declared as {ours}" if name == "dataset" and ours != row[name] else ""
            found.append(f"{name} is {told} (paper: {_shown(theirs)})")
    # filters and their maps at initialisation do not depend on what is trained on, nor how
    if claim.protocol and not claim.quantity.endswith("#0"):
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
    return found


def _unlike_training(row: Row, claim: Said) -> list[str]:
    """In what a trial was not trained as in the paper, which says it in words that numbers are not the only ones of."""
    found = []
    for name, theirs in trained_as(claim).items():
        ours = row.get(name)
        if ours is None and name == "labels":
            ours = "real"
        if name in ("data.image_size", "data.evaluation_size"):
            ours = _size(row, name)
        # a record from before there was such a choice
        if ours is None or _is_as(ours, theirs):
            continue
        paper = "above 0" if theirs == ">0" else theirs
        found.append(f"{short(name)} is {_shown(ours)} (paper: {paper})")
    return found


def _size(row: Row, name: str) -> Any:
    """Pixels a side of a trial's images; None: not known, as they are a folder's own."""
    ours = row.get(name)
    if ours in (None, "none") and name == "data.evaluation_size" and name in row:
        ours = row.get("data.image_size")
    return _WHOLE_SIZE.get(_short(_data_set(row) or "")) if ours in (None, "none") and name in row else ours


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
# of those that have no size of their own what they are resized to where nobody says otherwise
_WHOLE_SIZE = {"imagenette": 320, "oxford-pets": 224, "imagenet": 224}
_RESIZED = {("loco", "fashion-mnist"): 32}
_LARGE = 224


def _unlike_images(row: Row, claim: Said, size: int | None) -> list[str]:
    """Of another size than the paper's, or a network that did not begin with ImageNet's weights."""
    theirs = claim.protocol.get("dataset")
    found = []
    expected = _RESIZED.get((claim.paper, theirs or ""), _OWN_SIZE.get(theirs or ""))
    if expected is None and claim.paper == "topgap" and theirs is not None:
        expected = _LARGE
    # a set's own size where there is none; a folder's is not known, and 224 where its images differ in size
    own = _OWN_SIZE.get(theirs or "") if size is None and _same("dataset", _data_set(row), theirs) else size
    if expected is not None and own not in (None, expected):
        found.append(f"images of {own} pixels (paper: {expected})")
    if claim.paper == "topgap" and theirs not in (None, "cifar10") and not row["pretrained"]:
        found.append("not pretrained (paper: with ImageNet's weights)")
    return found


def _unlike_classes(row: Row, model: str) -> list[str]:
    """Parameters are counted with the last layer: the paper's counts are those with so many classes."""
    theirs = 53 if model == "efficientnet-b0" else 1000
    ours = {"digits": 10, **CLASSES}.get(_short(_data_set(row) or ""))
    if ours == theirs:
        return []
    return [f"{'number of classes not known' if ours is None else f'{ours} classes'} (paper: {theirs})"]


def _unlike_measured(row: Row, claim: Said, n: int | None = None) -> list[str]:
    """In what a trial's number was not measured as the paper's, by the options that it depends on; `n`: the number of
    images that it is of, where that is known. What the record does not say is not held against it."""
    name, _, level = claim.quantity.partition("#")[0].partition("@")
    metric, _, component = name.partition(":")
    theirs = measured_as(claim)
    known = options_of(row["measured"], metric, component)
    if not theirs or known is None or known[:1] == UNKNOWN[:1]:
        return []
    found = []
    for option, text in known:
        paper = theirs.get(f"{_MAKERS.get(metric, metric)}.{option}")
        ours = json.loads(text)
        if paper is None or _measured_alike(option, ours, paper, claim, level, n):
            continue
        words = "PGD by steps of " if option == "step_size" else f"measured with {option}="
        found.append(f"{words}{_shown(ours)} (paper: {paper})")
    return found


# the metrics of the registry that make these measurements and columns, which others have the name of
_MAKERS = {"robust_accuracy": "attacks", "total_variation": "landscape"}


def _measured_alike(option: str, ours: Any, theirs: str, claim: Said, level: str, n: int | None) -> bool:
    if option == "step_size":
        # of a level that is not the paper's the steps are told apart by that alone
        return _is_thirtieth(str(ours), float(level)) if level else True
    if ours is None:
        return True  # all of them, or by the images' size as the papers do
    if theirs != "all":
        return math.isclose(float(ours), float(theirs))
    whole = TEST_IMAGES.get(claim.protocol.get("dataset", "")) if option == "images" else math.inf
    # of a set whose size is not known: fewer were there than were asked for
    return n is None or n < ours if whole is None else bool(ours >= whole)


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
