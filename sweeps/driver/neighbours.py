"""Other sweeps of this user that run on this machine on a Ray of their own, and take turns with this one."""

from __future__ import annotations

import sys
import threading
from typing import Any

from rich.console import Console

from trainables.turns import Turns

LOOKS_EVERY = 2.0


class Neighbours:
    """While it is entered, others know of this sweep, and whoever comes and goes is told of in a line each.

    `shared` says whether turns are taken; where the temporary folder cannot be used for it, they are not, and that is
    told, too.
    """

    def __init__(self, name: str, console: Console) -> None:
        self.console = console
        self.known: dict[int, str] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="neighbours")
        try:
            self._turns: Turns | None = Turns(sweep=name[:100])
            self.known = self._others(self._turns)
        except OSError as error:
            self._turns = None
            print(f"processors are not shared with other sweeps of this machine: {error}", file=sys.stderr)

    @property
    def shared(self) -> bool:
        return self._turns is not None

    def __str__(self) -> str:
        return ", ".join(f"{name} (process {pid})" for pid, name in self.known.items())

    def __enter__(self) -> Neighbours:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()
        if self._turns is not None:
            self._turns.close()

    @staticmethod
    def _others(turns: Turns) -> dict[int, str]:
        return {other["pid"]: other["sweep"] for other in turns.others() if "sweep" in other}

    def _watch(self) -> None:
        while self._turns is not None and not self._ended.wait(LOOKS_EVERY):
            now: dict[int, Any] = self._others(self._turns)
            for pid in now.keys() - self.known.keys():
                self.console.print(f"another sweep has started on this machine, {now[pid]} (process {pid}): in turns")
            for pid in self.known.keys() - now.keys():
                self.console.print(f"the sweep {self.known[pid]} (process {pid}) has ended")
            self.known = now
