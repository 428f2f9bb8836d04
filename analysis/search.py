"""What a search of hyperparameters found, on the record alone: the best settings with intervals over seeds, which
hyperparameters matter, and Optuna's charts of it on one page.

    python -m analysis.search results/pilcro --metric top1 total_variation --out search.html

The page is one file, with Plotly's script in it, and loads nothing. Settings are trials of a study (`analysis.study`).
With several metrics the settings that no other beats in all of them are the best (the Pareto front).

Importances are by two evaluators of Optuna's. PED-ANOVA (Watanabe et al. 2023): how much being among the best settings
depends on a hyperparameter. fANOVA (Hutter et al. 2014): what share of the score's variance over the swept space goes
with it. Both are of the settings that were tried, and say nothing of values that were not.
"""

from __future__ import annotations

import math
import shlex
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa
from tyro.conf import Positional

from analysis.bounds import SEED, Bound
from analysis.changes import short_name
from analysis.command_line import parse, run
from analysis.conventions import Convention
from analysis.formats import Format, Table, beside, print_tables
from analysis.groups import Group, Quantity, count, replicates
from analysis.lazily import lazily
from analysis.records import Sweep, write_file
from analysis.results import arrow, how_read, read
from analysis.study import Configuration, as_study, choices, configurations, empty_study, searched, tasks
from analysis.symbols import all_named, in_symbols, method_name, symbol

if TYPE_CHECKING:
    from optuna import Study

    from analysis.report.page import Block, Entry, Section, Subsection

optuna, special = lazily("optuna"), lazily("scipy.special")

_SHOWN = 20
_FEWEST = 4
"""Settings of which importances are computed."""
_AMONG_THE_BEST = 5
"""Settings at least, that PED-ANOVA takes for the best."""


@dataclass
class Flags:
    """The best settings of a sweep, and which hyperparameters matter, with interactive charts on one page."""

    sweep: Positional[str]
    """Folder or s3:// prefix of the sweep."""
    metric: tuple[str, ...] = ("top1",)
    """What is to be best: a metric of the trials table, or a measurement as metric:component@level; of several, the
    settings that no other beats in all of them."""
    pool_code: bool = False
    """Take trials of one setting for one whatever code of the method and the network trained them (column `code`)."""
    skip_damaged: bool = False
    """Leave out trials of which a file is damaged or missing, and say which."""
    with_stopped: bool = False
    """Count trials that a scheduler ended early as others did better, with their accuracy at that epoch."""
    convention: Convention | None = None
    """Read α of the gradient penalty in this convention, an exact change of scale; default: as it was swept."""
    out: str | None = None
    """File or s3:// key of the page; default: analysis/search.html in the sweep's folder."""
    format: Format | None = None
    """Print the table of all settings as CSV (numbers in full), Markdown or LaTeX (for booktabs), and all else on
    standard error."""
    seed: int = 0
    """Of fANOVA's random forest."""

    BOUNDS: ClassVar[Mapping[str, Bound]] = {"seed": SEED}


@dataclass(frozen=True)
class Ranked:
    """A setting with its place. `low`, `high`: the 95% t interval over seeds of each mean, nan for a single seed."""

    configuration: Configuration
    place: int
    """Of one metric: 1 is the best. Of several: 1 are those that no other beats, 2 those that only these beat, …"""
    low: Sequence[float]
    high: Sequence[float]


def ranked(every: Sequence[Configuration], quantities: Sequence[Quantity]) -> list[Ranked]:
    """The complete settings, the best first; of the same place, by the first metric."""
    complete = [one for one in every if one.is_complete]
    signs = [1.0 if quantity.direction == "min" else -1.0 for quantity in quantities]
    losses = [tuple(sign * mean for sign, mean in zip(signs, one.means, strict=True)) for one in complete]
    places = _places(losses)
    order = sorted(range(len(complete)), key=lambda index: (places[index], losses[index]))
    found = []
    for index in order:
        one = complete[index]
        halves = [
            math.nan if math.isnan(error) else float(special.stdtrit(n - 1, 0.975)) * error
            for error, n in zip(one.standard_errors, one.ns, strict=True)
        ]
        low = [mean - half for mean, half in zip(one.means, halves, strict=True)]
        high = [mean + half for mean, half in zip(one.means, halves, strict=True)]
        found.append(Ranked(one, places[index], low, high))
    return found


