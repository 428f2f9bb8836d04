"""From flags to a finished record: Ray, Tune, storage and data. The only place that knows them all."""

from __future__ import annotations

import contextlib
import importlib.metadata
import itertools
import logging
import math
import os
import re
import shlex
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import grpc
import numpy as np
import ray
import torch
import yaml
from ray import tune
from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]
from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from rich.console import Console
from rich.table import Table

from analysis import records
from analysis.command_line import InputError, run
from sweeps.failures import BadNodes, told
from sweeps.gauges import Gauges
from sweeps.lease import Lease
from sweeps.losses import MAX_NODE_LOSSES, mended_tune, out_of_memory
from sweeps.plan import (
    Plan,
    PlannedTrial,
    SweepFlags,
    check_contents,
    contents,
    make_plan,
    read_flags,
    sweep_url,
    write_contents,
)
from sweeps.progress import Progress
from sweeps.usage import Usage, Used, of_all_runs
from trainables.checkpoints import CheckpointError
from trainables.data import SharedData, StreamedImages, load_each, load_others
from trainables.kept_models import without_model
from trainables.metrics import METRICS, needs_masks
from trainables.models import MODELS, build_model, create
from trainables.trainable import Data, StorageFailure, Trial, TrialOptions, checkpoints_of, trial_row

MAX_WORKER_LOSSES = 3
"""How often a trial may lose its worker process before it is given up; nodes that go away do not count: `losses`."""
HEADS_CONFIGURATION = "~/ray_bootstrap_config.yaml"
GOES_ON = "mend that and give the same command again: it goes on where it was"


def main(
    kind: type[SweepFlags],
    presets: Mapping[str, SweepFlags],
    description: str,
    argv: Sequence[str] | None = None,
) -> None:
    """A sweep's script: parse, plan, run, summarise. Exit code 0; 1 if trials failed; 2 with one line for bad input;
    130 and 143 if Ctrl-C and SIGTERM ended it."""
    arguments = list(sys.argv[1:] if argv is None else argv)

    def sweep() -> None:
        try:
            for flags in read_flags(kind, presets, arguments, description).in_stages():
                plan = make_plan(flags)
                if flags.dry_run:
                    _print_plan(flags, plan)
                    continue
                _check_address_form(os.environ.get("RAY_ADDRESS", ""))
                if _launched(flags, plan):
                    raise SystemExit(1)
        except KeyboardInterrupt:
            print("stopped; the same command goes on", file=sys.stderr)
            raise SystemExit(128 + (signal.SIGTERM if _terminated.is_set() else signal.SIGINT)) from None

    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        run(sweep)
    finally:
        signal.signal(signal.SIGTERM, before)


_terminated = threading.Event()


def _terminate(number: int, frame: object) -> None:
    """SIGTERM, as `ray job stop` and a shutdown send it, ends a run as Ctrl-C does."""
    _terminated.set()  # of an exception of its own Ray would make a KeyboardInterrupt
    raise KeyboardInterrupt


def _launched(flags: SweepFlags, plan: Plan) -> int:
    """`launch`, with storage that fails told in one line."""
    try:
        return launch(flags, plan)
    except records.STORAGE_ERRORS as error:
        refused = isinstance(error, PermissionError) or "Bad Request" in str(error) or "expired" in str(error).lower()
        hint = " (have the credentials expired?)" if refused else ""
        print(f"error: storage {flags.storage}: {_brief(error)}{hint}; {GOES_ON}", file=sys.stderr)
        raise SystemExit(1) from None


