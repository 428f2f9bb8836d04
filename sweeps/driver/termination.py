"""SIGTERM, which ends a run as Ctrl-C does."""

from __future__ import annotations

import threading

terminated = threading.Event()


def terminate(number: int, frame: object) -> None:
    """SIGTERM, as `ray job stop` and a shutdown send it, ends a run as Ctrl-C does."""
    terminated.set()  # of an exception of its own Ray would make a KeyboardInterrupt
    raise KeyboardInterrupt
