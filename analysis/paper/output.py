"""What `python -m analysis.paper` prints and writes."""

from __future__ import annotations

from analysis import formats
from analysis.command_line import InputError
from analysis.figures import files
from analysis.formats import Format, beside, print_tables
from analysis.groups import count, out_folder
from analysis.paper.figures import FIGURES, draw, missing
from analysis.paper.items import ITEMS
from analysis.paper.ours import _Ours
from analysis.paper.printed import claims
from analysis.paper.unmatched import rows_of_unmatched, told, unmatched
from analysis.paper.verdicts import Table, _check, rows_of, summary
from analysis.paper.words import printed_reasons, reasons
from analysis.records import Sweep, write_file
from analysis.results import parquet


def _print(table: Table, form: Format | None) -> None:
    if not table.lines:
        with beside(form):
            print(f"{table.item.id}: {table.item.title}")
            print(f"  {table.why}")
        return
    if form is None:
        print_tables([table.shown()], None)
    with beside(form):
        for number, reason in enumerate(reasons(table), start=1):
            print(f"({number}) {reason}")
        lines = count(len(table.lines), "line")
        print(f"{summary(table)}; {lines} for {table.of} numbers and statements of the paper")


def print_list(sweep: Sweep | None, form: Format | None = None) -> None:
    """Every table and figure, what it needs, and whether the sweep has it."""
    ours = None if sweep is None else _Ours(sweep)
    tables = {} if ours is None else {name: _check(ours, name) for name in ITEMS}
    rows = []
    for item in ITEMS.values():
        numbers = sum(claim.table == item.id for claim in claims())
        row: tuple[str, ...] = (item.id, item.title, item.needs, str(numbers))
        if sweep is not None and ours is not None:
            row += (_has(sweep, tables[item.id], ours.is_of(item.id)),)
        rows.append(row)
    columns: tuple[str, ...] = ("ID", "table or figure", "needs", "numbers")
    if sweep is not None:
        columns += (f"in {sweep.name}",)
    print_tables([formats.Table(columns, rows, wrap=(0, 1, 2, 4))], form)


def _has(sweep: Sweep, table: Table, is_of: bool) -> str:
    figure = table.item.id in FIGURES
    lacking = missing(sweep, table.item.id) if figure else ""
    parts = []
    if table.lines:
        what = "yes" if is_of else "unregularised trials only"
        parts.append(f"{what}: {count(len(table.lines), 'line')}, {summary(table)}")
    elif table.of:
        parts.append(f"no: {table.why}")
    if figure:
        parts.append(f"figure: {lacking}" if lacking else "figure: yes")
    return "; ".join(parts) or "nothing to check in a sweep"


def write_tables(
    sweep: Sweep,
    table_id: str | None,
    out: str | None,
    reference_below: float | None = None,
    form: Format | None = None,
) -> None:
    """Write and print the tables and figures that the sweep has something of, or the one asked for. Raises `InputError`
    if it has nothing."""
    ours = _Ours(sweep, reference_below)
    chosen = [table_id] if table_id else [name for name in ITEMS if ours.is_of(name)]
    tables = [_check(ours, name) for name in chosen]
    drawable = [name for name in chosen if name in FIGURES and not missing(sweep, name)]
    if not drawable and not any(table.lines for table in tables):
        table = tables[0] if tables else _check(ours, "pilcro-1")
        lacking = missing(sweep, table.item.id) if table.item.id in FIGURES and not table.of else table.why
        if table_id:
            raise InputError(
                f"--table {table_id}: {sweep.path} has nothing of it ({lacking}); needs {table.item.needs}"
            )
        raise InputError(f"{sweep.path}: has nothing of any paper's tables; --list says what each needs")
    folder = out_folder(out, sweep)
    contents = {}
    for table in tables:
        if table.lines:
            contents[f"{folder}/{table.item.id}.parquet"] = parquet(rows_of(table))
    left = unmatched(ours, tables)
    unmatched_ones = formats.Table((), (), data=rows_of_unmatched(left))
    contents[f"{folder}/unmatched.csv"] = formats.written([unmatched_ones], "csv").encode()
    problems = []
    for name in drawable:
        try:
            parts = draw(sweep, name, ours.limit(name))
        except InputError as error:
            if table_id:
                raise
            problems.append(f"no figure {name}: {error}")
            continue
        for drawn in parts:
            contents |= files(drawn.figure, f"{folder}/{name}{drawn.suffix}", sweep, images=drawn.images)
    written = [write_file(name, whole) for name, whole in contents.items()]
    found = [table for table in tables if table.lines]
    if form is not None:
        # the numbers in full have the reasons in a column of their own
        print_tables(
            [part for table in found for part in (table.shown(), *(printed_reasons(table) if form != "csv" else ()))],
            form,
        )
    for table in found:
        _print(table, form)
    with beside(form):
        for text in told(left):
            print(text)
        _print_rest(tables, table_id, drawable, problems, written)


def _print_rest(
    tables: list[Table], table_id: str | None, drawable: list[str], problems: list[str], written: list[str]
) -> None:
    rest = [table.item.id for table in tables if not table.lines and table.item.id not in drawable]
    if rest and not table_id:
        print(f"nothing of {', '.join(rest)}: --list says what each needs")
    for problem in problems:
        print(problem)
    for path in written:
        print(path)
