"""What a running sweep says of itself to Prometheus, and the Grafana dashboard that shows it."""

from __future__ import annotations

import ast
import contextlib
import http.client
import json
import re
import urllib.request
from pathlib import Path

import pytest

from sweeps.driver.gauges import _ascii
from tests.sweeps.driving import ROOT, finish, listening, processes_below, start, wait_for

DASHBOARD = json.loads((ROOT / "sweeps" / "grafana" / "dashboards" / "sweeps.json").read_text())


def names_set() -> set[str]:
    """Names of the gauges and counters of the module, as they appear at the metrics port."""
    tree = ast.parse((ROOT / "sweeps" / "driver" / "gauges.py").read_text())
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("Gauge", "Counter"):
            assert isinstance(node.args[0], ast.Constant)
            found.add(f"ray_{node.args[0].value}" + ("_total" if node.func.id == "Counter" else ""))
    return found


def test_the_dashboard_shows_what_there_is() -> None:
    shown = set()
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            assert 'sweep=~"$sweep"' in target["expr"]
            shown |= set(re.findall(r"ray_sweep_\w+", target["expr"]))
    assert shown == names_set()
    places = [tuple(panel["gridPos"][key] for key in "xywh") for panel in DASHBOARD["panels"]]
    assert len(set(places)) == len(places)
    assert all(x + w <= 24 for x, _, w, _ in places)


def test_tags_are_ascii() -> None:
    assert _ascii("pilcro α=1 σ=2 ¶") == "pilcro alpha=1 sigma=2 \\xb6"


def metrics(port: int) -> str:
    """What is said there, if that is a port for it."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        return urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read().decode(errors="replace")
    return ""


def metrics_ports(pid: int) -> list[int]:
    """Those of a sweep's own Ray that tell of sweeps."""
    ports = [port for _, port in listening([pid, *processes_below(pid)])]
    return [port for port in ports if "ray_sweep_" in metrics(port)]


@pytest.mark.long
@pytest.mark.ray
def test_a_running_sweep_can_be_watched(tmp_path: Path) -> None:
    """Scraped as Prometheus does it while the sweep runs; a trial's series is gone some time after its end."""
    process = start(
        tmp_path, "--alpha", "1", "--variant", "curvature", "target", "--seeds", "6", "--epochs", "60",
        "--train-images", "600",
    )  # fmt: skip
    wait_for(lambda: (tmp_path / "pilcro" / "checkpoints").exists(), "a trial in training")
    found: list[int] = []
    wait_for(lambda: bool(found.extend(metrics_ports(process.pid)) or found), "the port of the metrics")
    seen: dict[str, set[str]] = {}
    last: dict[str, str] = {}

    def scrape() -> bool:
        assert process.poll() is None, "the sweep has ended before that was seen"
        text = last["text"] = metrics(found[0])
        for line in text.splitlines():
            if line.startswith("ray_sweep_"):
                seen.setdefault(line.split("{")[0], set()).add(line)
        trials = {
            match for line in seen.get("ray_sweep_trial_epoch", ()) for match in re.findall(r'trial="(\w+)"', line)
        }
        now = set(re.findall(r'ray_sweep_trial_epoch\{[^}]*trial="(\w+)"', last.get("text", "")))
        return len(trials) > 3 and len(now) < len(trials)

    wait_for(scrape, "a trial that has ended and is shown no more", 150)
    process.terminate()
    finish(process)
    # no GPU here, and no worker is lost
    assert seen.keys() >= names_set() - {"ray_sweep_trial_gpu_memory_bytes", "ray_sweep_workers_lost_total"}
    statuses = {match for line in seen["ray_sweep_trials"] for match in re.findall(r'status="([a-z ]+)"', line)}
    assert statuses == {"completed", "diverged", "failed", "recorded before", "running", "pending"}
    assert 'sweep="pilcro"' in next(iter(seen["ray_sweep_best_top1"]))
    assert "alpha=1" in next(iter(seen["ray_sweep_trial_top1"]))
