"""Which measurements a trained network will have, as far as the metrics' options say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainables.metrics.attacks import fraction
from trainables.metrics.mask_overlap import THRESHOLDS
from trainables.metrics.shift import short_name


def planned(measured: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """`metric`, `component` and `level` of each, by the options of each metric; without a level where that depends on
    the data, and none of those whose components are the network's layers."""
    found: list[dict[str, Any]] = []

    def add(metric: str, component: str = "", **level: float | None) -> None:
        found.append({"metric": metric, "component": component, **level})

    for name, options in measured.items():
        if name == "attacks":
            for metric in ("robust_accuracy", "robust_accuracy_correct"):
                for attack in options["attacks"]:
                    for epsilon in options["epsilon"]:
                        for component in _components(attack, options):
                            add(metric, component, level=fraction("epsilon", epsilon))
        elif name == "shift":
            for other in options["sets"]:
                add("shift_accuracy", short_name(other), level=None)
        elif name == "erf":
            add("erf", "centre", level=None)
            add("erf", "corner", level=None)
            add("erf_distance", level=None)
        elif name == "iou":
            add("iou", level=None)
            add("iou_threshold", level=None)
            for threshold in THRESHOLDS:
                add("iou_at_threshold", level=threshold)
        elif name in ("cam", "parameters"):
            add({"cam": "cam_sparsity"}.get(name, name), level=None)
        elif name in ("faithfulness", "entropy", "local_lipschitz", "max_sensitivity"):
            # of how many features, the images' size says
            of = {"faithfulness": {}, "entropy": {"level": None}}
            for explainer in options["explainers"]:
                size = options.get("std", options.get("radius"))
                add(name, explainer, **of.get(name, {"level": size}))
    return found


def _components(attack: str, options: Mapping[str, Any]) -> list[str]:
    if attack == "fgsm":
        return [attack]
    return [f"{attack}{number}" for number in ([options["queries"]] if attack == "square" else options["steps"])]
