"""What the policies of sweeps/cluster allow and, above all, what not. That they suffice: `test_ray_up.py`."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.permissions import (
    FOLDER,
    POLICIES,
    Asked,
    allowing,
    asked_of_ec2,
    asked_of_s3,
    listed,
    statements,
)

REGION, ACCOUNT, GROUP = "eu-west-1", "111122223333", "sg-0a1b2c3d"
VALUES = {
    "REGION": REGION,
    "ACCOUNT": ACCOUNT,
    "BUCKET": "mine",
    "PREFIX": "results",
    "CLUSTER": "sweeps",
    "GROUP": GROUP,
}
INSTANCES = {
    "i-head": {"ray-cluster-name": "sweeps", "ray-node-type": "head"},
    "i-worker": {"ray-cluster-name": "sweeps", "ray-node-type": "worker"},
    "i-theirs": {"ray-cluster-name": "theirs", "ray-node-type": "worker"},
    "i-bare": {},
}
ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "sweeps" / "README.md"


def may(who: str, asked: list[Asked]) -> bool:
    policy = [one for name in POLICIES[who] for one in statements(name, VALUES)]
    assert asked
    return all(allowing(policy, one) for one in asked)


def of_ec2(action: str, region: str = REGION, **parameters: str) -> list[Asked]:
    given = {key.replace("__", "."): value for key, value in parameters.items()}
    return list(asked_of_ec2({"Action": action, **given}, region, ACCOUNT, lambda one: INSTANCES[one]))


def start(kind: str = "worker", **changes: str | None) -> list[Asked]:
    parameters: dict[str, str | None] = {
        "ImageId": "ami-1",
        "SubnetId": "subnet-1",
        "SecurityGroupId__1": GROUP,
        "KeyName": f"ray-autoscaler_{REGION}",
        "IamInstanceProfile__Name": f"sweeps-{kind}",
        "BlockDeviceMapping__1__DeviceName": "/dev/sda1",
        "BlockDeviceMapping__1__Ebs__Encrypted": "true",
        "TagSpecification__1__ResourceType": "instance",
        "TagSpecification__1__Tag__1__Key": "ray-cluster-name",
        "TagSpecification__1__Tag__1__Value": "sweeps",
        "TagSpecification__1__Tag__2__Key": "ray-node-type",
        "TagSpecification__1__Tag__2__Value": kind,
        **changes,
    }
    region = parameters.pop("region", REGION)
    assert region
    return of_ec2("RunInstances", region, **{key: value for key, value in parameters.items() if value is not None})


SPOT = {"InstanceMarketOptions__MarketType": "spot"}


def test_what_they_may() -> None:
    assert may("sweeps-head", start(**SPOT))
    assert may("sweeps-head", start())
    assert may("user", start("head"))
    assert may("sweeps-head", of_ec2("TerminateInstances", InstanceId__1="i-worker"))
    assert may("user", of_ec2("TerminateInstances", InstanceId__1="i-head", InstanceId__2="i-worker"))
    for who in POLICIES:
        assert may(who, object_of("PUT", "/mine/results/pilcro/x"))
        assert may(who, object_of("GET", "/mine", prefix="results/"))


@pytest.mark.parametrize(
    "changes",
    [
        {"IamInstanceProfile__Name": "sweeps-head"},  # a worker that could start workers
        {"IamInstanceProfile__Name": "administrators"},
        {"IamInstanceProfile__Name": None},
        {"BlockDeviceMapping__1__Ebs__Encrypted": "false"},
        {"BlockDeviceMapping__1__Ebs__Encrypted": None},
        {"SecurityGroupId__1": "sg-open"},
        {"SecurityGroupId__1": None},
        {"KeyName": "somebodys"},
        {"TagSpecification__1__Tag__1__Value": "theirs"},
        {"TagSpecification__1__Tag__2__Value": "head"},
        {"TagSpecification__1__ResourceType": None},
        {"region": "us-east-1"},
    ],
    ids=str,
)
def test_no_other_machine_is_started(changes: dict[str, Any]) -> None:
    assert not may("sweeps-head", start(**changes))
    if "TagSpecification__1__Tag__2__Value" not in changes and changes.get("IamInstanceProfile__Name") != "sweeps-head":
        assert not may("user", start("head", **changes))


@pytest.mark.parametrize("instance", ["i-head", "i-theirs", "i-bare"])
def test_the_head_touches_its_workers_alone(instance: str) -> None:
    assert not may("sweeps-head", of_ec2("TerminateInstances", InstanceId__1="i-worker", InstanceId__2=instance))
    assert not may("sweeps-head", of_ec2("CreateTags", ResourceId__1=instance, Tag__1__Key="ray-node-status"))
    if instance != "i-head":
        assert not may("user", of_ec2("TerminateInstances", InstanceId__1=instance))
        # which would make it one's own
        assert not may("user", of_ec2("CreateTags", ResourceId__1=instance, Tag__1__Key="ray-cluster-name"))


@pytest.mark.parametrize("action", ["StopInstances", "DescribeImages", "CreateSecurityGroup", "DeleteVolume"])
def test_what_ray_does_not_need_of_ec2(action: str) -> None:
    assert not may("sweeps-head", of_ec2(action, InstanceId__1="i-worker"))
    assert not may("user", of_ec2(action, InstanceId__1="i-worker"))


def test_workers_may_nothing_in_ec2() -> None:
    assert not may("sweeps-worker", of_ec2("DescribeInstances"))
    assert not may("sweeps-worker", start())
    assert not may("sweeps-worker", of_ec2("TerminateInstances", InstanceId__1="i-worker"))


def object_of(method: str, path: str, body: bytes = b"", copy: str = "", **query: str) -> list[Asked]:
    return list(asked_of_s3(method, path, query, {"x-amz-copy-source": copy}, body))


@pytest.mark.parametrize(
    ("method", "path", "more"),
    [
        ("GET", "/theirs/results/x", {}),
        ("GET", "/mine-too/results/x", {}),
        ("PUT", "/mine/other/x", {}),
        ("PUT", "/mine/results2/x", {}),
        ("DELETE", "/mine/x", {}),
        ("POST", "/mine", {"delete": "", "body": b"<Delete><Key>results/a</Key><Key>x</Key></Delete>"}),
        ("PUT", "/mine/results/x", {"copy": "/theirs/results/x"}),
        ("PUT", "/mine/results/x", {"acl": ""}),
        ("GET", "/theirs", {}),
        ("GET", "/", {}),
        ("DELETE", "/mine", {}),
        ("PUT", "/mine", {"policy": ""}),
    ],
)
def test_no_other_object_is_touched(method: str, path: str, more: dict[str, Any]) -> None:
    assert not may("sweeps-worker", object_of(method, path, **more))


def test_nothing_is_allowed_by_a_pattern_of_actions() -> None:
    for name in {name for names in POLICIES.values() for name in names}:
        for statement in statements(name, VALUES):
            assert "*" not in "".join(listed(statement["Action"]))
            if "*" in listed(statement["Resource"]):
                assert all(re.match("ec2:Describe", action) for action in listed(statement["Action"]))
            assert not re.search(r"\b[A-Z]{4,}\b", str({**statement, "Sid": ""})), "a placeholder is left"
            assert ":*:" not in str(statement["Resource"]), "any account, or any region"


def test_aws_takes_policies_of_this_length() -> None:
    """Characters without spaces: 10,240 for all of a role's own policies, 6,144 for one that is attached."""
    size = {file.stem: len(re.sub(r"\s", "", file.read_text())) + 200 for file in FOLDER.glob("*.json")}  # filled in
    assert max(size.values()) <= 6144
    assert all(sum(size[name] for name in names) <= 10240 for names in POLICIES.values())


