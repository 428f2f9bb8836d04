"""When a trial has collapsed for good: by hand, and on a network that does no more than guess."""

from __future__ import annotations

import pytest

from trainables.collapse import has_collapsed


@pytest.mark.parametrize(
    ("top1", "ended"),
    [
        ([0.10, 0.12, 0.10], True),  # a third of nine epochs
        ([0.10, 0.12], False),  # not yet
        ([0.9, 0.9, 0.15, 0.10, 0.10], True),  # 1.5 / 10 counts
        ([0.10, 0.10, 0.151], False),
        ([0.10, 0.10, 0.2, 0.10, 0.10], False),  # a break in between
        ([0.10, 0.10, None], False),  # not known: it has diverged, or was not measured
        ([], False),
    ],
)
def test_a_third_of_the_epochs_in_a_row_are_no_better_than_guessing(top1: list[float | None], ended: bool) -> None:
    assert has_collapsed(top1, classes=10, epochs=9) is ended


def test_a_third_is_rounded_up_and_guessing_depends_on_the_classes() -> None:
    assert not has_collapsed([0.1] * 3, classes=10, epochs=10)
    assert has_collapsed([0.1] * 4, classes=10, epochs=10)
    assert not has_collapsed([0.1] * 4, classes=100, epochs=10)
    assert has_collapsed([0.5, 0.5], classes=2, epochs=4)
