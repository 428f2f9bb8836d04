"""Which machines are started where AWS is short of some."""

from __future__ import annotations

from typing import Any

import pytest
from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
from ray.autoscaler.node_launch_exception import NodeLaunchException

from sweeps.driver.aws import SpotThenOnDemand

SPOT = {"InstanceType": "g6.xlarge", "InstanceMarketOptions": {"MarketType": "spot"}, "ImageId": "ami-1"}
OTHER = {**SPOT, "InstanceType": "g5.xlarge"}
DEMAND = {"InstanceType": "g6.xlarge", "ImageId": "ami-1"}


class Shop:
    """AWS with so many of each kind of machine."""

    def __init__(self, *stock: tuple[dict[str, Any], int]) -> None:
        self.stock = list(stock)
        self.sold: list[dict[str, Any]] = []

    def create_node(self, _: object, node_config: dict[str, Any], tags: dict[str, str], count: int) -> dict[str, Any]:
        for number, (kind, left) in enumerate(self.stock):
            if kind == node_config and left:
                given = min(left, count)
                self.stock[number] = (kind, left - given)
                self.sold += [kind] * given
                return {f"i-{len(self.sold) - one}": kind for one in range(given)}
        raise NodeLaunchException("InsufficientInstanceCapacity", f"no {node_config['InstanceType']}", None)


@pytest.fixture
def provider() -> SpotThenOnDemand:
    made = SpotThenOnDemand.__new__(SpotThenOnDemand)  # without asking AWS anything
    made.provider_config = {"when_sold_out": [{"InstanceType": "g5.xlarge"}, {"InstanceMarketOptions": None}]}
    return made


@pytest.mark.parametrize(
    ("stock", "sold"),
    [
        ([(SPOT, 9), (OTHER, 9), (DEMAND, 9)], [SPOT, SPOT, SPOT]),
        ([(SPOT, 1), (OTHER, 1), (DEMAND, 9)], [SPOT, OTHER, DEMAND]),
        ([(SPOT, 1), (SPOT, 2), (DEMAND, 9)], [SPOT, SPOT, SPOT]),
        ([(DEMAND, 9)], [DEMAND, DEMAND, DEMAND]),
        ([(OTHER, 2)], [OTHER, OTHER]),
    ],
)
def test_what_is_lacking_is_bought_elsewhere(
    provider: SpotThenOnDemand, monkeypatch: pytest.MonkeyPatch, stock: list[Any], sold: list[Any]
) -> None:
    shop = Shop(*stock)
    monkeypatch.setattr(AWSNodeProvider, "create_node", lambda self, *rest: shop.create_node(self, *rest))
    assert len(provider.create_node(SPOT, {}, 3)) == len(sold)
    assert shop.sold == sold


def test_nothing_to_be_had_and_no_fallback_for_the_head(
    provider: SpotThenOnDemand, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = Shop((OTHER, 0))
    monkeypatch.setattr(AWSNodeProvider, "create_node", lambda self, *rest: shop.create_node(self, *rest))
    with pytest.raises(NodeLaunchException, match=r"g6\.xlarge"):
        provider.create_node(SPOT, {}, 3)
    other = Shop((OTHER, 1))
    monkeypatch.setattr(AWSNodeProvider, "create_node", lambda self, *rest: other.create_node(self, *rest))
    with pytest.raises(NodeLaunchException):
        provider.create_node(DEMAND, {}, 1)


def test_what_is_no_lack_of_machines_does_not_cost_the_full_price(
    provider: SpotThenOnDemand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missing permission or a wrong image is told, and not tried again on demand."""
    tried: list[dict[str, Any]] = []

    def refuse(self: object, node_config: dict[str, Any], *rest: object) -> dict[str, Any]:
        tried.append(node_config)
        raise NodeLaunchException("UnauthorizedOperation", "you may not", None)

    monkeypatch.setattr(AWSNodeProvider, "create_node", refuse)
    with pytest.raises(NodeLaunchException, match="you may not"):
        provider.create_node(SPOT, {}, 3)
    assert tried == [SPOT]
