"""One view of a running sweep: trials done, running and to do, the best so far, the time left."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable
from typing import Any

import ray
from ray import tune
from ray.autoscaler.v2.sdk import get_cluster_status
from rich.console import Console
from rich.live import Live
from rich.text import Text

from sweeps.driver.failures import cause
from sweeps.plan import PlannedTrial
from trainables.trainable import StorageFailure

_PLAIN_EVERY = 10.0  # seconds between lines where the output is no terminal
WAITING_EVERY = 60.0  # seconds without a running trial after which, again and again, it is said what is lacking


class Progress(tune.Callback):
    """Follows Tune's trials; on a terminal one line that is redrawn, else a line now and then."""

    def __init__(
        self,
        costs: dict[str, float],
        labels: dict[str, str],
        recorded: int,
        console: Console,
        needs: tuple[float, float] = (1.0, 0.0),
        standing: Callable[[], str] | None = None,
    ) -> None:
        """`standing` says where a search stands, of which nobody knows how many trials it will be."""
        self.needs, self.standing = needs, standing
        self.idle_since = time.monotonic()
        self.waiting = ""
        self.costs, self.labels, self.recorded = costs, labels, recorded
        self.console = console
        self.done_share: dict[str, float] = {}
        self.before: dict[str, float] = {}
        self.ended: set[str] = set()
        self.failed: set[str] = set()
        self.unfinished: set[str] = set()
        self.running: set[str] = set()
        self.best: tuple[float, str] | None = None
        self.started: float | None = None
        self.printed = 0.0
        self.live = Live(console=console, refresh_per_second=2, transient=True) if console.is_terminal else None

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its callbacks for a resume of its own, which is never used

    def add(self, trial: PlannedTrial) -> None:
        """A trial that was proposed."""
        self.costs[trial.id], self.labels[trial.id] = trial.cost, trial.label

    def __enter__(self) -> Progress:
        if self.live is not None:
            self.live.start()
        self._show(force=True)
        return self

    def __exit__(self, *_: object) -> None:
        if self.live is not None:
            self.live.stop()
        else:
            self._show(force=True)

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Tune comes here many times a second, also while nothing happens."""
        now = time.monotonic()
        if self.running or len(self.ended) + len(self.unfinished) == len(self.costs):
            self.idle_since, self.waiting = now, ""
        elif now - self.idle_since >= WAITING_EVERY:
            self.idle_since = now
            self.waiting = lacking(*self.needs, ray.nodes(), ray.available_resources()) + autoscaling()
            self._show(force=True)

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        if self.started is None:
            self.started = time.monotonic()
        self.waiting = ""
        self.running.add(_id(trial))
        self._show()

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        identity = _id(trial)
        self.before.setdefault(identity, max(0, result["epoch"] - 1) / result["epochs"])
        self.done_share[identity] = max(self.done_share.get(identity, 0.0), result["epoch"] / result["epochs"])
        if result["top1"] is not None and (self.best is None or result["top1"] > self.best[0]):
            self.best = (result["top1"], self.labels[identity])
        if result["status"] == "failed":
            self.failed.add(identity)
        if result["status"] is not None:
            self.done_share[identity] = 1.0
        self._show()

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.running.discard(_id(trial))
        self.ended.add(_id(trial))
        self._show()

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.running.discard(_id(trial))
        if isinstance(cause(trial), StorageFailure):
            self.unfinished.add(_id(trial))
        else:
            self.ended.add(_id(trial))
            self.failed.add(_id(trial))
        self._show()

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.running.discard(_id(trial))
        self._show()

    def line(self) -> str:
        """The view as one line of text."""
        total = len(self.costs) + self.recorded
        done = len(self.ended) + self.recorded
        if self.standing is not None:
            parts = [f"{done} trials done", f"{len(self.running)} running", *filter(None, [self.standing()])]
        else:
            left = self._seconds_left()
            parts = [f"{done}/{total} trials done", f"{len(self.running)} running"]
            parts.append(f"{total - done - len(self.running) - len(self.unfinished)} to do")
            parts.append(f"{_clock(left)} left" if left is not None else "time left: measuring")
        if self.failed:
            parts.append(f"{len(self.failed)} failed")
        if self.unfinished:
            parts.append(f"{len(self.unfinished)} not finished")
        if self.waiting:
            parts.append(self.waiting)
        if self.best is not None:
            parts.append(f"best Top-1 {self.best[0]:.3f} on validation ({self.best[1]})")
        return " · ".join(parts)

    def _seconds_left(self) -> float | None:
        share = self.done_share
        # what a continued trial had done before is no measure of this run's speed
        now = sum(self.costs[identity] * (share[identity] - self.before[identity]) for identity in share)
        to_do = sum(cost * (1 - share.get(identity, 0.0)) for identity, cost in self.costs.items())
        if now <= 0 or self.started is None:
            return None
        return (time.monotonic() - self.started) * to_do / now

    def _show(self, force: bool = False) -> None:
        if self.live is not None:
            share = sum(self.costs[i] * s for i, s in self.done_share.items()) / max(sum(self.costs.values()), 1e-9)
            text, width = self.line(), 20
            if self.standing is None and self.console.width > len(text) + width:
                text = "━" * round(width * share) + "─" * (width - round(width * share)) + f" {text}"
            self.live.update(Text(text, overflow="ellipsis", no_wrap=True))
        elif force or time.monotonic() - self.printed >= _PLAIN_EVERY:
            self.printed = time.monotonic()
            print(self.line(), file=self.console.file or sys.stdout, flush=True)


def lacking(cpus: float, gpus: float, nodes: list[dict[str, Any]], free: dict[str, float]) -> str:
    """What a trial waits for, and what there is."""
    living = [node["Resources"] for node in nodes if node["Alive"]]
    has = [
        f"{free.get(name, 0.0):g} of {sum(node.get(name, 0.0) for node in living):g} {name}s free"
        for name in ("CPU", "GPU")
    ]
    return (
        f"waiting for a node with {cpus:g} CPUs and {gpus:g} GPUs free (living nodes: {len(living)}; {', '.join(has)})"
    )


def autoscaling() -> str:
    """What the autoscaler is at, and why machines could not be had; empty where there is none that tells."""
    with contextlib.suppress(Exception):  # it is no stable interface of Ray's
        status = get_cluster_status(ray.get_runtime_context().gcs_address, timeout=5)
        coming = sum(launch.count for launch in status.pending_launches) + len(status.pending_nodes)
        failed = [f"{launch.ray_node_type_name}: {launch.details}" for launch in status.failed_launches[-1:]]
        words = [f"{coming} starting"] * bool(coming) + [" ".join(text.split())[:200] for text in failed]
        return "".join(f"; {word}" for word in words)
    return ""


def _id(trial: Any) -> str:
    identity: str = trial.config["trial"]["id"]
    return identity


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