def _places(losses: Sequence[tuple[float, ...]]) -> list[int]:
    """Of one number its rank (equal ones share one), of several the front that it is on, from 1 on."""
    values = np.array(losses, dtype=float).reshape(len(losses), -1)
    if values.shape[1] == 1:
        return [1 + int(place) for place in np.searchsorted(np.sort(values[:, 0]), values[:, 0])]
    beaten_by = np.array([(values <= one).all(axis=1) & (values < one).any(axis=1) for one in values], dtype=bool)
    number = beaten_by.sum(axis=1)
    places = np.zeros(len(values), dtype=int)
    place = 0
    while (places == 0).any():
        place += 1
        front = (places == 0) & (number == 0)
        places[front] = place
        number = number - beaten_by[:, front].sum(axis=1)
    return [int(one) for one in places]


def importances(study: Study, *, seed: int = 0) -> dict[str, dict[str, float]]:
    """Of a study of one metric, each hyperparameter's share of importance by evaluator: "PED-ANOVA", of all of them,
    and "fANOVA", of those that every setting has. An evaluator that tells none from another is left out: with fewer
    than four settings, or where all are as good as each other."""
    complete = [trial for trial in study.trials if trial.state == optuna.trial.TrialState.COMPLETE]
    if len(complete) < _FEWEST or len({trial.value for trial in complete}) < 2:
        return {}
    share = min(0.5, max(0.1, _AMONG_THE_BEST / len(complete)))
    evaluators = {
        "PED-ANOVA": optuna.importance.PedAnovaImportanceEvaluator(target_quantile=share),
        "fANOVA": optuna.importance.FanovaImportanceEvaluator(seed=seed % 2**32),
    }
    found = {}
    for name, evaluator in evaluators.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of few trials, which the page says
            shares = optuna.importance.get_param_importances(study, evaluator=evaluator, normalize=False)
        total = sum(shares.values())
        if shares and math.isfinite(total) and total > 0:
            found[name] = {param: float(value) / total for param, value in shares.items()}
    return found


def table(found: Sequence[Ranked], quantities: Sequence[Quantity]) -> Table:
    """The settings as the command prints them."""
    numbers = [f"{quantity.name} [95%]" for quantity in quantities]
    names = _names([one.configuration for one in found])
    rows = []
    for one, name in zip(found, names, strict=True):
        cells = [_spanned(*each) for each in _each(one, quantities)]
        runs = sorted(set(one.configuration.ns))
        rows.append((str(one.place), name, *cells, " to ".join(map(str, runs[:1] + runs[1:][-1:]))))
    head = ("front" if len(quantities) > 1 else "rank", "setting", *numbers, "n")
    return Table(head, rows, wrap=(1,), data=_data(found, quantities))


def _each(one: Ranked, quantities: Sequence[Quantity]) -> list[tuple[float, float, float, Quantity]]:
    return list(zip(one.configuration.means, one.low, one.high, quantities, strict=True))


def _spanned(mean: float, low: float, high: float, quantity: Quantity) -> str:
    form = ".4f" if quantity.unit == "fraction" else ".4g"
    return f"{mean:{form}}" + ("" if math.isnan(low) else f" [{low:{form}}, {high:{form}}]")


def _names(every: Sequence[Configuration]) -> list[str]:
    """The settings in symbols, by what tells them apart."""
    groups = [Group(one.params, one.group.trials, (), one.group.digits) for one in every]
    return [
        name or method_name(group.trials[0]["method"]) for name, group in zip(all_named(groups), groups, strict=True)
    ]


