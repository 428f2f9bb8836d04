"""From flags to a finished record: Ray, Tune, storage and data. The only place that knows them all."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis import records
from analysis.command_line import InputError, make_console, run
from sweeps.driver.address import NoRay, check_address_form
from sweeps.driver.declared import told_of_declared
from sweeps.driver.estimates import keep_steps, recorded_steps
from sweeps.driver.lease import Lease
from sweeps.driver.leftovers import Scratch, no_room_for_data
from sweeps.driver.manifest import check_contents, contents, sweep_url, write_contents
from sweeps.driver.meanwhile import meanwhile
from sweeps.driver.pending import (
    GOES_ON,
    brief,
    kept_by_failed,
    known_of,
    pending_trials,
    remove_finished_checkpoints,
    selected,
    set_aside,
    unknown_of,
    with_checkpoints,
)
from sweeps.driver.provenance import git_state
from sweeps.driver.summary import cost_line, print_notes, print_plan, print_total, summarise, tell_of_codes
from sweeps.driver.termination import terminate, terminated
from sweeps.flags import OPTUNA, SweepFlags, read_flags
from sweeps.plan import Plan, PlannedTrial
from sweeps.proposers import objectives, proposer_of
from sweeps.proposers.proposer import Known, Proposer

if TYPE_CHECKING:
    from concurrent.futures import Future

    from rich.console import Console

    from sweeps.driver.usage import Used
    from trainables.trainable import Data


def main(
    kind: type[SweepFlags],
    presets: Mapping[str, SweepFlags],
    description: str,
    argv: Sequence[str] | None = None,
) -> None:
    """A sweep's script: parse, plan, run, summarise. Exit code 0; 1 if trials or the storage failed; 2 with one line
    for bad input; 3 if there was no Ray to run on; 130 and 143 if Ctrl-C and SIGTERM ended it."""
    arguments = list(sys.argv[1:] if argv is None else argv)

    def sweep() -> None:
        try:
            flags = read_flags(kind, presets, arguments, description)
            proposer = proposer_of(flags)
            if flags.dry_run:
                _with_storage(dry_run, flags, proposer)
                return
            check_address_form(os.environ.get("RAY_ADDRESS", ""))
            if _with_storage(launch, flags, proposer):
                raise SystemExit(1)
        except KeyboardInterrupt:
            print("stopped; the same command goes on", file=sys.stderr)
            raise SystemExit(128 + (signal.SIGTERM if terminated.is_set() else signal.SIGINT)) from None

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        run(sweep)
    finally:
        signal.signal(signal.SIGTERM, before)


def _with_storage(work: Callable[[SweepFlags, Proposer], Any], flags: SweepFlags, proposer: Proposer) -> Any:
    """What `work` gives for a proposer, with storage or a Ray that fails told in one line."""
    try:
        return work(flags, proposer)
    except NoRay as error:
        print(f"error: {error}; {GOES_ON}", file=sys.stderr)
        raise SystemExit(3) from None
    except BrokenPipeError:
        raise  # standard output's
    except records.STORAGE_ERRORS as error:
        refused = "Bad Request" in str(error) or "expired" in str(error).lower()
        refused |= isinstance(error, PermissionError) and "://" in flags.storage
        hint = " (have the credentials expired, or lost a permission?)" if refused else ""
        told = next(iter(getattr(error, "__notes__", [])), f"storage {flags.storage}: {brief(error)}{hint}")
        print(f"error: {told}; {GOES_ON}", file=sys.stderr)
        raise SystemExit(1) from None


def dry_run(flags: SweepFlags, proposer: Proposer) -> None:
    """Print what is planned, what of it is recorded, and what it costs, or for a search what it may cost at most."""
    url = records.location(sweep_url(flags))
    known = known_of(proposer, flags, url, records.scan(url))
    print_plan(flags, proposer.plan(known), proposer, known)


def launch(flags: SweepFlags, proposer: Proposer) -> int:
    """Run what is proposed; the number of trials of the plan that are recorded as failed, or not recorded."""
    with _nothing_left(records.location(sweep_url(flags))):
        return _carry_out(flags, proposer)


@contextlib.contextmanager
def _nothing_left(url: str) -> Iterator[None]:
    """Of a command that comes to nothing, folders that it has made and put nothing in."""
    folders = [] if "://" in url else [Path(url), *Path(url).parents]
    made = [folder for folder in folders if not folder.exists()]
    try:
        yield
    finally:
        for folder in made:
            with contextlib.suppress(OSError):  # it has the record
                folder.rmdir()


def _carry_out(flags: SweepFlags, proposer: Proposer) -> int:
    console = make_console()
    url = records.location(sweep_url(flags))
    records.check_storage(records.location(flags.storage))
    records.be_patient()
    scan = records.scan(url)
    # a sweep of this name that has come to nothing is in nobody's way
    if scan.statuses or scan.corrupted or with_checkpoints(url):
        check_contents(url, contents(flags, proposer.space))
    known = known_of(proposer, flags, url, scan)
    plan = proposer.plan(known)
    pending = selected(flags, plan, scan)
    something = _something(proposer, known, pending)
    declared = told_of_declared(plan, url, scan, len(pending))
    if declared:
        console.print(declared, soft_wrap=True)
    if flags.keep_models:
        from trainables.kept_models import without_model

        recorded = [trial.id for trial in plan.trials if scan.statuses.get(trial.id) == "completed"]
        lacking = without_model(url, recorded)
        if lacking:
            print(
                f"recorded trials without a kept network: {len(lacking)}; they are not trained again under this --name",
                file=sys.stderr,
            )
    tell_of_codes(plan, url, scan, console)
    if something:
        print_notes(flags, plan, console)
    unknown = unknown_of(proposer, flags, known, scan)
    if something or unknown or (flags.forget_failed and kept_by_failed(plan, url, scan)):
        with Lease(url) as lease:
            # another driver may have ended while this one waited for its lease
            scan = records.scan(url)
            known = known_of(proposer, flags, url, scan)
            for name in unknown_of(proposer, flags, known, scan):
                console.print(set_aside(url, name), soft_wrap=True)
            scan = records.scan(url)
            known = known_of(proposer, flags, url, scan)
            plan = proposer.plan(known)
            pending = pending_trials(flags, plan, url, scan)
            something = _something(proposer, known, pending)
            if something:
                started = time.monotonic()
                needed = proposer.space.trials if proposer.adaptive else pending
                data = meanwhile(lambda: _load(flags, proposer.space, needed))
                if flags.shift or flags.pretrained or not all(info.present for info in plan.data.values()):
                    data.result()  # may have to be fetched: Ray does not start for what cannot be had
                used = _run_on_ray(flags, plan, pending, data, url, console, lease, proposer, known)
    if something:
        before = known.recorded
        scan = records.scan(url)
        known = known_of(proposer, flags, url, scan)
        plan = proposer.plan(known)
        ran = [trial.id for trial in plan.trials if trial.id not in before]
        done = len({*ran} & scan.statuses.keys())
        of_all = "" if proposer.adaptive else f" of {len(ran)}"
        console.print(f"{done}{of_all} trials in {time.monotonic() - started:.0f} s")
        console.print(cost_line("used", used))
        if done:
            _keep_speed(plan, url, {*ran})
    elif proposer.adaptive:
        console.print(f"nothing to run: {proposer.told(known)}")
    else:
        console.print("every planned trial is recorded: nothing to run")
    ended = proposer.ended(known)
    if ended:
        console.print(ended, soft_wrap=True)
    print_total(url, console, at_least=2 if something else 1)
    settings = proposer.trials(known)
    if flags.search in OPTUNA:
        from sweeps.driver.mirror import keep_journal

        journal = keep_journal(url, flags.name or flags.NAME, objectives(flags), settings)
        console.print(f"study:  {journal} (uvx optuna-dashboard shows it)", soft_wrap=True)
    return summarise(flags, plan, url, console, settings)


def _something(proposer: Proposer, known: Known, pending: Sequence[PlannedTrial]) -> bool:
    """Whether there is something to run: of a grid what is pending, of a search what it says."""
    return bool(proposer.propose(known) if proposer.adaptive else pending)


def _keep_speed(plan: Plan, url: str, run: set[str]) -> None:
    """What a training step took in the trials of this run, for the estimates of plans."""
    columns = ["trial_id", "host", "device", "cpus", "status", "images_per_second", "batch_size"]
    rows = [row for row in records.read_table(url, "trials", columns).to_pylist() if row["trial_id"] in run]
    try:
        keep_steps(recorded_steps(plan, rows))
    except OSError as error:
        print(f"how fast this machine trained is not kept for --dry-run: {error}", file=sys.stderr)


def _load(flags: SweepFlags, space: Plan, pending: Sequence[PlannedTrial]) -> dict[str, Data]:
    """The data of trials that are pending, or may be proposed; and what `_run_on_ray` needs is imported, which takes as
    long as Ray to start."""
    from sweeps.driver import failures, gauges, losses, progress, proposals, usage  # noqa: F401
    from sweeps.driver.placement import check_weights, load

    check_weights(pending)
    return load(flags, space, pending)


def _run_on_ray(
    flags: SweepFlags,
    plan: Plan,
    pending: Sequence[PlannedTrial],
    loading: Future[dict[str, Data]],
    url: str,
    console: Console,
    lease: Lease,
    proposer: Proposer,
    known: Known,
) -> Used:
    # here, as a plan, a wrong flag and a finished sweep do without Ray
    import ray

    from sweeps.driver.cluster import (
        check_resources,
        connected,
        dashboard_address,
        gpus_per_trial,
        most_pending,
        most_resources,
        places,
        which_ray,
    )
    from sweeps.driver.neighbours import Neighbours

    most = len(proposer.at_most(known))
    processors = most * flags.cpus_per_trial
    with (
        Scratch() as scratch,
        connected(scratch.folder, flags.dashboard, processors) as (address, session),
        contextlib.ExitStack() as stack,
    ):
        started_here = address is None
        if session is not None:
            scratch.started(session)
        neighbours = stack.enter_context(Neighbours(flags.name or flags.NAME, console)) if started_here else None
        console.print(which_ray(address, str(neighbours or "")))
        data = loading.result()
        from ray import tune
        from ray.exceptions import ObjectStoreFullError, OutOfDiskError

        from sweeps.driver.failures import BadDevices, Until
        from sweeps.driver.gauges import Gauges
        from sweeps.driver.losses import MAX_WORKER_LOSSES, Roomier, mended_tune, record_lost
        from sweeps.driver.mirror import Mirror
        from sweeps.driver.placement import check_shared, check_streamed
        from sweeps.driver.progress import Progress
        from sweeps.driver.proposals import Proposals
        from sweeps.driver.stopping import Stopping
        from sweeps.driver.usage import Usage
        from trainables.trainable import Trial, TrialOptions

        gpus = gpus_per_trial(flags)
        check_resources(flags.cpus_per_trial, gpus, started_here)
        if started_here and dashboard_address():
            console.print(f"dashboard: http://{dashboard_address()} (the token it asks for: ray get-auth-token)")
        check_shared(url)
        check_streamed(data)
        write_contents(url, contents(flags, proposer.space))
        options = TrialOptions(
            sweep=url,
            name=flags.name or flags.NAME,
            metrics=flags.metrics(),
            search=flags.search,
            scheduler=flags.scheduler,
            checkpoint_seconds=flags.checkpoint_seconds,
            keep_checkpoints=flags.keep_checkpoints,
            keep_models=flags.keep_models,
            threads=max(1, int(flags.cpus_per_trial)),
            cpus=flags.cpus_per_trial,
            gpus=gpus,
            declared=plan.declared,
            shared=ray.cluster_resources() if neighbours and neighbours.shared else None,
            project_version=importlib.metadata.version("spatial-sweeps"),
            **git_state(Path(__file__).resolve().parent.parent),
        )
        try:
            with_data = tune.with_parameters(Trial, data=data, options=options)
        except (ObjectStoreFullError, OutOfDiskError):
            raise InputError(no_room_for_data()) from None
        trainable = tune.with_resources(with_data, {"cpu": flags.cpus_per_trial, "gpu": gpus})
        first = [] if proposer.adaptive else pending
        recorded = len(plan.trials) - len(pending)
        progress = Progress(
            {trial.id: trial.cost for trial in first},
            {trial.id: trial.label for trial in first},
            recorded,
            console,
            (flags.cpus_per_trial, gpus),
            (lambda: proposals.standing) if proposer.adaptive else None,
        )
        gauges = Gauges(
            options.name,
            {trial.id: trial.label for trial in first},
            recorded + len(first),
            recorded,
        )
        bad_devices = BadDevices(most_resources().get("GPU", 0.0), most)
        mirror = None
        if flags.search in OPTUNA and "://" not in url:
            mirror = stack.enter_context(Mirror(url, options.name, objectives(flags)))
        if flags.scheduler in ("asha", "median"):
            roomier: Roomier = Stopping(flags.cpus_per_trial, gpus, flags.scheduler, url if known.recorded else None)
        else:
            roomier = Roomier(flags.cpus_per_trial, gpus)
        proposals = Proposals(
            proposer,
            known,
            url,
            lambda: places(flags.cpus_per_trial, gpus),
            (progress.add, gauges.add),
            None if mirror is None else lambda now: mirror.show(proposer.trials(now)),
        )
        tuner = tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=proposals,
                num_samples=-1,  # until there is nothing more to propose
                # a dashboard goes on showing the name that an actor had at first; a new actor costs seconds
                reuse_actors=not dashboard_address(),
                scheduler=roomier,
                trial_name_creator=lambda trial: trial.config["trial"]["id"],
                trial_dirname_creator=lambda trial: trial.config["trial"]["id"],
            ),
            run_config=tune.RunConfig(
                # Tune's own state is never used; on the storage it would stumble or hang at that one's failures
                storage_path=scratch.folder,
                failure_config=tune.FailureConfig(max_failures=MAX_WORKER_LOSSES),
                checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
                callbacks=[progress, gauges, bad_devices],
                stop=Until(lease.lost, bad_devices.only),
                verbose=0,
            ),
        )
        stack.enter_context(progress)
        stack.enter_context(gauges)
        identity = {"driver": lease.content["driver"], "host": lease.content["host"]}
        usage = stack.enter_context(Usage(url, identity, lambda: gauges.counts()["running"]))
        os.environ.setdefault("TUNE_MAX_PENDING_TRIALS_PG", str(most_pending(flags.cpus_per_trial, gpus)))
        with mended_tune(bad_devices, started_here) as node_losses:
            results = tuner.fit()
        if lease.lost.is_set():
            raise lease.reason
        if bad_devices.only.is_set():
            reasons = "; ".join(dict.fromkeys(bad_devices.reasons.values()))
            raise InputError(f"{reasons}; there is no other GPU: {GOES_ON}")
        record_lost(results, proposals.trials, url, options, node_losses, bad_devices)
        for line in (*bad_devices.told(), *roomier.told()):
            print(line, file=sys.stderr)
        every = [*plan.trials, *proposals.trials.values()]
        remove_finished_checkpoints(flags, dataclasses.replace(plan, trials=every), url)
        if proposals.error is not None:
            raise proposals.error
    if usage.problem:
        print(f"what this run used is not recorded: {usage.problem}", file=sys.stderr)
    return usage.used