def launch(flags: SweepFlags, plan: Plan) -> int:
    """Run what is planned and not yet recorded; the number of planned trials that are recorded as failed."""
    console = _console()
    url = _absolute(sweep_url(flags))
    records.check_storage(_absolute(flags.storage))
    records.be_patient()
    scan = records.scan(url)
    # a sweep of this name that has come to nothing is in nobody's way
    if scan.statuses or scan.corrupted or _with_checkpoints(url):
        check_contents(url, contents(flags, plan))
    pending = _selected(flags, plan, scan)
    if flags.keep_models:
        recorded = [trial.id for trial in plan.trials if scan.statuses.get(trial.id) == "completed"]
        lacking = without_model(url, recorded)
        if lacking:
            print(
                f"recorded trials without a kept network: {len(lacking)}; they are not trained again under this --name",
                file=sys.stderr,
            )
    if pending:
        with Lease(url) as lease:
            # another driver may have ended while this one waited for its lease
            pending = pending_trials(flags, plan, url, records.scan(url))
            if pending:
                _check_weights(pending)
                data = _load(flags, plan, pending)
                started = time.monotonic()
                used = _run_on_ray(flags, plan, pending, data, url, console, lease)
    if pending:
        done = len({trial.id for trial in pending} & set(records.scan(url).statuses))
        console.print(f"{done} of {len(pending)} trials in {time.monotonic() - started:.0f} s")
        console.print(_cost("used", used))
    else:
        console.print("every planned trial is recorded: nothing to run")
    _print_total(url, console, at_least=2 if pending else 1)
    return _summarise(flags, plan, url, console)


def _absolute(url: str) -> str:
    return url if "://" in url else os.path.abspath(os.path.expanduser(url))


def _selected(flags: SweepFlags, plan: Plan, scan: records.Scan) -> list[PlannedTrial]:
    """Trials without a record, and with --retry-failed those that failed or are damaged."""
    again = {"failed"} if flags.retry_failed else set()
    damaged = scan.corrupted if not flags.retry_failed else {}
    for trial in plan.trials:
        if trial.id in damaged:
            raise InputError(f"{damaged[trial.id]}; --retry-failed runs that trial again")
    return [trial for trial in plan.trials if scan.statuses.get(trial.id) in {None, *again}]


def pending_trials(flags: SweepFlags, plan: Plan, url: str, scan: records.Scan) -> list[PlannedTrial]:
    """The planned trials to run, the longest first, as a long one that starts last would leave the other cores idle:
    those without a record, and with --retry-failed those that failed or are damaged. For the holder of the lease alone,
    as it deletes the checkpoints of those that begin again.

    Raises `InputError` for a damaged record or checkpoint of a planned trial unless it is to be run again.
    """
    pending = _selected(flags, plan, scan)
    unfinished = _with_checkpoints(url)
    for trial in pending:
        if trial.id in unfinished:
            checkpoints = checkpoints_of(url, trial.id)
            try:
                # what is whole but refused is found by the worker, and recorded as that trial's failure
                checkpoints.load() if trial.id in scan.statuses else checkpoints.check()
            except CheckpointError as error:
                if not flags.retry_failed:
                    raise InputError(f"{error}; --retry-failed runs that trial again from its beginning") from None
                checkpoints.delete()
    return sorted(pending, key=lambda trial: -trial.cost)


def _with_checkpoints(url: str) -> set[str]:
    fs, path = fsspec.core.url_to_fs(url)
    fs.invalidate_cache()
    folder = f"{path}/checkpoints"
    return (
        {entry.rstrip("/").rsplit("/", 1)[-1] for entry in fs.ls(folder, detail=False)} if fs.exists(folder) else set()
    )


def _check_weights(pending: Sequence[PlannedTrial]) -> None:
    """Fetch the weights that trials begin with, as the workers will: what cannot be had is told before they start."""
    for config in dict.fromkeys(trial.config.model for trial in pending if trial.config.model.pretrained):
        name = MODELS[config.model].timm
        assert name is not None
        create(name, pretrained=True)


def _load(flags: SweepFlags, plan: Plan, pending: Sequence[PlannedTrial]) -> dict[str, Data]:
    """Each data set that pending trials need, once, by its name in the record, with what methods derive from it: loaded
    here, and shared through Ray, or for each node to load where every node can reach it."""
    loaded: dict[str, Data] = {}
    masks = needs_masks(flags.metrics())
    for spec, info in plan.data.items():
        trials = [trial.config for trial in pending if trial.config.data.dataset == info.name]
        methods = tuple(dict.fromkeys(config.method for config in trials))
        configs = tuple(dict.fromkeys(config.data for config in trials))
        if not trials:
            continue
        if all(_everywhere(needed, flags.data_root) for needed in (spec, *flags.shift)):
            root = _absolute(flags.data_root)
            loaded[info.name] = SharedData(spec, root, configs, methods, masks, flags.shift)
            continue
        folds = loaded[info.name] = load_each(spec, flags.data_root, configs, masks=masks)
        load_others(list(folds.values()), spec, flags.shift, flags.data_root)
        for images, method in itertools.product(folds.values(), methods):
            method.prepare(images)
    return loaded


