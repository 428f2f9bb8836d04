"""Which Ray a sweep runs on, whether it may, and what that cluster has or may have."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import signal
import socket
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import ray
import yaml
from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]
from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc

from analysis.command_line import InputError
from sweeps.driver.address import check_address
from sweeps.driver.termination import terminate
from sweeps.flags import SweepFlags

PRELOADED = ("torch", "torch._dynamo", "trainables.trainable")
"""What each worker of a local Ray imports while the driver is still busy; optimisers need the second."""


@contextlib.contextmanager
def connected(dashboard: bool, trials: float = 0.0) -> Iterator[bool]:
    """The cluster of RAY_ADDRESS, or the Ray that runs on this node, or a local one for the time of the sweep; whether
    it is the latter. `trials`: how many processors the trials would use, were there enough."""
    check_address(os.environ.get("RAY_ADDRESS", ""))
    started_here = not _found()
    if not started_here:
        _check_token()
    logging.getLogger("ray").setLevel(logging.ERROR)
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    logging.getLogger("ray.tune.tune").setLevel(logging.CRITICAL)  # that trials failed is told by the summary
    try:
        if not started_here:
            ray.init(address="auto", log_to_driver=False, logging_level=logging.ERROR)
    except ConnectionError as error:
        started_here = not os.environ.get("RAY_ADDRESS")
        if not started_here:
            raise InputError(
                f"no Ray at {os.environ['RAY_ADDRESS']}: "
                f"{str(error).splitlines()[0]}; start it, or unset RAY_ADDRESS to use a local one"
            ) from None
    if started_here:
        # without --dashboard the cores are the trials' alone
        with _lean(dashboard):
            ray.init(
                address="local",
                include_dashboard=dashboard,
                log_to_driver=False,
                logging_level=logging.ERROR,
                _system_config=_workers() if _all_are_used(trials) else None,
            )
    signal.signal(signal.SIGTERM, terminate)  # Ray's own would abort with a dump
    try:
        yield started_here
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _lean(dashboard: bool) -> Iterator[None]:
    """While the context is open, Ray starts without what a local one has no use for, and waits for seconds: an
    autoscaler, what brings logs to the driver, and a dashboard's server even where there is to be none."""
    node = ray._private.node.Node
    idle = ["start_monitor", "start_log_monitor", *([] if dashboard else ["start_api_server"])]
    before = {name: getattr(node, name) for name in idle if hasattr(node, name)}
    for name in before:
        setattr(node, name, lambda self, **_: None)
    try:
        yield
    finally:
        for name, function in before.items():
            setattr(node, name, function)


def _workers() -> dict[str, Any]:
    """Ray's settings for workers that wait, with what they need imported, until trials come; Ray would end those that
    have been idle for a second."""
    return {"preload_python_modules": list(PRELOADED), "idle_worker_killing_time_threshold_ms": 60_000}


def _all_are_used(trials: float) -> bool:
    """Whether trials will use all workers that Ray starts at once, one for each processor: torch takes hundreds of
    megabytes of each. Where there are GPUs, trials are as many as these."""
    return trials >= len(os.sched_getaffinity(0)) and not Path("/dev/nvidiactl").exists()


def _found() -> bool:
    """Whether there is a Ray to use. One that was killed leaves its address behind, at which nobody answers."""
    if os.environ.get("RAY_ADDRESS"):
        return True
    try:
        address = ray._private.services.canonicalize_bootstrap_address("auto")
        host, _, port = (address or "").rpartition(":")
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except (OSError, ValueError):
        return False
    return True


def dashboard_address() -> str:
    """Host and port of the dashboard, empty where there is none."""
    node = ray._private.worker._global_node
    return (node and node.webui_url) or ""


def session_folder() -> str:
    """Where the Ray that this process uses has its sockets and logs; empty where it uses none."""
    node = ray._private.worker._global_node
    return (node and node.get_session_dir_path()) or ""


def _check_token() -> None:
    """Refuse a driver and a cluster of which one alone has a token, or whose tokens differ: Ray itself tries for long,
    or connects and can start no trial, or is taken for absent on a node of the cluster."""
    try:
        address = ray._private.services.canonicalize_bootstrap_address("auto")
    except (ConnectionError, ValueError):
        return
    if address is None or address.startswith("ray://") or os.environ.get("RAY_USE_TLS", "0") != "0":
        return
    tokens = AuthenticationTokenLoader.instance()
    mode = os.environ.get("RAY_AUTH_MODE", "").lower()
    # where it is disabled the token must not even be looked at: this process would ask those that call it for it
    there = mode in ("", "token") and tokens.has_token(ignore_auth_mode=True)
    with_token = there if mode == "" else mode == "token"  # as Ray decides
    cluster, way = f"the Ray at {address}", "~/.ray/auth_token or RAY_AUTH_TOKEN"
    if _accepted(address, {}):
        if with_token:
            raise InputError(
                f"{cluster} was started without authentication and this sweep would use a token; set "
                "RAY_AUTH_MODE=disabled for both, or start that Ray with RAY_AUTH_MODE=token"
            )
    elif not with_token:
        raise InputError(f"{cluster} asks for its token; set RAY_AUTH_MODE=token and have the cluster's token in {way}")
    elif not there:
        raise InputError(f"{cluster} asks for its token, and there is none here; have the cluster's in {way}")
    elif not _accepted(address, tokens.get_token_for_http_header(ignore_auth_mode=True)):
        raise InputError(f"{cluster} refuses the token of this sweep; have the cluster's in {way}")


