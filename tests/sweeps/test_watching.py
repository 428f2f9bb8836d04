"""The Ray dashboard and Prometheus during a sweep, in namespaces (see `watching_drill`)."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.analysis import browser
from tests.sweeps.driving import ROOT

README = (ROOT / "sweeps" / "README.md").read_text()
namespaces = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("unshare") or not shutil.which("ip"),
    reason="needs root, unshare and ip (Debian: util-linux, iproute2): Ray listens on all interfaces",
)


def drill(what: str, folder: Path) -> dict[str, Any]:
    inside = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
    command = [*inside, sys.executable, "-m", "tests.sweeps.watching_drill", str(folder), what]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=400)
    assert done.returncode == 0, done.stderr + (folder / "out").read_text()
    seen: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return seen


@pytest.mark.long
@pytest.mark.ray
@namespaces
@pytest.mark.skipif(bool(browser.lacking()), reason=browser.lacking())
def test_the_dashboard_in_a_browser(tmp_path: Path) -> None:
    """It refuses who has no token, asks for it, and names the trials that train; also those that come later."""
    seen = drill("page", tmp_path)
    assert set(seen["without"].values()) == {401}
    assert seen["wrong"] in (401, 403)
    assert seen["right"] == 200
    assert "token" in seen["asks"].lower()
    assert seen["rows_before"] == 0
    assert len(seen["first"]) == 2
    assert set(seen["next"]) - set(seen["first"])
    for name in (*seen["first"], *seen["next"]):
        assert re.fullmatch(r"pilcro α=(1|10) seed=\d+ [0-9a-f]{16}", name), name
    assert seen["errors"] == []


@pytest.mark.long
@pytest.mark.ray
@namespaces
@pytest.mark.skipif(not shutil.which("prometheus"), reason="prometheus is not installed (Debian: prometheus)")
def test_every_panel_has_its_data_from_prometheus(tmp_path: Path) -> None:
    """Prometheus as the README starts it, on a head with token authentication; what Grafana would ask it for."""
    seen = drill("prometheus", tmp_path)
    assert seen["dashboard_without_token"] == 401
    assert set(seen["targets"].values()) == {"up"}
    assert seen["sweeps"] == ["pilcro"]
    # no GPU here
    empty = {name for name, found in seen["series"].items() if not found}
    assert empty == {f"Most GPU memory of the running trials A {chosen}" for chosen in (".*", "pilcro")}
    for name, metrics in seen["series"].items():
        panel, _, chosen = name.rpartition(" ")
        # one sweep, so choosing it is the same as all
        assert len(metrics) == len(seen["series"][f"{panel} pilcro"]), (name, chosen)
        for metric in metrics:
            assert metric.get("sweep", "pilcro") == "pilcro"
            if "trial" in metric:
                assert re.fullmatch(r"pilcro alpha=(1|10) seed=\d+", metric["setting"])
    last = seen["last"]
    statuses = [metric["status"] for metric in seen["series"]["Trials by status A .*"]]
    assert sorted(statuses) == ["completed", "diverged", "failed", "pending", "recorded before", "running"]
    assert last["Trials done A .*"][0] + last["Trials to do A .*"][0] == 24 == sum(last["Trials by status A .*"])
    assert 0 < last["Best validation Top-1 A .*"][0] <= 1
    assert last["Workers lost A .*"] == [0]
    assert last["Epochs per minute A .*"][0] > 0


def test_the_commands_that_bring_them_up_name_what_there_is() -> None:
    """What they mount is there, and each finds in its container what the other files name."""
    lines = [line for line in README.replace("\\\n", " ").splitlines() if line.startswith("docker run")]
    mounts: dict[str, str] = {}
    for line in lines:
        words = shlex.split(line)
        for number, word in enumerate(words):
            if word == "-v":
                here, there, mode = words[number + 1].split(":")
                assert mode == "ro"
                mounts[there] = here.replace("$PWD", str(ROOT))
    assert len(lines) == 2
    discovered = yaml.safe_load(Path(mounts["/etc/prometheus.yml"]).read_text())["scrape_configs"][0]
    assert discovered["file_sd_configs"][0]["files"][0].startswith(mounts["/tmp/ray"] + "/")
    provisioning = Path(mounts["/etc/grafana/provisioning"])
    provider = yaml.safe_load((provisioning / "dashboards" / "sweeps.yml").read_text())["providers"][0]
    path = Path(provider["options"]["path"])
    assert list((provisioning / path.relative_to("/etc/grafana/provisioning")).glob("*.json"))
    source = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"][0]
    assert f"--web.listen-address={source['url'].removeprefix('http://')}" in lines[0]
