"""A sweep watched while it runs: the Ray dashboard in a browser, or its metrics through Prometheus. Run as root:

    unshare --mount --net --pid --fork --kill-child --mount-proc python -m tests.sweeps.watching_drill FOLDER WHAT

WHAT is "page" (a local sweep with --dashboard, opened in headless Chromium, with screenshots in FOLDER) or "prometheus"
(a sweep on a head that is started as `cluster.yaml` starts it). Prints what was seen as JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.analysis import browser as browsers
from tests.sweeps.driving import ROOT, SCRIPT, wait_for

RAY = str(Path(sys.executable).parent / "ray")
# 24 trials of some seconds
SWEEP = [
    *("--alpha", "1", "10", "--variant", "curvature", "--no-baseline", "--seeds", "12"),
    *("--epochs", "80", "--train-images", "600"),
]
PROMETHEUS = "http://127.0.0.1:9090"


def machine(home: Path) -> dict[str, str]:
    """A machine that has nothing but this: its network, its /tmp/ray and its home; the environment of its users."""
    for command in (
        "ip link set lo up",
        "ip link add v0 type veth peer name v1",
        "ip addr add 10.9.9.9/24 dev v0",
        "ip link set v0 up",
        "ip link set v1 up",
        "ip route add default via 10.9.9.1 dev v0",
        "mkdir -p /tmp/ray",
        "mount -t tmpfs tmpfs /tmp/ray",
    ):
        subprocess.run(command.split(), check=True)
    # its Ray lies in /tmp/ray, where the README's Prometheus looks for it
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "TMPDIR"))}
    return {**environment, "HOME": str(home), "RAY_USAGE_STATS_ENABLED": "0"}


def status(url: str, token: str = "") -> int:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
    try:
        return int(urllib.request.urlopen(request, timeout=10).status)
    except urllib.error.HTTPError as error:
        return error.code


def page(folder: Path, sweep: subprocess.Popen[bytes], home: Path) -> dict[str, Any]:
    record = folder / "results" / "pilcro"
    out = folder / "out"
    wait_for(lambda: "dashboard: " in out.read_text(), "the dashboard's address")
    found = re.search(r"dashboard: (http://\S+)", out.read_text())
    assert found
    address = found[1]
    token = (home / ".ray" / "auth_token").read_text().strip()
    seen: dict[str, Any] = {
        "without": {path: status(address + path) for path in ("/api/jobs/", "/logical/actors", "/nodes?view=summary")},
        "wrong": status(f"{address}/api/jobs/", "0" * 64),
        "right": status(f"{address}/api/jobs/", token),
    }
    browser = browsers.start()
    browsers.resize(browser, 1600)
    browser.get(f"{address}/#/actors")
    wait_for(lambda: browser.find_elements("css selector", "[role=dialog] input[type=password]"), "the token's field")
    browser.save_screenshot(str(folder / "asks.png"))
    seen["asks"] = browser.find_element("css selector", "[role=dialog]").text
    seen["rows_before"] = len(browser.find_elements("css selector", "tbody tr"))
    browser.find_element("css selector", "[role=dialog] input").send_keys(token)
    browser.find_elements("css selector", "[role=dialog] button")[-1].click()

    def recorded() -> set[str]:
        return {path.stem for path in record.glob("trials/*.parquet")}

    def running() -> set[str]:
        """What the page calls alive, by the column Repr."""
        rows = browser.execute_script(
            "return [...document.querySelectorAll('thead tr, tbody tr')]"
            ".map(row => [...row.querySelectorAll('th, td')].map(cell => cell.innerText.trim()))"
        )
        # the page loads itself anew with the token, and has a row for when it has none
        columns = {name: number for number, name in enumerate(rows[0])} if rows else {}
        return {row[columns["Repr"]] for row in rows[1:] if len(row) == len(columns) and "ALIVE" in row}

    now: set[str] = set()

    def true(number: int, others: set[str]) -> bool:
        """Whether it shows so many trials beside others that train: that have a folder of checkpoints and no record."""
        assert sweep.poll() is None, "the sweep has ended before that was seen"
        now.clear()
        now.update(running())
        training = {path.name for path in record.glob("checkpoints/*")} - recorded()
        browser.save_screenshot(str(folder / "last.png"))
        return len({name for name in now - others if name.split()[-1] in training}) >= number

    wait_for(lambda: true(2, set()), "the first trials on the page", 150)
    first = set(now)
    browser.save_screenshot(str(folder / "first.png"))
    wait_for(lambda: true(1, first), "a trial after them on the page", 150)
    browser.save_screenshot(str(folder / "next.png"))
    seen |= {"first": sorted(first), "next": sorted(now)}
    # a request that fails is logged, too: those without the token, and for a Grafana that is not there
    log = browser.get_log("browser")
    seen["errors"] = [one for one in log if one["level"] == "SEVERE" and one["source"] != "network"]
    browser.quit()
    return seen


def ask(path: str, **parameters: str) -> Any:
    url = f"{PROMETHEUS}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
    try:
        answer = json.load(urllib.request.urlopen(url, timeout=10))
    except urllib.error.HTTPError as error:
        raise AssertionError(f"{parameters}: {error.read().decode()}") from None
    assert answer["status"] == "success", answer
    return answer["data"]


def documented(image: str) -> list[str]:
    """What sweeps/README.md has docker run: arguments after the image's name, files by where they are here."""
    lines = (ROOT / "sweeps" / "README.md").read_text().replace("\\\n", " ").splitlines()
    words = shlex.split(next(line for line in lines if line.startswith("docker run") and image in line), comments=True)
    mounts = [words[number + 1].split(":") for number, word in enumerate(words) if word == "-v"]
    arguments = words[words.index(image) + 1 :]
    for here, there, *_ in mounts:
        arguments = [word.replace(there, here.replace("$PWD", str(ROOT))) for word in arguments]
    return arguments


