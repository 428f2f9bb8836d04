"""A search's trials in a journal of Optuna's below the sweep's folder, which `optuna-dashboard` shows while it runs.

Nothing is ever read from it but what of it has to be written anew: the record alone says what is known. Where it is
damaged, or says something else than the record, its study is made again.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import threading
import warnings
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.lazily import lazily
from analysis.objectives import Objective
from analysis.records import STORAGE_ERRORS, write_file

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

optuna = lazily("optuna")
journals = lazily("optuna.storages.journal")

FILE = "search/optuna.log"
KEY = "key"
"""The user attribute that tells a trial from every other, whatever its number."""
JOINED_WITHIN = 20.0
"""Seconds that the end of a run waits for the last writing: a lock that a killed driver has left is waited for."""


class Mirror:
    """Keeps the journal of a sweep in a local folder while the context is open, in a thread of its own: a slow disk
    delays no trial, and one that fails is told, and ends nothing."""

    def __init__(self, sweep: str, name: str, objectives: Sequence[Objective]) -> None:
        self.path, self.name, self.objectives = f"{sweep}/{FILE}", name, objectives
        self.problem = ""
        self._latest: Sequence[FrozenTrial] | None = None
        self._news, self._ended = threading.Event(), False
        self._thread = threading.Thread(target=self._keep, daemon=True, name="mirror")

    def __enter__(self) -> Mirror:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = True
        self._news.set()
        self._thread.join(JOINED_WITHIN)
        if self.problem:
            print(f"{self.path}, which optuna-dashboard shows, is not up to date: {self.problem}", file=sys.stderr)

    def show(self, trials: Sequence[FrozenTrial]) -> None:
        """These are the trials from now on."""
        self._latest = trials
        self._news.set()

    def _keep(self) -> None:
        while not self._ended:
            self._news.wait()
            self._news.clear()
            trials, self._latest = self._latest, None
            if trials is None:
                continue
            try:
                write_journal(self.path, self.name, self.objectives, trials)
                self.problem = ""
            except Exception as error:  # noqa: BLE001 - told at the end; the sweep does without
                self.problem = " ".join(str(error).split()) or type(error).__name__


def keep_journal(sweep: str, name: str, objectives: Sequence[Objective], trials: Sequence[FrozenTrial]) -> str:
    """Bring the journal of a sweep up to date, on S3, too; its place. Where it cannot be written that is told."""
    path = f"{sweep}/{FILE}"
    try:
        if "://" not in sweep:
            write_journal(path, name, objectives, trials)
        else:
            with tempfile.TemporaryDirectory() as folder:
                local = f"{folder}/{Path(FILE).name}"
                write_journal(local, name, objectives, trials)
                write_file(path, Path(local).read_bytes())
    except STORAGE_ERRORS as error:
        print(f"{path}, which optuna-dashboard shows, is not up to date: {error}", file=sys.stderr)
    return path


def write_journal(path: str, name: str, objectives: Sequence[Objective], trials: Sequence[FrozenTrial]) -> None:
    """The journal with these trials and no others: by additions where it can be, so that who reads it meanwhile sees
    them; with a new study where it has others; and as a new file where it is damaged."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    try:
        if not _is_whole(path):
            os.remove(path)
        try:
            _write(path, name, objectives, trials)
        except OSError:
            raise
        except Exception:  # noqa: BLE001 - whatever a damaged file makes of Optuna
            with contextlib.suppress(FileNotFoundError):
                os.remove(path)
            _write(path, name, objectives, trials)
    finally:
        optuna.logging.set_verbosity(level)


def _is_whole(path: str) -> bool:
    """Whether it ends with a line, which a driver that was killed as it wrote may not have ended."""
    if not os.path.exists(path) or not os.path.getsize(path):
        return True
    with open(path, "rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() == b"\n"


def _write(path: str, name: str, objectives: Sequence[Objective], trials: Sequence[FrozenTrial]) -> None:
    storage = optuna.storages.JournalStorage(journals.JournalFileBackend(path))
    directions = ["minimize" if objective.direction == "min" else "maximize" for objective in objectives]
    names = [objective.name for objective in objectives]
    study = None
    if name in optuna.get_all_study_names(storage):
        study = optuna.load_study(study_name=name, storage=storage)
        if not _goes_on(study, directions, names, trials):
            optuna.delete_study(study_name=name, storage=storage)
            study = None
    if study is None:
        study = optuna.create_study(study_name=name, storage=storage, directions=directions)
        study.set_metric_names(names)
    known = {trial.user_attrs.get(KEY): trial for trial in study.get_trials(deepcopy=False)}
    for trial in trials:
        before = known.get(trial.user_attrs[KEY])
        if before is None:
            study.add_trial(_with_start(trial))
        elif not before.state.is_finished() and trial.state.is_finished():
            for key, value in trial.user_attrs.items():
                storage.set_trial_user_attr(before._trial_id, key, value)
            storage.set_trial_state_values(before._trial_id, trial.state, trial.values)


def _with_start(trial: FrozenTrial) -> FrozenTrial:
    """What runs has no time in the record yet."""
    if not trial.state.is_finished():
        trial.datetime_start = datetime.now()
    return trial


def _goes_on(study: Study, directions: Sequence[str], names: Sequence[str], trials: Sequence[FrozenTrial]) -> bool:
    """Whether these trials are those of the study, or come to be so by adding and ending some.

    What a diverged or stopped trial is told with changes with the worst score of the others. Here it stays what it was
    when the trial ended, as a trial that has ended cannot be changed, and the page of a new study is another."""
    if [way.name.lower() for way in study.directions] != directions or study.metric_names != names:
        return False
    wanted = {trial.user_attrs[KEY]: trial for trial in trials}
    for trial in study.get_trials(deepcopy=False):
        now = wanted.get(trial.user_attrs.get(KEY, ""))
        if now is None or _content(trial)[:2] != _content(now)[:2]:
            return False
        early = trial.user_attrs.get("diverged") or trial.user_attrs.get("stopped")
        if trial.state.is_finished() and not early and _content(trial) != _content(now):
            return False
    return True


def _content(trial: FrozenTrial) -> tuple[Any, ...]:
    values = trial.values if trial.state.is_finished() else None
    return trial.params, trial.distributions, trial.state, values, trial.user_attrs
