"""What a sweep's run has used of its cluster: hours of nodes, processors and GPUs, and how much of them trials held."""

from __future__ import annotations

import io
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray

from analysis.command_line import InputError
from analysis.records import write_file
from analysis.schema import RUNS

EVERY = 5.0
"""Seconds between looks at the cluster."""
WRITTEN_EVERY = 60.0


@dataclass
class Used:
    """Hours, summed over nodes; `busy` are those that trials (and whatever else runs on the cluster) held."""

    worker_hours: float = 0.0
    cpu_hours: float = 0.0
    gpu_hours: float = 0.0
    busy_cpu_hours: float = 0.0
    busy_gpu_hours: float = 0.0
    most_workers: int = 0

    def add(self, hours: float, nodes: list[dict[str, float]], free: dict[str, float]) -> None:
        """A stretch of time in which the cluster had these nodes that can run trials, and this much of them free."""
        cpus, gpus = sum(node.get("CPU", 0.0) for node in nodes), sum(node.get("GPU", 0.0) for node in nodes)
        self.worker_hours += hours * len(nodes)
        self.cpu_hours += hours * cpus
        self.gpu_hours += hours * gpus
        self.busy_cpu_hours += hours * max(0.0, cpus - free.get("CPU", 0.0))
        self.busy_gpu_hours += hours * max(0.0, gpus - free.get("GPU", 0.0))
        self.most_workers = max(self.most_workers, len(nodes))

    @property
    def idle_share(self) -> float | None:
        """Of the GPUs' hours, or of the processors' where there are none; None before anything was seen."""
        total, busy = (
            (self.gpu_hours, self.busy_gpu_hours) if self.gpu_hours > 0 else (self.cpu_hours, self.busy_cpu_hours)
        )
        return 1 - busy / total if total > 0 else None


class Usage:
    """Watches the cluster while the context is open, and keeps a row of `runs/` beside the record true."""

    def __init__(self, sweep: str, identity: dict[str, Any]) -> None:
        self.used = Used()
        self.started = datetime.now(UTC)
        self.file = f"{sweep}/runs/{self.started:%Y%m%dT%H%M%S}-{identity['driver'][:8]}.parquet"
        self.identity = identity
        self.problem = ""
        """Why the last write failed; empty: it did not."""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="usage")

    def __enter__(self) -> Usage:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._write()

    def _watch(self) -> None:
        before = written = time.monotonic()
        while not self._ended.wait(EVERY):
            now = time.monotonic()
            nodes = [
                node["Resources"]
                for node in ray.nodes()
                if node["Alive"] and (node["Resources"].get("CPU", 0) > 0 or node["Resources"].get("GPU", 0) > 0)
            ]
            self.used.add((now - before) / 3600, nodes, ray.available_resources())
            before = now
            if now - written >= WRITTEN_EVERY:
                written = now
                self._write()

    def _write(self) -> None:
        row = {
            **self.identity,
            "started_at": self.started,
            "finished_at": datetime.now(UTC),
            **vars(self.used),
            "idle_share": self.used.idle_share,
        }
        content = io.BytesIO()
        pq.write_table(pa.Table.from_pylist([row], schema=RUNS), content)
        try:
            write_file(self.file, content.getvalue())
        except InputError as error:
            self.problem = str(error)  # the next write has it all; the driver says so if that is the last one
        else:
            self.problem = ""
