"""Hours of a cluster, counted by hand."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest

from sweeps.driver import usage
from sweeps.driver.summary import cost_line
from sweeps.driver.usage import Usage, Used, of_all_runs


def test_hours_by_hand() -> None:
    used = Used()
    assert used.idle_share is None
    gpu_node = {"CPU": 4.0, "GPU": 1.0}
    # half an hour: two GPU nodes, one GPU and 6 CPUs free; then a quarter: one node, all busy
    used.add(0.5, [gpu_node, gpu_node], {"CPU": 6.0, "GPU": 1.0}, 2)
    used.add(0.25, [gpu_node], {}, 4)
    assert (used.worker_hours, used.most_workers) == (1.25, 2)
    assert (used.gpu_hours, used.busy_gpu_hours) == (1.25, 0.75)
    assert (used.cpu_hours, used.busy_cpu_hours) == (5.0, 2.0)
    assert used.trial_hours == 2.0
    assert used.idle_share == pytest.approx(0.4)
    assert cost_line("used", used) == "used: 1.25 GPU-hours (40% idle), 5 CPU-hours, 2 trial-hours; 2 nodes at most"


def test_without_gpus_the_processors_count() -> None:
    used = Used()
    used.add(1.0, [{"CPU": 2.0}], {"CPU": 0.5}, 3)
    assert used.idle_share == pytest.approx(0.25)
    assert cost_line("used", used) == "used: 2 CPU-hours (25% idle), 3 trial-hours; 1 node at most"


class Cluster:
    """A node of four processors, of which trials hold three; its clock goes an hour at a time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.hours, self.looks, self.fails = 0.0, 0, False
        self.looked = threading.Event()
        monkeypatch.setattr(usage, "EVERY", 0.01)
        monkeypatch.setattr(usage, "ray", SimpleNamespace(nodes=self.nodes, available_resources=lambda: {"CPU": 1.0}))
        monkeypatch.setattr(usage, "time", SimpleNamespace(monotonic=lambda: 3600 * self.hours))

    def nodes(self) -> list[dict[str, object]]:
        self.looks += 1
        if self.fails:
            raise RuntimeError("the GCS is away")
        return [{"Alive": True, "Resources": {"CPU": 4.0}}, {"Alive": False, "Resources": {"CPU": 4.0}}]

    def seen(self) -> None:
        """Wait for two looks more, the first of which may have begun before."""
        target = self.looks + 2
        while self.looks < target:
            time.sleep(0.001)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    return Cluster(monkeypatch)


def rows(sweep: Path) -> list[dict[str, object]]:
    return [row for file in sorted((sweep / "runs").iterdir()) for row in pq.read_table(file).to_pylist()]


def test_a_run_is_counted_from_its_start_to_its_end(cluster: Cluster, tmp_path: Path) -> None:
    with Usage(str(tmp_path), {"driver": "d" * 32, "host": "here"}, lambda: 3):
        (row,) = rows(tmp_path)  # a driver that is killed now has its row
        assert row["driver"] == "d" * 32
        cluster.hours = 1.0
        cluster.seen()
        cluster.fails = True  # no look from here on, and the thread goes on
        cluster.seen()
        cluster.hours = 3.0
    (row,) = rows(tmp_path)
    assert (row["cpu_hours"], row["busy_cpu_hours"], row["trial_hours"]) == (12.0, 9.0, 9.0)


def test_what_ray_does_not_say_for_a_while_is_counted_then(cluster: Cluster, tmp_path: Path) -> None:
    with Usage(str(tmp_path), {"driver": "d" * 32, "host": "here"}, lambda: 3) as found:
        cluster.fails = True
        cluster.seen()
        cluster.hours = 2.0
        cluster.seen()
        assert found.used.trial_hours == 0.0
        cluster.fails = False
        cluster.seen()
        cluster.seen()
        assert found.used.trial_hours == 6.0


def test_the_sum_over_runs(cluster: Cluster, tmp_path: Path) -> None:
    assert of_all_runs(str(tmp_path)) == (Used(), 0, [])
    for driver, hours in (("a", 1.0), ("b", 2.0)):
        cluster.hours = 0.0
        with Usage(str(tmp_path), {"driver": driver * 32, "host": "here"}, lambda: 3):
            cluster.hours = hours
            cluster.seen()
    (tmp_path / "runs" / "bad.parquet").write_bytes(b"cut")
    # of a version that did not count the trials' hours
    first = sorted((tmp_path / "runs").glob("2*.parquet"))[0]
    pq.write_table(pq.read_table(first).drop_columns(["trial_hours"]), first)
    total, runs, unread = of_all_runs(str(tmp_path))
    assert (total.cpu_hours, total.trial_hours, total.most_workers, runs) == (12.0, 6.0, 1, 2)
    assert unread == [str(tmp_path / "runs" / "bad.parquet")]
