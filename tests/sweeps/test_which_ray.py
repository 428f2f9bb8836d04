"""Which Ray a sweep uses: whose address is believed, and that several sweeps on one machine leave each other alone."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from rich.console import Console

from sweeps.driver import neighbours
from sweeps.driver.address import address_to_join, started_by_hand
from tests.sweeps.driving import LONGER, SHORTER, end, finish, listening, processes_below, results, start, wait_for
from trainables.turns import Turns

NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to be two users")


@contextlib.contextmanager
def raylet(address: str, folder: Path, temp_dir: str = "", inside: Sequence[str] = (), **named: str) -> Iterator[None]:
    """A process whose command line is that of a raylet."""
    sockets = {name: str(folder / name) for name in ("raylet", "store")} | named
    for path in sockets.values():
        Path(path).touch()
    options = [f"--gcs-address={address}", *(f"--{name}_socket_name={path}" for name, path in sockets.items())]
    options.append(f"--temp_dir={temp_dir}")
    command = ["/somewhere/raylet", "-c", "import time; print('there', flush=True); time.sleep(60)", *options]
    # a shell gives the process its name, as a namespace's program does not
    named_so = ["bash", "-c", 'exec -a "$0" "$@"', command[0], sys.executable, *command[1:]]
    process = subprocess.Popen([*inside, *named_so], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    try:
        yield
    finally:
        process.kill()
        process.wait()


class TestStartedByHand:
    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.delenv("RAY_ADDRESS", raising=False)
        monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
        (tmp_path / "ray").mkdir(mode=0o777)
        return tmp_path

    @pytest.fixture
    def address(self) -> Iterator[str]:
        with socket.create_server(("127.0.0.1", 0)) as server:
            yield f"127.0.0.1:{server.getsockname()[1]}"

    def test_is_found(self, folder: Path, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
        assert started_by_hand() is None
        (folder / "ray" / "ray_current_cluster").write_text(address)
        with raylet(address, folder):
            assert started_by_hand() == address == address_to_join()
            monkeypatch.setenv("RAY_ADDRESS", "local")
            assert address_to_join() is None
            monkeypatch.setenv("RAY_ADDRESS", "auto")
            assert address_to_join() == address

    def test_is_found_where_its_folder_is_another(self, folder: Path, address: str) -> None:
        """`ray start --head --temp-dir elsewhere` writes the file there."""
        elsewhere = folder / "elsewhere"
        elsewhere.mkdir()
        (elsewhere / "ray_current_cluster").write_text(address)
        with raylet(address, folder):
            assert started_by_hand() is None  # of another folder's no raylet tells
        with raylet(address, folder, temp_dir=str(elsewhere)):
            assert started_by_hand() == address

    @as_root
    @pytest.mark.parametrize("apart", ["--net", "--mount"])
    def test_a_containers_is_not_this_machines(self, folder: Path, address: str, apart: str) -> None:
        """Its processes are seen from here, its network and files are not."""
        (folder / "ray" / "ray_current_cluster").write_text(address)
        with raylet(address, folder, temp_dir=str(folder / "ray"), inside=["unshare", apart]):
            assert started_by_hand() is None
        with raylet(address, folder, temp_dir=str(folder / "ray")):
            assert started_by_hand() == address

    def test_is_none_where_it_has_ended(self, folder: Path, address: str, nobody: str) -> None:
        file = folder / "ray" / "ray_current_cluster"
        file.write_text(address)
        assert started_by_hand() is None  # no raylet
        with raylet("127.0.0.1:1", folder):
            assert started_by_hand() is None  # that of another cluster
        file.write_text(nobody)
        with raylet(nobody, folder):
            assert started_by_hand() is None  # nobody listens
        for garbage in ("", "x", "ray://127.0.0.1:1", "\0", "a" * 2000):
            file.write_text(garbage)
            assert started_by_hand() is None

    def test_no_link_is_believed(self, folder: Path, address: str) -> None:
        """To a file of this user's with an address of old, at which another listens by now."""
        old, file = folder / "old", folder / "ray" / "ray_current_cluster"
        old.write_text(address)
        with raylet(address, folder):
            file.symlink_to(old)
            assert started_by_hand() is None
            file.unlink()
            os.link(old, file)
            assert started_by_hand() is None
            old.unlink()
            assert started_by_hand() == address

    @as_root
    @pytest.mark.parametrize("whose", ["file", "raylet", "store"])
    def test_nothing_of_another_users_is_believed(self, folder: Path, address: str, whose: str) -> None:
        file = folder / "ray" / "ray_current_cluster"
        file.write_text(address)
        with raylet(address, folder):
            assert started_by_hand() == address
            os.chown(file if whose == "file" else folder / whose, NOBODY, NOBODY)
            assert started_by_hand() is None

    @as_root
    def test_nor_one_who_listens_at_a_port_that_was_ours(self, folder: Path) -> None:
        with another_listens() as (address, _):
            (folder / "ray" / "ray_current_cluster").write_text(address)
            with raylet(address, folder):
                assert started_by_hand() is None


