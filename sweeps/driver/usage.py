"""What a sweep's run has used of its cluster: hours of nodes, processors and GPUs, how much of them trials held, and
the hours of the trials; and the sum over a sweep's runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa

from analysis.lazily import lazily
from analysis.record_file import DamagedError, decode, encode
from analysis.records import STORAGE_ERRORS, open_briefly, open_place, put_file
from analysis.schema import RUNS

ray = lazily("ray")

EVERY = 2.0
"""Seconds between looks at the cluster."""
WRITTEN_EVERY = 60.0
JOINED_WITHIN = 30.0
"""Seconds that the end of a run waits for a look or a write under way."""


@dataclass
class Used:
    """Hours, summed over nodes; `busy` are those that trials (and whatever else runs on the cluster) held."""

    worker_hours: float = 0.0
    cpu_hours: float = 0.0
    gpu_hours: float = 0.0
    busy_cpu_hours: float = 0.0
    busy_gpu_hours: float = 0.0
    most_workers: int = 0
    trial_hours: float = 0.0
    """For which trials held what they need, summed over trials."""

    def add(self, hours: float, nodes: list[dict[str, float]], free: dict[str, float], trials: int) -> None:
        """A stretch of time in which the cluster had these nodes that can run trials, this much of them free, and this
        many trials running."""
        cpus, gpus = sum(node.get("CPU", 0.0) for node in nodes), sum(node.get("GPU", 0.0) for node in nodes)
        self.worker_hours += hours * len(nodes)
        self.cpu_hours += hours * cpus
        self.gpu_hours += hours * gpus
        self.busy_cpu_hours += hours * max(0.0, cpus - free.get("CPU", 0.0))
        self.busy_gpu_hours += hours * max(0.0, gpus - free.get("GPU", 0.0))
        self.most_workers = max(self.most_workers, len(nodes))
        self.trial_hours += hours * trials

    @property
    def idle_share(self) -> float | None:
        """Of the GPUs' hours, or of the processors' where there are none; None before anything was seen."""
        total, busy = (
            (self.gpu_hours, self.busy_gpu_hours) if self.gpu_hours > 0 else (self.cpu_hours, self.busy_cpu_hours)
        )
        return 1 - busy / total if total > 0 else None


def of_all_runs(sweep: str) -> tuple[Used, int, list[str]]:
    """The sum over `runs/`, the number of runs in it, and the files that cannot be read."""
    total, runs, unread = Used(), 0, []
    fs, path = open_place(f"{sweep}/runs")
    for file in sorted(fs.ls(path, detail=False)) if fs.exists(path) else []:
        name = file.rsplit("/", 1)[-1]
        if name.startswith(".") or not name.endswith(".parquet"):
            continue
        try:
            rows = decode(fs.cat_file(file)).to_pylist()
        except (DamagedError, *STORAGE_ERRORS):
            unread.append(file)
            continue
        for row in rows:
            runs += 1
            for field in fields(Used):
                before, here = getattr(total, field.name), row.get(field.name) or 0
                setattr(total, field.name, max(before, here) if field.name == "most_workers" else before + here)
    return total, runs, unread


class Usage:
    """Watches the cluster while the context is open, and keeps a row of `runs/` beside the record true: from the start
    on, as a driver that is killed has used something too. `running` says how many trials hold their resources."""

    def __init__(self, sweep: str, identity: dict[str, Any], running: Callable[[], int]) -> None:
        self.used = Used()
        self.started = datetime.now(UTC)
        file = f"{sweep}/runs/{self.started:%Y%m%dT%H%M%S}-{identity['driver'][:8]}.parquet"
        self.fs, self.file, self.limit = open_briefly(file)
        self.identity, self.running = identity, running
        self.problem = ""
        """Why the last write failed; empty: it did not."""
        self._seen: tuple[list[dict[str, float]], dict[str, float], int] = [], {}, 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="usage")

    def __enter__(self) -> Usage:
        self._counted = self._begun = time.monotonic()
        self._look()
        self._write()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(JOINED_WITHIN)
        if not self._thread.is_alive():
            self._count()  # since the last look, as it was then: now the trials have ended
        self._write()

    def _watch(self) -> None:
        written = time.monotonic()
        while not self._ended.wait(EVERY):
            if self._look():
                self._count()
            if time.monotonic() - written >= WRITTEN_EVERY:
                written = time.monotonic()
                self._write()

    def _look(self) -> bool:
        """See how the cluster is; False where it does not say, and the time until it does counts as it then is."""
        try:
            nodes = [
                node["Resources"]
                for node in ray.nodes()
                if node["Alive"] and (node["Resources"].get("CPU", 0) > 0 or node["Resources"].get("GPU", 0) > 0)
            ]
            self._seen = nodes, ray.available_resources(), self.running()
        except Exception:  # noqa: BLE001 - Ray's own tables may fail for a moment, in many ways
            return False
        return True

    def _count(self) -> None:
        now = time.monotonic()
        self.used.add((now - self._counted) / 3600, *self._seen)
        self._counted = now

    def _write(self) -> None:
        row = {
            **self.identity,
            "started_at": self.started,
            # a clock that is set during a run makes it neither longer nor shorter
            "finished_at": self.started + timedelta(seconds=time.monotonic() - self._begun),
            **vars(self.used),
            "idle_share": self.used.idle_share,
        }
        content = encode(pa.Table.from_pylist([row], schema=RUNS))
        try:
            put_file(self.fs, self.file, content, **self.limit)
        except STORAGE_ERRORS as error:
            # the next write has it all; the driver says so if that is the last one
            self.problem = f"{self.file}: cannot be written ({' '.join(str(error).split()) or type(error).__name__})"
        else:
            self.problem = ""
