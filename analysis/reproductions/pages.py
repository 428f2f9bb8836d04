"""A reproduction's page is made from its record: `python -m analysis.reproductions.pages [FOLDER …]` writes README.md;
without a folder all of them, and the list of them beside this file.

Each folder has the page's text, `page.md` (a jinja2 template), and `page.py`, whose `numbers(record)` computes what the
text names. No number is typed: `tests/analysis/test_reproductions.py` makes every page anew and looks for digits.
What the text may call besides:

    {{ given("two cores") }}          typed, as no record says it: hardware, what the paper leaves open
    {{ paper("0.532", "topgap-7") }}  of the paper; stands in `analysis/paper/claims.csv` under this table
    {{ quote("20 runs for each") }}   words of the paper of this folder's method; a test looks for them in its text
    {{ was("0.018") }}                what the page said before it was corrected
    {% call so(condition) %}falls first{% endcall %}     words that follow from the record; where they do not, an error
    {{ finding("deform-4", "are more stable", "max-pool") }}  what `python -m analysis.paper` finds of it, with p
"""

from __future__ import annotations

import importlib.util
import json
import re
import sys
import textwrap
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from analysis.command_line import InputError, run
from analysis.comparisons import Comparison, compare
from analysis.multiplicity import adjust
from analysis.options import Options, options_of
from analysis.paper.lines import Line
from analysis.paper.printed import claims
from analysis.paper.verdicts import check_all
from analysis.records import Sweep, read_sweep

