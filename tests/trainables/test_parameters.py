"""Numbers of parameters beside the paper's Table 1."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from trainables.data import DataConfig, load
from trainables.metrics import METRICS, Moment
from trainables.metrics.parameters import parameter_count
from trainables.models import MODELS, build_model
from trainables.models.top_gap import TopGapNetwork
from trainables.top_gap import TopGap


def in_millions(model: str, classes: int) -> tuple[float, float, TopGapNetwork]:
    """Of the unmodified network, of that with class maps, and that one; without numbers."""
    with torch.device("meta"):
        width = MODELS[model].width
        network = build_model(model, channels=3, size=224, classes=classes, width=width, seed=0)
        unmodified = parameter_count(network) / 1e6
        ours = TopGapNetwork(network, (3, 224, 224), TopGap(pixels=256))
    return unmodified, parameter_count(ours) / 1e6, ours


@pytest.mark.parametrize(
    ("model", "classes", "unmodified", "ours"),
    [("vgg11-bn", 1000, 132.87, 12.43), ("efficientnet-b0", 53, 4.08, 4.75)],
)
def test_the_papers_table_1(model: str, classes: int, unmodified: float, ours: float) -> None:
    found = in_millions(model, classes)
    assert round(found[0], 2) == unmodified
    assert round(found[1], 2) == ours


def test_no_maps_of_densenet_give_the_papers_number() -> None:
    """The paper's 8.03M, 0.05M more than unmodified. Its last three maps or more keep the whole backbone; even the
    least three of its maps' channels, before or after the layers between its blocks, need more than that."""
    unmodified, ours, network = in_millions("densenet-121", 1000)
    assert round(unmodified, 2) == 7.98
    assert round(ours, 2) == 13.70
    assert network.backbone.channels == [256, 512, 1024, 1024]
    backbone = parameter_count(network.backbone) / 1e6
    assert backbone + (1024 * 1000 + 1000) / 1e6 == pytest.approx(unmodified)

    def least(channels: tuple[int, ...]) -> float:
        convolutions = sum(9 * inputs * 256 + 256 for inputs in channels)
        return backbone + (convolutions + 256 * 1000 + 1000) / 1e6

    assert least((256, 512, 1024, 1024)) == pytest.approx(ours)
    assert least((256, 512, 1024)) > 11.3  # the last three, each as small as it is anywhere
    assert least((64, 128, 256)) > 8.2  # the least three of all: stem and the first two layers between blocks


def test_as_a_metric() -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 10))
    data = load("digits", "unused", DataConfig("digits"))
    cpu = torch.device("cpu")
    metric = METRICS["parameters"]()
    (row,) = metric.measure(Moment(network, data, "test", 2, True, 0, cpu, lambda _: network)).measurements
    assert row["value"] == pytest.approx((4 * 9 + 4 + 2 * 4 + 1440 + 10) / 1e6)
    assert (row["metric"], row["component"], row["unit"]) == ("parameters", "", "M")
    network[0].requires_grad_(False)
    (row,) = metric.measure(Moment(network, data, "test", 2, True, 0, cpu, lambda _: network)).measurements
    assert row["value"] == pytest.approx((2 * 4 + 1440 + 10) / 1e6)
    assert metric.measure(Moment(network, data, "validation", 0, False, 0, cpu, lambda _: network)).measurements == []