def _data(found: Sequence[Ranked], quantities: Sequence[Quantity]) -> pa.Table:
    params = list(dict.fromkeys(name for one in found for name in one.configuration.params))
    kinds = {name: _kind([one.configuration.params.get(name) for one in found]) for name in params}
    fields = [pa.field("place", pa.int64()), *(pa.field(name, kinds[name]) for name in params)]
    for quantity in quantities:
        fields += [pa.field(f"{quantity.name}{end}", pa.float64()) for end in ("", " low", " high", " standard error")]
        fields.append(pa.field(f"{quantity.name} n", pa.int64()))
    fields += [pa.field(name, pa.int64()) for name in ("diverged", "failed")]
    rows = []
    for one in found:
        own = one.configuration
        row: dict[str, Any] = {name: own.params.get(name) for name in params}
        row |= {"place": one.place, "diverged": own.with_status("diverged"), "failed": own.with_status("failed")}
        for index, quantity in enumerate(quantities):
            row |= {quantity.name: own.means[index], f"{quantity.name} low": one.low[index]}
            row |= {f"{quantity.name} high": one.high[index], f"{quantity.name} n": own.ns[index]}
            row[f"{quantity.name} standard error"] = own.standard_errors[index]
        rows.append(row)
    return arrow(fields, rows)


def _kind(values: Sequence[Any]) -> pa.DataType:
    return pa.array([value for value in values if value is not None]).type


# --- the page ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Task:
    """The settings of one task of a sweep: of the trials that have these values."""

    where: Mapping[str, Any]
    every: Sequence[Configuration]
    found: Sequence[Ranked]


def search(sweep: Sweep, quantities: Sequence[Quantity]) -> list[Task]:
    """The settings of each task of a sweep, ranked. Raises `InputError` as `analysis.study.configurations` does."""
    names = [quantity.name for quantity in quantities]
    found = []
    for where in tasks(sweep):
        every = configurations(sweep, metrics=names, where=where)
        found.append(Task(where, every, ranked(every, quantities)))
    return found


def page(
    sweep: Sweep,
    quantities: Sequence[Quantity],
    found: Sequence[Task],
    *,
    convention: Convention | None = None,
    seed: int = 0,
) -> str:
    """What a search found, as HTML with Plotly's script in it; the sweep has been read in this `convention`."""
    from plotly.offline import get_plotlyjs

    from analysis.report.cells import _Source
    from analysis.report.page import render

    charts = _Charts()
    sections: list[Section] = []
    for task in found:
        name = f", {in_symbols(task.where)}" if len(found) > 1 else ""
        sections += _task_sections(sweep, quantities, task, name, charts, seed)
    names = " and ".join(short_name(quantity) for quantity in quantities)
    settings = sum(len(task.every) for task in found)
    rows = sweep.settings.select(["seed", "fold"]).to_pylist()
    source = _Source(sweep, convention=convention, seed=seed)
    command = source.command("search", f"--metric {shlex.join(quantity.name for quantity in quantities)}")
    return render(
        f"Search of {names}: sweep {sweep.name}",
        sections,
        subtitle=f"{count(settings, 'setting')}, {count(len(rows), 'trial')}, {replicates(rows)}; "
        f"record {sweep.content_hash}",
        footer=f"Made by {command} from the record {sweep.content_hash}.",
        description=f"Search of the hyperparameters of the sweep {sweep.name}",
        library=get_plotlyjs(),
    )


def _task_sections(
    sweep: Sweep, quantities: Sequence[Quantity], task: Task, name: str, charts: _Charts, seed: int
) -> list[Section]:
    from analysis.report.page import Section, Subsection, Text

    blocks: list[Block] = [*_best(task.found, quantities, name)] if task.found else [Text("No setting has a value.")]
    lacking = [one for one in task.every if not one.is_complete]
    if lacking:
        blocks.append(Text(f"{count(len(lacking), 'setting')} without a value of each metric: not ranked."))
    sections = [Section(f"The best settings{name}", blocks)]
    if not task.found:
        return sections
    if len(quantities) > 1:
        study = as_study(sweep, task.every, quantities)
        sections.append(Section(f"The Pareto front{name}", [charts.front(study, quantities, name)]))
    by_method: dict[str, list[Configuration]] = {}
    for one in task.every:
        by_method.setdefault(one.group.trials[0]["method"], []).append(one)
    for index, quantity in enumerate(quantities):
        whole = as_study(sweep, [one.of(index, one.params) for one in task.every], [quantity])
        parts: list[Block | Subsection] = [charts.history(whole, quantity, name)]
        for method, those in by_method.items():
            if method == "baseline":
                continue
            params = choices(those)
            own = as_study(sweep, [one.of(index, params) for one in those], [quantity])
            inner = _of_a_method(own, quantity, f"{method_name(method)}{name}", charts, seed)
            parts.append(Subsection(f"{method_name(method)}: {short_name(quantity)}{name}", inner))
        sections.append(Section(f"What {short_name(quantity)} depends on{name}", parts))
    return sections


