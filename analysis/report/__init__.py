"""A sweep on one page: what was run, what came of it, and how that compares with the papers.

    python -m analysis.report results/pilcro
    python -m analysis.report results/pilcro --out report.html

The page is one file that needs nothing else, no network and no server. It is made of the record alone.
"""

from __future__ import annotations

from analysis.lazily import exports

__getattr__ = exports(__name__, {"build": ("report",), "__main__": ("Flags", "main")})
