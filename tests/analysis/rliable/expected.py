"""Makes expected.json: what rliable, the library of Agarwal et al. 2021, says of some scores.

    uv run --no-project --with rliable==1.2.0 --with "pandas<3" python tests/analysis/rliable/expected.py

In an environment of its own: rliable 1.2.0 needs a release of arch that does not import with pandas 3.
"""

import json
from pathlib import Path

import numpy as np
from rliable import library, metrics

draw = np.random.default_rng(3)
x, y = draw.normal(0.5, 1, size=(10, 3)).round(1), draw.normal(size=(8, 3)).round(1)
tau = np.linspace(-2, 2, 9)
_, ends = library.get_interval_estimates(
    {"x,y": (x, y)}, metrics.probability_of_improvement, reps=50_000, random_state=np.random.RandomState(0)
)
np.random.seed(0)
shares, bands = library.create_performance_profile({"x": x}, tau, reps=50_000)
expected = {
    "x": x.tolist(),
    "y": y.tolist(),
    "probability": float(metrics.probability_of_improvement(x, y)),
    "interval": ends["x,y"].ravel().tolist(),
    "tau": tau.tolist(),
    "share": shares["x"].tolist(),
    "band": bands["x"].tolist(),
}
lines = ",\n".join(f" {json.dumps(name)}: {json.dumps(value)}" for name, value in expected.items())
Path(__file__).with_name("expected.json").write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")
