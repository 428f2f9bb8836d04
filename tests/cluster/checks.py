"""What Ray's validation of a cluster file lets pass, though `ray up` or a sweep would pay for it later.

`python -m tests.cluster.checks cluster.yaml` looks at a file before `ray up`.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import io
import logging
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import botocore.session
import jsonschema
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

PROVIDER_KEYS = {
    "type",
    "module",
    "region",
    "availability_zone",
    "cache_stopped_nodes",
    "use_internal_ips",
    "when_sold_out",
}
SECRET = re.compile(
    r"\b(AKIA|ASIA)[0-9A-Z]{16}\b|(?i:aws_?(secret_?access_?key|access_?key_?id|session_?token|credentials))"
    r"|-----BEGIN|(?i:\b(password|passwd|api_?key|auth_?token)\b\s*[:=]\s*[\"']?[0-9A-Za-z+/_-]{12,})"
)
RAY_COMMAND = re.compile(r"(?<![\w./-])ray (?:start|stop|status|health-check|job|exec)\b")
WATCHDOG = re.compile(r"watchdog\.py install \$RAY_HEAD_IP:6379 [\d.]+$")
FROM_THE_NETWORK = re.compile(r"\b(curl|wget)\b|\bpip3? install\b(?!.*--require-hashes)|https?://")
HEALTH = {
    "RAY_health_check_period_ms": 1000,
    "RAY_health_check_timeout_ms": 3000,
    "RAY_health_check_failure_threshold": 2,
}


@functools.cache
def node_keys() -> set[str]:
    """Arguments of EC2's RunInstances, and `SubnetIds`, which is Ray's."""
    ec2 = botocore.session.get_session().get_service_model("ec2")
    return {"SubnetIds", *ec2.operation_model("RunInstances").input_shape.members}


def problems(text: str) -> list[str]:
    """Everything that is wrong with a cluster file, a line each."""
    try:
        config = yaml.safe_load(text)
    except yaml.YAMLError as error:
        return [f"not YAML: {error}"]
    found = [f"a secret in the file: {match.group(0)[:24]}…" for match in SECRET.finditer(text)]
    return found + list(_of(config))


def own_machines(cluster_file: str, readme: str) -> str:
    """The variant for machines of one's own, put together as sweeps/README.md says."""
    block = readme.split("**Machines of your own**")[1].split("```yaml\n")[1].split("```")[0]
    border = "# ---- Hardly ever to change"
    return block + border + cluster_file.split(border)[1]


def _of(config: Any) -> Iterator[str]:
    if not isinstance(config, dict):
        yield "not a mapping of settings"
        return
    for key in ("head_node_type", "available_node_types", "auth", "provider", "max_workers", "idle_timeout_minutes"):
        if key not in config:  # Ray would fill in an example's values
            yield f"{key} is missing"
            return
    try:
        validate_config(prepare_config(yaml.safe_load(yaml.safe_dump(config))))
    except (jsonschema.ValidationError, ValueError, KeyError, AssertionError, RuntimeError) as error:
        yield f"Ray's validation: {str(error).splitlines()[0]}"
        return
    yield from _unknown("provider", config["provider"], PROVIDER_KEYS)
    if config["provider"].get("module") != "sweeps.driver.aws.SpotThenOnDemand":
        wanted = "sweeps.driver.aws.SpotThenOnDemand"
        yield f"provider.module must be {wanted}: Ray's own does not fall back when spot is sold out"
    if not config["provider"].get("region"):
        yield "provider.region is missing"
    if config["provider"].get("cache_stopped_nodes") is not False:
        yield "provider.cache_stopped_nodes must be false: stopped instances cost their disks after `ray down`"
    if not config["auth"].get("ssh_user"):
        yield "auth.ssh_user is missing"
    yield from _of_nodes(config)
    yield from _of_commands(config)


def _of_nodes(config: dict[str, Any]) -> Iterator[str]:
    types = config["available_node_types"]
    head = types[config["head_node_type"]]
    workers = {name: kind for name, kind in types.items() if name != config["head_node_type"]}
    if head.get("resources", {}).get("CPU") != 0 or head.get("resources", {}).get("GPU"):
        yield "the head must have no CPU and no GPU for trials: resources: {CPU: 0}"
    if not workers:
        yield "no worker type"
    for name, kind in types.items():
        node = kind["node_config"]
        yield from _unknown(f"{name}.node_config", node, node_keys())
        for key in ("InstanceType", "ImageId", "IamInstanceProfile"):
            if not node.get(key):
                yield f"{name}.node_config.{key} is missing"
        if not node.get("SecurityGroupIds"):
            yield f"{name}.node_config.SecurityGroupIds is missing: Ray's own group is open to 0.0.0.0/0 on port 22"
        disks = node.get("BlockDeviceMappings") or []
        for number, disk in enumerate(disks):
            if "Ebs" in disk and disk["Ebs"].get("Encrypted") is not True:
                yield f"{name}.node_config.BlockDeviceMappings.{number}.Ebs.Encrypted must be true"
        if not any("Ebs" in disk for disk in disks):
            yield f"{name}.node_config.BlockDeviceMappings is missing: the image's own disks are not encrypted"
    for name, kind in workers.items():
        if kind.get("min_workers", 0) != 0:
            yield f"{name}.min_workers must be 0: workers cost money only while trials want them"
        resources = kind.get("resources", {})
        if resources.get("GPU") != 1 or not 4 <= resources.get("CPU", 0) <= 8:
            yield f"{name}.resources must be one GPU with 4 to 8 CPUs, not {resources}"
        yield from _of_ending(name, kind)
        if not _is_spot(node := kind["node_config"]):
            yield f"{name} is not on spot: InstanceMarketOptions: {{MarketType: spot}}"
        changes = config["provider"].get("when_sold_out", [])
        for change in changes:
            yield from _unknown("provider.when_sold_out", change, node_keys())
        if not any(not _is_spot({**node, **change}) for change in changes):
            yield "provider.when_sold_out lacks on-demand machines to fall back on: {InstanceMarketOptions: null}"
    if "0.0.0.0/0" in str(config) or "::/0" in str(config):
        yield "open to the whole internet: 0.0.0.0/0"


