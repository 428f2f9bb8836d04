"""A Ray of a sweep's own, on this machine alone: nobody else can reach it, and it ends with the sweep."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray

from sweeps.driver.address import NoRay
from sweeps.driver.leftovers import trouble

PRELOADED = ("torch", "torch._dynamo", "trainables.trainable")
"""What each worker of a local Ray imports while the driver is still busy; optimisers need the second."""
LOOPBACK = "127.0.0.1"
REGISTERS_WITHIN = 120.0
"""Seconds that Ray's node may take to start, on a busy machine; Ray itself gives it 30."""


@contextlib.contextmanager
def local_ray(folder: str, dashboard: bool, trials: float) -> Iterator[str]:
    """While the context is open a Ray runs that listens on the loopback interface alone and has its files in
    `folder`; the folder of its session. Ray opens its own folders to everybody, again and again: `folder` is to be one
    that nobody else may enter. `trials`: how many processors the trials would use, were there enough.

    Raises `NoRay` if it does not start, twice.
    """
    check_token_file()
    try:
        for last in (False, True):
            nodes: list[Any] = []
            try:
                # without --dashboard the cores are the trials' alone
                with _lean(dashboard, nodes):
                    ray.init(
                        address="local",
                        include_dashboard=dashboard,
                        log_to_driver=False,
                        logging_level=logging.ERROR,
                        _node_ip_address=LOOPBACK,
                        _temp_dir=f"{folder}/ray",
                        _system_config=_workers() if _all_are_used(trials) else None,
                    )
                break
            except Exception as error:
                _clear(nodes)
                if last:
                    raise NoRay(_why(error)) from error
                print(f"Ray did not start ({_brief(error)}); once more", file=sys.stderr)
        node: Any = ray._private.worker._global_node
        session: str = node.get_session_dir_path()
        yield session
    finally:
        ray.shutdown()


def _why(error: Exception) -> str:
    cores, (load, _, _) = len(os.sched_getaffinity(0)), os.getloadavg()
    way_out = trouble() or (
        f"this machine is busy (load {load:.0f} on {cores} cores): wait until it is less so, or leave it more room"
        if load > 2 * cores and "timed out" in str(error)
        else "look whether memory and /dev/shm have room, or start it by hand: ray start --head"
    )
    return f"Ray did not start on this machine, twice ({_brief(error)}); {way_out}"


def _brief(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _clear(nodes: list[Any]) -> None:
    """End what of Ray has started before the start failed, so that nothing stands in the next one's way."""
    ray.shutdown()
    for node in nodes:
        node.kill_all_processes(check_alive=False, allow_graceful=False)


@contextlib.contextmanager
def _lean(dashboard: bool, nodes: list[Any]) -> Iterator[None]:
    """While the context is open, Ray starts

    - without what a local one has no use for, and waits for seconds: an autoscaler, what brings logs to the driver, and
      a dashboard's server even where there is to be none;
    - on the loopback interface: Ray would make of 127.0.0.1 the machine's address, and listen on all its interfaces;
    - with the patience of `REGISTERS_WITHIN`;
    - and puts its node into `nodes`, also if that does not come to life.
    """
    node: Any = ray._private.node.Node
    services: Any = ray._private.services
    idle = ["start_monitor", "start_log_monitor", *([] if dashboard else ["start_api_server"])]
    before = [(node, name, getattr(node, name)) for name in (*idle, "start_head_processes") if hasattr(node, name)]
    before += [(services, name, getattr(services, name)) for name in ("resolve_ip_for_localhost", "get_node")]
    begin, look = node.start_head_processes, services.get_node

    def start_head_processes(self: Any) -> None:
        nodes.append(self)
        begin(self)

    def get_node(*arguments: Any) -> Any:
        until = time.monotonic() + REGISTERS_WITHIN
        while True:
            try:
                return look(*arguments)
            except RuntimeError:  # not there yet
                if time.monotonic() > until or nodes[-1].dead_processes():
                    raise
            time.sleep(0.1)

    for name in idle:
        setattr(node, name, lambda self, **_: None)
    node.start_head_processes = start_head_processes
    services.resolve_ip_for_localhost = lambda host: host
    services.get_node = get_node
    try:
        yield
    finally:
        for owner, name, function in before:
            setattr(owner, name, function)


def _workers() -> dict[str, Any]:
    """Ray's settings for workers that wait, with what they need imported, until trials come; Ray would end those that
    have been idle for a second."""
    return {"preload_python_modules": list(PRELOADED), "idle_worker_killing_time_threshold_ms": 60_000}


def _all_are_used(trials: float) -> bool:
    """Whether trials will use all workers that Ray starts at once, one for each processor: torch takes hundreds of
    megabytes of each. Where there are GPUs, trials are as many as these."""
    return trials >= len(os.sched_getaffinity(0)) and not Path("/dev/nvidiactl").exists()


def check_token_file() -> None:
    """Have the password of local Rays, `~/.ray/auth_token`, where this user alone can read it: Ray would make one that
    everybody can. Where it cannot be kept in a home, it is made up for this sweep."""
    given = any(os.environ.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))
    if given or os.environ.get("RAY_AUTH_MODE", "token").lower() != "token":
        return
    file = Path(os.path.expanduser("~/.ray/auth_token"))
    try:
        if not file.is_absolute():
            raise FileNotFoundError("no home folder")
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not file.exists():
            _make_token(file)
    except OSError:
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
        return
    for path in (file.parent, file):
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o077:
            try:
                path.chmod(mode & 0o700)
                print(f"{path} was open to other users ({mode:04o}) and no longer is", file=sys.stderr)
            except OSError as error:
                print(f"{path} is open to other users ({mode:04o}) and stays so: {error.strerror}", file=sys.stderr)


def _make_token(file: Path) -> None:
    """The whole file or none, and never one that is there replaced."""
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=".auth_token-")  # for this user alone
    try:
        with open(handle, "w") as opened:
            opened.write(secrets.token_hex(32))
        with contextlib.suppress(FileExistsError):  # another sweep was faster
            os.link(name, file)
    finally:
        os.remove(name)
