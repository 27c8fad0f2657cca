"""What NCCL chooses: for every algorithm and protocol a latency and a bandwidth, and the cheapest wins.

Tables and formulae are those of NCCL 2.20.3 (src/graph/tuning.cc, ncclTopoTuneModel and
ncclTopoGetAlgoTime, https://github.com/NVIDIA/nccl/blob/v2.20.3-1/src/graph/tuning.cc) for NVLink inside
nodes and an Intel host. Protocols: LL sends 4 bytes of data with 4 of flag, LL128 120 of 128 bytes, Simple
everything with a synchronisation each chunk. Different here:

- Bandwidth is what a ring through the ranks reaches on the cluster at hand, not channels times a class of
  speed, so that the limits a channel has are left out; those of LL are in.
- A network slower to cross than NCCL's quickest step adds the difference to each step between nodes.
- A broadcast's ring costs a step a hop like the other rings, instead of one or a chunk's.
"""

from __future__ import annotations

from dataclasses import dataclass

LL, LL128, SIMPLE = "LL", "LL128", "Simple"
PROTOCOLS = (LL, LL128, SIMPLE)
RING, TREE, NVLS, NVLS_TREE, COLLNET = "ring", "tree", "nvls", "nvls_tree", "collnet"

_BASE_S = {RING: (6.6e-6, 14.0e-6, 8.4e-6), TREE: (6.8e-6, 14.0e-6, 0.0)}
"""Seconds to begin, by protocol (baseLat)."""

_INSIDE_S = {
    RING: (0.6e-6, 1.9e-6, 3.4e-6),
    TREE: (0.6e-6, 1.25e-6, 28e-6),
    NVLS: (0.0, 0.0, 23e-6),
    NVLS_TREE: (0.0, 0.0, 23e-6),
    COLLNET: (0.0, 0.0, 3.7e-6),
}
"""Seconds of a step over NVLink, by protocol (hwLat)."""

_BETWEEN_S = {
    RING: (2.7e-6, 4.0e-6, 14e-6),
    TREE: (5.0e-6, 8.5e-6, 28e-6),
    NVLS: (0.0, 0.0, 18e-6),
    NVLS_TREE: (0.0, 0.0, 14e-6),
    COLLNET: (0.0, 0.0, 31e-6),
}
"""Seconds of a step between nodes, by protocol (hwLat)."""

QUICKEST_NETWORK_S = 2.7e-6
"""What the steps between nodes are taken to hold of the network's own latency: NCCL's shortest."""

_LL_LIMITS = (87.7e9, 39.0e9, 20.4e9)
"""bytes/s that LL reaches on one node of Ampere or Hopper GPUs, on two and on more with Intel hosts
(llMaxBws)."""

_POST_S = 1e-6
"""Seconds to post one network operation on an Intel host (getNetOverhead); Simple posts three."""

COLLNET_ON_HOPPER, NVLS_PART = 0.85, 5 / 6
"""Fractions of the bus that in-network sums reach."""

_CHANNELS = 16
"""Channels of an HGX H100, for the size at which rings of many nodes slow down."""

_PLATEAU = 1.4
"""Latency of a Simple ring over nodes once a channel sends a rank 64 bytes ("plateau effect of ring")."""

