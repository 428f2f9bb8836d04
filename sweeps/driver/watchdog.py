"""Ends a worker of `cluster.yaml` that has not reached its head for some minutes: nobody else would, and it costs.

The head ends its workers while it lives; one that is lost, or whose Ray is gone, leaves them running. So each worker
looks itself, once a minute, by a systemd timer that `install` makes:

    sudo python3 -I watchdog.py install <head>:6379 <minutes>
    sudo python3 -I watchdog.py check <head>:6379 <minutes>      what the timer runs

It shuts the machine down. That this terminates the instance, which would else be stopped and cost its disk, is
`InstanceInitiatedShutdownBehavior` in cluster.yaml. Needs Python's own library alone, as it runs before anything is
installed.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

NAME = "sweeps-watchdog"
UNITS = Path("/etc/systemd/system")
SCRIPT = Path("/usr/local/lib/sweeps/watchdog.py")
LAST = Path("/run/sweeps-watchdog")  # gone with the next boot, as is the clock that it is read with
SECONDS_TO_ANSWER = 10

HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""How a gRPC client begins: HTTP/2's preface and a frame of settings without any (RFC 9113, 3.4)."""


def answers(host: str, port: int, seconds: float = SECONDS_TO_ANSWER) -> bool:
    """Whether Ray's control service is there: it greets with its settings, as any gRPC server, and without the token.

    That a connection is accepted would say less: the kernel does that for a process that hangs.
    """
    deadline = time.monotonic() + seconds
    try:
        with socket.create_connection((host, port), timeout=seconds) as connection:
            connection.sendall(HELLO)
            frame = b""
            while len(frame) < 9:  # length (3 bytes), type, flags, stream (4)
                connection.settimeout(max(deadline - time.monotonic(), 0.001))
                more = connection.recv(9 - len(frame))
                if not more:
                    return False
                frame += more
    except OSError:
        return False
    return frame[3] == 4 and frame[5:] == bytes(4)


def check(head: str, minutes: float, last: Path = LAST) -> None:
    """Look for the head once, and shut down if it was last reached `minutes` ago or more.

    The first look counts as if the head had just been reached: a worker on which this is installed was reached by it.
    """
    host, port = _address(head)
    now = time.monotonic()  # since boot, whatever is done to the wall clock
    if answers(host, port):
        _write(last, now)
        return
    before = _read(last)
    if before is None or before > now:
        before = now
        _write(last, now)
    print(f"{head} does not answer, for {now - before:.0f} s now; after {60 * minutes:.0f} s this worker ends")
    if now - before >= 60 * minutes:
        subprocess.run(["shutdown", "-h", "now", f"the head was not reached for {minutes:g} minutes"], check=True)


def units(head: str, minutes: float, python: str = sys.executable) -> dict[str, str]:
    """The two files of systemd, by name."""
    return {
        f"{NAME}.service": f"""\
[Unit]
Description=Ends this worker if its head at {head} has not answered for {minutes:g} minutes

[Service]
Type=oneshot
ExecStart={python} -I {SCRIPT} check {head} {minutes:g}
TimeoutStartSec=1min
""",
        f"{NAME}.timer": """\
[Unit]
Description=Looks for the head of this worker

[Timer]
OnActiveSec=1min
OnUnitActiveSec=1min
AccuracySec=5s

[Install]
WantedBy=timers.target
""",
    }


def install(head: str, minutes: float) -> None:
    """Make and start the timer, or bring it to these arguments."""
    SCRIPT.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(__file__, SCRIPT)
    for name, text in units(head, minutes).items():
        (UNITS / name).write_text(text)
    subprocess.run(["systemctl", "daemon-reload"], check=True)
    subprocess.run(["systemctl", "enable", f"{NAME}.timer"], check=True)
    subprocess.run(["systemctl", "restart", f"{NAME}.timer"], check=True)


def _address(head: str) -> tuple[str, int]:
    host, _, port = head.rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError(f"head: {head!r}, must be <address>:<port>")
    return host, int(port)


def _read(last: Path) -> float | None:
    try:
        return float(last.read_text())
    except (FileNotFoundError, ValueError):
        return None


def _write(last: Path, now: float) -> None:
    new = last.with_name(f"{last.name}.new")
    new.write_text(f"{now}\n")
    os.replace(new, last)


def main(argv: list[str]) -> int:
    """The command line: 0, or 2 for a wrong one."""
    commands = {"install": install, "check": check}
    try:
        command, head, minutes = argv
        after = float(minutes)
        _address(head)
        if command not in commands or not 0 < after < float("inf"):
            raise ValueError(f"{' '.join(argv)}: a command, and minutes above 0")
    except ValueError as error:
        print(f"error: {error}; given as: watchdog.py install|check <head>:<port> <minutes>", file=sys.stderr)
        return 2
    commands[command](head, after)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