def _everywhere(spec: str, root: str) -> bool:
    """Whether every node can load a data set: on S3, or on a file system that machines share."""
    kind, _, path = spec.partition(":")
    where = path if kind in ("folder", "parquet") else root
    return "://" in where or _on_network(_absolute(where))


def _run_on_ray(
    flags: SweepFlags,
    plan: Plan,
    pending: Sequence[PlannedTrial],
    data: Mapping[str, Data],
    url: str,
    console: Console,
    lease: Lease,
) -> Used:
    with _ray(flags.dashboard) as started_here, contextlib.ExitStack() as stack:
        gpus = _gpus(flags)
        _check_resources(flags.cpus_per_trial, gpus, started_here)
        if started_here and _dashboard():
            console.print(f"dashboard: http://{_dashboard()} (the token it asks for: ray get-auth-token)")
        _check_shared(url)
        _check_streamed(data)
        write_contents(url, contents(flags, plan))
        options = TrialOptions(
            sweep=url,
            name=flags.name or flags.NAME,
            metrics=flags.metrics(),
            checkpoint_seconds=flags.checkpoint_seconds,
            keep_checkpoints=flags.keep_checkpoints,
            keep_models=flags.keep_models,
            threads=max(1, int(flags.cpus_per_trial)),
            cpus=flags.cpus_per_trial,
            gpus=gpus,
            project_version=importlib.metadata.version("spatial-sweeps"),
            **_git(Path(__file__).resolve().parent.parent),
        )
        trainable = tune.with_resources(
            tune.with_parameters(Trial, data=dict(data), options=options),
            {"cpu": flags.cpus_per_trial, "gpu": gpus},
        )
        progress = Progress(
            {trial.id: trial.cost for trial in pending},
            {trial.id: trial.label for trial in pending},
            len(plan.trials) - len(pending),
            console,
            (flags.cpus_per_trial, gpus),
        )
        gauges = Gauges(
            options.name,
            {trial.id: trial.label for trial in pending},
            len(plan.trials),
            len(plan.trials) - len(pending),
        )
        bad_nodes = BadNodes(_resources().get("GPU", 0.0))
        # Tune's own state is never used, and is kept from the storage, at whose failures it would stumble or hang
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="sweep-", ignore_cleanup_errors=True))
        tuner = tune.Tuner(
            trainable,
            param_space={"trial": tune.grid_search([trial.payload() for trial in pending])},
            tune_config=tune.TuneConfig(
                # a dashboard goes on showing the name that an actor had at first; a new actor costs seconds
                reuse_actors=not _dashboard(),
                trial_name_creator=lambda trial: trial.config["trial"]["id"],
                trial_dirname_creator=lambda trial: trial.config["trial"]["id"],
            ),
            run_config=tune.RunConfig(
                storage_path=scratch,
                failure_config=tune.FailureConfig(max_failures=MAX_WORKER_LOSSES),
                checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
                callbacks=[progress, gauges, bad_nodes],
                stop=_Until(lease.lost, bad_nodes.only),
                verbose=0,
            ),
        )
        stack.enter_context(progress)
        stack.enter_context(gauges)
        identity = {"driver": lease.content["driver"], "host": lease.content["host"]}
        usage = stack.enter_context(Usage(url, identity, lambda: gauges.counts()["running"]))
        os.environ.setdefault("TUNE_MAX_PENDING_TRIALS_PG", str(_most_pending(flags.cpus_per_trial, gpus)))
        with mended_tune() as node_losses:
            results = tuner.fit()
        if lease.lost.is_set():
            raise lease.reason
        if bad_nodes.only.is_set():
            reasons = "; ".join(dict.fromkeys(bad_nodes.found.values()))
            raise InputError(f"{reasons}; there is no other node: {GOES_ON}")
        _record_lost(results, {trial.id: trial for trial in pending}, url, options, node_losses)
        _remove_finished_checkpoints(flags, plan, url)
    if usage.problem:
        print(f"what this run used is not recorded: {usage.problem}", file=sys.stderr)
    return usage.used


