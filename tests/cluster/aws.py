"""moto's server, short of machines: `python -m tests.cluster.aws <address> <port> '{"g6.xlarge spot": 1}'`.

Machines of a kind that is listed are to be had so often at a time; for more EC2 answers as it does when it has none.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from moto.ec2.exceptions import EC2ClientError
from moto.ec2.responses.instances import InstanceResponse
from moto.server import main

plain = InstanceResponse.run_instances


def run_instances(self: Any) -> Any:
    market = "spot" if self._get_param("InstanceMarketOptions.MarketType") == "spot" else "on-demand"
    kind = f"{self._get_param('InstanceType')} {market}"
    running = [
        instance
        for instance in self.ec2_backend.all_instances()
        if instance.state == "running" and f"{instance.instance_type} {instance.lifecycle or 'on-demand'}" == kind
    ]
    if len(running) >= STOCK.get(kind, sys.maxsize):
        raise EC2ClientError("InsufficientInstanceCapacity", f"There is no {kind} capacity.")
    return plain(self)


if __name__ == "__main__":
    STOCK: dict[str, int] = json.loads(sys.argv[3])
    InstanceResponse.run_instances = run_instances
    main(["-H", sys.argv[1], "-p", sys.argv[2]])
