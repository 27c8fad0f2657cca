"""Collectives as steps of flows: who sends how many bytes to whom, step after step.

A step begins when the step before is over in the whole group. ``size_bytes`` is the whole buffer, as in
`collectives.py`; on a switch that never blocks the steps take what the closed forms say, which have the
sources of the algorithms.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ...errors import InputError

MOST_FLOWS = 2**21
"""Flows of all steps of a collective; 1,448 ranks that all send to each other. More would not fit memory."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Step:
    """Flows that start together; arrays have a value a flow."""

    sources: np.ndarray
    """ranks, int64[n]"""
    targets: np.ndarray
    sizes: np.ndarray
    """bytes, float64[n]"""
    repeats: int = 1
    """how many steps like this follow each other"""


Steps = tuple[Step, ...]


def collective_flows(
    operation: str, algorithm: str, ranks: Sequence[int], size_bytes: float, *, per_node: int = 1
) -> Steps:
    """The steps of ``operation`` by ``algorithm`` on ``ranks``; none for a single rank.

    Rank r is on node r // ``per_node``. A ring through several nodes that hold k of the ranks each is k
    rings, each with its part of the bytes, each of which enters and leaves all nodes by the adapter of the
    same member, as NCCL's channels do where NCCL_CROSS_NIC is 0.

    Raises:
        InputError: there are no steps of the operation by this algorithm, or too many flows.
    """
    if (algorithm, operation) not in _STEPS:
        known = ", ".join(f"{found} by {name}" for name, found in _STEPS)
        raise InputError(f"{operation} by {algorithm} is not known as steps of flows; there are {known}")
    members = np.asarray(ranks, np.int64)
    if len(members) < 2:
        return ()
    if len(members) ** 2 > MOST_FLOWS and (algorithm, operation) in _ALL_PAIRS:
        raise InputError(
            f"{operation} by {algorithm} over {len(members)} ranks has {len(members) * (len(members) - 1):,}"
            f" flows; at flow level there are at most {MOST_FLOWS:,}"
        )
    return _STEPS[algorithm, operation](members, float(size_bytes), per_node)


