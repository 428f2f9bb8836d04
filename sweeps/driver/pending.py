"""What of a plan is not recorded yet, and the checkpoints that it goes on from."""

from __future__ import annotations

import json
import os
from typing import Any

from analysis import records
from analysis.command_line import InputError
from analysis.objectives import rows_of
from sweeps.flags import SweepFlags
from sweeps.plan import Plan, PlannedTrial
from sweeps.proposers.proposer import Known, Proposer
from trainables.checkpoints import CheckpointError, checkpoints_of
from trainables.configuration import TrialConfig

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


def known_of(proposer: Proposer, flags: SweepFlags, url: str, scan: records.Scan) -> Known:
    """What the record says to a proposer; with --retry-failed, failed and damaged trials are to be run again.

    Raises `InputError` for a damaged record, where what it says of it decides what to run, and it is to be kept.
    """
    if not proposer.columns:
        again = {"failed"} if flags.retry_failed else set()
        rows: dict[str, dict[str, Any]] = {status: {"status": status} for status in set(scan.statuses.values())}
        return Known({name: rows[status] for name, status in scan.statuses.items() if status not in again})
    if scan.corrupted and not flags.retry_failed:
        raise InputError(f"{next(iter(scan.corrupted.values()))}; --retry-failed runs that trial again, if need be")
    recorded: dict[str, dict[str, Any]] = {}
    unfinished: list[PlannedTrial] = []
    if scan.statuses:
        columns = dict.fromkeys(["trial_id", "status", "config", *proposer.columns])
        for row in rows_of(url, [*columns], scan.corrupted):
            if row["status"] == "failed" and flags.retry_failed:
                config = TrialConfig.from_canonical(json.loads(row["config"]))
                unfinished.append(PlannedTrial(row["trial_id"], config, config.method.name))
            else:
                recorded[row["trial_id"]] = row
    begun = [trial for trial in _kept_proposals(url) if trial.id not in scan.statuses]
    return Known(recorded, (), [*unfinished, *begun, *_damaged(proposer, url, scan, {trial.id for trial in begun})])


def _damaged(proposer: Proposer, url: str, scan: records.Scan, begun: set[str]) -> list[PlannedTrial]:
    """Of the damaged trials those of which it is known what they were: by their own row, where another of their tables
    is damaged, by the search's own plan, or by the compacted record that they were to replace."""
    planned = {trial.id: trial for trial in proposer.space.trials}
    found = [planned[name] for name in scan.corrupted if name in planned and name not in begun]
    configs: dict[str, str] = {}
    for name in scan.corrupted.keys() - planned.keys() - begun:
        try:
            configs.update((name, row["config"]) for row in records.read_rows(url, "trials", name))
        except InputError:
            continue  # that is what is damaged
    left = scan.corrupted.keys() - planned.keys() - begun - configs.keys()
    fs, path = records.open_place(url)
    if left and fs.exists(f"{path}/trials/{records.COMPACTED}.parquet"):
        rows = records.read_rows(url, "trials", records.COMPACTED)
        configs |= {row["trial_id"]: row["config"] for row in rows if row["trial_id"] in left}
    for name, text in sorted(configs.items()):
        config = TrialConfig.from_canonical(json.loads(text))
        found.append(PlannedTrial(name, config, config.method.name))
    return found


def unknown_of(proposer: Proposer, flags: SweepFlags, known: Known, scan: records.Scan) -> list[str]:
    """With --retry-failed, the damaged trials of a search that cannot be run again, as nothing says what they were."""
    if not (proposer.columns and flags.retry_failed):
        return []
    return sorted(scan.corrupted.keys() - {trial.id for trial in known.unfinished} - proposer.plan(known).ids)


def set_aside(url: str, trial_id: str) -> str:
    """Move the files of a damaged trial out of the record, below `damaged/`, its row last, so that it is seen again
    where this was interrupted; in a line what was done. For the holder of the lease alone."""
    fs, path = records.open_place(url)
    for table in ("epochs", "measurements", "maps", "trials"):
        file = f"{table}/{trial_id}.parquet"
        if fs.exists(f"{path}/{file}"):
            records.write_file(f"{url}/damaged/{file}", fs.cat_file(f"{path}/{file}"))
            fs.rm_file(f"{path}/{file}")
    return f"{trial_id}: damaged, and nothing says what it was: its files are set aside in {url}/damaged"


_PROPOSAL = "trial.json"


def keep_proposal(url: str, trial: PlannedTrial) -> None:
    """Put with a trial's checkpoints what it is, until it is recorded."""
    text = json.dumps({"setting": trial.setting, "config": trial.config.canonical()}, sort_keys=True)
    records.write_file(f"{url}/checkpoints/{trial.id}/{_PROPOSAL}", text.encode())


def _kept_proposals(url: str) -> list[PlannedTrial]:
    fs, path = records.open_place(url)
    found = []
    for name in sorted(with_checkpoints(url)):
        file = f"{path}/checkpoints/{name}/{_PROPOSAL}"
        try:
            kept = json.loads(fs.cat_file(file))
            found.append(PlannedTrial(name, TrialConfig.from_canonical(kept["config"]), kept["setting"]))
        except FileNotFoundError:
            continue  # of a grid, or recorded meanwhile
        except (ValueError, KeyError, TypeError):
            raise InputError(f"{url}/checkpoints/{name}/{_PROPOSAL}: damaged; delete that folder to go on") from None
    return found


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
