from __future__ import annotations

import math

import numpy as np
import pytest

from training.bootstrap import Estimate, estimate


def test_the_interval_of_yes_and_no_is_that_of_the_binomial_distribution() -> None:
    # Ten of twenty: the 2.5 % and 97.5 % quantiles of a binomial(20, 0.5) are 6 and 14.
    assert estimate([0, 1] * 10) == pytest.approx((0.5, 0.3, 0.7))


def test_the_interval_of_many_pages_is_the_normal_one() -> None:
    values = np.random.default_rng(1).normal(5, 2, 2000)
    mean, low, high = estimate(list(values))
    half = 1.96 * values.std() / math.sqrt(2000)
    assert mean == pytest.approx(values.mean())
    assert (mean - low, high - mean) == pytest.approx((half, half), rel=0.05)


def test_the_same_pages_are_drawn_each_time() -> None:
    values = np.random.default_rng(2).random(17)
    assert estimate(list(values)) == estimate(list(values))
    assert estimate(list(10 * values + 1)) == pytest.approx(
        tuple(10 * bound + 1 for bound in estimate(list(values)))
    )


def test_one_page_tells_nothing_of_others() -> None:
    assert estimate([3.5]) == (3.5, 3.5, 3.5)


def test_infinite_figures() -> None:
    one = estimate([math.inf, *[1.0] * 19])
    assert one == (math.inf, 1, math.inf)
    both = estimate([math.inf, -math.inf, 1])
    assert math.isnan(both.mean)
    assert not both.excludes_zero


@pytest.mark.parametrize(
    ("low", "high", "excluded"), [(-2, -1, True), (1, 2, True), (-1, 1, False), (0, 0, False)]
)
def test_which_intervals_leave_out_zero(low: float, high: float, excluded: bool) -> None:
    assert Estimate((low + high) / 2, low, high).excludes_zero is excluded
