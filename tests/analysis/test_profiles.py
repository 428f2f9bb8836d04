"""Performance profiles and probabilities of improvement: by hand, against scipy, and against rliable."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from matplotlib.figure import Figure
from scipy import stats

from analysis.command_line import InputError
from analysis.figures import ProfileCurve, profile_figure
from analysis.profiles import main, profiles
from analysis.schema import Direction
from analysis.score_distributions import Profile, performance_profile, probability_of_improvement

Record = Callable[..., bool]
Command = Callable[..., tuple[int, str, str]]


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_a_profile_by_hand() -> None:
    """Two tasks of three and two runs: above 1 are 2/3 and 1/2, on average 7/12; above 2, 1/3 and 1/2: 5/12."""
    found = performance_profile([[1, 2, 3], [0, 4]], [-1, 1, 2, 4], rng=rng())
    assert found.share == pytest.approx([1, 7 / 12, 5 / 12, 0])
    below = performance_profile([[1, 2, 3], [0, 4]], [-1, 1, 2, 4.5], direction="min", rng=rng())
    assert below.share == pytest.approx([0, (0 + 1 / 2) / 2, (1 / 3 + 1 / 2) / 2, 1])


def test_a_band_is_that_of_the_binomial() -> None:
    """Of one task, the number of runs above τ in a bootstrap is binomial: the band's ends are its quantiles."""
    scores = np.arange(20.0)
    found = performance_profile([scores], [9.5, 3.5, 100], bootstraps=50_000, rng=rng())
    for index, share in enumerate([0.5, 0.8]):
        low, high = stats.binom.ppf([0.025, 0.975], 20, share) / 20
        assert (found.low[index], found.high[index]) == pytest.approx((low, high), abs=1e-9)
    assert (found.low[2], found.high[2]) == (0, 0)


def test_improvement_by_hand() -> None:
    """(3, 1) against (2, 1): 3 beats both, 1 loses to 2 and ties with 1: 2.5 of 4 pairs."""
    assert probability_of_improvement([[3, 1]], [[2, 1]], rng=rng()).value == 2.5 / 4
    assert probability_of_improvement([[3, 1]], [[2, 1]], direction="min", rng=rng()).value == 1.5 / 4
    two = probability_of_improvement([[3, 1], [5]], [[2, 1], [9, 4]], rng=rng())
    assert two.value == (2.5 / 4 + 1 / 2) / 2
    equal = probability_of_improvement([[1, 1]], [[1, 1, 1]], rng=rng())
    assert (equal.value, equal.low, equal.high) == (0.5, 0.5, 0.5)


def test_it_is_mann_and_whitneys_u() -> None:
    draw = np.random.default_rng(1)
    x, y = draw.normal(size=9).round(1), draw.normal(size=12).round(1)
    u = stats.mannwhitneyu(x, y, alternative="greater").statistic
    assert probability_of_improvement([x], [y], rng=rng()).value == pytest.approx(u / (9 * 12), abs=1e-12)


def test_intervals_against_scipys_bootstrap() -> None:
    """Percentiles of as many other draws: within three standard errors of a percentile, about 0.01."""
    draw = np.random.default_rng(2)
    x, y = draw.normal(0.6, 1, size=15), draw.normal(size=12)

    def share(one: np.ndarray, other: np.ndarray) -> float:
        return float((one[:, None] > other).mean())

    known = stats.bootstrap((x, y), share, vectorized=False, method="percentile", n_resamples=4000, rng=rng())
    found = probability_of_improvement([x], [y], bootstraps=4000, rng=rng())
    assert (found.low, found.high) == pytest.approx(tuple(known.confidence_interval), abs=0.015)


def test_against_rliable() -> None:
    """What the library of the paper's authors says (`rliable/expected.py`): values to rounding, intervals to the error
    of bootstraps."""
    known = json.loads((Path(__file__).parent / "rliable" / "expected.json").read_text(encoding="utf-8"))
    x, y, tau = (np.array(known[name]) for name in ("x", "y", "tau"))
    found = probability_of_improvement(list(x.T), list(y.T), bootstraps=50_000, rng=rng())
    assert found.value == pytest.approx(known["probability"], abs=1e-12)
    assert (found.low, found.high) == pytest.approx(tuple(known["interval"]), abs=0.005)
    profile = performance_profile(list(x.T), tau, bootstraps=50_000, rng=rng())
    assert profile.share == pytest.approx(known["share"], abs=1e-12)
    # the ends are multiples of a run in thirty, of which a percentile may fall on either
    assert np.abs(np.array([profile.low, profile.high]) - known["band"]).max() <= 1 / 30 + 1e-9
    assert np.abs(np.array([profile.low, profile.high]) - known["band"]).mean() <= 1 / 300


