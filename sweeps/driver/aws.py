"""Machines from AWS for `cluster.yaml`: on spot where there are any, else another type, else on demand.

Ray's autoscaler would choose between node types by their priority, but it does not leave the first one when AWS has
none of it: it asks again and again (seen with 2.60 and autoscaler v2). So the change is made here, below it.
"""

from __future__ import annotations

from typing import Any

from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
from ray.autoscaler.node_launch_exception import NodeLaunchException

SOLD_OUT = {
    "InsufficientCapacity",
    "InsufficientHostCapacity",
    "InsufficientInstanceCapacity",
    "MaxSpotInstanceCountExceeded",  # the account's quota of spot machines
    "SpotMaxPriceTooLow",
    "Unsupported",  # a type that this zone does not have
}
"""AWS's error codes of which another kind of machine may be had; others (permissions, a wrong image) are errors."""


class SpotThenOnDemand(AWSNodeProvider):
    """Ray's provider for AWS with a setting more: `provider.when_sold_out`, a list of changes to a worker's
    `node_config`, tried one after another for the machines that could not be had without; null removes an entry."""

    def create_node(self, node_config: dict[str, Any], tags: dict[str, str], count: int) -> dict[str, Any]:
        """Start `count` machines, or as many as there are.

        Raises `NodeLaunchException`, that of the first attempt, if there is none at all, and that of any other reason.
        """
        created: dict[str, Any] = {}
        sold_out = None
        changes = self.provider_config.get("when_sold_out", []) if "InstanceMarketOptions" in node_config else []
        for change in [{}, *changes]:
            config = {key: value for key, value in {**node_config, **change}.items() if value is not None}
            try:
                # AWS gives fewer than asked for where it has fewer
                while len(created) < count:
                    created.update(super().create_node(config, tags, count - len(created)))
            except NodeLaunchException as error:
                if error.category not in SOLD_OUT:
                    if created:
                        break  # those there are; the autoscaler asks for the rest again
                    raise
                sold_out = sold_out or error
        if not created and sold_out:
            raise sold_out
        return created
