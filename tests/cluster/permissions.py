"""AWS's answer to "may they?", for the policies of sweeps/cluster and the calls that a cluster makes.

A call is held against the policies resource by resource, as AWS does: starting an instance takes the right to the
instance, its disk, its subnet and so on, to the tags it gets and to the role it is given (AWS's "Actions, resources,
and condition keys for Amazon EC2", "for Amazon S3", "for AWS Identity and Access Management").
"""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

FOLDER = Path(__file__).resolve().parents[2] / "sweeps" / "cluster"
POLICIES = {"user": ["user", "bucket"], "sweeps-head": ["head", "bucket"], "sweeps-worker": ["bucket"]}
"""Which files sweeps/README.md gives to whom."""

Tags = Callable[[str], dict[str, str]]


@dataclass(frozen=True)
class Asked:
    """One thing that a call needs the right to."""

    action: str
    resource: str
    context: dict[str, list[str]] = field(default_factory=dict)


def statements(name: str, values: dict[str, str]) -> list[dict[str, Any]]:
    """Those of a file of sweeps/cluster, filled in."""
    text = (FOLDER / f"{name}.json").read_text()
    for placeholder, value in values.items():
        text = text.replace(placeholder, value)
    found: list[dict[str, Any]] = json.loads(text)["Statement"]
    assert all(statement["Effect"] == "Allow" for statement in found), "only what is allowed is understood here"
    return found


def allowing(policy: list[dict[str, Any]], asked: Asked) -> list[str]:
    """The statements that allow it, by their Sid."""
    return [
        statement["Sid"]
        for statement in policy
        if any(fnmatch.fnmatchcase(asked.action, one) for one in listed(statement["Action"]))
        and any(fnmatch.fnmatchcase(asked.resource, one) for one in listed(statement["Resource"]))
        and all(
            _met(operator, asked.context.get(key, []), listed(wanted))
            for operator, keys in statement.get("Condition", {}).items()
            for key, wanted in keys.items()
        )
    ]


def _met(operator: str, given: list[str], wanted: list[str]) -> bool:
    if operator in ("StringEquals", "Bool"):
        return len(given) == 1 and given[0] in wanted
    if operator in ("StringLike", "ArnEquals"):
        return len(given) == 1 and any(fnmatch.fnmatchcase(given[0], one) for one in wanted)
    if operator == "ForAllValues:StringLike":
        return all(any(fnmatch.fnmatchcase(value, one) for one in wanted) for value in given)
    raise ValueError(f"condition {operator}: a policy with it cannot be judged here")


def asked_of_ec2(parameters: dict[str, str], region: str, account: str, tags: Tags) -> Iterator[Asked]:
    """What a call of EC2's needs; `tags` gives those of an instance."""
    action = "ec2:" + parameters["Action"]
    here = {"aws:RequestedRegion": [region]}
    own = f"arn:aws:ec2:{region}:{account}:"
    if parameters["Action"] == "RunInstances":
        yield from _asked_to_start(parameters, region, account, here)
    elif parameters["Action"] in ("TerminateInstances", "StopInstances", "StartInstances"):
        for instance in _numbered(parameters, "InstanceId"):
            yield Asked(action, f"{own}instance/{instance}", here | _tagged("aws:ResourceTag/", tags(instance)))
    elif parameters["Action"] == "CreateTags":
        keys = {"aws:TagKeys": [value for key, value in parameters.items() if re.fullmatch(r"Tag\.\d+\.Key", key)]}
        for instance in _numbered(parameters, "ResourceId"):
            context = here | keys | _tagged("aws:ResourceTag/", tags(instance))
            yield Asked(action, f"{own}instance/{instance}", context)
    elif parameters["Action"] == "CreateKeyPair":
        yield Asked(action, f"{own}key-pair/{parameters['KeyName']}", here)
    else:  # of what only looks EC2 has no resources
        yield Asked(action, "*", here)


