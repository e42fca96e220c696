"""Confidence intervals of means over pages, by the bootstrap.

The percentile interval of Efron (1979, doi:10.1214/aos/1176344552; Efron and Tibshirani, An
Introduction to the Bootstrap, 1993, chapter 13): pages are drawn with replacement, as many as there
are, and the interval holds the middle 95 % of the means of 10,000 such draws. It tells how much
hangs on which pages of their kind were taken. Pages of one episode resemble each other, so for
other episodes it is too narrow, and with few pages it is a little too narrow anyway.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

RESAMPLES = 10_000
LEVEL = 0.95
_SEED = 0
_AT_ONCE = 100  # resamples, so that thousands of pages need no gigabytes


class Estimate(NamedTuple):
    """A mean over pages and the bounds of its interval."""

    mean: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of 0."""
        return self.low > 0 or self.high < 0


def estimate(values: Sequence[float]) -> Estimate:
    """The mean of `values`, one a page, at least one page, and its interval.

    For as many pages it is always the same pages that are drawn, so the interval of differences
    page by page is that of the paired comparison. Infinite values are as in arithmetic: the result
    may be infinite, or NaN.
    """
    pages = np.asarray(values, np.float64)
    rng = np.random.default_rng(_SEED)
    drawn = (
        rng.integers(len(pages), size=(_AT_ONCE, len(pages))) for _ in range(RESAMPLES // _AT_ONCE)
    )
    tail = (1 - LEVEL) / 2
    with np.errstate(invalid="ignore"):  # infinities of both signs
        means = np.concatenate([pages[places].mean(axis=1) for places in drawn])
        low, high = np.quantile(means, (tail, 1 - tail), method="inverted_cdf")
        return Estimate(float(pages.mean()), float(low), float(high))
