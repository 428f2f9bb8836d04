"""What a cluster may have, and which folders its machines share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from analysis.command_line import InputError
from sweeps import gradient_reg, pilcro
from sweeps.driver import cluster, placement, provenance
from sweeps.flags import read_flags
from sweeps.pilcro import PilcroSweep
from trainables.data import DataConfig, StreamedImages
from trainables.trainable import Data

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def head(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on the head of a cluster that `ray up` started, without a Ray."""
    state = SimpleNamespace(get_cluster_config=lambda: None)
    monkeypatch.setattr(cluster.ray._private.state, "state", state)
    monkeypatch.setattr(cluster.ray.util, "get_node_ip_address", lambda: "10.0.0.1")
    context = SimpleNamespace(gcs_address="10.0.0.1:6379")
    monkeypatch.setattr(cluster.ray, "get_runtime_context", lambda: context)


def test_what_the_autoscaler_may_have(head: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of cluster.yaml as it is: four workers with four processors and a GPU each, and a head with none."""
    monkeypatch.setattr(cluster, "HEADS_CONFIGURATION", str(ROOT / "cluster.yaml"))
    assert cluster.most_resources() == {"CPU": 16.0, "GPU": 4.0}


def test_without_an_autoscaler(head: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "HEADS_CONFIGURATION", str(tmp_path / "none.yaml"))
    assert cluster.most_resources() == {}
    # a configuration in the home directory of a machine that is not the head says nothing of this cluster
    monkeypatch.setattr(cluster, "HEADS_CONFIGURATION", str(ROOT / "cluster.yaml"))
    monkeypatch.setattr(cluster.ray.util, "get_node_ip_address", lambda: "10.0.0.7")
    assert cluster.most_resources() == {}


@pytest.mark.parametrize(("cpus", "gpus"), [(1.0, 2.0), (8.0, 0.0), (5.0, 1.0), (1.0, 8.0), (64.0, 0.0)])
def test_trials_that_fit_on_no_node_are_refused(
    head: None, monkeypatch: pytest.MonkeyPatch, cpus: float, gpus: float
) -> None:
    """However much all nodes have together; there are none now."""
    monkeypatch.setattr(cluster, "HEADS_CONFIGURATION", str(ROOT / "cluster.yaml"))
    monkeypatch.setattr(cluster.ray, "nodes", list)
    with pytest.raises(InputError, match=f"^cpus_per_trial: {cpus:g}, gpus_per_trial: {gpus:g}, .* 4 CPUs and 1 GPUs"):
        cluster.check_resources(cpus, gpus, started_here=False)
    # a living node that was added by hand may be larger
    nodes = [{"Alive": True, "Resources": {"CPU": 64.0, "GPU": 8.0}}]
    monkeypatch.setattr(cluster.ray, "nodes", lambda: nodes)
    cluster.check_resources(cpus, gpus, started_here=False)


def test_trials_that_fit_on_a_node_that_may_be_started(
    head: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cluster, "HEADS_CONFIGURATION", str(ROOT / "cluster.yaml"))
    monkeypatch.setattr(cluster.ray, "nodes", list)
    for cpus, gpus in ((4.0, 1.0), (1.0, 0.25), (4.0, 0.0)):
        cluster.check_resources(cpus, gpus, started_here=False)
    assert capsys.readouterr().err == ""


def test_what_ray_knows_of_its_autoscaler(head: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """As KubeRay tells it: two small nodes, and any number of large ones."""
    kinds = [
        SimpleNamespace(name="small", max_count=2, resources={"CPU": 4}),
        SimpleNamespace(name="large", max_count=-1, resources={"CPU": 8, "GPU": 1}),
        SimpleNamespace(name="none", max_count=0, resources={"GPU": 8}),
    ]
    monkeypatch.setattr(
        cluster.ray._private.state.state, "get_cluster_config", lambda: SimpleNamespace(node_group_configs=kinds)
    )
    monkeypatch.setattr(cluster.ray, "nodes", list)
    assert cluster.most_resources() == {"CPU": float("inf"), "GPU": float("inf")}
    cluster.check_resources(8.0, 1.0, started_here=False)
    with pytest.raises(InputError, match="small 4 CPUs and 0 GPUs, large 8 CPUs and 1 GPUs"):
        cluster.check_resources(1.0, 2.0, started_here=False)


def test_a_folder_on_a_cluster_that_grows_is_refused(
    head: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(cluster, "HEADS_CONFIGURATION", str(ROOT / "cluster.yaml"))
    context = SimpleNamespace(gcs_address="10.0.0.1:6379", get_node_id=lambda: "here")
    monkeypatch.setattr(cluster.ray, "get_runtime_context", lambda: context)
    monkeypatch.setattr(cluster.ray, "nodes", lambda: [{"Alive": True, "NodeID": "here"}])
    with pytest.raises(InputError, match="the cluster starts other machines; give --storage s3://"):
        placement.check_shared(str(tmp_path / "results"))
    assert not (tmp_path / "results").exists()
    placement.check_shared("s3://bucket/results")
    monkeypatch.setattr(placement, "_on_network", lambda folder: True)
    placement.check_shared(str(tmp_path / "results"))


def test_folders_on_a_network(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(
        "/dev/sda1 / ext4 rw 0 0\nfs-1:/ /mnt/shared nfs4 rw 0 0\nnone /mnt/shared/tmp tmpfs rw 0 0\n"
        "s3fs /data fuse.s3fs rw 0 0\n"
    )
    found = {
        folder: placement._on_network(folder, str(mounts))
        for folder in ("/mnt/shared/results", "/mnt/shared", "/mnt/shared/tmp/x", "/mnt/sharedx", "/home", "/data/x")
    }
    assert found == {
        "/mnt/shared/results": True,
        "/mnt/shared": True,
        "/mnt/shared/tmp/x": False,
        "/mnt/sharedx": False,
        "/home": False,
        "/data/x": True,
    }


def test_images_read_during_training_must_be_where_every_node_sees_them(
    head: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A node asks its own disk, here by a task that runs at once; where machines are started nobody can be asked."""
    config = DataConfig(dataset="folder", validation=0.1)
    splits = ("train", "validation", "test")
    files = {split: ([str(tmp_path / split / "0.jpg")], np.zeros(1, np.int64)) for split in splits}
    data: dict[str, Data] = {"images": {config: StreamedImages(config, ("a", "b"), files)}}
    context = SimpleNamespace(gcs_address="10.0.0.1:6379", get_node_id=lambda: "here")
    monkeypatch.setattr(cluster.ray, "get_runtime_context", lambda: context)
    nodes = [{"Alive": True, "NodeID": "here"}]
    monkeypatch.setattr(cluster.ray, "nodes", lambda: nodes)
    placement.check_streamed(data)
    there = {"Alive": True, "NodeID": "ab" * 28, "NodeManagerAddress": "10.0.0.7"}
    nodes.append(there)
    asked: list[str] = []

    def remote(**_: object) -> Callable[[Callable[[str], bool]], object]:
        def ask(function: Callable[[str], bool]) -> object:
            task = SimpleNamespace(remote=lambda path: asked.append(path) or function(path))
            return SimpleNamespace(options=lambda **_: task)

        return ask

    monkeypatch.setattr(cluster.ray, "remote", remote)
    monkeypatch.setattr(cluster.ray, "get", lambda answers, timeout: answers)
    with pytest.raises(InputError, match=f"data images in {tmp_path}: node 10.0.0.7 does not see it; .* every node"):
        placement.check_streamed(data)
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "0.jpg").touch()
    placement.check_streamed(data)
    assert asked == [str(tmp_path / "train" / "0.jpg")] * 2
    monkeypatch.setattr(cluster, "HEADS_CONFIGURATION", str(ROOT / "cluster.yaml"))
    with pytest.raises(
        InputError, match=f"data images in {tmp_path}: a folder of this machine, and the cluster starts"
    ):
        placement.check_streamed(data)