@pytest.mark.parametrize(
    ("scores", "reference", "words"),
    [
        ([], [], "scores: no task"),
        ([[1.0]], [[1.0], [2.0]], "reference: 2 tasks for 1"),
        ([[]], [[1.0]], "scores: a task of shape"),
        ([[1.0]], [[np.nan]], "reference: not finite"),
    ],
)
def test_what_is_no_sample_is_refused(scores: list[list[float]], reference: list[list[float]], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        probability_of_improvement(scores, reference)


@pytest.fixture
def sweep(record: Record, tmp_path: Path) -> Path:
    """Accuracies .50 to .52 without regularisation, .51 to .53 and .40 to .42 with it; a failed trial."""
    folder = tmp_path / "sweep"
    for seed in range(3):
        top1 = round(0.5 + 0.01 * seed, 2)
        record(folder, f"b{seed}", method="baseline", alpha=None, variant=None, seed=seed, top1=top1, loss=1 + top1)
        for alpha, change in ((1.0, 0.01), (10.0, -0.1)):
            own = round(top1 + change, 2)
            record(folder, f"a{alpha}{seed}", alpha=alpha, seed=seed, top1=own, loss=1 + own)
    record(folder, "f", alpha=1.0, seed=3, status="failed", top1=None)
    return folder


def at(profile: Profile, tau: float) -> float:
    """The step that τ is on."""
    return float(profile.share[np.searchsorted(profile.tau, tau, side="right") - 1])


def test_settings_of_a_sweep(sweep: Path) -> None:
    """.51, .52, .53 against .50, .51, .52: .51 beats .50 and ties with .51, .52 beats two and ties with one, .53 beats
    three: (1.5 + 2.5 + 3) / 9."""
    found = profiles(sweep)
    weak, strong = found
    assert weak.improvement is not None
    assert strong.improvement is not None
    assert weak.improvement.value == pytest.approx(7 / 9)
    assert (strong.improvement.value, strong.improvement.low, strong.improvement.high) == (0, 0, 0)
    assert (weak.n, weak.n_reference, weak.compared) == (3, 3, 1)
    assert at(weak.profile, 0.505) == pytest.approx(1)
    assert found.baseline is not None
    assert at(found.baseline, 0.505) == pytest.approx(2 / 3)
    assert at(found.baseline, 0.51) == pytest.approx(1 / 3)
    assert "1 trial failed: left out" in found.notes
    assert any("too narrow of 3 runs of a setting" in note for note in found.notes)
    assert any("an interval of no width says" in note for note in found.notes)
    # less loss is better, and the strong ones have less
    other = profiles(sweep, metric="loss")[1].improvement
    assert other is not None
    assert other.value == 1


def test_what_is_pooled_is_tasks(sweep: Path) -> None:
    (found,) = profiles(sweep, by="method")
    assert found.improvement is not None
    assert found.improvement.value == pytest.approx((7 / 9 + 0) / 2)
    assert (found.n, len(found.scores), found.compared) == (6, 2, 2)


def test_other_data_are_compared_with_their_own_baseline(record: Record, tmp_path: Path) -> None:
    for seed, (data, level) in itertools.product(range(3), [("digits", 0.5), ("mnist", 0.9)]):
        record(
            tmp_path, f"b{data}{seed}", method="baseline", alpha=None, variant=None, dataset=data, seed=seed, top1=level
        )
        record(tmp_path, f"a{data}{seed}", dataset=data, seed=seed, top1=level + 0.01 * (1 if data == "mnist" else -1))
    (found,) = profiles(tmp_path, by="method")
    assert found.improvement is not None
    assert found.improvement.value == 0.5  # always better on the one, never on the other


def test_without_a_baseline_there_are_profiles_alone(record: Record, tmp_path: Path) -> None:
    for seed in range(2):
        record(tmp_path, f"a{seed}", seed=seed, top1=0.5 + seed / 10)
    (found,) = result = profiles(tmp_path)
    assert (found.improvement, found.reason) == (None, "no unregularised trial")
    assert isinstance(result.figure(), Figure)
    assert "none: no unregularised trial" in repr(result)
    assert result.to_pandas()["probability"].isna().all()


def test_the_command(sweep: Path, command: Command, tmp_path: Path) -> None:
    code, out, err = command(main, sweep, "--out", tmp_path / "out")
    assert (code, err) == (0, "")
    assert "0.778 [" in out
    written = pq.read_table(tmp_path / "out" / "profiles.parquet")
    assert written.equals(profiles(sweep).to_arrow())
    assert written["probability"].to_pylist() == pytest.approx([7 / 9, 0])
    code, out, err = command(main, sweep, "--metric", "train_seconds")
    assert (code, out, err.count("\n")) == (2, "", 1)
    with pytest.raises(InputError, match="--by nothing: no such column"):
        profiles(sweep, by="nothing")


def test_figures_tell_no_more_apart_than_can_be() -> None:
    curve = ProfileCurve("a", [0, 1], [1, 0], [1, 0], [1, 0], 3)
    with pytest.raises(ValueError, match="curves: 7, allowed are 1 to 6"):
        profile_figure([curve] * 7, metric="top1", direction="max", reference="b")
    assert len(profile_figure([curve], metric="top1", direction="max", reference="b").axes) == 1


@pytest.mark.parametrize(
    ("direction", "share", "limits"), [("max", [1, 1, 0.5, 0], (2, 3)), ("min", [0, 0, 0.5, 1], (1, 2))]
)
def test_figures_show_where_profiles_fall(
    direction: Direction, share: list[float], limits: tuple[float, float]
) -> None:
    """Scores 2 and 3: the share above τ falls at 2 and at 3; of scores 1 and 2 the share below τ rises after 1."""
    curve = ProfileCurve("a", [-100, 1, 2, 3] if direction == "max" else [-100, 1, 2, 9], share, share, share, 2)
    axes = profile_figure([curve], metric="top1", direction=direction, reference="b").axes[0]
    low, high = axes.get_xlim()
    assert (low, high) == pytest.approx((limits[0] - 0.05, limits[1] + 0.05))
