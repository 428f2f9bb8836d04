"""The papers' tables and figures beside ours.

    python -m analysis.paper results/pilcro                      every table the sweep has something of
    python -m analysis.paper results/pilcro --table pilcro-1     one table or figure
    python -m analysis.paper [results/pilcro] --list             every ID, what it needs, and whether the sweep has it

The papers' numbers are in `claims.csv` (one row each: paper, table, row, column, value, …, and which trials and which
quantity of a record they are about), what they say without a number in `trends.csv` (of strengths) and `orders.csv` (of
layers: see `orders`), how they trained and measured in `protocols.csv`. What is in no line is listed with its reason
(`unmatched`), on the screen and in `unmatched.csv`. A number of ours is a mean over
seeds with its 95% t interval; with cross-validation over the runs of all folds and seeds, as if they were independent
(see `groups.replicate`). The verdict is

- `agrees`: the paper's value lies in our interval, which is narrow enough to have left it out, or the order of settings
  that it claims holds (one-sided paired or Welch t-test, p < .05 after Holm's adjustment over the table); for a trend,
  Spearman's ρ has its sign (p < .05, Holm);
- `too wide to tell`: it lies in our interval, whose half-width is above the difference that the paper calls an effect
  (a tenth of the number where it names none); of layers, what is said is not shown, nor its opposite;
- `differs`: neither;
- `not comparable`: another data set, network or training than the paper's, or measured with other options, such as
  images, steps, restarts and queries of attacks (it says which), or too few seeds for an interval;
- `computed`: of a theorem, computed as printed, and no finding about the sweep.
"""

from __future__ import annotations

from analysis.lazily import exports

__getattr__ = exports(
    __name__,
    {
        "items": ("Item", "ITEMS", "METHODS"),
        "printed": ("Claim", "Trend", "claims", "trends"),
        "protocol": ("_configuration", "_same"),
        "lines": ("Judgement", "SIGNIFICANCE", "Line"),
        "ours": ("_Ours",),
        "verdicts": ("Table", "check", "check_all", "rows_of", "summary"),
        "figures": ("FIGURES", "Drawn", "draw", "missing"),
        "__main__": ("Flags", "main"),
    },
)