@contextlib.contextmanager
def another_listens() -> Iterator[tuple[str, Callable[[], bool]]]:
    """Another user's address on this machine, and whether anybody has connected to it."""
    code = (
        "import os, socket\n"
        f"os.setgid({NOBODY}); os.setuid({NOBODY})\n"
        "server = socket.create_server(('127.0.0.1', 0))\n"
        "print(server.getsockname()[1], flush=True)\n"
        "server.accept()\n"
        "print('somebody came', flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield f"127.0.0.1:{process.stdout.readline().strip()}", lambda: process.poll() is not None
    finally:
        process.kill()
        process.wait()


LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F"}  # 127.0.0.1, also as an IPv6 address


def several(folder: Path, count: int, seconds: float, env: dict[str, str]) -> list[tuple[str, str]]:
    """Run so many sweeps at once; what each has said."""
    processes = [start(folder / str(index), *SHORTER, env=env) for index in range(count)]
    workers = re.compile("ray::Trial")
    wait_for(lambda: any(workers.search(name) for name in processes_below(processes[-1].pid).values()), "trials", 120)
    found_at = [listening([process.pid, *processes_below(process.pid)]) for process in processes]
    addresses = [{address for address, _ in found} for found in found_at]
    said = []
    for process in processes:
        code, out, err = finish(process, seconds)
        assert code == 0, err
        said.append((out, err))
    assert all(found <= LOOPBACK for found in addresses), addresses
    assert addresses[-1]
    return said


@pytest.mark.ray
def test_two_sweeps_at_once(shorter: Path, tmp_path: Path) -> None:
    """Each has a Ray of its own, which nobody else can reach; they take turns and say so; the numbers are the same.
    What another user has written where Ray keeps its address is not believed, and nobody connects there."""
    with contextlib.ExitStack() as stack:
        temporary = stack.enter_context(tempfile.TemporaryDirectory(prefix="t-", dir="/tmp"))
        came: Callable[[], bool] = bool
        if os.geteuid() == 0:
            address, came = stack.enter_context(another_listens())
            file = Path(temporary) / "ray" / "ray_current_cluster"
            file.parent.mkdir(mode=0o777)
            file.write_text(address)
            os.chown(file, NOBODY, NOBODY)
        said = several(tmp_path, 2, 240, {"TMPDIR": temporary})
        assert not came()
    wanted = results(shorter)
    for index in range(2):
        found = results(tmp_path / str(index))
        assert all(found[table].equals(wanted[table]) for table in wanted)
    assert [err for _, err in said] == ["", ""]
    cores = len(os.sched_getaffinity(0))
    for out, _ in said:
        assert out.startswith(f"Ray: this sweep's own, {cores} CPU")
        assert re.search(r"in turns( with pilcro \(process \d+\))?$", out, re.MULTILINE), out


@pytest.mark.long
@pytest.mark.ray
def test_four_sweeps_at_once(shorter: Path, tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="t-", dir="/tmp") as temporary:
        several(tmp_path, 4, 500, {"TMPDIR": temporary})
    wanted = results(shorter)
    for index in range(4):
        found = results(tmp_path / str(index))
        assert all(found[table].equals(wanted[table]) for table in wanted)


@pytest.mark.ray
@pytest.mark.parametrize("part", ["gcs_server", "raylet"])
def test_a_ray_that_ends_is_told_in_a_line(uninterrupted: Path, tmp_path: Path, part: str) -> None:
    process = start(tmp_path, *LONGER)
    wait_for(lambda: any((tmp_path / "pilcro").glob("checkpoints/*/*.pt")), "a checkpoint")
    pid = next(pid for pid, name in processes_below(process.pid).items() if Path(name.split(" ")[0]).name == part)
    os.kill(pid, signal.SIGKILL)
    started = time.monotonic()
    code, _, err = finish(process)
    assert code == 3, err
    assert time.monotonic() - started < 50  # Ray itself would try for 60 s, and say nothing
    said = [line for line in err.splitlines() if line.startswith("error:")]
    assert len(said) == 1
    assert "has ended (Connection refused); " in said[0]
    code, _, err = finish(start(tmp_path, *LONGER))
    assert code == 0, err
    wanted, found = results(uninterrupted), results(tmp_path)
    assert all(found[table].equals(wanted[table]) for table in wanted)
    end()


def _hold(folder: str, amount: float, there: float, seconds: float, log: str) -> None:
    tempfile.tempdir = folder
    turns = Turns()
    for _ in range(5):
        with turns.held({"CPU": amount, "GPU": 0.0}, {"CPU": there}):
            with open(log, "a") as file:
                file.write(f"+{amount}\n")
            time.sleep(seconds)
            with open(log, "a") as file:
                file.write(f"-{amount}\n")


class TestTurns:
    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        return tmp_path

    @pytest.mark.parametrize("amounts", [[1.0] * 5, [0.5, 0.5, 1.5, 2.0], [3.0, 3.0, 1.0]])
    def test_no_more_is_held_than_there_is(self, folder: Path, amounts: list[float]) -> None:
        """And of what is more than all there is, no two at once; everybody gets a turn, and more than one at a time."""
        log, there = folder / "log", 2.0
        context = multiprocessing.get_context("spawn")
        processes = [
            context.Process(target=_hold, args=(str(folder), amount, there, 0.02, str(log))) for amount in amounts
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(60)
            assert process.exitcode == 0
        changes = [float(line) for line in log.read_text().split()]
        assert len(changes) == 10 * len(amounts)
        held, most = [], 0.0
        for change in changes:
            held.append(change) if change > 0 else held.remove(-change)
            most = max(most, sum(held))
            assert sum(held) <= there or len(held) == 1
        assert most == max(there, *amounts)

    def test_who_dies_gives_back_what_it_held(self, folder: Path) -> None:
        log = folder / "log"
        context = multiprocessing.get_context("spawn")
        process = context.Process(target=_hold, args=(str(folder), 2.0, 2.0, 60.0, str(log)))
        process.start()
        wait_for(log.exists, "its turn")
        turns = Turns(sweep="mine")
        assert [other["held"] for other in turns.others()] == [{"CPU": 2.0}]
        process.kill()
        process.join()
        with turns.held({"CPU": 1.0}, {"CPU": 2.0}):
            assert turns.others() == []
        other = Turns()
        assert [(found["pid"], found["sweep"], found["held"]) for found in other.others()] == [
            (os.getpid(), "mine", {})
        ]
        turns.close()
        assert other.others() == []

    def test_who_is_stopped_holds_nobody_up(self, folder: Path) -> None:
        log = folder / "log"
        process = multiprocessing.get_context("spawn").Process(
            target=_hold, args=(str(folder), 2.0, 2.0, 60.0, str(log))
        )
        process.start()
        wait_for(log.exists, "its turn")
        assert process.pid is not None
        os.kill(process.pid, signal.SIGSTOP)
        with Turns().held({"CPU": 1.0}, {"CPU": 2.0}):
            pass
        process.kill()
        process.join()

    def test_who_waits_for_long_is_told_of(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(neighbours, "LONG", 0.5)
        monkeypatch.setattr(neighbours, "LOOKS_EVERY", 0.1)
        holder, waiter = Turns(trial_of="other"), Turns(trial_of="mine")
        with neighbours.Neighbours("mine", Console(width=200)):
            with holder.held({"CPU": 2.0}, {"CPU": 2.0}):

                def wait() -> None:
                    with waiter.held({"CPU": 1.0}, {"CPU": 2.0}):
                        pass

                thread = threading.Thread(target=wait)
                thread.start()
                time.sleep(1.5)
            thread.join()
            time.sleep(0.3)
        told = capsys.readouterr().out.splitlines()
        assert 2 <= len(told) <= 3
        assert all(
            re.fullmatch(rf"1 trial waits for a turn, .* [12] s; at work: other \(process {os.getpid()}\)", line)
            for line in told[:2]
        ), told

    def test_a_folder_of_another_user_is_refused(self, folder: Path) -> None:
        (folder / f"sweeps-turns-{os.getuid()}").mkdir(mode=0o777)
        (folder / f"sweeps-turns-{os.getuid()}").chmod(0o777)
        with pytest.raises(PermissionError, match="is open to other users"):
            Turns()
