"""Data and storage where the trials' nodes see them: loaded here, by each node, or refused."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from analysis.command_line import InputError
from sweeps.driver.cluster import most_resources
from sweeps.driver.pending import absolute, brief
from sweeps.flags import SweepFlags
from sweeps.plan import Plan, PlannedTrial
from trainables.data import SharedData, StreamedImages, load_each, load_others
from trainables.metrics import needs_masks
from trainables.models import MODELS, create
from trainables.trainable import Data


def check_weights(pending: Sequence[PlannedTrial]) -> None:
    """Fetch the weights that trials begin with, as the workers will: what cannot be had is told before they start."""
    for config in dict.fromkeys(trial.config.model for trial in pending if trial.config.model.pretrained):
        name = MODELS[config.model].timm
        assert name is not None
        create(name, pretrained=True)


def load(flags: SweepFlags, plan: Plan, pending: Sequence[PlannedTrial]) -> dict[str, Data]:
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
            root = absolute(flags.data_root)
            loaded[info.name] = SharedData(spec, root, configs, methods, masks, flags.shift, flags.exclude)
            continue
        folds = loaded[info.name] = load_each(spec, flags.data_root, configs, masks=masks)
        load_others(list(folds.values()), spec, flags.shift, flags.data_root, flags.exclude)
        for images, method in itertools.product(folds.values(), methods):
            method.prepare(images)
    return loaded


def _everywhere(spec: str, root: str) -> bool:
    """Whether every node can load a data set: on S3, or on a file system that machines share."""
    kind, _, path = spec.partition(":")
    where = path if kind in ("folder", "parquet") else root
    return "://" in where or _on_network(absolute(where))


def check_shared(url: str) -> None:
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


def check_streamed(data: Mapping[str, Data]) -> None:
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
    if most_resources() and not _on_network(folder):
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
        raise InputError(f"{what}: whether every node sees it is not known ({brief(error)}); {way_out}") from None


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