def _accepted(address: str, header: Mapping[str, str]) -> bool:
    """Whether the cluster answers to that; if nobody answers at all, Ray itself says what is wrong."""
    with grpc.insecure_channel(address) as channel:
        stub = gcs_service_pb2_grpc.NodeInfoGcsServiceStub(channel)
        try:
            nothing = gcs_service_pb2.GetClusterIdRequest()  # type: ignore[attr-defined]
            stub.GetClusterId(nothing, timeout=10, metadata=tuple(header.items()))
        except grpc.RpcError as error:
            return bool(error.code() != grpc.StatusCode.UNAUTHENTICATED)
    return True


HEADS_CONFIGURATION = "~/ray_bootstrap_config.yaml"


@dataclass(frozen=True)
class NodeType:
    """A kind of machine that an autoscaler may start, or the head."""

    name: str
    most: float
    """How many there may be at once."""
    resources: Mapping[str, float]
    """Empty where the configuration does not say."""


def _node_types() -> list[NodeType]:
    """What an autoscaler may have; empty where there is none.

    On the head of a cluster that `ray up` started, which is where its drivers run, its configuration lies in the home
    directory (Ray 2.60 tells drivers of it in no other way).
    """
    known = ray._private.state.state.get_cluster_config()
    if known and known.node_group_configs:
        kinds = known.node_group_configs
        # -1: without a limit
        return [
            NodeType(
                kind.name or "?",
                math.inf if kind.max_count == -1 else kind.max_count,
                {name: math.inf if amount == -1 else float(amount) for name, amount in kind.resources.items()},
            )
            for kind in kinds
            if kind.max_count
        ]
    head = ray.util.get_node_ip_address() in ray.get_runtime_context().gcs_address
    file = Path(HEADS_CONFIGURATION).expanduser()
    if not head or not file.exists():
        return []
    configuration = yaml.safe_load(file.read_text()) or {}
    limit = configuration.get("max_workers", math.inf)
    found = []
    for name, kind in (configuration.get("available_node_types") or {}).items():
        most = min(kind.get("max_workers", configuration.get("max_workers", 0)), limit)
        number = 1 if name == configuration.get("head_node_type") else most
        if number:
            found.append(NodeType(name, number, kind.get("resources") or {}))
    return found


def most_resources() -> dict[str, float]:
    """The most that an autoscaler may have of each resource at once; empty where there is none."""
    found: dict[str, float] = {}
    for kind in _node_types():
        for resource, amount in kind.resources.items():
            found[resource] = found.get(resource, 0.0) + (amount * kind.most if amount else 0.0)
    return found


def gpus_per_trial(flags: SweepFlags) -> float:
    """Of each trial: what the flag says, or else the preset's share where the cluster has GPUs or may have them."""
    if flags.gpus_per_trial is not None:
        return flags.gpus_per_trial
    return min(flags.gpu_share, max(most_resources().get("GPU", 0.0), ray.cluster_resources().get("GPU", 0.0)))


MOST_PENDING = 1000
"""Trials that ask for a place at a time, however large the cluster; TUNE_MAX_PENDING_TRIALS_PG, if set, wins."""


def most_pending(cpus: float, gpus: float) -> int:
    """How many trials may ask for a place at a time: as many as the cluster could run at its largest, so that an
    autoscaler starts all that it may, and no more than the driver bears."""
    may, has = most_resources(), ray.cluster_resources()
    places = [
        max(may.get(name, 0.0), has.get(name, 0.0)) / wanted
        for name, wanted in (("CPU", cpus), ("GPU", gpus))
        if wanted
    ]
    return math.ceil(min(MOST_PENDING, max(16, min(places, default=MOST_PENDING))))


def check_resources(cpus: float, gpus: float, started_here: bool) -> None:
    """Refuse trials that fit on no node: of a Ray of the sweep's own, or of those that the autoscaler may start. To a
    cluster without one, nodes may yet be added by hand: that is said, and waited for."""

    def fits(resources: Mapping[str, float]) -> bool:
        return resources.get("CPU", 0.0) >= cpus and resources.get("GPU", 0.0) >= gpus

    if any(node["Alive"] and fits(node["Resources"]) for node in ray.nodes()):
        return
    types = _node_types()
    if any(not kind.resources or fits(kind.resources) for kind in types):
        return
    wanted = f"cpus_per_trial: {cpus:g}, gpus_per_trial: {gpus:g}"
    if started_here:
        has = ray.cluster_resources()
        raise InputError(f"{wanted}, this machine has {has.get('CPU', 0):g} CPUs and {has.get('GPU', 0):g} GPUs")
    if types:
        has_each = ", ".join(
            f"{kind.name} {kind.resources.get('CPU', 0):g} CPUs and {kind.resources.get('GPU', 0):g} GPUs"
            for kind in types
        )
        raise InputError(
            f"{wanted}, a trial runs on one node, and the cluster's configuration has none for it: {has_each}"
        )
    print(f"no node of this cluster has {cpus:g} CPUs and {gpus:g} GPUs for a trial: waiting for one", file=sys.stderr)
