"""Which Ray a sweep runs on, whether it may, and what that cluster has or may have."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import grpc
import ray
import yaml
from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available
from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]
from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc

from analysis.command_line import InputError
from sweeps.driver.address import address_to_join
from sweeps.driver.local import local_ray
from sweeps.driver.termination import terminate
from sweeps.driver.watch import watched
from sweeps.flags import SweepFlags


@contextlib.contextmanager
def connected(folder: str, dashboard: bool, trials: float = 0.0) -> Iterator[tuple[str | None, str | None]]:
    """The cluster of RAY_ADDRESS, or the Ray that the user has started on this machine, or a local one for the time of
    the sweep, with its files in `folder`; the address that was joined, or None and the folder of the local one's
    session. `trials`: how many processors the trials would use, were there enough.

    Raises `InputError` for an address or a token that does not fit, and `NoRay` if the local one does not start, or any
    of them ends.
    """
    address = address_to_join()
    logging.getLogger("ray").setLevel(logging.ERROR)
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    logging.getLogger("ray.tune.tune").setLevel(logging.CRITICAL)  # that trials failed is told by the summary
    with local_ray(folder, dashboard, trials) if address is None else _joined(address) as session:
        signal.signal(signal.SIGTERM, terminate)  # Ray's own would abort with a dump
        with watched(3.0 if address is None else 45.0, session):
            yield address, session


@contextlib.contextmanager
def _joined(address: str) -> Iterator[None]:
    _check_token(address)
    # Ray offers its token unasked only to a cluster that it has found by itself
    maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except ConnectionError as error:
        raise InputError(
            f"no Ray at {address}: {str(error).splitlines()[0]}; start it, or unset RAY_ADDRESS to use a local one"
        ) from None
    try:
        yield
    finally:
        ray.shutdown()


def which_ray(address: str | None, neighbours: str) -> str:
    """What a sweep says of the Ray that it runs on: whose it is, and what it has for trials."""
    has = ray.cluster_resources()
    amounts = " and ".join(
        f"{has.get(name, 0.0):g} {name}{'s' * (has.get(name, 0.0) != 1)}" for name in ("CPU", "GPU") if name in has
    )
    if address is None:
        return f"Ray: this sweep's own, {amounts}" + (f", in turns with {neighbours}" if neighbours else "")
    whose = "of RAY_ADDRESS" if os.environ.get("RAY_ADDRESS") not in (None, "", "auto") else "that you started here"
    return f"Ray: the one {whose}, at {address}, {amounts or 'no CPUs yet'}"


def dashboard_address() -> str:
    """Host and port of the dashboard, empty where there is none."""
    node = ray._private.worker._global_node
    return (node and node.webui_url) or ""


def _check_token(address: str) -> None:
    """Refuse a driver and a cluster of which one alone has a token, or whose tokens differ: Ray itself tries for long,
    or connects and can start no trial, or is taken for absent on a node of the cluster."""
    if os.environ.get("RAY_USE_TLS", "0") != "0":
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
    return math.ceil(min(MOST_PENDING, max(16, _places(cpus, gpus))))


def places(cpus: float, gpus: float) -> int:
    """How many trials the cluster could run at a time at its largest, one at least, no more than the driver bears."""
    return max(1, math.floor(min(MOST_PENDING, _places(cpus, gpus)) + 1e-9))


def _places(cpus: float, gpus: float) -> float:
    may, has = most_resources(), ray.cluster_resources()
    found = [
        max(may.get(name, 0.0), has.get(name, 0.0)) / wanted
        for name, wanted in (("CPU", cpus), ("GPU", gpus))
        if wanted
    ]
    return min(found, default=MOST_PENDING)


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