HERE = Path(__file__).resolve().parent
LIST = "."
FOLDERS = sorted(path.parent.name for path in HERE.glob("*/page.md"))
WIDTH = 120
SIGNIFICANT = 0.05
NUMBERS = ["no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]

BySeed = dict[int, float]


class ClaimError(ValueError):
    """A sentence of a page does not follow from its record."""


# --- the record -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Record:
    """A sweep's trials and measurements as a page needs them."""

    sweep: Sweep

    @cached_property
    def trials(self) -> dict[str, dict[str, Any]]:
        return {row["trial_id"]: row for row in self.sweep.trials.to_pylist()}

    @cached_property
    def measured(self) -> dict[tuple[str, str, int], dict[str, dict[str, Any]]]:
        """Rows of the measurements by metric, component and epoch, and then by trial."""
        found: dict[tuple[str, str, int], dict[str, dict[str, Any]]] = defaultdict(dict)
        for row in self.sweep.measurements.to_pylist():
            own = found[row["metric"], row["component"] or "", row["epoch"]]
            if row["trial_id"] in own:
                raise ValueError(f"{row['metric']} {row['component']}: several levels of it, a page needs one")
            own[row["trial_id"]] = row
        return found

    @cached_property
    def by_epoch(self) -> dict[tuple[str, int], dict[str, Any]]:
        """Rows of the epochs by trial and epoch."""
        return {(row["trial_id"], row["epoch"]): row for row in self.sweep.epochs.to_pylist()}

    @cached_property
    def last(self) -> int:
        return int(self.one("epochs"))

    def ids(self, **columns: Any) -> list[str]:
        """The trials with these values, by seed."""
        rows = [row for row in self.trials.values() if all(row[name] == value for name, value in columns.items())]
        return [row["trial_id"] for row in sorted(rows, key=lambda row: row["seed"])]

    def one(self, column: str, ids: Iterable[str] | None = None) -> Any:
        """The value that all trials have in this column, missing ones left out. Raises `ValueError` for several."""
        values = {self.trials[trial][column] for trial in (self.trials if ids is None else ids)} - {None}
        if len(values) != 1:
            raise ValueError(f"{column}: {len(values)} values, the page needs one")
        return values.pop()

    def swept(self, column: str) -> str:
        """The column's values in words, in order: "1, 10, 100"."""
        values = sorted({row[column] for row in self.trials.values()} - {None})
        return ", ".join(f"{value:g}" if isinstance(value, int | float) else str(value) for value in values)

    def configured(self, part: str, name: str) -> Any:
        """The value that all trials' configurations have in this place. Raises `ValueError` for several."""
        texts = {json.dumps(json.loads(row["config"])[part].get(name)) for row in self.trials.values()}
        if len(texts) != 1:
            raise ValueError(f"{part}.{name}: {len(texts)} values, the page needs one")
        return json.loads(texts.pop())

    def column(self, name: str, ids: Iterable[str]) -> BySeed:
        """A column of the trials table by seed."""
        return self._by_seed({trial: self.trials[trial][name] for trial in ids})

    def values(self, metric: str, component: str = "", *, ids: Iterable[str], epoch: int | None = None) -> BySeed:
        """A measurement by seed, at the last epoch by default, of those of the trials that have it.

        Raises `ValueError` if they were measured with different options: such numbers are never averaged.
        """
        rows = self.measured[metric, component, self.last if epoch is None else epoch]
        own = {trial: rows[trial] for trial in ids if trial in rows and rows[trial]["value"] is not None}
        kinds: set[Options | None] = {
            options_of(self.trials[trial]["measured"], metric, component, row["n"]) for trial, row in own.items()
        }
        if len(kinds) > 1:
            raise ValueError(f"{metric} {component}: measured with different options, not to be averaged")
        return self._by_seed({trial: row["value"] for trial, row in own.items()})

    def _by_seed(self, values: Mapping[str, Any]) -> BySeed:
        found = {self.trials[trial]["seed"]: value for trial, value in values.items() if value is not None}
        if len(found) < sum(value is not None for value in values.values()):
            raise ValueError("several trials of a seed: the trials are of several settings")
        return found

    # --- who ran it, and how long ---

    @cached_property
    def versions(self) -> str:
        torch = self.one("torch").partition("+")[0]
        return f"torch {torch}, Ray {self.one('ray')}, Python {self.one('python')}"

    @cached_property
    def commit(self) -> str:
        return str(self.one("git_commit"))[:7]

    @cached_property
    def elapsed(self) -> timedelta:
        """From the first trial's start to the last one's end; of several runs the sum, as pauses are not counted."""
        runs = [pq.read_table(path).to_pylist()[0] for path in sorted(Path(self.sweep.path).glob("runs/*.parquet"))]
        if runs:
            return sum((row["finished_at"] - row["started_at"] for row in runs), timedelta())
        ends = [row["finished_at"] for row in self.trials.values()]
        return max(ends) - min(row["started_at"] for row in self.trials.values())

    @cached_property
    def images(self) -> int:
        """That a trial was trained on in each epoch, by its speed and time. Raises `ValueError` where trials differ."""
        found = {round(row["images_per_second"] * row["train_seconds"] / row["epochs"]) for row in self.trials.values()}
        if len(found) != 1:
            raise ValueError(f"{len(found)} numbers of training images, the page needs one")
        return found.pop()

    @cached_property
    def minutes(self) -> str:
        return number(self.elapsed.total_seconds() / 60, ".0f")

    @cached_property
    def hours(self) -> str:
        return number(self.elapsed.total_seconds() / 3600, ".1f")

    @cached_property
    def seconds(self) -> str:
        """Of training and measuring: the fastest and the slowest trial."""
        spent = [row["train_seconds"] + row["measure_seconds"] for row in self.trials.values()]
        return f"{number(min(spent), ',.0f')} to {number(max(spent), ',.0f')} s"

    def total(self, column: str) -> float:
        """Seconds summed over trials."""
        return float(sum(row[column] for row in self.trials.values()))


def read(folder: str) -> Record:
    return Record(read_sweep(str(HERE / folder)))


# --- numbers in words -------------------------------------------------------------------------------------------------


def number(value: float, form: str) -> str:
    """With a real minus, none before a zero, and short exponents (1e5)."""
    text = re.sub(r"e\+?(-?)0*(?=\d)", r"e\1", format(value, form))
    if text.startswith("-") and not re.search("[1-9]", text):
        text = text[1:]
    return text.replace("-", "−")


def mean_sd(values: Iterable[float], form: str = ".3f") -> str:
    """Mean ± standard deviation over seeds, the mean alone of one, and nothing of none."""
    known = list(values)
    if not known:
        return ""
    spread = f" ± {format(np.std(known, ddof=1), form)}" if len(known) > 1 else ""
    return f"{number(float(np.mean(known)), form)}{spread}"


def p_text(p_value: float) -> str:
    return number(p_value, ".2g")


def at_most(p_values: Iterable[float]) -> str:
    """ "p ≤ …" of the largest of them, rounded up, so that it is true."""
    largest = max(p_values)
    rounded = float(f"{largest:.2g}")
    if rounded < largest:
        step = 10.0 ** (np.floor(np.log10(largest)) - 1)
        rounded = float(f"{largest + step / 2:.2g}")
    if rounded < largest:
        raise ValueError(f"{largest}: rounded down to {rounded}")
    return f"p ≤ {number(rounded, '.2g')}"


def percent(share: float, form: str = ".0f") -> str:
    return f"{number(100 * share, form)}%"


def word(n: int) -> str:
    """A small number in words."""
    return NUMBERS[n] if n < len(NUMBERS) else str(n)


def listed(names: Sequence[str], last: str = "and") -> str:
    """ "a, b and c"."""
    return ", ".join(names[:-1]) + f" {last} {names[-1]}" if len(names) > 1 else "".join(names)


def layer_name(component: str) -> str:
    return component.removesuffix(".conv")


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row in rows:
        if len(row) != len(heads):
            raise ValueError(f"{row}: {len(row)} cells for {len(heads)} heads")
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


# --- tests of several at a time ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tested:
    """A paired comparison, and its p adjusted over those that it was made with."""

    comparison: Comparison
    p: float

    @property
    def difference(self) -> float:
        return self.comparison.difference

    @property
    def rises(self) -> bool:
        """Is shown to be greater."""
        return self.p < SIGNIFICANT and self.difference > 0

    @property
    def falls(self) -> bool:
        return self.p < SIGNIFICANT and self.difference < 0


def tested(pairs: Mapping[str, tuple[BySeed, BySeed]]) -> dict[str, Tested]:
    """The second less the first of each pair of values by seed: t-test of the seeds that both have, p after Holm over
    all of them."""
    tests = {}
    for name, (first, second) in pairs.items():
        seeds = sorted(first.keys() & second.keys())
        tests[name] = compare([second[seed] for seed in seeds], [first[seed] for seed in seeds], paired=True)
    adjusted = adjust([test.p_value for test in tests.values()])
    return {name: Tested(test, float(p)) for (name, test), p in zip(tests.items(), adjusted, strict=True)}


# --- what the tool says -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Said:
    """What `python -m analysis.paper` makes of the papers' statements on a record."""

    sweep: Sweep

    @cached_property
    def tables(self) -> dict[str, list[Line]]:
        return {table.item.id: table.lines for table in check_all(self.sweep)}

    def line(self, table: str, statement: str, *words: str) -> Line:
        """The one line of a table about this statement (a part of it) of whose setting and order these are words.
        Raises `ValueError` if there is not one."""
        found = [
            line
            for line in self.tables[table]
            if statement in line.row
            and all(word in re.split(r"[,:;] | ", f"{line.column}, {line.setting}, {line.paper}") for word in words)
        ]
        if len(found) != 1:
            raise ValueError(f"{table}, {statement}, {words}: {len(found)} lines, the page needs one")
        return found[0]

    def finding(self, table: str, statement: str, *words: str) -> str:
        line = self.line(table, statement, *words)
        if not line.finding:
            raise ValueError(f"{table}, {statement}, {words}: nothing is found ({line.why})")
        return f"**{line.finding}** (p = {p_text(line.order_p)})"

    def unlike(self, table: str, statement: str, *words: str) -> str:
        """In what the record is not as in the paper, for which the verdict is "not comparable"."""
        line = self.line(table, statement, *words)
        if line.verdict != "not comparable":
            raise ValueError(f"{table}, {statement}, {words}: the verdict is {line.verdict}")
        return f"not comparable ({line.why})"


# --- the page ---------------------------------------------------------------------------------------------------------


def so(condition: Any, caller: Callable[[], str]) -> str:
    """The words between `{% call so(condition) %}` and `{% endcall %}`. Raises `ClaimError` if they do not hold."""
    words = caller()
    if not isinstance(condition, bool | np.bool_):
        raise TypeError(f"“{words}”: a condition is true or false, not {condition!r}")
    if not condition:
        raise ClaimError(f"“{words}” does not follow from the record")
    return words


def paper(printed: str, item: str) -> str:
    """A number as the paper prints it. Raises `ClaimError` if the table or figure of this ID has no such number."""
    plain = printed.replace("−", "-").replace(",", "").rstrip("%")
    for claim in claims():
        if claim.table == item and plain in (claim.printed, claim.printed.rstrip("0")):
            return printed
    raise ClaimError(f"{printed}: no number of {item} in claims.csv")


def quote(words: str) -> str:
    """Words of the paper; "…" stands for what is left out."""
    return f'*"{words}"*'


def typed(text: str) -> str:
    return text


HELPERS: dict[str, Any] = {
    "given": typed,
    "was": typed,
    **{
        helper.__name__: helper
        for helper in (so, paper, quote, number, mean_sd, p_text, at_most, percent, word, listed)
    },
}


def environment() -> Environment:
    engine = Environment(
        loader=FileSystemLoader(HERE), undefined=StrictUndefined, keep_trailing_newline=True, line_statement_prefix="%%"
    )
    engine.globals |= HELPERS
    return engine


def code_of(folder: str) -> Any:
    """The folder's `page.py` as a module; its folder's name is no package's."""
    spec = importlib.util.spec_from_file_location(f"page_of_{folder.replace('-', '_')}", HERE / folder / "page.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def numbers_of(folder: str) -> Mapping[str, Any]:
    """What the folder's `page.py` computes from its record; of the list of folders their records."""
    if folder == LIST:
        return {name.replace("-", "_"): read(name) for name in FOLDERS}
    record = read(folder)
    said = Said(record.sweep)
    return {
        "record": record,
        "one": record.one,
        "finding": said.finding,
        "unlike_paper": said.unlike,
        **code_of(folder).numbers(record),
    }


def rendered(folder: str) -> str:
    """The page of this folder. Raises `ClaimError` where a sentence of it does not follow from its record."""
    template = environment().get_template("page.md" if folder == LIST else f"{folder}/page.md")
    return wrapped(template.render(numbers_of(folder)))


def wrapped(page: str) -> str:
    """The page with its paragraphs and items broken at `WIDTH`; tables, code, headings and images as they are."""
    parts = re.split(r"(^```.*?^```\n)", page, flags=re.MULTILINE | re.DOTALL)
    for index in range(0, len(parts), 2):
        blocks = re.split(r"(\n{2,})", parts[index])
        parts[index] = "".join(_block(block) for block in blocks)
    return "".join(parts)


def _block(block: str) -> str:
    if not block.strip() or re.match(r"\s*(\||#|!\[)", block):
        return block
    start, inner, end = re.fullmatch(r"(\s*)(.*?)(\s*)", block, re.DOTALL).groups()  # type: ignore[union-attr]
    if inner.startswith("- "):
        return start + "\n".join(_filled(item, "  ") for item in re.split(r"\n(?=- )", inner)) + end
    return start + _filled(inner) + end


def _filled(text: str, indent: str = "") -> str:
    return textwrap.fill(
        " ".join(text.split()), WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def main() -> None:
    chosen = [folder.rstrip("/").rsplit("/", 1)[-1] for folder in sys.argv[1:]] or [*FOLDERS, LIST]
    for folder in chosen:
        if folder not in (*FOLDERS, LIST):
            raise InputError(f"FOLDER: {folder}, allowed are {', '.join(FOLDERS)}")
    for folder in chosen:
        try:
            page = rendered(folder)
        except ClaimError as error:
            raise InputError(f"{folder}/page.md: {error}") from None
        path = HERE / folder / "README.md"
        path.write_text(page, encoding="utf-8")
        print(path)


if __name__ == "__main__":
    run(main)