def _best(found: Sequence[Ranked], quantities: Sequence[Quantity], name: str) -> list[Block]:
    from analysis.report.page import Cell, Column, Text
    from analysis.report.page import Table as PageTable

    several = len(quantities) > 1
    names = _names([one.configuration for one in found])
    rows: list[Sequence[Entry]] = []
    for one, setting in zip(found, names, strict=True):
        own = one.configuration
        cells = [Cell(_spanned(*each), each[0]) for each in _each(one, quantities)]
        ended = own.with_status("diverged")
        rows.append((one.place, setting, *cells, min(own.ns), ended))
    columns = [
        Column(
            "front" if several else "rank", "number", "1: no other setting is better" + " in every metric" * several
        ),
        Column("setting"),
        *(
            Column(short_name(quantity), "number", "mean over seeds, with its 95% t interval")
            for quantity in quantities
        ),
        Column("n", "number", "seeds with a value"),
        Column("diverged", "number", "of its trials, which count with what was measured"),
    ]
    told = Text(
        f"{count(len(found), 'setting')}. The one that comes first was chosen for its mean: of many settings that are "
        "as good as each other the luckiest is first, so that its mean is too good and its interval knows nothing of "
        "that. Run it with other seeds before it is believed."
    )
    return [PageTable(f"Settings by {', '.join(map(short_name, quantities))}{name}", columns, rows), told]


def _of_a_method(study: Study, quantity: Quantity, name: str, charts: _Charts, seed: int) -> list[Block]:
    from analysis.report.page import Text

    complete = [trial for trial in study.trials if trial.state == optuna.trial.TrialState.COMPLETE]
    params = sorted({param for trial in complete for param in trial.params})
    if not params or len(complete) < 2:
        return [Text(f"{count(len(complete), 'setting')} with a value: nothing that could be compared.")]
    found = importances(study, seed=seed)
    blocks: list[Block] = []
    if found:
        blocks.append(charts.importances(found, quantity, name, len(complete)))
    else:
        blocks.append(Text(f"Importances take {_FEWEST} settings that differ in {short_name(quantity)}."))
    shown = _in_symbols(study, quantity, {param: symbol(param) for param in params})
    blocks.append(charts.slices(shown, quantity, name, list(map(symbol, params))))
    blocks.append(charts.parallel(shown, quantity, name, list(map(symbol, params))))
    return blocks


def _in_symbols(study: Study, quantity: Quantity, symbols: Mapping[str, str]) -> Study:
    """The study with its hyperparameters by their symbols."""
    found = empty_study(study.study_name, [quantity])
    for trial in study.get_trials():
        trial.distributions = {symbols[name]: own for name, own in trial.distributions.items() if name in symbols}
        trial.params = {symbols[name]: value for name, value in trial.params.items() if name in symbols}
        found.add_trial(trial)
    return found