def node_grid(members: np.ndarray, per_node: int) -> np.ndarray:
    """int64[nodes, k]: ``members`` by node; one row if there is one node or nodes hold different numbers."""
    nodes, counts = np.unique(members // per_node, return_counts=True)
    if len(nodes) == 1 or (counts != counts[0]).any():
        return members[None, :]
    return np.sort(members).reshape(len(nodes), counts[0])


def _ring(members: np.ndarray, size: float, per_node: int) -> Steps:
    """n-1 times a part to the right neighbour.

    All rings of a node together: each member passes a whole part on inside the node, what leaves by another
    adapter included, and a k-th of one to the same member of the next node.
    """
    grid, part, repeats = node_grid(members, per_node), size / len(members), len(members) - 1
    count, width = grid.shape
    inside = _step(grid.ravel(), np.roll(grid, -1, axis=1).ravel(), part, repeats=repeats)
    if count == 1:
        return (inside,)
    across = _step(grid.ravel(), np.roll(grid, -1, axis=0).ravel(), part / width, repeats=repeats)
    return (_joined(inside, across) if width > 1 else across,)


def _ring_all_reduce(members: np.ndarray, size: float, per_node: int) -> Steps:
    (step,) = _ring(members, size, per_node)
    return (replace(step, repeats=2 * step.repeats),)


def _pairwise(members: np.ndarray, size: float, _per_node: int) -> Steps:
    """In step k each sends its part to the k-th after it."""
    part = size / len(members)
    return tuple(_step(members, np.roll(members, -k), part) for k in range(1, len(members)))


def _direct(members: np.ndarray, size: float, _per_node: int) -> Steps:
    """Each sends a part to every other at once."""
    count = len(members)
    shifts = np.arange(1, count)
    targets = members[(np.arange(count)[:, None] + shifts) % count]
    return (_step(np.repeat(members, count - 1), targets.ravel(), size / count),)


def _direct_all_reduce(members: np.ndarray, size: float, per_node: int) -> Steps:
    (step,) = _direct(members, size, per_node)
    return (replace(step, repeats=2),)


def _direct_broadcast(members: np.ndarray, size: float, _per_node: int) -> Steps:
    others = members[1:]
    return (_step(np.full(len(others), members[0]), others, size),)


def _message(members: np.ndarray, size: float, _per_node: int) -> Steps:
    return (_step(members[:1], members[1:2], size),)


def _doubling(members: np.ndarray, size: float, _per_node: int) -> Steps:
    """Recursive doubling between partners; Bruck's all-gather where n is no power of two."""
    count, part = len(members), size / len(members)
    if count & (count - 1) == 0:
        return tuple(_exchange(members, bit, bit * part) for bit in _bits(count))
    return tuple(_step(members, np.roll(members, bit), min(bit, count - bit) * part) for bit in _bits(count))


def _halving(members: np.ndarray, size: float, _per_node: int) -> Steps:
    """Recursive halving; ranks beyond a power of two hand on their buffer first and get their part last."""
    return _on_core(members, size, size / len(members), lambda core: _doubling(core, size, 1)[::-1])


def _halving_doubling(members: np.ndarray, size: float, _per_node: int) -> Steps:
    def both(core: np.ndarray) -> Steps:
        doubling = _doubling(core, size, 1)
        return doubling[::-1] + doubling

    return _on_core(members, size, size, both)


def _on_core(members: np.ndarray, size: float, back: float, steps_of: Callable[[np.ndarray], Steps]) -> Steps:
    """Steps among the largest power of two of ``members``; the others send ``size`` to partners there
    before, and get ``back`` after."""
    core = 1 << (len(members).bit_length() - 1)
    inner = steps_of(members[:core])
    beyond = members[core:]
    if not len(beyond):
        return inner
    partners = members[: len(beyond)]
    return (_step(beyond, partners, size), *inner, _step(partners, beyond, back))


def _bruck(members: np.ndarray, size: float, _per_node: int) -> Steps:
    """Step k sends the blocks whose index has bit k set to the one 2^k after."""
    index = np.arange(len(members))
    part = size / len(members)
    return tuple(
        _step(members, np.roll(members, -bit), np.count_nonzero(index & bit) * part)
        for bit in _bits(len(members))
    )


def _bits(count: int) -> list[int]:
    """1, 2, 4 … below ``count``."""
    return [1 << bit for bit in range((count - 1).bit_length())]


def _exchange(members: np.ndarray, bit: int, size: float) -> Step:
    """Each with the member whose place differs in ``bit``."""
    return _step(members, members[np.arange(len(members)) ^ bit], size)


def _joined(one: Step, other: Step) -> Step:
    """Both at once."""
    parts = (
        np.concatenate([getattr(step, name) for step in (one, other)])
        for name in ("sources", "targets", "sizes")
    )
    sources, targets, sizes = parts
    return Step(sources=sources, targets=targets, sizes=sizes, repeats=one.repeats)


def _step(sources: np.ndarray, targets: np.ndarray, size: float, *, repeats: int = 1) -> Step:
    return Step(sources=sources, targets=targets, sizes=np.full(len(sources), size), repeats=repeats)


_STEPS: dict[tuple[str, str], Callable[[np.ndarray, float, int], Steps]] = {
    ("ring", "all_reduce"): _ring_all_reduce,
    ("ring", "all_gather"): _ring,
    ("ring", "reduce_scatter"): _ring,
    ("ring", "all_to_all"): _pairwise,
    ("halving_doubling", "all_reduce"): _halving_doubling,
    ("halving_doubling", "all_gather"): _doubling,
    ("halving_doubling", "reduce_scatter"): _halving,
    ("halving_doubling", "all_to_all"): _bruck,
    ("direct", "all_reduce"): _direct_all_reduce,
    ("direct", "all_gather"): _direct,
    ("direct", "reduce_scatter"): _direct,
    ("direct", "all_to_all"): _direct,
    ("direct", "broadcast"): _direct_broadcast,
    ("direct", "send_recv"): _message,
}

_ALL_PAIRS = {key for key, steps in _STEPS.items() if steps in (_direct, _direct_all_reduce, _pairwise)}
"""Those with n(n-1) flows."""