class _Until(tune.Stopper):
    """Ends the run when one of these is so: the sweep is no longer this driver's, no node is left that could go on."""

    def __init__(self, *reasons: threading.Event) -> None:
        self.reasons = reasons

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles it for a resume of its own, which is never used

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return any(reason.is_set() for reason in self.reasons)


@contextlib.contextmanager
def _ray(dashboard: bool) -> Iterator[bool]:
    """The cluster of RAY_ADDRESS, or the Ray that runs on this node, or a local one for the time of the sweep; whether
    it is the latter."""
    _check_address(os.environ.get("RAY_ADDRESS", ""))
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
        ray.init(address="local", include_dashboard=dashboard, log_to_driver=False, logging_level=logging.ERROR)
    signal.signal(signal.SIGTERM, _terminate)  # Ray's own would abort with a dump
    try:
        yield started_here
    finally:
        ray.shutdown()


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


def _dashboard() -> str:
    """Host and port of the dashboard, empty where there is none."""
    node = ray._private.worker._global_node
    return (node and node.webui_url) or ""


def _check_address_form(address: str) -> None:
    """Refuse a RAY_ADDRESS that no driver can use, before anything is loaded."""
    if address.startswith("ray://"):
        raise InputError(
            f"RAY_ADDRESS: {address}, sweeps do not run through Ray Client; give the command on a node of the "
            "cluster with RAY_ADDRESS=host:6379, or hand it over with ray job submit"
        )
    host, _, port = address.rpartition(":")
    if address not in ("", "auto", "local") and not (host and "/" not in host and port.isdigit()):
        raise InputError(f"RAY_ADDRESS: {address!r}, allowed are host:port of the cluster's head, auto and local")


def _check_address(address: str) -> None:
    """Find out in seconds whether somebody answers at RAY_ADDRESS; Ray itself would try for minutes."""
    if address in ("", "auto", "local"):
        return
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"RAY_ADDRESS: no Ray answers at {address} ({reason}); start it, or unset RAY_ADDRESS for a local one"
        ) from None


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


def _record_lost(
    results: tune.ResultGrid,
    trials: Mapping[str, PlannedTrial],
    url: str,
    options: TrialOptions,
    node_losses: Mapping[str, int],
) -> None:
    """Record the trials that lost worker or node again and again, so that they do not disappear without a word."""
    unborn: list[str] = []
    for index in range(len(results)):
        result = results[index]
        if result.error is None:
            continue
        if result.config is None or "trial" not in result.config:
            unborn.append(told(result.error))
            continue
        trial = trials[result.config["trial"]["id"]]
        if isinstance(result.error, StorageFailure):
            print(f"not finished: {trial.label} ({trial.id}): {told(result.error)}; {GOES_ON}", file=sys.stderr)
            continue
        payload = trial.payload()
        # those that lost their node are among them; a worker that died before its trial began has counted none
        attempts = checkpoints_of(url, trial.id).starts() or MAX_WORKER_LOSSES + 1
        row = trial_row(trial.id, trial.config, payload["json"], options, attempts, torch.device("cpu"))
        message = out_of_memory(result.error) or told(result.error)
        if node_losses.get(trial.id, 0) >= MAX_NODE_LOSSES:
            message = (
                f"lost its node {node_losses[trial.id]} times in a row without an epoch more; it last said: {message}"
            )
        lost = {"status": "failed", "error": f"given up after {attempts} attempts: {message}"}
        records.write_trial(url, {**row, **lost, "device": None}, [], [], [])
    if unborn:
        print(f"{len(unborn)} trials could not be started ({unborn[0]}); {GOES_ON}", file=sys.stderr)


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


