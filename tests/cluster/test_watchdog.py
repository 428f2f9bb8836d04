"""When a worker ends itself. On machines that come and go: `test_ray_up.py`."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path

import grpc
import pytest
import yaml

from sweeps.driver import watchdog

ROOT = Path(__file__).resolve().parents[2]
HEAD = "127.0.0.1:6379"


class Worker:
    """A worker with a clock, whose head is there or not."""

    def __init__(self, last: Path) -> None:
        self.last, self.now, self.head, self.ended = last, 1000.0, True, False

    def look(self, after: float, minutes: float = 15) -> bool:
        """Whether it ends at a look so many seconds after the one before."""
        self.now += after
        watchdog.check(HEAD, minutes, self.last)
        return self.ended


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Worker:
    made = Worker(tmp_path / "last")

    def shut_down(command: list[str], check: bool) -> None:
        assert command[:3] == ["shutdown", "-h", "now"]
        made.ended = True

    monkeypatch.setattr(watchdog.time, "monotonic", lambda: made.now)
    monkeypatch.setattr(watchdog, "answers", lambda host, port: made.head)
    monkeypatch.setattr(watchdog.subprocess, "run", shut_down)
    return made


def test_a_worker_without_a_head_ends_after_fifteen_minutes(worker: Worker) -> None:
    assert not worker.look(0)
    worker.head = False
    assert [worker.look(60) for _ in range(15)] == [False] * 14 + [True]


def test_ray_is_started_anew_on_the_head(worker: Worker) -> None:
    """Fourteen minutes without, again and again: what counts is the last time that it answered."""
    for _ in range(5):
        worker.head = True
        assert not worker.look(60)
        worker.head = False
        assert not any(worker.look(60) for _ in range(14))


def test_a_worker_that_is_being_set_up_has_its_fifteen_minutes(worker: Worker) -> None:
    """The head, which set it up, is away at the first look."""
    worker.head = False
    assert [worker.look(60) for _ in range(16)] == [False] * 15 + [True]


def test_a_clock_that_began_anew(worker: Worker) -> None:
    """What was noted before a boot, should it be there still, is no time since."""
    worker.last.write_text("9999999\n")
    worker.head = False
    assert not worker.look(0)
    assert [worker.look(60) for _ in range(15)] == [False] * 14 + [True]


@pytest.mark.parametrize("noted", ["", "x"])
def test_a_note_that_cannot_be_read_starts_the_time_anew(worker: Worker, noted: str) -> None:
    worker.last.write_text(noted)
    worker.head = False
    assert not worker.look(0)
    assert [worker.look(60) for _ in range(15)] == [False] * 14 + [True]


def test_the_wall_clock_does_not_matter(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    worker.look(0)
    worker.head = False
    monkeypatch.setattr(watchdog.time, "time", lambda: 4e9)
    assert not worker.look(60)


def test_a_grpc_server_answers() -> None:
    server = grpc.server(futures.ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        assert watchdog.answers("127.0.0.1", port)
    finally:
        server.stop(0).wait()
    assert not watchdog.answers("127.0.0.1", port)


@contextlib.contextmanager
def listening(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server that treats its one guest as told."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                guest, _ = server.accept()
                with guest:
                    answer(guest)

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        thread.join()


def test_what_only_listens_does_not_answer() -> None:
    """A process that hangs: its kernel accepts the connection."""
    done = threading.Event()
    with listening(lambda guest: done.wait(10) and None) as port:
        assert not watchdog.answers("127.0.0.1", port, seconds=0.3)
        done.set()


@pytest.mark.parametrize("answer", [b"", b"\x00\x00", b"-ERR unknown command\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_another_server_does_not_answer(answer: bytes) -> None:
    with listening(lambda guest: guest.sendall(answer)) as port:
        assert not watchdog.answers("127.0.0.1", port, seconds=2)


def test_a_server_that_drips_is_not_waited_for() -> None:
    done = threading.Event()

    def drip(guest: socket.socket) -> None:
        while not done.wait(0.1):
            guest.sendall(b"\x00")

    with listening(drip) as port:
        assert not watchdog.answers("127.0.0.1", port, seconds=0.35)
        done.set()


def test_the_units_are_right(tmp_path: Path) -> None:
    """By systemd's own check."""
    if not shutil.which("systemd-analyze"):
        pytest.skip("without systemd-analyze (Debian: apt install systemd)")
    for name, text in watchdog.units(HEAD, 15).items():
        (tmp_path / name).write_text(text)
    environment = {**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"}
    verify = ["systemd-analyze", "verify", "--man=no", *map(str, tmp_path.iterdir())]
    done = subprocess.run(verify, capture_output=True, text=True, env=environment, check=False)
    about = [line for line in done.stderr.splitlines() if watchdog.NAME in line]
    assert (done.returncode, about) == (0, [])
    (tmp_path / f"{watchdog.NAME}.timer").write_text("[Timer]\nOnActiveSec=often\n")
    done = subprocess.run(verify, capture_output=True, text=True, env=environment, check=False)
    assert "often" in done.stderr


def test_it_is_installed_again_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what is installed is whole: it runs alone, on Python's own library."""
    called: list[list[str]] = []
    monkeypatch.setattr(watchdog, "UNITS", tmp_path)
    monkeypatch.setattr(watchdog, "SCRIPT", tmp_path / "lib" / "watchdog.py")
    with monkeypatch.context() as patch:
        patch.setattr(watchdog.subprocess, "run", lambda command, check: called.append(command))
        watchdog.install(HEAD, 15)
        watchdog.install("10.0.0.9:6379", 15)
    assert [command[1] for command in called] == ["daemon-reload", "enable", "restart"] * 2
    service = (tmp_path / f"{watchdog.NAME}.service").read_text()
    assert "check 10.0.0.9:6379 15\n" in service
    assert HEAD not in service
    for arguments, said in [
        (["check", "10.0.0.9", "15"], "'10.0.0.9', must be <address>:<port>"),
        (["check", HEAD, "0"], "minutes above 0"),
        (["stop", HEAD, "15"], "stop"),
        (["check"], "given as"),
    ]:
        script = [sys.executable, "-I", "-S", str(tmp_path / "lib" / "watchdog.py"), *arguments]
        done = subprocess.run(script, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert said in done.stderr


def test_cluster_yaml_has_one_time_for_both() -> None:
    """A worker that is not set up and one that is without its head are given equally long."""
    worker = yaml.safe_load((ROOT / "cluster.yaml").read_text())["available_node_types"]["gpu"]
    assert "--on-active=15min " in worker["node_config"]["UserData"]
    assert worker["node_config"]["UserData"].startswith("#!/bin/sh\n")
    assert worker["initialization_commands"][0].endswith("/sweeps/driver/watchdog.py install $RAY_HEAD_IP:6379 15")
