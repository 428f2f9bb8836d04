"""What to run next, given what is recorded and what runs: a grid, a grid in stages, a search; within a budget."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from analysis.objectives import Objective, as_planned, objective_of, with_direction
from sweeps.flags import OPTUNA
from trainables.metrics.planned import planned

if TYPE_CHECKING:
    from sweeps.flags import SweepFlags
    from sweeps.proposers.proposer import Proposer


def objectives(flags: SweepFlags) -> list[Objective]:
    """What a search by Optuna's samplers is to make large or small. Raises `InputError` as `objective_of` does, and
    for a measurement of which there will be several, or none."""
    measured = flags.metrics()
    found = list(dict.fromkeys(objective_of(text, measured) for text in flags.objective))
    if flags.search not in OPTUNA:
        return found
    to_come = planned(measured)
    return list(dict.fromkeys(as_planned(objective, to_come) for objective in found))


def metrics_of(flags: SweepFlags) -> list[str]:
    """The objectives as `analysis.search --metric` takes them: as they were given, or by their whole names."""
    given = {with_direction(text)[0]: text for text in flags.objective}
    return [given.get(one.name, f"{one.name}:{one.direction}") for one in objectives(flags)]


def proposer_of(flags: SweepFlags) -> Proposer:
    """What these flags ask for. Raises `InputError` for what cannot be trained or searched."""
    from sweeps.proposers.budget import Budget
    from sweeps.proposers.grid import Grid
    from sweeps.proposers.stages import Stages
    from sweeps.proposers.tipping import Tipping

    found: Proposer
    samples = flags.samples
    if flags.search in OPTUNA:
        from sweeps.proposers.optuna import Optuna

        optuna = Optuna(flags, objectives(flags))
        for line in optuna.told_of_warm:
            print(line, file=sys.stderr)
        found, samples = optuna, optuna.samples  # it has no end of its own
    elif flags.search == "tipping":
        found = Tipping(flags)
    else:
        first = Grid(flags)
        later = flags.later(first.space)
        found = first if later is None else Stages(first, later, samples)
    if samples is None and flags.budget_hours is None:
        return found
    return Budget(found, samples, flags.budget_hours)