def _resources() -> dict[str, float]:
    """The most that an autoscaler may have of each resource at once; empty where there is none."""
    found: dict[str, float] = {}
    for kind in _node_types():
        for resource, amount in kind.resources.items():
            found[resource] = found.get(resource, 0.0) + (amount * kind.most if amount else 0.0)
    return found


def _gpus(flags: SweepFlags) -> float:
    """Of each trial: what the flag says, or else the preset's share where the cluster has GPUs or may have them."""
    if flags.gpus_per_trial is not None:
        return flags.gpus_per_trial
    return min(flags.gpu_share, max(_resources().get("GPU", 0.0), ray.cluster_resources().get("GPU", 0.0)))


MOST_PENDING = 1000
"""Trials that ask for a place at a time, however large the cluster; TUNE_MAX_PENDING_TRIALS_PG, if set, wins."""


def _most_pending(cpus: float, gpus: float) -> int:
    """How many trials may ask for a place at a time: as many as the cluster could run at its largest, so that an
    autoscaler starts all that it may, and no more than the driver bears."""
    may, has = _resources(), ray.cluster_resources()
    places = [
        max(may.get(name, 0.0), has.get(name, 0.0)) / wanted
        for name, wanted in (("CPU", cpus), ("GPU", gpus))
        if wanted
    ]
    return math.ceil(min(MOST_PENDING, max(16, min(places, default=MOST_PENDING))))


def _check_resources(cpus: float, gpus: float, started_here: bool) -> None:
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


def _check_shared(url: str) -> None:
    """Refuse a folder as storage where trials would run on nodes that do not see it."""
    if "://" in url:
        return
    what = f"storage {url}"
    way_out = "give --storage s3://bucket/prefix, or a folder that every node shares at the same path"
    others = _other_nodes(url, what, way_out)
    if not others:
        return
    os.makedirs(url, exist_ok=True)
    probe = f"{url}/.probe-{os.getpid()}-{time.time_ns()}"
    Path(probe).touch()
    try:
        _check_seen(probe, others, what, way_out)
    finally:
        os.remove(probe)


def _check_streamed(data: Mapping[str, Data]) -> None:
    """Refuse images that trials read file by file where trials would run on nodes that do not see the files."""
    loaded: dict[str, Any] = {}
    for name, folds in data.items():
        if not isinstance(folds, SharedData):
            images = next(iter(folds.values()))  # all folds are of the same files
            loaded |= {name: images, **images.others}
    for name, images in loaded.items():
        if not isinstance(images, StreamedImages):
            continue
        files = [paths[0] for paths, _ in images.files.values() if len(paths)]
        folder = os.path.commonpath([os.path.dirname(os.path.abspath(file)) for file in files])
        what = f"data {name} in {folder}"
        way_out = "its images are read during training: have them in a folder that every node shares at the same path"
        others = _other_nodes(folder, what, way_out)
        if others:
            _check_seen(files[0], others, what, way_out)


def _other_nodes(folder: str, what: str, way_out: str) -> list[dict[str, Any]]:
    """The nodes that live beside this one. Raises `InputError` where an autoscaler adds some, which cannot see it."""
    if _resources() and not _on_network(folder):
        raise InputError(f"{what}: a folder of this machine, and the cluster starts other machines; {way_out}")
    here = ray.get_runtime_context().get_node_id()
    return [node for node in ray.nodes() if node["Alive"] and node["NodeID"] != here]


def _check_seen(path: str, nodes: Sequence[Mapping[str, Any]], what: str, way_out: str) -> None:
    """Ask each node whether it sees the path."""
    sees = ray.remote(num_cpus=0, max_retries=0)(os.path.exists)
    asked = [
        sees.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(path)
        for node in nodes
    ]
    try:
        for node, seen in zip(nodes, ray.get(asked, timeout=60), strict=True):
            if not seen:
                raise InputError(f"{what}: node {node['NodeManagerAddress']} does not see it; {way_out}")
    except (ray.exceptions.RayError, TimeoutError) as error:
        raise InputError(f"{what}: whether every node sees it is not known ({_brief(error)}); {way_out}") from None


