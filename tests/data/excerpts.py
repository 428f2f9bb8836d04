"""Makes `papers/` from the papers' whole texts: `python -m tests.data.excerpts FOLDER`."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

from analysis.paper.printed import orders, trends
from tests.analysis.test_claims import FILES, claims, of_text, quotation, squashed, stands_in
from tests.analysis.test_reproductions import quotations

HERE = Path(__file__).resolve().parent / "papers"
OMITTED = "[…]"


def excerpt(paper: str, text: str) -> str:
    """Of a paper's text the tables with their captions, and the sentences that claims.csv, trends.csv,
    orders.csv and our pages quote."""
    lines = [re.split(r"(?<=[.!?]) ", line) for line in text.split("\n")]
    parts = [(i, j) for i, line in enumerate(lines) for j in range(len(line))]
    kept: set[tuple[int, int]] = set()

    def joined(first: int, last: int) -> str:
        rows: dict[int, list[str]] = {}
        for i, j in parts[first : last + 1]:
            rows.setdefault(i, []).append(lines[i][j])
        return "\n".join(" ".join(row) for row in rows.values())

    def keep(found: Callable[[str], object], what: str) -> None:
        """The shortest run of sentences in which it is found, the first of equal ones."""
        for length in range(12):
            for first in range(len(parts) - length):
                if found(joined(first, first + length)):
                    kept.update(parts[first : first + length + 1])
                    return
        raise ValueError(f"{paper}: not found: {what}")

    for i, line in enumerate(text.split("\n")):
        whole = {part for part in parts if part[0] == i}
        caption = re.match(r"Table (A?\d+)[:.]( |$)", line)
        if caption:
            kept.add((i, 0))
        if caption and paper == "pilcro":  # its tables are two paragraphs before their caption
            blank = max(k for k in range(i - 1) if lines[k] == [""])
            kept |= {part for part in parts if blank - 1 <= part[0] < i}
        if "\t" in line:
            kept |= whole
    for claim in claims():
        if claim["paper"] == paper and of_text(claim):
            keep(lambda part, claim=claim: stands_in(claim, squashed(part)), quotation(claim))
    for said in (*trends(), *orders()):
        if said.paper == paper:
            keep(lambda part, said=said: said.statement in re.sub(r"\s+", " ", part), said.statement)

    for words in quotations(paper):
        keep(lambda part, words=words: squashed(words) in squashed(part), words)

    rows = []
    for i, line in enumerate(lines):
        row = [part if (i, j) in kept else OMITTED for j, part in enumerate(line)]
        rows.append(
            " ".join(part for j, part in enumerate(row) if (part, row[j - 1] if j else "") != (OMITTED, OMITTED))
        )
    short = [row for i, row in enumerate(rows) if (row, rows[i - 1] if i else "") != (OMITTED, OMITTED)]
    return "\n".join(short) + "\n"


if __name__ == "__main__":
    HERE.mkdir(exist_ok=True)
    for name, pattern in FILES.items():
        (path,) = Path(sys.argv[1]).glob(pattern)
        (HERE / f"{pattern[:-1]}{name}.txt").write_text(
            excerpt(name, path.read_text(encoding="utf-8")), encoding="utf-8"
        )
