"""What a machine of `machines.py` has instead of systemd: `systemctl`, `systemd-run`, `shutdown`, and `sudo`.

Nor is there a network: `curl` has the files of a folder. A timer's minutes are three seconds. `shutdown` leaves a mark
by which `Machines` does what EC2 does with an instance that shuts itself down.
"""

from __future__ import annotations

import configparser
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

UNITS = Path("/etc/systemd/system")
RUNNING = Path("/run/systemd-stand-in")
ASKED = "shut-down"
"""The file in a machine's /tmp by which it is known to have shut down."""

SECONDS = {"s": 1.0, "sec": 1.0, "min": 60.0, "h": 3600.0}
MINUTE = 3.0


def install(folder: Path, wheels: Path) -> None:
    """The commands, for a machine's PATH."""
    folder.mkdir()
    commands = {
        "sudo": 'exec "$@"',
        "shutdown": f'[ "$1 $2" = "-h now" ] && : > /tmp/{ASKED}',
        "curl": f"""
            while [ $# -gt 0 ]; do
                case "$1" in
                    --output) shift; to=$1 ;;
                    https://*) from=$1 ;;
                esac
                shift
            done
            cp {shlex.quote(str(wheels))}/"${{from##*/}}" "$to"
        """,
        **{name: f'exec {sys.executable} {__file__} {name} "$@"' for name in ("systemctl", "systemd-run")},
    }
    for name, text in commands.items():
        (folder / name).write_text(f"#!/bin/bash\n{text}\n")
        (folder / name).chmod(0o755)


def seconds(span: str) -> float:
    match = re.fullmatch(r"([\d.]+)\s*([a-z]+)", span)
    assert match, span
    return float(match.group(1)) * SECONDS[match.group(2)]


def systemctl(*arguments: str) -> int:
    words = [word for word in arguments if not word.startswith("--")]
    if words[0] == "daemon-reload":
        return 0
    unit = words[1]
    if words[0] == "is-active":
        return 0 if (RUNNING / unit).exists() else 3
    if words[0] == "enable":
        return 0 if "WantedBy" in (UNITS / unit).read_text() else 1
    assert words[0] == "restart", arguments
    RUNNING.mkdir(exist_ok=True)
    if (RUNNING / unit).exists():
        os.kill(int((RUNNING / unit).read_text()), 9)
    with Path("/tmp/timer.log").open("ab") as log:
        daemon = subprocess.Popen(
            [sys.executable, __file__, "timer", unit],
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    (RUNNING / unit).write_text(str(daemon.pid))
    return 0


def timer(unit: str) -> int:
    read = configparser.ConfigParser(interpolation=None)
    read.optionxform = str  # type: ignore[assignment, method-assign]
    read.read([UNITS / unit, UNITS / unit.replace(".timer", ".service")])
    time.sleep(seconds(read["Timer"]["OnActiveSec"]) / 60 * MINUTE)
    while True:
        subprocess.run(shlex.split(read["Service"]["ExecStart"]), check=False)
        time.sleep(seconds(read["Timer"]["OnUnitActiveSec"]) / 60 * MINUTE)


def systemd_run(*arguments: str) -> int:
    when = arguments[0].removeprefix("--on-active=")
    if when == arguments[0]:  # itself, in the background
        time.sleep(float(arguments[0]))
        return subprocess.run(arguments[1:], check=False).returncode
    command = [sys.executable, __file__, "systemd-run", str(seconds(when)), *arguments[1:]]
    subprocess.Popen(command, start_new_session=True, stdin=subprocess.DEVNULL)
    return 0


if __name__ == "__main__":
    called = {"systemctl": systemctl, "timer": timer, "systemd-run": systemd_run}
    raise SystemExit(called[sys.argv[1]](*sys.argv[2:]))
