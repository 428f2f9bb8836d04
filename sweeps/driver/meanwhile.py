"""Work that goes on beside what waits: data are loaded while Ray starts."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

Result = TypeVar("Result")


def meanwhile(work: Callable[[], Result]) -> Future[Result]:
    """Begin `work` in a thread of its own; `result()` of what is returned waits for it, and raises what it raised. The
    thread keeps no process from ending, as those of an executor would: Ctrl-C does not wait for it."""
    future: Future[Result] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - whoever waits for the result is told
            future.set_exception(error)

    threading.Thread(target=run, daemon=True, name="meanwhile").start()
    return future