_NETWORK = ("nfs", "cifs", "smb", "lustre", "ceph", "gpfs", "beegfs", "glusterfs", "fuse.", "9p", "afs", "wekafs")


def _on_network(folder: str, mounts: str = "/proc/mounts") -> bool:
    """Whether the folder lies on a file system that machines share, by the kind of its mount."""
    found = ("", "")
    for line in Path(mounts).read_text().splitlines():
        _, place, kind, *_ = line.split(" ")
        inside = folder == place or folder.startswith(place.rstrip("/") + "/")
        if inside and len(place) >= len(found[0]):
            found = (place, kind)
    return found[1].startswith(_NETWORK)


def _remove_finished_checkpoints(flags: SweepFlags, plan: Plan, url: str) -> None:
    """What a worker left behind that was killed between writing its record and deleting its checkpoints."""
    if flags.keep_checkpoints:
        return
    recorded = records.scan(url).statuses
    for trial_id in _with_checkpoints(url) & set(recorded) & plan.ids:
        checkpoints_of(url, trial_id).delete()
    if not _with_checkpoints(url):
        fs, path = fsspec.core.url_to_fs(f"{url}/checkpoints")
        if fs.exists(path):
            fs.rm(path, recursive=True)


def _git(root: Path) -> dict[str, Any]:
    """Commit of this project's checkout, and whether it has been changed since; None where there is none. What
    SWEEPS_COMMIT says where code came without its history, as a Ray job's does."""
    if not (root / ".git").exists():
        told = os.environ.get("SWEEPS_COMMIT", "")
        found = re.fullmatch(r"([0-9a-f]{40})(-dirty)?", told)
        if told and not found:
            raise InputError(f"SWEEPS_COMMIT: {told!r}, allowed is a commit's 40 digits, with -dirty after changes")
        return {"git_commit": found and found[1], "git_dirty": found and bool(found[2])}
    commit = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    status = subprocess.run(
        ["git", "-C", str(root), "status", "--porcelain"], capture_output=True, text=True, check=False
    )
    if commit.returncode or status.returncode:
        return {"git_commit": None, "git_dirty": None}
    return {"git_commit": commit.stdout.strip(), "git_dirty": bool(status.stdout.strip())}


