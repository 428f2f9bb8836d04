"""What of a plan is not recorded yet, and the checkpoints that it goes on from."""

from __future__ import annotations

import os

from analysis import records
from analysis.command_line import InputError
from sweeps.flags import SweepFlags
from sweeps.plan import Plan, PlannedTrial
from trainables.checkpoints import CheckpointError, checkpoints_of

GOES_ON = "mend that and give the same command again: it goes on where it was"


def absolute(url: str) -> str:
    return url if "://" in url else os.path.abspath(os.path.expanduser(url))


def selected(flags: SweepFlags, plan: Plan, scan: records.Scan) -> list[PlannedTrial]:
    """Trials without a record, and with --retry-failed those that failed or are damaged."""
    again = {"failed"} if flags.retry_failed else set()
    damaged = scan.corrupted if not flags.retry_failed else {}
    for trial in plan.trials:
        if trial.id in damaged:
            raise InputError(f"{damaged[trial.id]}; --retry-failed runs that trial again")
    return [trial for trial in plan.trials if scan.statuses.get(trial.id) in {None, *again}]


def pending_trials(flags: SweepFlags, plan: Plan, url: str, scan: records.Scan) -> list[PlannedTrial]:
    """The planned trials to run, the longest first, as a long one that starts last would leave the other cores idle:
    those without a record, and with --retry-failed those that failed or are damaged; these go on from their last
    checkpoint. For the holder of the lease alone, as it deletes the checkpoints of those that begin again, and with
    --forget-failed those of all that failed.

    Raises `InputError` for a damaged record or checkpoint of a planned trial unless it is to be run again.
    """
    pending = selected(flags, plan, scan)
    if flags.forget_failed:
        for trial_id in kept_by_failed(plan, url, scan):
            checkpoints_of(url, trial_id).delete()
    unfinished = with_checkpoints(url)
    for trial in pending:
        if trial.id in unfinished:
            checkpoints = checkpoints_of(url, trial.id)
            try:
                # what is whole but refused is found by the worker, and recorded as that trial's failure
                checkpoints.load() if trial.id in scan.statuses else checkpoints.check()
            except CheckpointError as error:
                if not flags.retry_failed:
                    raise InputError(f"{error}; --retry-failed runs that trial again from its beginning") from None
                checkpoints.delete()
    return sorted(pending, key=lambda trial: -trial.cost)


def kept_by_failed(plan: Plan, url: str, scan: records.Scan) -> set[str]:
    """The planned trials that are recorded as failed and have a checkpoint."""
    return {name for name in with_checkpoints(url) & plan.ids if scan.statuses.get(name) == "failed"}


def with_checkpoints(url: str) -> set[str]:
    fs, path = records.open_place(url)
    folder = f"{path}/checkpoints"
    return (
        {entry.rstrip("/").rsplit("/", 1)[-1] for entry in fs.ls(folder, detail=False)} if fs.exists(folder) else set()
    )


def remove_finished_checkpoints(flags: SweepFlags, plan: Plan, url: str) -> None:
    """What a worker left behind that was killed between writing its record and deleting its checkpoints. Failed trials
    keep theirs."""
    if flags.keep_checkpoints:
        return
    ended = {trial_id for trial_id, status in records.scan(url).statuses.items() if status != "failed"}
    for trial_id in with_checkpoints(url) & ended & plan.ids:
        checkpoints_of(url, trial_id).delete()
    if not with_checkpoints(url):
        records.remove_folder(*records.open_place(f"{url}/checkpoints"))


def brief(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
