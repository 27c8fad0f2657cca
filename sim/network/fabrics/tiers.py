"""The tiers of a group of ranks on a Fabric, for collectives that go level by level.

Each level of the fabric (node, leaf, pod; or an axis of a torus) that cuts the group evenly is a tier; in
it all members run rings at once among those in the same place of their cells, and share links as they do.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from ..algorithms import Tier
from .fabric import Fabric
from .group import flows_reach


def tiers(fabric: Fabric, ranks: np.ndarray, per_node: int, sharing: int = 1) -> tuple[Tier, ...]:
    """Tiers of ``ranks``, innermost first; one tier where no level cuts them evenly."""
    ordered = np.sort(np.asarray(ranks, np.int64))
    cells = _cells(fabric, ordered)
    shape = [len(ordered) // cells[-1], *_steps(cells)] if cells else [len(ordered)]
    shape = [size for size in shape if size > 1]
    grid = ordered.reshape(shape[::-1])
    found = []
    for index, size in enumerate(shape):
        axis = len(shape) - 1 - index
        reach = flows_reach(fabric, grid, np.roll(grid, -1, axis=axis), per_node, sharing, 1)
        found.append(Tier(ranks=size, bandwidth=reach.bandwidth, latency=reach.average_s))
    return tuple(found)


def _cells(fabric: Fabric, ordered: np.ndarray) -> list[int]:
    """Numbers of cells of ever smaller levels that cut ``ordered`` evenly, each dividing the next."""
    counts: list[int] = []
    for level in reversed(fabric.levels):
        _, sizes = np.unique(ordered // level.hosts, return_counts=True)
        even = (sizes == sizes[0]).all() and len(sizes) % (counts[-1] if counts else 1) == 0
        if even and 1 < len(sizes) < len(ordered) and (not counts or len(sizes) > counts[-1]):
            counts.append(len(sizes))
    return counts


def _steps(cells: list[int]) -> list[int]:
    """How many cells of one level make one of the next, innermost first."""
    inner = [fine // coarse for coarse, fine in pairwise(cells)]
    return [*reversed(inner), cells[0]]