class _Charts:
    """Optuna's charts as blocks of a page."""

    def __init__(self) -> None:
        self._made = 0

    def _chart(self, figure: Any, title: str, caption: str, *, least: int = 0) -> Block:
        from analysis.report.page import Chart

        self._made += 1
        figure.update_layout(
            title=None,
            template="plotly_white",
            font={"family": "system-ui, sans-serif", "size": 13},
            margin={"t": 40, "r": 20, "b": 60, "l": 60},
        )
        markup = figure.to_html(
            full_html=False,
            include_plotlyjs=False,
            div_id=f"chart-{self._made}",
            default_width="100%",
            default_height=440,
            # nor is there a button that sends the chart to Plotly's own servers
            config={"responsive": True, "displaylogo": False, "showSendToCloud": False, "plotlyServerURL": ""},
        )
        if least:
            markup = f'<div style="min-width: {least}px">{markup}</div>'
        return Chart(title, markup, caption)

    def history(self, study: Study, quantity: Quantity, name: str) -> Block:
        from optuna.visualization import plot_optimization_history

        caption = "Settings in the order in which their last trials ended, each the mean over its seeds."
        figure = plot_optimization_history(study, target_name=short_name(quantity))
        figure.update_xaxes(title="setting")
        return self._chart(figure, f"History of {short_name(quantity)}{name}", caption)

    def importances(self, found: Mapping[str, Mapping[str, float]], quantity: Quantity, name: str, n: int) -> Block:
        from plotly import graph_objects

        order = list(next(iter(found.values())))[::-1]
        bars = [
            graph_objects.Bar(
                name=evaluator,
                orientation="h",
                y=[symbol(param) for param in order if param in shares],
                x=[shares[param] for param in order if param in shares],
                texttemplate="%{x:.2f}",
            )
            for evaluator, shares in found.items()
        ]
        figure = graph_objects.Figure(bars)
        figure.update_layout(barmode="group", xaxis={"title": "share of importance", "range": [0, 1]})
        figure.update_yaxes(automargin=True, ticksuffix="  ")
        caption = (
            f"Of {count(n, 'setting')}. PED-ANOVA: for being among the best; fANOVA: for the variance of the score, of "
            "the hyperparameters that every setting has."
        )
        return self._chart(figure, f"Importance of hyperparameters for {short_name(quantity)}, {name}", caption)

    def slices(self, study: Study, quantity: Quantity, name: str, params: Sequence[str]) -> Block:
        from optuna.visualization import plot_slice

        figure = plot_slice(study, params=list(params), target_name=short_name(quantity))
        caption = "The same settings against each hyperparameter; the colour is the order in which they ended."
        return self._chart(figure, f"Slices of {short_name(quantity)}, {name}", caption, least=240 * len(params))

    def parallel(self, study: Study, quantity: Quantity, name: str, params: Sequence[str]) -> Block:
        from optuna.visualization import plot_parallel_coordinate

        figure = plot_parallel_coordinate(study, params=list(params), target_name=short_name(quantity))
        caption = "A line for each setting, coloured by its score; its values show where the mouse is on it."
        title = f"Parallel coordinates, {short_name(quantity)}, {name}"
        return self._chart(figure, title, caption, least=130 * len(params))

    def front(self, study: Study, quantities: Sequence[Quantity], name: str) -> Block:
        from optuna.visualization import plot_pareto_front

        names = [short_name(quantity) for quantity in quantities]
        figure = plot_pareto_front(study, target_names=names)
        caption = "Means over seeds. On the front are the settings that no other beats in every metric."
        return self._chart(figure, f"Pareto front of {' and '.join(names)}{name}", caption)


def main() -> None:
    flags = parse(Flags, prog="python -m analysis.search")
    sweep = read(flags.sweep, **how_read(flags), convention=flags.convention)
    quantities = searched(sweep, flags.metric)
    every = search(sweep, quantities)
    html = page(sweep, quantities, every, convention=flags.convention, seed=flags.seed)
    path = write_file(flags.out or f"{sweep.path}/analysis/search.html", html.encode())
    tables = []
    for task in every:
        shown = task.found if flags.format is not None else task.found[:_SHOWN]
        caption = in_symbols(task.where) if len(every) > 1 else ""
        own = table(shown, quantities)
        tables.append(Table(own.columns, own.rows, own.wrap, caption, data=own.data))
    print_tables(tables, flags.format)
    with beside(flags.format):
        left = sum(max(0, len(task.found) - _SHOWN) for task in every)
        if left and flags.format is None:
            print(f"{count(left, 'more setting')} on the page")
        print(path)


if __name__ == "__main__":
    run(main)
