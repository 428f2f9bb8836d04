"""What a cluster may have, and which folders its machines share."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from analysis.command_line import InputError
from sweeps import launch

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def head(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on the head of a cluster that `ray up` started, without a Ray."""
    state = SimpleNamespace(get_max_resources_from_cluster_config=lambda: None)
    monkeypatch.setattr(launch.ray._private.state, "state", state)
    monkeypatch.setattr(launch.ray.util, "get_node_ip_address", lambda: "10.0.0.1")
    context = SimpleNamespace(gcs_address="10.0.0.1:6379")
    monkeypatch.setattr(launch.ray, "get_runtime_context", lambda: context)


def test_what_the_autoscaler_may_have(head: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of cluster.yaml as it is: four workers with four processors and a GPU each, and a head with none."""
    monkeypatch.setattr(launch, "HEADS_CONFIGURATION", str(ROOT / "cluster.yaml"))
    assert launch._resources() == {"CPU": 16.0, "GPU": 4.0}


def test_without_an_autoscaler(head: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "HEADS_CONFIGURATION", str(tmp_path / "none.yaml"))
    assert launch._resources() == {}
    # a configuration in the home directory of a machine that is not the head says nothing of this cluster
    monkeypatch.setattr(launch, "HEADS_CONFIGURATION", str(ROOT / "cluster.yaml"))
    monkeypatch.setattr(launch.ray.util, "get_node_ip_address", lambda: "10.0.0.7")
    assert launch._resources() == {}


@pytest.mark.parametrize(
    ("cpus", "gpus", "named"), [(1.0, 8.0, "gpus_per_trial: 8, the"), (64.0, 0.0, "cpus_per_trial: 64")]
)
def test_more_than_there_may_be_is_refused(
    head: None, monkeypatch: pytest.MonkeyPatch, cpus: float, gpus: float, named: str
) -> None:
    monkeypatch.setattr(launch, "HEADS_CONFIGURATION", str(ROOT / "cluster.yaml"))
    monkeypatch.setattr(launch.ray, "cluster_resources", dict)
    monkeypatch.setattr(launch.ray, "nodes", list)
    with pytest.raises(InputError, match=named):
        launch._check_resources(cpus, gpus, started_here=False)
    launch._check_resources(1.0, 1.0, started_here=False)  # there is none now, and may be


def test_a_folder_on_a_cluster_that_grows_is_refused(
    head: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(launch, "HEADS_CONFIGURATION", str(ROOT / "cluster.yaml"))
    context = SimpleNamespace(gcs_address="10.0.0.1:6379", get_node_id=lambda: "here")
    monkeypatch.setattr(launch.ray, "get_runtime_context", lambda: context)
    monkeypatch.setattr(launch.ray, "nodes", lambda: [{"Alive": True, "NodeID": "here"}])
    with pytest.raises(InputError, match="the cluster starts other machines; give --storage s3://"):
        launch._check_shared(str(tmp_path / "results"))
    assert not (tmp_path / "results").exists()
    launch._check_shared("s3://bucket/results")
    monkeypatch.setattr(launch, "_on_network", lambda folder: True)
    launch._check_shared(str(tmp_path / "results"))


def test_folders_on_a_network(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(
        "/dev/sda1 / ext4 rw 0 0\nfs-1:/ /mnt/shared nfs4 rw 0 0\nnone /mnt/shared/tmp tmpfs rw 0 0\n"
        "s3fs /data fuse.s3fs rw 0 0\n"
    )
    found = {
        folder: launch._on_network(folder, str(mounts))
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


def test_the_commit_of_code_that_came_without_its_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SWEEPS_COMMIT", raising=False)
    assert launch._git(tmp_path) == {"git_commit": None, "git_dirty": None}
    for told, dirty in (("0" * 40, False), ("0" * 40 + "-dirty", True)):
        monkeypatch.setenv("SWEEPS_COMMIT", told)
        assert launch._git(tmp_path) == {"git_commit": "0" * 40, "git_dirty": dirty}
    monkeypatch.setenv("SWEEPS_COMMIT", "main")
    with pytest.raises(InputError, match="SWEEPS_COMMIT: 'main', allowed is a commit's 40 digits"):
        launch._git(tmp_path)


def test_which_data_every_node_can_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "_on_network", lambda folder: folder.startswith("/shared"))
    reachable = {
        ("parquet:s3://bucket/x", "data"): True,
        ("parquet:/shared/x", "data"): True,
        ("folder:/local/x", "/shared/data"): False,
        ("cifar10", "/shared/data"): True,
        ("cifar10", "data"): False,
    }
    for (spec, root), expected in reachable.items():
        assert launch._everywhere(spec, root) == expected
