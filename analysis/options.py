"""What a number was measured with. Options of a metric belong to the identity of its numbers: a mean over 100 images
and one over 128 are two quantities, and are never averaged.

Which options a trial's metrics had is in its column `measured`; which of them a number depends on is said here. Others
say what is measured besides (which attacks, whose maps, how often), which the rows of the record tell themselves.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Collection, Mapping
from typing import Any

from analysis.schema import TABLES, direction

Options = tuple[tuple[str, str], ...]
"""The options that a number depends on, by name, with their values as JSON."""

UNKNOWN: Options = (("options", '"unknown"'),)
"""Of a number whose options are not recorded: equal to others of the kind, and to no number whose options are known."""

_SALIENCY = ("images", "seed")

DEPENDS_ON: dict[str, dict[str, tuple[str, ...]]] = {
    "landscape": dict.fromkeys(("total_variation", "importance_landscape"), ("expectation", "images")),
    "paths": dict.fromkeys(("path_importance_correlation", "initial_landscape"), ("initialisations", "images")),
    "locality": dict.fromkeys(("locality", "locality_t", "locality_p", "weight_ratio", "weight_ratio_absolute"), ()),
    "faithfulness": {"faithfulness": (*_SALIENCY, "pixels")},
    "local_lipschitz": {"local_lipschitz": (*_SALIENCY, "samples")},
    "max_sensitivity": {"max_sensitivity": (*_SALIENCY, "samples")},
    "entropy": {"entropy": _SALIENCY},
    "saliency_maps": {"saliency_mean": _SALIENCY},
    "attacks": dict.fromkeys(
        ("robust_accuracy", "robust_accuracy_correct"), ("images", "seed", "restarts", "step_size", "queries")
    ),
    "erf": dict.fromkeys(("erf", "erf_distance"), ("images",)),
    "cam": {"cam_sparsity": ("images",)},
    "iou": dict.fromkeys(("iou", "iou_threshold", "iou_at_threshold"), ("images",)),
    "shift": {"shift_accuracy": ()},
    "parameters": {"parameters": ()},
    "deformation_sensitivity": {"deformation_sensitivity": ("images", "grid", "max_displacement", "seed")},
    "filter_smoothness": {"filter_total_variation": ()},
}
"""By name in the registry of metrics: the measurements, columns and maps that it makes, and the options that each
depends on."""

BESIDES: dict[str, tuple[str, ...]] = {
    "landscape": ("maps_at",),
    "faithfulness": ("explainers", "per_image"),
    "local_lipschitz": ("explainers", "per_image", "std"),
    "max_sensitivity": ("explainers", "per_image", "radius"),
    "entropy": ("explainers", "per_image"),
    "saliency_maps": ("explainers", "per_image", "panels"),
    "attacks": ("attacks", "epsilon", "steps"),
    "cam": ("panels",),
    "shift": ("sets",),
    "deformation_sensitivity": ("every",),
    "filter_smoothness": ("every",),
}
"""The other options: what is measured besides, or what the rows' level says."""

# of the attacks, what each one's numbers depend on
_ATTACKS = {
    "fgsm": ("images",),
    "pgd": ("images", "seed", "restarts", "step_size"),
    "apgd": ("images", "seed", "restarts"),
    "square": ("images", "seed", "restarts", "queries"),
}
# what an option was before there was a choice
_BEFORE = {"step_size": "eps/4"}
# `n` of these is the number of images that were measured, whatever they are
_COUNT_IMAGES = ("total_variation", "robust_accuracy", "robust_accuracy_correct", "deformation_sensitivity")

_MAKER = {name: (metric, options) for metric, made in DEPENDS_ON.items() for name, options in made.items()}
# of the training, and of LOCO-REG's networks
_FREE = {field.name for table in ("trials", "epochs") for field in TABLES[table] if direction(field) is not None}
_FREE = (_FREE - _MAKER.keys()) | {"gamma", "eta"}


@functools.cache
def options_of(measured: str | None, name: str, component: str = "", n: int | None = None) -> Options | None:
    """What a trial's number of this measurement, column or map depends on, from its column `measured`; None where that
    says that it was not measured. Where nothing is recorded, `n` images still tell some numbers apart."""
    metric, options = _MAKER.get(name, ("", None))
    if name in _FREE or options == ():
        return ()
    known: Mapping[str, Mapping[str, Any]] = json.loads(measured) if measured else {}
    if options is None:
        # of a metric of the user's own nobody has said what its numbers depend on
        own = {key: chosen for key, chosen in known.items() if key.split(" on ")[0] not in DEPENDS_ON}
        return _written({f"{key} {option}": value for key, chosen in own.items() for option, value in chosen.items()})
    component, on, data = f" {component}".partition(" on ")
    if metric == "attacks":
        options = _ATTACKS.get(component.strip().rstrip("0123456789"), options)
    chosen = known.get(f"{metric}{on}{data}")
    if chosen is not None:
        return _written({option: chosen.get(option, _BEFORE.get(option)) for option in options})
    if measured:
        return None
    return (*UNKNOWN, ("n", str(n))) if n is not None and name in _COUNT_IMAGES else UNKNOWN


def _written(options: Mapping[str, Any]) -> Options:
    return tuple(sorted((name, json.dumps(value, sort_keys=True)) for name, value in options.items()))


def told_apart(found: Collection[Options]) -> dict[Options, str]:
    """Of numbers with these options, the words that tell them apart: "images=100", "options=unknown"."""
    known = [dict(options) for options in found if options[:1] != UNKNOWN]
    names = {name for options in known for name in options}
    differing = {name for name in names if len({options.get(name) for options in known}) > 1} or names
    words = {}
    for options in found:
        shown = [f"{name}={_word(value)}" for name, value in options if options[:1] == UNKNOWN or name in differing]
        words[options] = ",".join(shown) or "options=none"
    return words


def _word(value: str) -> str:
    """A value in JSON as it can be typed."""
    known = json.loads(value)
    if isinstance(known, list):
        return "+".join(map(str, known)) or "none"
    return {"null": "default", "true": "yes", "false": "no"}.get(value, str(known))
