"""Whether the Ray that a sweep runs on is still there: where it is not, Ray itself ends the process without a word."""

from __future__ import annotations

import _thread
import contextlib
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import ray

from sweeps.driver.address import NoRay, refusal
from sweeps.driver.leftovers import end

LOOKS_EVERY = 1.0
RAYLET_GONE_AFTER = 3.0
"""Seconds for which nobody may listen at the socket of this machine's raylet, which does not start again."""
ENDS_WITHIN = 5.0
"""Seconds that the driver may take to end in order, once Ray is gone; its calls to Ray may never return."""


@contextlib.contextmanager
def watched(gone_after: float, folder: str | None) -> Iterator[None]:
    """While the context is open, the Ray that this process is connected to is looked at. If its head has not answered
    for so many seconds, or this machine's raylet is gone, `NoRay` is raised in the main thread, or, where that hangs in
    a call to Ray, told, and the process ended. Ray itself would try for 60 s. `folder`: that of a Ray of the sweep's
    own, what remains of which is ended."""
    node: Any = ray._private.worker._global_node
    ended, reasons = threading.Event(), []

    def missing() -> tuple[str, float]:
        """What is, and for how many seconds it may be so; nothing where all is well."""
        with socket.socket(socket.AF_UNIX) as raylet:
            raylet.settimeout(5.0)
            try:
                raylet.connect(node.raylet_socket_name)
            except TimeoutError:  # it is there, and busy or stopped
                pass
            except OSError as error:
                return f"the node of Ray on this machine has ended ({error.strerror})", RAYLET_GONE_AFTER
        told = refusal(node.gcs_address)
        return (f"the Ray at {node.gcs_address} has ended ({told})" if told else ""), gone_after

    def watch() -> None:
        since = None
        while not ended.wait(LOOKS_EVERY):
            told, may_last = missing()
            if not told:
                since = None
                continue
            since = since or time.monotonic()
            if time.monotonic() - since >= may_last:
                break
        else:
            return
        reasons.append(told)
        if folder is not None:
            end(folder)
        _thread.interrupt_main()
        if not ended.wait(ENDS_WITHIN):
            sys.stdout.flush()
            print(f"error: {told}; the same command goes on where it was", file=sys.stderr, flush=True)
            os._exit(3)

    threading.Thread(target=watch, daemon=True, name="ray-watch").start()
    try:
        yield
    except BaseException as error:
        if reasons:  # whatever Ray's calls made of it
            raise NoRay(reasons[0]) from error
        raise
    finally:
        if not reasons:  # else what follows may hang, too
            ended.set()