def test_a_trials_share_of_a_gpu(head: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The flag's, else the preset's as long as the trials are of the preset's size; none where there are no GPUs."""
    monkeypatch.setattr(cluster, "HEADS_CONFIGURATION", str(ROOT / "cluster.yaml"))
    monkeypatch.setattr(cluster.ray, "cluster_resources", dict)

    def gpus(*argv: str) -> float:
        return cluster.gpus_per_trial(read_flags(PilcroSweep, pilcro.PRESETS, argv, ""))

    assert [gpus("--preset", name) for name in pilcro.PRESETS] == [0.25, 0.25, 0.5, 1.0, 1.0]
    assert gpus("--alpha", "1", "--seeds", "5") == 0.25
    assert gpus("--dataset", "cifar10") == gpus("--model", "resnet50") == gpus("--batch-size", "512") == 1.0
    assert gpus("--gpus-per-trial", "0.1") == 0.1
    shares = {name: cluster.gpus_per_trial(flags) for name, flags in gradient_reg.PRESETS.items()}
    small = ("digits", "mnist", "fashion-mnist", "kmnist")
    assert shares == {name: 0.25 if name in small else 1.0 for name in gradient_reg.PRESETS}
    monkeypatch.setattr(cluster, "HEADS_CONFIGURATION", str(tmp_path / "none"))
    assert gpus() == 0.0
    assert gpus("--gpus-per-trial", "1") == 1.0
    with pytest.raises(InputError, match="--gpu-share"):
        gpus("--gpu-share", "1")


def test_trials_that_ask_for_a_place_at_a_time(head: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Enough for all that the autoscaler may start, and no more than the driver bears."""
    file = tmp_path / "bootstrap.yaml"
    monkeypatch.setattr(cluster, "HEADS_CONFIGURATION", str(file))
    monkeypatch.setattr(cluster.ray, "cluster_resources", lambda: {"CPU": 2.0})
    kinds = "available_node_types: {gpu: {resources: {CPU: 4, GPU: 1}}}"
    found = {}
    for workers in (0, 4, 100, 10_000):
        file.write_text(f"max_workers: {workers}\n{kinds}\n")
        found[workers] = [cluster.most_pending(cpus, gpus) for cpus, gpus in ((1.0, 1.0), (1.0, 0.25), (2.0, 0.0))]
    assert found[4] == [16, 16, 16]
    assert found[100] == [100, 400, 200]
    assert found[10_000] == [cluster.MOST_PENDING] * 3
    assert found[0] == [16, 16, 16]


def test_the_commit_of_code_that_came_without_its_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SWEEPS_COMMIT", raising=False)
    assert provenance.git_state(tmp_path) == {"git_commit": None, "git_dirty": None}
    for told, dirty in (("0" * 40, False), ("0" * 40 + "-dirty", True)):
        monkeypatch.setenv("SWEEPS_COMMIT", told)
        assert provenance.git_state(tmp_path) == {"git_commit": "0" * 40, "git_dirty": dirty}
    monkeypatch.setenv("SWEEPS_COMMIT", "main")
    with pytest.raises(InputError, match="SWEEPS_COMMIT: 'main', allowed is a commit's 40 digits"):
        provenance.git_state(tmp_path)


def test_which_data_every_node_can_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "_on_network", lambda folder: folder.startswith("/shared"))
    reachable = {
        ("parquet:s3://bucket/x", "data"): True,
        ("parquet:/shared/x", "data"): True,
        ("folder:/local/x", "/shared/data"): False,
        ("cifar10", "/shared/data"): True,
        ("cifar10", "data"): False,
    }
    for (spec, root), expected in reachable.items():
        assert placement._everywhere(spec, root) == expected