def _of_ending(name: str, kind: dict[str, Any]) -> Iterator[str]:
    """What ends a worker whose head is lost."""
    node = kind["node_config"]
    if not any(WATCHDOG.search(command) for command in kind.get("initialization_commands", [])):
        yield f"{name}.initialization_commands lack the watchdog: a worker would outlive a lost head, and cost"
    if not re.search(r"systemd-run .*sweeps-watchdog\.timer \|\| shutdown -h now", node.get("UserData", "")):
        yield f"{name}.node_config.UserData does not end a worker that is never set up"
    if node.get("InstanceInitiatedShutdownBehavior") != "terminate":
        yield f"{name}.node_config.InstanceInitiatedShutdownBehavior must be terminate: stopped, it costs its disk"


def _of_commands(config: dict[str, Any]) -> Iterator[str]:
    if config.get("head_setup_commands") != [] or config.get("worker_setup_commands") != []:
        yield "head_setup_commands and worker_setup_commands must be []: the same environment everywhere"
    if any("worker_setup_commands" in kind for kind in config["available_node_types"].values()):
        yield "a node type has set-up commands of its own"
    if not any("uv sync" in command or "pip install" in command for command in config.get("setup_commands", [])):
        yield "setup_commands do not install the project"
    if "~/.ray/auth_token" not in config.get("file_mounts", {}):
        yield "file_mounts lack ~/.ray/auth_token: Ray would start without authentication"
    starts = {}
    for where in ("head_start_ray_commands", "worker_start_ray_commands"):
        commands = " ; ".join(config.get(where, []))
        starts[where] = commands
        if "ray start" not in commands:
            yield f"{where} do not start Ray"
        for key, value in {"OMP_WAIT_POLICY": "PASSIVE", "RAY_USAGE_STATS_ENABLED": "0"}.items():
            if f"{key}={value} " not in commands:
                yield f"{where} lack {key}={value}"
    head = starts["head_start_ray_commands"]
    if "--dashboard-host=127.0.0.1" not in head:
        yield "the dashboard must listen on 127.0.0.1 alone; `ray dashboard` forwards it"
    if "--autoscaling-config" not in head:
        yield "the head does not start the autoscaler"
    for key, value in HEALTH.items():
        if f"{key}={value} " not in head:
            yield f"head_start_ray_commands lack {key}={value}: a hung node would be noticed after 65 s"
    commands = {where: value for where, value in config.items() if where.endswith("_commands")}
    for name, kind in config["available_node_types"].items():
        commands |= {f"{name}.{where}": value for where, value in kind.items() if where.endswith("_commands")}
    for where, value in commands.items():
        for command in value:
            if FROM_THE_NETWORK.search(command):
                yield f"{where}: `{command[:40]}…` takes from the network what is not held against a hash"
            for match in RAY_COMMAND.finditer(command):
                if not command[: match.start()].endswith("RAY_AUTH_MODE=token "):
                    yield f"{where}: `{match.group(0)}` without RAY_AUTH_MODE=token before it"


def _is_spot(node_config: dict[str, Any]) -> bool:
    return bool((node_config.get("InstanceMarketOptions") or {}).get("MarketType") == "spot")


def _unknown(where: str, given: dict[str, Any], known: set[str]) -> Iterator[str]:
    for key in sorted(set(given) - known):
        like = difflib.get_close_matches(key, known) or sorted(known) if len(known) > 10 else sorted(known)
        yield f"{where}.{key} is unknown; known are {', '.join(like[:10])}{' …' if len(like) > 10 else ''}"


if __name__ == "__main__":
    logging.disable(logging.WARNING)  # Ray's own, of what it does not know without AWS
    try:
        file, text = sys.argv[1], Path(sys.argv[1]).read_text()
    except (IndexError, OSError) as error:
        print(f"error: a cluster file is needed, such as cluster.yaml: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        complaints = problems(text)
    complaints += [f"still to be filled in: {found}" for found in re.findall(r"\w+-CHANGE-ME", text)]
    print("\n".join(complaints) or f"{file}: nothing to complain about")
    raise SystemExit(1 if complaints else 0)