def prometheus(folder: Path, sweep: subprocess.Popen[bytes], home: Path) -> dict[str, Any]:
    # Debian's keeps its data in /var/lib
    command = ["prometheus", *documented("prom/prometheus"), f"--storage.tsdb.path={folder / 'data'}"]
    with open(folder / "prometheus.log", "wb") as log:
        subprocess.Popen(command, cwd=home, stdout=log, stderr=subprocess.STDOUT)

    def answers() -> bool:
        with contextlib.suppress(OSError):
            return status(f"{PROMETHEUS}/-/ready") == 200
        return False

    wait_for(answers, "Prometheus")
    dashboard = json.loads((ROOT / "sweeps" / "grafana" / "dashboards" / "sweeps.json").read_text())
    panels = {
        f"{panel['title']} {target['refId']}": target["expr"]
        for panel in dashboard["panels"]
        for target in panel["targets"]
    }
    series: dict[str, list[dict[str, Any]]] = {}

    def evaluate() -> None:
        """Every panel as Grafana asks for it: over a time, with the variable's value for All or one sweep chosen."""
        for chosen in (".*", "pilcro"):
            for name, expression in panels.items():
                now = time.time()
                answer = ask(
                    "query_range",
                    query=expression.replace("$sweep", chosen),
                    start=f"{now - 60:.3f}",
                    end=f"{now:.3f}",
                    step="10",
                )
                series[f"{name} {chosen}"] = answer["result"]

    expected = len(panels) - 1  # no GPU here

    def shown() -> bool:
        assert sweep.poll() is None, f"the sweep has ended before that was seen: {series}"
        evaluate()
        return sum(map(bool, series.values())) >= 2 * expected

    with contextlib.suppress(AssertionError):  # what is lacking is told by the test
        wait_for(shown, "data in every panel", 120)
    return {
        "series": {name: [one["metric"] for one in found] for name, found in series.items()},
        "last": {name: [float(one["values"][-1][1]) for one in found] for name, found in series.items()},
        "sweeps": ask("label/sweep/values", **{"match[]": "ray_sweep_trials"}),
        "targets": {one["scrapeUrl"]: one["health"] for one in ask("targets")["activeTargets"]},
        "dashboard_without_token": status("http://127.0.0.1:8265/api/jobs/"),
    }


def main(folder: Path, what: str) -> None:
    drill: Callable[[Path, subprocess.Popen[bytes], Path], dict[str, Any]] = {"page": page, "prometheus": prometheus}[
        what
    ]
    home = Path(tempfile.mkdtemp(dir=folder))
    environment = machine(home)
    os.environ.clear()
    os.environ.update(environment)
    arguments = ["--dashboard"]
    if what == "prometheus":
        os.environ["RAY_AUTH_MODE"] = "token"
        subprocess.run([RAY, "get-auth-token", "--generate"], check=True, stdout=subprocess.DEVNULL)
        start = [RAY, "start", "--head", "--port=6379", "--num-cpus=2", "--dashboard-host=127.0.0.1"]
        subprocess.run(start, check=True, stdout=subprocess.DEVNULL)
        arguments = []
    command = [sys.executable, SCRIPT, "--storage", str(folder / "results"), *SWEEP, *arguments]
    with open(folder / "out", "wb") as out:
        sweep = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
    print(json.dumps(drill(folder, sweep, home)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
