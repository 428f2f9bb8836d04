"""Which Ray a sweep joins: that of RAY_ADDRESS, or one that this user has started on this machine with `ray start`."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from analysis.command_line import InputError


class NoRay(Exception):
    """No Ray could be started, or the one that was used has ended. The message is one line."""


def check_address_form(address: str) -> None:
    """Refuse a RAY_ADDRESS that no driver can use, before anything is loaded."""
    if address.startswith("ray://"):
        raise InputError(
            f"RAY_ADDRESS: {address}, sweeps do not run through Ray Client; give the command on a node of the "
            "cluster with RAY_ADDRESS=host:6379, or hand it over with ray job submit"
        )
    host, _, port = address.rpartition(":")
    if address not in ("", "auto", "local") and not (host and "/" not in host and port.isdigit()):
        raise InputError(f"RAY_ADDRESS: {address!r}, allowed are host:port of the cluster's head, auto and local")


def address_to_join() -> str | None:
    """Host and port of the Ray to join; None where the sweep is to start one of its own.

    Raises `InputError` if nobody answers at RAY_ADDRESS, at which Ray itself would try for minutes.
    """
    named = os.environ.get("RAY_ADDRESS", "")
    check_address_form(named)
    if named == "local":
        return None
    if named not in ("", "auto"):
        told = refusal(named)
        if told:
            raise InputError(
                f"RAY_ADDRESS: no Ray answers at {named} ({told}); start it, or unset RAY_ADDRESS for a local one"
            )
        return named
    started = started_by_hand()
    if named and not started:
        raise InputError(
            "RAY_ADDRESS: auto, and you have started no Ray on this machine; run ray start --head, or unset "
            "RAY_ADDRESS for a local one"
        )
    return started


def refusal(address: str) -> str:
    """Why nobody can be reached at host:port; empty where somebody answers."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        return str(getattr(error, "strerror", None) or error)
    return ""


def started_by_hand() -> str | None:
    """The address that `ray start` has left on this machine, if it can be believed.

    The folder where it lies is anybody's to write to, and a token would go to whoever is named there. So the file, the
    raylet that was started with this address and its sockets must all be this user's; and if the address is one of this
    machine, so must be whoever listens there: a port may have passed on to another. What `ray.init` starts, as other
    sweeps do for themselves, leaves no such file. With `--temp-dir` it lies there, as the raylet's command line says.
    """
    from ray._common.utils import get_ray_address_file  # here, as the form of an address is checked without Ray

    raylets = [_options(arguments) for arguments in _own_processes() if Path(arguments[0]).name == "raylet"]
    folders = [None, *sorted({raylet["--temp_dir"] for raylet in raylets if raylet.get("--temp_dir")})]
    found = (_believed(get_ray_address_file(folder), raylets) for folder in folders)
    return next((address for address in found if address is not None), None)


def _believed(file_name: str, raylets: list[dict[str, str]]) -> str | None:
    """The address in such a file, where all is this user's."""
    try:
        handle = os.open(file_name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    with open(handle) as file:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.getuid() or status.st_nlink != 1:
            return None
        address = file.read(1000).strip()
    try:
        check_address_form(address)
    except InputError:
        return None
    if not any(_is_of(address, raylet) for raylet in raylets):
        return None
    listeners = _listeners(address)
    there = not refusal(address) if listeners is None else listeners == {os.getuid()}
    return address if there else None


def _own_processes() -> Iterator[list[str]]:
    """The command lines of this user's processes that have this one's network and files: what runs in a container is
    seen from outside, and its ports and paths are others."""
    here = _namespaces(Path("/proc/self"))
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended while we looked
            if entry.stat().st_uid == os.getuid() and _namespaces(entry) == here:
                yield (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")


def _namespaces(process: Path) -> tuple[str, ...]:
    return tuple(os.readlink(process / "ns" / name) for name in ("net", "mnt"))


def _options(arguments: list[str]) -> dict[str, str]:
    pairs = (argument.partition("=") for argument in arguments if argument.startswith("--"))
    return {name: value for name, equals, value in pairs if equals}


def _is_of(address: str, raylet: dict[str, str]) -> bool:
    """Whether a raylet with these options is of the cluster, and its sockets are this user's."""
    if raylet.get("--gcs-address") != address:
        return False
    try:
        return all(os.stat(raylet[f"--{name}_socket_name"]).st_uid == os.getuid() for name in ("raylet", "store"))
    except (KeyError, OSError):
        return False


def _listeners(address: str) -> set[int] | None:
    """The users who listen at a port of this machine, by the kernel's tables; None for another machine's address."""
    host, _, port = address.rpartition(":")
    with socket.socket(socket.AF_INET6 if ":" in host.strip("[]") else socket.AF_INET) as probe:
        try:
            probe.bind((host.strip("[]"), 0))
        except OSError:
            return None  # not an address of this machine
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(FileNotFoundError):  # a kernel without IPv6
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == int(port):
                    found.add(int(fields[7]))
    return found
