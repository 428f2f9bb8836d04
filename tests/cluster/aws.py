"""moto's server, short of machines, that lets nobody do more than the policies of sweeps/cluster allow.

`python -m tests.cluster.aws <address> <port> <settings>`, with settings in JSON:

- `stock`: `{"g6.xlarge spot": 1}`: so many machines of a kind are to be had at a time; for more EC2 answers as it does
  when it has none. Of what is not listed there are as many as are wanted.
- `policies`: whom to hold to what, by access key: `{"of-sweeps-head": [...statements]}`. Others may do everything. What
  is not allowed is answered as AWS does.
- `log`: the file to which every call is written, a line of JSON each: who, action, resource, and the statements that
  allow it.
"""

from __future__ import annotations

import io
import json
import re
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from moto.core import DEFAULT_ACCOUNT_ID
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models import ec2_backends
from moto.ec2.responses.instances import InstanceResponse
from moto.moto_server.werkzeug_app import DomainDispatcherApplication
from moto.server import main

from tests.cluster.permissions import Asked, allowing, asked_of_ec2, asked_of_s3

plain_run_instances = InstanceResponse.run_instances
plain_call = DomainDispatcherApplication.__call__
writing = threading.Lock()


def run_instances(self: Any) -> Any:
    market = "spot" if self._get_param("InstanceMarketOptions.MarketType") == "spot" else "on-demand"
    kind = f"{self._get_param('InstanceType')} {market}"
    running = [
        instance
        for instance in self.ec2_backend.all_instances()
        if instance.state == "running" and f"{instance.instance_type} {instance.lifecycle or 'on-demand'}" == kind
    ]
    if len(running) >= SETTINGS["stock"].get(kind, sys.maxsize):
        raise EC2ClientError("InsufficientInstanceCapacity", f"There is no {kind} capacity.")
    return plain_run_instances(self)


def call(self: Any, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """One request, held against the policies before moto sees it."""
    signed = re.search(r"Credential=([^/]+)/\d+/([^/]+)/([^/]+)/aws4_request", environ.get("HTTP_AUTHORIZATION", ""))
    if not signed:
        return plain_call(self, environ, start_response)
    who, region, service = signed.groups()
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    environ["wsgi.input"] = io.BytesIO(body)
    policy = SETTINGS["policies"].get(who)
    refused = None
    with writing, Path(SETTINGS["log"]).open("a") as log:
        for asked in asked_of(service, region, environ, body):
            by = allowing(policy, asked) if policy is not None else ["everything"]
            refused = refused or (None if by else asked)
            log.write(json.dumps({"who": who, "action": asked.action, "resource": asked.resource, "by": by}) + "\n")
    if refused is None:
        return plain_call(self, environ, start_response)
    code = "AccessDenied" if service == "s3" else "UnauthorizedOperation"
    text = f"{who} may not {refused.action} on {refused.resource}"
    error = f"<Error><Code>{code}</Code><Message>{text}</Message></Error>"
    answer = error if service == "s3" else f"<Response><Errors>{error}</Errors><RequestID>1</RequestID></Response>"
    start_response("403 Forbidden", [("Content-Type", "text/xml"), ("Content-Length", str(len(answer)))])
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [answer.encode()]


def asked_of(service: str, region: str, environ: dict[str, Any], body: bytes) -> list[Asked]:
    if service == "s3":
        query = dict(parse_qsl(environ["QUERY_STRING"], keep_blank_values=True))
        headers = {"x-amz-copy-source": environ.get("HTTP_X_AMZ_COPY_SOURCE", "")}
        return list(asked_of_s3(environ["REQUEST_METHOD"], environ["PATH_INFO"], query, headers, body))
    parameters = dict(parse_qsl(body.decode(), keep_blank_values=True))
    if service == "ec2":
        return list(asked_of_ec2(parameters, region, DEFAULT_ACCOUNT_ID, lambda one: tags(region, one)))
    return [Asked(f"{service}:{parameters.get('Action')}", "*")]


def tags(region: str, instance: str) -> dict[str, str]:
    found = ec2_backends[DEFAULT_ACCOUNT_ID][region].describe_tags({"resource-id": [instance]})
    return {tag["key"]: tag["value"] for tag in found}


if __name__ == "__main__":
    SETTINGS: dict[str, Any] = json.loads(sys.argv[3])
    InstanceResponse.run_instances = run_instances
    DomainDispatcherApplication.__call__ = call
    main(["-H", sys.argv[1], "-p", sys.argv[2]])
