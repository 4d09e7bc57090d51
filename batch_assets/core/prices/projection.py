"""Project what requests will cost from what answers to other requests of the same prompt have cost."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from batch_assets.core.prices.range import Range

LEAST_ANSWERS = 3
"""Fewer answers say too little."""
# The normal quantile of 98 %: the range is to hold the total in more than 19 of 20 cases, also if a few long
# answers make the distribution skewed. The quantiles of Student's t for one to four degrees of freedom are exact.
_Z = 2.326
_FEW = (31.821, 6.965, 4.541, 3.747)
# The range is never narrower, because no two sets of rows have exactly the same mean.
_LEAST_SPREAD = 0.04


def project(costs: NDArray[np.float64], sizes: NDArray[np.float64], requests: int, bytes_: int) -> Range | None:
    """Return the range of a sum of costs: a line through known costs by size, and the usual prediction interval.

    Args:
        costs: Known costs in picodollars; float64, shape (n,).
        sizes: The bytes of their requests; float64, shape (n,).
        requests: The number of new requests.
        bytes_: Their bytes.

    Returns:
        `None` if too few costs are known.
    """
    known = len(costs)
    if known < LEAST_ANSWERS:
        return None
    mean_cost, mean_size = float(costs.mean()), float(sizes.mean())
    away, spread = sizes - mean_size, float(((sizes - mean_size) ** 2).sum())
    slope = float((away * costs).sum()) / spread if spread else 0.0
    residuals = costs - mean_cost - slope * away
    variance = float((residuals**2).sum()) / (known - 2)
    new_size = bytes_ / requests
    expected = requests * (mean_cost + slope * (new_size - mean_size))
    if expected <= 0:  # the line is no use so far from the known sizes
        expected, slope = requests * mean_cost, 0.0
        variance = float(costs.var(ddof=1))
    leverage = (new_size - mean_size) ** 2 / spread if slope else 0.0
    deviation = np.sqrt(variance * (requests + requests**2 * (1 / known + leverage)))
    half = max(_quantile(known - 2) * float(deviation), _LEAST_SPREAD * expected)
    return Range(max(0, round(expected - half)), round(expected), round(expected + half))


def _quantile(degrees: int) -> float:
    """Return the quantile of Student's t distribution that belongs to `_Z`, by its expansion for many degrees."""
    if degrees <= len(_FEW):
        return _FEW[degrees - 1]
    cube, fifth = _Z**3, _Z**5
    return _Z + (cube + _Z) / (4 * degrees) + (5 * fifth + 16 * cube + 3 * _Z) / (96 * degrees**2)
