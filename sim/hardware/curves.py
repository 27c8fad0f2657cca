"""Reading measured curves: linear in log x between points, or straight lines in log-log for times."""

from __future__ import annotations

import math
from itertools import pairwise

from .cluster import Curve


def interpolate(curve: Curve, x: float) -> float:
    """y of ``curve`` at ``x``: linear in log x between points, the end values outside them."""
    if x <= curve[0][0]:
        return curve[0][1]
    for (x0, y0), (x1, y1) in pairwise(curve):
        if x <= x1:
            return y0 + (y1 - y0) * math.log(x / x0) / math.log(x1 / x0)
    return curve[-1][1]


def interpolate_time(curve: Curve, size: float) -> float:
    """Seconds at ``size`` by a measured (size, seconds) curve: straight in log-log between points.

    Below the first point it stays, since small messages cost latency; above the last one it goes on with
    the slope of the last two points, though never less than 0 and never more than in proportion to size.
    """
    if size <= curve[0][0] or len(curve) == 1:
        return curve[0][1] * max(1.0, size / curve[0][0])
    points = curve[-2:]
    for pair in pairwise(curve):
        if size <= pair[1][0]:
            points = pair
            break
    (x0, y0), (x1, y1) = points
    slope = math.log(y1 / y0) / math.log(x1 / x0)
    if size > x1:
        slope = min(1.0, max(0.0, slope))
    return y1 * (size / x1) ** slope
