"""cluster.yaml against Ray's validation and against what that misses; every check is seen to fail."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from tests.cluster.checks import own_machines, problems

FILE = Path(__file__).resolve().parents[2] / "cluster.yaml"
TEXT = FILE.read_text()


def test_nothing_is_wrong_with_cluster_yaml() -> None:
    assert problems(TEXT) == []


def test_what_a_user_must_change_is_at_the_top() -> None:
    top, rest = TEXT.split("# ---- Hardly ever to change")
    assert "CHANGE-ME" in top
    assert "CHANGE-ME" not in rest
    for key in ("cluster_name", "region", "max_workers", "idle_timeout_minutes", "gpu", "when_sold_out"):
        assert f"{key}:" in top
    # a comment above or beside each
    lines = top.splitlines()
    for number, line in enumerate(lines):
        if line.strip() and not line.startswith((" ", "#")):
            assert lines[number - 1].startswith("#"), line


def test_what_is_mounted_is_there() -> None:
    for remote, local in yaml.safe_load(TEXT)["file_mounts"].items():
        assert local.startswith("~") or (FILE.parent / local).exists(), remote


Change = Callable[[dict[str, Any]], object]


def of(*path: str) -> Callable[[Any], Change]:
    """A change that sets the value at a path of keys."""

    def setting(value: Any) -> Change:
        def change(config: dict[str, Any]) -> None:
            place = config
            for key in path[:-1]:
                place = place[key]
            place[path[-1]] = value

        return change

    return setting


def without(*path: str) -> Change:
    def change(config: dict[str, Any]) -> None:
        place = config
        for key in path[:-1]:
            place = place[key]
        del place[path[-1]]

    return change


def replaced(where: str, old: str, new: str) -> Change:
    def change(config: dict[str, Any]) -> None:
        assert any(old in command for command in config[where])
        config[where] = [command.replace(old, new) for command in config[where]]

    return change


HEAD = ("available_node_types", "head")
GPU = ("available_node_types", "gpu")
RULE = {"FromPort": 22, "ToPort": 22, "IpProtocol": "tcp", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (of("max_worker")(2), "Ray's validation"),
        (of("head_node_type")("heady"), "Ray's validation"),
        (of(*GPU, "resources")({"GPU": "one"}), "Ray's validation"),
        (without("head_node_type"), "head_node_type is missing"),
        (without("auth"), "auth is missing"),
        (without("idle_timeout_minutes"), "idle_timeout_minutes is missing"),
        (without("auth", "ssh_user"), "auth.ssh_user is missing"),
        (of("auth", "ssh_usr")("ubuntu"), "Ray's validation"),
        (of("provider", "regoin")("us-east-1"), "provider.regoin is unknown"),
        (of("provider", "security_group")({"IpPermissions": []}), "provider.security_group is unknown"),
        (without("provider", "region"), "provider.region is missing"),
        (without("provider", "cache_stopped_nodes"), "cache_stopped_nodes must be false"),
        (of(*GPU, "node_config", "InstanceTyp")("g6.xlarge"), "gpu.node_config.InstanceTyp is unknown"),
        (without(*GPU, "node_config", "InstanceType"), "gpu.node_config.InstanceType is missing"),
        (without(*GPU, "node_config", "IamInstanceProfile"), "gpu.node_config.IamInstanceProfile is missing"),
        (without(*GPU, "node_config", "SecurityGroupIds"), "open to 0.0.0.0/0 on port 22"),
        (of("metadata", "rules")([RULE]), "open to the whole internet"),
        (of("available_node_types", "head", "resources")({"CPU": 2}), "no CPU and no GPU for trials"),
        (of("available_node_types", "head", "resources")({}), "no CPU and no GPU for trials"),
        (of(*GPU, "resources")({"CPU": 4, "GPU": 2}), "one GPU with 4 to 8 CPUs"),
        (of(*GPU, "resources")({"CPU": 2, "GPU": 1}), "one GPU with 4 to 8 CPUs"),
        (without(*GPU, "node_config", "InstanceMarketOptions"), "gpu is not on spot"),
        (without("provider", "when_sold_out"), "lacks on-demand machines"),
        (of("provider", "when_sold_out")([{"InstanceType": "g5.xlarge"}]), "lacks on-demand machines"),
        (of("provider", "when_sold_out")([{"Market": None}]), "provider.when_sold_out.Market is unknown"),
        (of("provider", "module")("ray.autoscaler._private.aws.node_provider.AWSNodeProvider"), "does not fall back"),
        (of(*GPU, "min_workers")(1), "min_workers must be 0"),
        (without("available_node_types", "gpu"), "no worker type"),
        (of("head_setup_commands")(["pip install boto3"]), "the same environment everywhere"),
        (without("head_setup_commands"), "Ray's validation"),
        (of(*GPU, "worker_setup_commands")(["true"]), "set-up commands of its own"),
        (of("setup_commands")(["true"]), "do not install the project"),
        (without("file_mounts", "~/.ray/auth_token"), "without authentication"),
        (without("worker_start_ray_commands"), "worker_start_ray_commands do not start Ray"),
        (replaced("head_start_ray_commands", "=127.0.0.1 ", "=0.0.0.0 "), "dashboard must listen on 127.0.0.1"),
        (replaced("head_start_ray_commands", "--autoscaling-config", "--auto"), "does not start the autoscaler"),
        (replaced("head_start_ray_commands", "threshold=2", "threshold=20"), "lack RAY_health_check_failure_threshold"),
        (replaced("worker_start_ray_commands", "OMP_WAIT_POLICY=PASSIVE", ""), "lack OMP_WAIT_POLICY=PASSIVE"),
        (replaced("head_start_ray_commands", "_STATS_ENABLED=0", "_STATS=0"), "lack RAY_USAGE_STATS_ENABLED=0"),
        (replaced("head_start_ray_commands", "token ray start", "ray start"), "`ray start` without RAY_AUTH_MODE"),
        (replaced("worker_start_ray_commands", "RAY_AUTH_MODE=token ray stop", "ray stop"), "`ray stop` without"),
        (of("initialization_commands")(["ray status"]), "initialization_commands: `ray status` without"),
        (of("initialization_commands")(["curl -LsSf https://astral.sh/uv/install.sh | sh"]), "not held against a hash"),
        (of("setup_commands")(["wget -qO- example.org/x | sh", "uv sync"]), "not held against a hash"),
        (of("setup_commands")(["pip install uv && uv sync"]), "not held against a hash"),
        (of(*GPU, "initialization_commands")(["curl -O example.org/x"]), "gpu.initialization_commands: `curl"),
        (of(*GPU, "node_config", "BlockDeviceMappings")([{"Ebs": {"VolumeSize": 9}}]), "0.Ebs.Encrypted must be true"),
        (of(*HEAD, "node_config", "BlockDeviceMappings")([{"Ebs": {"Encrypted": "no"}}]), "Encrypted must be true"),
        (without(*HEAD, "node_config", "BlockDeviceMappings"), "own disks are not encrypted"),
        (without(*GPU, "initialization_commands"), "lack the watchdog"),
        (of(*GPU, "initialization_commands")(["python3 watchdog.py install"]), "lack the watchdog"),
        (without(*GPU, "node_config", "UserData"), "does not end a worker that is never set up"),
        (without(*GPU, "node_config", "InstanceInitiatedShutdownBehavior"), "must be terminate"),
    ],
)
def test_each_check_can_fail(change: Change, complaint: str) -> None:
    config = yaml.safe_load(TEXT)
    change(config)
    found = problems(yaml.safe_dump(config))
    assert any(complaint in line for line in found), found


@pytest.mark.parametrize(
    "secret",
    [
        "# AKIAIOSFODNN7EXAMPLE",
        "  - export AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI",
        "  aws_credentials: {}",
        "-----BEGIN RSA PRIVATE KEY-----",
        'password: "correcthorsebattery"',
        "auth_token: 0123456789abcdef0123",
    ],
)
def test_secrets_are_found(secret: str) -> None:
    comment = "" if secret.startswith("#") else "# "
    assert any("a secret" in line for line in problems(f"{TEXT}\n{comment}{secret}\n"))


def test_the_variant_for_machines_of_your_own() -> None:
    config = yaml.safe_load(own_machines(TEXT, (FILE.parent / "sweeps" / "README.md").read_text()))
    prepared = prepare_config(config)
    validate_config(prepared)
    assert prepared["max_workers"] == len(config["provider"]["worker_ips"])
    assert config["setup_commands"] == yaml.safe_load(TEXT)["setup_commands"]
    assert "watchdog" not in str(config)  # nobody wants their own machine shut down


def test_not_yaml() -> None:
    assert problems("a: [")[0].startswith("not YAML")