_TREE_CORRECTION = {
    LL: (1, 1, 1, 1, 0.9, 0.8, 0.7, 0.7, 0.7, 0.7, 0.6, 0.5, 0.4, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1, 1, 1),
    LL128: (1, 1, 1, 1, 1, 0.9, 0.8, 0.8, 0.8, 0.7, *[0.6] * 6, 0.8, 0.9, 0.9, 0.9, 0.9, 1, 1),
    SIMPLE: (
        *[0.9] * 7,
        *(0.8, 0.7, 0.6, 0.6, 0.5, 0.5, 0.5, 0.5, 0.6, 0.7, 0.8, 0.7, 0.7, 0.8, 0.9, 0.9),
    ),
}
"""Fraction of a tree's bandwidth by powers of two from 64 B to 256 MiB (treeCorrectionFactor)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What NCCL asks of the ranks of a communicator."""

    ranks: int
    nodes: int
    bandwidth: float
    """bytes/s that one rank of a ring through all ranks sends"""
    network_s: float = 0.0
    """seconds from node to node, one way"""
    nvls: bool = False
    """The switch inside nodes adds (NVLink SHARP)."""
    collnet: bool = False
    """The switches between nodes add (SHARP)."""

    @property
    def per_node(self) -> float:
        return self.ranks / self.nodes


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A way to do a collective and what it takes."""

    algorithm: str
    protocol: str
    seconds: float


def choose(operation: str, size_bytes: float, machine: Machine, algorithms: tuple[str, ...] = ()) -> Choice:
    """The cheapest way for ``size_bytes``, among ``algorithms`` where given and usable, else among all."""
    found = estimates(operation, size_bytes, machine)
    allowed = [choice for choice in found if choice.algorithm in algorithms] or found
    return min(allowed, key=lambda choice: choice.seconds)


def estimates(operation: str, size_bytes: float, machine: Machine) -> list[Choice]:
    """Every way NCCL has to do ``operation`` (an all-reduce, all-gather, reduce-scatter or broadcast)."""
    return [
        Choice(
            algorithm=algorithm,
            protocol=protocol,
            seconds=_latency_s(operation, size_bytes, machine, algorithm, protocol)
            + size_bytes / _bandwidth(operation, size_bytes, machine, algorithm, protocol),
        )
        for algorithm in usable(operation, machine)
        for protocol in (PROTOCOLS if algorithm in (RING, TREE) else (SIMPLE,))
    ]


def usable(operation: str, machine: Machine) -> tuple[str, ...]:
    """Algorithms that NCCL has for ``operation`` on ``machine``."""
    found = [RING]
    if operation == "all_reduce":
        found += [TREE] + ([COLLNET] if machine.collnet and machine.nodes > 1 else [])
        if machine.nvls and machine.nodes > 1:
            found.append(NVLS_TREE)
    if machine.nvls and machine.nodes == 1 and operation != "broadcast":
        found.append(NVLS)
    return tuple(found)


def _steps(operation: str, ranks: int) -> int:
    """Steps of a ring over ``ranks``, ranks or nodes."""
    return (2 if operation == "all_reduce" else 1) * (ranks - 1)


def _bandwidth(operation: str, size: float, machine: Machine, algorithm: str, protocol: str) -> float:
    """bytes of the buffer a second."""
    if algorithm == RING:
        busy = _ring_bandwidth(operation, machine, protocol)
        return busy if operation == "broadcast" else busy * machine.ranks / _steps(operation, machine.ranks)
    if algorithm == TREE:
        return _tree_bandwidth(size, machine, protocol) / 2
    if algorithm == COLLNET:
        return machine.bandwidth * COLLNET_ON_HOPPER / 2
    # A node of a tree of more than two has two children to hear.
    halved = algorithm == NVLS_TREE and machine.nodes > 2
    return machine.bandwidth / (2 if halved else 1) * NVLS_PART


def _ring_bandwidth(operation: str, machine: Machine, protocol: str) -> float:
    if protocol == LL:
        part = 1 / 4 if machine.nodes > 1 or operation == "all_reduce" else 1 / 3
        return min(_ll_limit(machine), machine.bandwidth * part)
    if protocol == LL128:
        return machine.bandwidth * (0.7 if machine.per_node < 2 else 0.92)
    return machine.bandwidth


def _tree_bandwidth(size: float, machine: Machine, protocol: str) -> float:
    bandwidth = machine.bandwidth * 0.92
    if protocol == LL:
        bandwidth = min(bandwidth / 3.8, _ll_limit(machine))
    if protocol == LL128:
        bandwidth *= 7 / 9 if machine.nodes == 1 else 120 / 128
    place = max(1, int(size) >> 6).bit_length() - 1
    correction = _TREE_CORRECTION[protocol]
    return bandwidth * (correction[place] if place < len(correction) else 1.0)


def _ll_limit(machine: Machine) -> float:
    return _LL_LIMITS[min(machine.nodes, 3) - 1]


def _latency_s(operation: str, size: float, machine: Machine, algorithm: str, protocol: str) -> float:
    place = PROTOCOLS.index(protocol)
    base = _BASE_S[algorithm][place] if algorithm in _BASE_S else 0.0
    inside = _INSIDE_S[algorithm][place]
    slower = max(0.0, machine.network_s - QUICKEST_NETWORK_S)
    between = _BETWEEN_S[algorithm][place] + slower * (2 if protocol == SIMPLE else 1)
    members, levels = machine.ranks // machine.nodes - 1, machine.nodes.bit_length() - 1
    if algorithm == RING:
        return base + _ring_latency_s(operation, size, machine, protocol, inside, between)
    if algorithm == TREE:
        return base + 2 * (members * inside + levels * between)
    if algorithm == COLLNET:
        return 2 * (min(1, members) * inside + members * 0.4e-6) + between
    return inside + 2 * levels * between


def _ring_latency_s(
    operation: str, size: float, machine: Machine, protocol: str, inside: float, between: float
) -> float:
    """Steps inside nodes and steps between them; over nodes each step posts to the network at least."""
    steps, far = _steps(operation, machine.ranks), 0
    if machine.nodes > 1:
        far = min(steps, 2 * machine.nodes if operation == "all_reduce" else machine.nodes - 1)
        inside = max(inside, _POST_S * (3 if protocol == SIMPLE else 1))
    seconds = (steps - far) * inside + far * between
    crowded = size / (_CHANNELS * machine.ranks) >= 64
    if machine.nodes > 1 and protocol == SIMPLE and operation == "all_reduce" and crowded:
        seconds *= _PLATEAU
    return seconds
