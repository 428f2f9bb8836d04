"""Hours of a cluster, counted by hand."""

from __future__ import annotations

import pytest

from sweeps.launch import _cost
from sweeps.usage import Used


def test_hours_by_hand() -> None:
    used = Used()
    assert used.idle_share is None
    gpu_node = {"CPU": 4.0, "GPU": 1.0}
    # half an hour: two GPU nodes, one GPU and 6 CPUs free; then a quarter: one node, all busy
    used.add(0.5, [gpu_node, gpu_node], {"CPU": 6.0, "GPU": 1.0})
    used.add(0.25, [gpu_node], {})
    assert (used.worker_hours, used.most_workers) == (1.25, 2)
    assert (used.gpu_hours, used.busy_gpu_hours) == (1.25, 0.75)
    assert (used.cpu_hours, used.busy_cpu_hours) == (5.0, 2.0)
    assert used.idle_share == pytest.approx(0.4)
    assert _cost(used) == "used: 1.25 GPU-hours, 5 CPU-hours (2 nodes at most), 40% of them idle"


def test_without_gpus_the_processors_count() -> None:
    used = Used()
    used.add(1.0, [{"CPU": 2.0}], {"CPU": 0.5})
    assert used.idle_share == pytest.approx(0.25)
    assert _cost(used) == "used: 2 CPU-hours (1 node at most), 25% of them idle"
