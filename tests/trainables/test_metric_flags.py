"""The metrics' options as flags: each goes to its metric, and what is wrong with one is said of the flag."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from analysis.command_line import InputError
from trainables.metrics import METRICS
from trainables.metrics.flags import FLAGS, MetricFlags

OWN = {entry.name: entry for entry in dataclasses.fields(MetricFlags)}


def test_every_flag_is_an_option_of_a_metric() -> None:
    used = {field for options in FLAGS.values() for field in options.values()}
    assert used == set(OWN)
    for name, options in FLAGS.items():
        assert set(options) <= {entry.name for entry in dataclasses.fields(METRICS[name])}  # type: ignore[arg-type]


@pytest.mark.parametrize("name", sorted(set(METRICS) - {"shift"}))
def test_the_defaults_are_the_metrics_own(name: str) -> None:
    """A sweep measures what the metric does without options."""
    options = MetricFlags().metric_options([name], "measure")[name]
    assert METRICS[name](**options) == METRICS[name]()


def test_values_reach_their_metric() -> None:
    flags = MetricFlags(saliency_samples=7, attack_steps=(3, 9), epsilon=("0.1,8/255",), measure_every=5, maps_at=(2,))
    options = flags.metric_options(["landscape,attacks", "max_sensitivity", "filter_smoothness"], "measure")
    assert list(options) == ["landscape", "attacks", "max_sensitivity", "filter_smoothness"]
    assert options["max_sensitivity"]["samples"] == 7
    assert options["attacks"]["steps"] == [3, 9]
    assert options["attacks"]["epsilon"] == ["0.1", "8/255"]
    assert options["filter_smoothness"] == {"every": 5}
    assert options["landscape"]["maps_at"] == [2]


BAD: dict[str, Any] = {
    "landscape": "mean",
    "landscape_images": 0,
    "maps_at": (-1,),
    "initialisations": 0,
    "explainers": ("lime",),
    "saliency_images": 0,
    "saliency_pixels": 1,
    "saliency_samples": 0,
    "saliency_panels": 0,
    "attacks": ("deepfool",),
    "epsilon": ("8/x",),
    "attack_steps": (0,),
    "step_size": "big",
    "attack_restarts": 0,
    "attack_queries": 0,
    "attack_images": 0,
    "erf_images": 0,
    "cam_images": 0,
    "cam_panels": -1,
    "iou_images": 0,
    "deformation_images": 1,
    "deformation_grid": 1,
    "deformation_max": math.inf,
    "measure_every": -1,
}


@pytest.mark.parametrize("field", list(OWN))
def test_a_bad_value_is_said_of_the_flag_whatever_is_measured(field: str) -> None:
    if field not in BAD:
        assert OWN[field].type in ("int", "bool") or field == "shift"  # a seed, a switch, and data sets
        return
    with pytest.raises(InputError, match=f"^{field}: .*allowed are "):
        MetricFlags(**{field: BAD[field]}).metric_options(["parameters"], "measure")


def test_an_unknown_metric_is_said_of_what_named_it() -> None:
    with pytest.raises(InputError, match=r"^metrics: 'lime', allowed are landscape, "):
        MetricFlags().metric_options(["lime"], "metrics")
    with pytest.raises(InputError, match=r"^shift: none, allowed are names of data sets"):
        MetricFlags().metric_options(["shift"], "measure")