def _asked_to_start(
    parameters: dict[str, str], region: str, account: str, here: dict[str, list[str]]
) -> Iterator[Asked]:
    own = f"arn:aws:ec2:{region}:{account}:"
    given: dict[str, str] = {}
    for key, kind in parameters.items():
        if match := re.fullmatch(r"(TagSpecification\.\d+\.)ResourceType", key):
            assert kind == "instance", f"tags of a {kind} are not understood here"
            for name, value in parameters.items():
                if tag := re.fullmatch(re.escape(match.group(1)) + r"(Tag\.\d+\.)Key", name):
                    given[value] = parameters[f"{match.group(1)}{tag.group(1)}Value"]
    instance = here | _tagged("aws:RequestTag/", given) | {"aws:TagKeys": list(given)}
    profile = parameters.get("IamInstanceProfile.Name")
    if profile:
        instance |= {"ec2:InstanceProfile": [f"arn:aws:iam::{account}:instance-profile/{profile}"]}
    yield Asked("ec2:RunInstances", f"{own}instance/*", instance)
    for key in parameters:
        if re.fullmatch(r"BlockDeviceMapping\.\d+\.DeviceName", key):
            encrypted = parameters.get(key.replace("DeviceName", "Ebs.Encrypted"), "false")
            yield Asked("ec2:RunInstances", f"{own}volume/*", here | {"ec2:Encrypted": [encrypted]})
    yield Asked("ec2:RunInstances", f"arn:aws:ec2:{region}::image/{parameters['ImageId']}", here)
    yield Asked("ec2:RunInstances", f"{own}network-interface/*", here)
    yield Asked("ec2:RunInstances", f"{own}subnet/{parameters.get('SubnetId', '*')}", here)
    for group in _numbered(parameters, "SecurityGroupId") or ["default"]:
        yield Asked("ec2:RunInstances", f"{own}security-group/{group}", here)
    if name := parameters.get("KeyName"):
        yield Asked("ec2:RunInstances", f"{own}key-pair/{name}", here)
    if parameters.get("InstanceMarketOptions.MarketType") == "spot":
        yield Asked("ec2:RunInstances", f"{own}spot-instances-request/*", here)
    if given:
        yield Asked("ec2:CreateTags", f"{own}instance/*", instance | {"ec2:CreateAction": ["RunInstances"]})
    if profile:  # profile and role have one name: sweeps/README.md
        passed = {"iam:PassedToService": ["ec2.amazonaws.com"]}
        yield Asked("iam:PassRole", f"arn:aws:iam::{account}:role/{profile}", passed)


def asked_of_s3(method: str, path: str, query: dict[str, str], headers: dict[str, str], body: bytes) -> Iterator[Asked]:
    """What a call of S3's needs, by its address below the server's (path style)."""
    bucket, _, key = unquote(path).lstrip("/").partition("/")
    here = f"arn:aws:s3:::{bucket}"
    one = f"{here}/{key}"
    if not bucket:
        yield Asked("s3:ListAllMyBuckets", "*")
    elif not key and method == "POST" and "delete" in query:
        for element in ElementTree.fromstring(body).iter():
            if element.tag.rpartition("}")[2] == "Key":
                yield Asked("s3:DeleteObject", f"{here}/{element.text}")
    elif not key:
        named = {"GET": "s3:ListBucket", "HEAD": "s3:ListBucket", "PUT": "s3:CreateBucket", "DELETE": "s3:DeleteBucket"}
        of = {"location", "versioning", "versions", "uploads", "policy", "acl", "tagging"} & set(query)
        yield Asked(f"s3:{method}?{of.pop()}" if of else named[method], here, {"s3:prefix": [query.get("prefix", "")]})
    elif {"acl", "tagging", "versionId"} & set(query):
        yield Asked(f"s3:{method}?{sorted(query)}", one)
    elif method in ("GET", "HEAD"):
        yield Asked("s3:ListMultipartUploadParts" if "uploadId" in query else "s3:GetObject", one)
    elif method == "DELETE":
        yield Asked("s3:AbortMultipartUpload" if "uploadId" in query else "s3:DeleteObject", one)
    else:
        if source := headers.get("x-amz-copy-source"):
            yield Asked("s3:GetObject", "arn:aws:s3:::" + unquote(source).lstrip("/"))
        yield Asked("s3:PutObject", one)


def _tagged(prefix: str, tags: dict[str, str]) -> dict[str, list[str]]:
    return {prefix + key: [value] for key, value in tags.items()}


def _numbered(parameters: dict[str, str], name: str) -> list[str]:
    return [value for key, value in parameters.items() if re.fullmatch(rf"{name}\.\d+", key)]


def listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value
