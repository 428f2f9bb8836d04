"""Other sweeps of this user that run on this machine on a Ray of their own, and take turns with this one."""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

from rich.console import Console

from trainables.turns import Turns

LOOKS_EVERY = 2.0
LONG = 60.0
"""Seconds after which a trial that waits for its turn is told of, and again after as many."""


class Neighbours:
    """While it is entered, others know of this sweep, and whoever comes and goes is told of in a line each.

    `shared` says whether turns are taken; where the temporary folder cannot be used for it, they are not, and that is
    told, too.
    """

    def __init__(self, name: str, console: Console) -> None:
        self.console = console
        self.name = name[:100]
        self.known: dict[int, str] = {}
        self.told_of_waiting = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="neighbours")
        try:
            self._turns: Turns | None = Turns(sweep=self.name)
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
            self._tell_of_waiting(self._turns.others())

    def _tell_of_waiting(self, others: list[dict[str, Any]]) -> None:
        now = time.monotonic()
        waiting = [
            now - other["waits_since"]
            for other in others
            if other.get("trial_of") == self.name and "waits_since" in other
        ]
        holders = {f"{other['trial_of']} (process {other['pid']})" for other in others if other["held"]}
        if waiting and max(waiting) >= LONG and now - self.told_of_waiting >= LONG:
            self.told_of_waiting = now
            self.console.print(
                f"{len(waiting)} trial{'s wait' if len(waiting) > 1 else ' waits'} for a turn, the longest for "
                f"{max(waiting):.0f} s; at work: {', '.join(sorted(holders)) or 'none'}"
            )