def test_the_readme_says_what_each_is_for() -> None:
    """One row of its table for each action of a file, and none for another."""
    table = README.read_text().split("| permission | in | what for |\n|---|---|---|\n")[1].split("\n\n")[0]
    rows = [row.strip("| ").split(" | ") for row in table.splitlines()]
    told = {(action, name) for actions, names, _ in rows for action in ticked(actions) for name in ticked(names)}
    given = {
        (action, file.stem)
        for file in FOLDER.glob("*.json")
        for statement in statements(file.stem, {})
        for action in listed(statement["Action"])
    }
    assert told == given


def test_the_readme_fills_in_every_placeholder() -> None:
    """Its own shell function, and the same documents as those that are tested here."""
    function = re.findall(r"^policy\(\) \{$.*?^\}$", README.read_text(), flags=re.MULTILINE | re.DOTALL)[0]
    values = {**VALUES, "PREFIX": "teams/ours", "AWS_DEFAULT_REGION": REGION}
    for name in {name for names in POLICIES.values() for name in names}:
        shell = ["bash", "-c", f"{function}\npolicy {name}"]
        done = subprocess.run(shell, env={**os.environ, **values}, cwd=ROOT, capture_output=True, text=True, check=True)
        assert json.loads(done.stdout)["Statement"] == statements(name, values)


def ticked(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)
