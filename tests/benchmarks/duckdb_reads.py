"""What the analysis is held against: DuckDB reads all of a record and aggregates it.

    python -m tests.benchmarks.duckdb_reads SWEEP

The epochs by trial, the measurements by trial and by what they are of, the trials by setting, the maps by name; and all
columns of the trials in their order, as the analysis needs them.
"""

from __future__ import annotations

import sys

import duckdb

from analysis.schema import TABLES


def read(sweep: str) -> int:
    """The number of rows that came out."""
    connection = duckdb.connect()
    connection.execute("set threads = 1")

    def table(name: str) -> str:
        return f"read_parquet('{sweep}/{name}/*.parquet')"

    numbers = [name for name in TABLES["epochs"].names if name not in ("trial_id", "epoch")]
    statistics = ", ".join(f"avg({name}), min({name}), max({name})" for name in numbers)
    queries = (
        f"select trial_id, max(epoch), {statistics} from {table('epochs')} group by trial_id",
        f"select trial_id, metric, component, max(epoch), avg(value), avg(std), sum(n) from {table('measurements')} "
        "group by all",
        f"select metric, component, level, unit, direction, avg(value), stddev(value) from {table('measurements')} "
        "group by all",
        f"select method, variant, interval, alpha, avg(top1), stddev(top1) from {table('trials')} group by all",
        f"select * from {table('trials')} order by trial_id",
        f"select name, epoch, count(*), avg(list_avg(values)) from {table('maps')} group by all",
    )
    return sum(len(connection.execute(query).fetchall()) for query in queries)


if __name__ == "__main__":
    print(read(sys.argv[1]), "rows")