def _brief(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


# --- what a person reads ----------------------------------------------------------------------------------------------


def _console() -> Console:
    """Standard output; as wide as tables need where it is no terminal."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=140)


def _setting(trial: PlannedTrial) -> str:
    return re.sub(r"( fold=\d+)? seed=\d+$", "", trial.label)


def _replicates(flags: SweepFlags) -> str:
    return "seeds" if flags.folds is None else "seeds and folds"


def _summarise(flags: SweepFlags, plan: Plan, url: str, console: Console) -> int:
    """The table of settings, where the record is and what to type next; the number of failed trials."""
    rows: dict[str, dict[str, Any]] = {}
    if records.scan(url).statuses:
        rows = {
            row["trial_id"]: row for row in records.read_table(url, "trials").to_pylist() if row["trial_id"] in plan.ids
        }
    over = _replicates(flags)
    table = Table(title=f"{flags.name or flags.NAME}: mean ± standard deviation over {over}, test split")
    table.add_column("setting", overflow="fold")
    columns = {"top1": "Top-1", "top5": "Top-5", "loss": "loss", "total_variation": "TV"}
    if not any(row["total_variation"] is not None for row in rows.values()):
        del columns["total_variation"]
    for name in ("seeds" if flags.folds is None else "seeds × folds", *columns.values()):
        table.add_column(name, justify="right", no_wrap=True)
    settings: dict[str, list[dict[str, Any]]] = {}
    for trial in plan.trials:
        settings.setdefault(_setting(trial), [])
        if trial.id in rows:
            settings[_setting(trial)].append(rows[trial.id])
    for setting, group in settings.items():
        measured = [row for row in group if row["status"] != "failed"]
        cells = [_mean_sd([row[name] for row in measured]) for name in columns]
        diverged = sum(row["status"] == "diverged" for row in group)
        table.add_row(setting + (f" ({diverged} diverged)" if diverged else ""), str(len(measured)), *cells)
    console.print(table)
    _print_measured(flags, url, settings, console)
    failed = [row for row in rows.values() if row["status"] == "failed"]
    missing = len(plan.trials) - len(rows)
    for row in failed:
        label = next(trial.label for trial in plan.trials if trial.id == row["trial_id"])
        print(f"failed: {label} ({row['trial_id']}): {row['error']}", file=sys.stderr)
    if failed:
        print(f"{len(failed)} of {len(plan.trials)} trials failed; --retry-failed runs them again", file=sys.stderr)
    if missing:
        print(f"{missing} trials are not finished; the same command goes on with them", file=sys.stderr)
    shown = sweep_url(flags)
    console.print(f"record: {shown}", soft_wrap=True)
    # as the user called this one: through uv, or with the Python of an environment that is active
    runner = "uv run python" if "UV_RUN_RECURSION_DEPTH" in os.environ else "python"
    console.print(f"next:   {runner} -m analysis.report {shlex.quote(shown)}", soft_wrap=True)
    return len(failed) + missing


def _cost(what: str, used: Used) -> str:
    """What was used of a cluster, in a line."""
    idle = "" if used.idle_share is None else f" ({100 * used.idle_share:.0f}% idle)"
    parts = [f"{used.cpu_hours:.3g} CPU-hours", f"{used.trial_hours:.3g} trial-hours"]
    if used.gpu_hours > 0:
        parts.insert(0, f"{used.gpu_hours:.3g} GPU-hours")
    parts[0] += idle
    nodes = f"{used.most_workers} node{'' if used.most_workers == 1 else 's'} at most"
    return f"{what}: {', '.join(parts)}; {nodes}"


def _print_total(url: str, console: Console, at_least: int) -> None:
    """What all runs of the sweep used, where there have been that many."""
    total, runs, unread = of_all_runs(url)
    for file in unread:
        print(f"{file}: cannot be read; what that run used is not in the sum", file=sys.stderr)
    if runs >= at_least:
        console.print(_cost(f"used by all {runs} runs of this sweep" if runs > 1 else "used by its one run", total))


def _print_measured(
    flags: SweepFlags, url: str, settings: Mapping[str, Sequence[Mapping[str, Any]]], console: Console
) -> None:
    """The table of what was measured on the trained networks, a row for each setting and component, if anything was."""
    if not any(settings.values()):
        return
    epochs = {row["trial_id"]: row["epochs"] for group in settings.values() for row in group}
    wanted = ["trial_id", "epoch", "metric", "component", "level", "value"]
    measured = [METRICS[name](**chosen) for name, chosen in flags.metrics().items()]
    details = [metric.is_detail for metric in measured if hasattr(metric, "is_detail")]
    found = [
        row
        for row in records.read_table(url, "measurements", wanted).to_pylist()
        if row["epoch"] == epochs.get(row["trial_id"])
        and not row["metric"].endswith("_per_image")
        and not any(of(row["metric"], row["component"]) for of in details)
    ]
    levels: dict[tuple[str, str], set[float | None]] = {}
    for row in found:
        levels.setdefault((row["metric"], row["component"]), set()).add(row["level"])
    values: dict[tuple[str, str, str], float | None] = {}
    for row in found:
        several = row["level"] is not None and len(levels[row["metric"], row["component"]]) > 1
        component = f"{row['component']}@{row['level']:g}" if several else row["component"]
        values[row["trial_id"], row["metric"], component] = row["value"]
    metrics = dict.fromkeys(metric for _, metric, _ in values)
    if not metrics:
        return
    table = Table(title=f"measured on the trained networks: mean ± standard deviation over {_replicates(flags)}")
    for name in ("setting", "of"):
        table.add_column(name, overflow="fold")
    for metric in metrics:
        table.add_column(metric.replace("_", " "), justify="right", no_wrap=True)
    for component in dict.fromkeys(component for *_, component in values):
        for setting, group in settings.items():
            cells = [
                _mean_sd([values.get((row["trial_id"], metric, component)) for row in group]) for metric in metrics
            ]
            table.add_row(setting, component, *cells)
        table.add_section()
    console.print(table)


def _mean_sd(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    spread = f" ± {_digits(statistics.stdev(known))}" if len(known) > 1 else ""
    return f"{_digits(statistics.fmean(known))}{spread}"


def _digits(value: float) -> str:
    return f"{value:.4f}" if abs(value) < 100 else f"{value:.4g}"


def _print_plan(flags: SweepFlags, plan: Plan) -> None:
    """--dry-run: how many trials, how many of them recorded, what they are and about how long they take."""
    url = _absolute(sweep_url(flags))
    scan = records.scan(url)
    if scan.statuses or scan.corrupted or _with_checkpoints(url):
        check_contents(url, contents(flags, plan))
    pending = _selected(flags, plan, scan)
    console = _console()
    console.print(
        f"{len(plan.trials)} trials planned, {len(plan.trials) - len(pending)} of them recorded in {sweep_url(flags)}"
    )
    settings: dict[str, int] = {}
    for trial in plan.trials:
        settings[_setting(trial)] = settings.get(_setting(trial), 0) + 1
    folds = flags.folds or 1
    for setting, trials in settings.items():
        seeds = f"{trials // folds} seed{'s' if trials > folds else ''}"
        console.print(f"  {setting}: {seeds}{f' × {folds} folds' if flags.folds else ''}")
    parts = f" in {flags.folds} folds" if flags.folds else ""
    for spec, info in plan.data.items():
        missing = "has to be put there" if info.streamed else "would be downloaded"
        where = "" if info.present else f" (not in {flags.data_root}; it {missing})"
        console.print(
            f"data {spec}: {info.train_images} + {info.test_images} images of {info.size}×{info.size}{parts}{where}"
        )
    if not pending:
        console.print("estimated cost: none, everything is recorded")
        return
    seconds = sum(_estimated_seconds(flags, plan, trial) for trial in pending)
    console.print(
        f"estimated cost: {seconds / 3600:.2g} core-hours at this machine's speed with one core a trial "
        f"(about {_duration(seconds / max(1, os.cpu_count() or 1))} on its {os.cpu_count()} cores)"
    )


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} seconds"


_STEP_SECONDS: dict[tuple[Any, ...], float] = {}


def _estimated_seconds(flags: SweepFlags, plan: Plan, trial: PlannedTrial) -> float:
    """Images trained on, and explained or perturbed, times the measured time of a plain training step on random images
    of that size, one thread."""
    config = trial.config
    info = next(info for info in plan.data.values() if info.name == config.data.dataset)
    size = config.data.image_size or info.size
    images = info.training_images(config.data)
    key = (config.model, size, info.channels, config.training.batch_size)
    if key not in _STEP_SECONDS:
        _STEP_SECONDS[key] = _time_step(info.channels, size, info.classes, trial)
    features = info.channels * size**2
    metrics = [METRICS[name](**chosen) for name, chosen in flags.metrics().items()]
    measured = sum(metric.image_passes(features) for metric in metrics if hasattr(metric, "image_passes"))
    return (trial.cost * images + measured) / config.training.batch_size * _STEP_SECONDS[key]


def _time_step(channels: int, size: int, classes: int, trial: PlannedTrial) -> float:
    # large images are timed in small batches: an estimate is not worth minutes
    batch = min(trial.config.training.batch_size, 128, max(2, 2**17 // size**2))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    model = build_model(
        trial.config.model.model, channels=channels, size=size, classes=classes, width=trial.config.model.width, seed=0
    )
    images, labels = torch.randn(batch, channels, size, size), torch.zeros(batch, dtype=torch.int64)
    times = []
    for _ in range(3):
        start = time.perf_counter()
        torch.nn.functional.cross_entropy(model(images), labels).backward()
        times.append(time.perf_counter() - start)
        if time.perf_counter() - start > 5:
            break
    torch.set_num_threads(threads)
    return float(np.min(times)) * trial.config.training.batch_size / batch
