"""Seconds of each collective algorithm on a uniform full-duplex path: latency a step plus bytes a bandwidth.

Pure functions of ``size_bytes`` (the whole buffer), ``ranks``, ``bandwidth`` (what one rank sends per
second, bytes/s each direction) and ``latency`` (seconds of one step). One rank costs nothing. All raise
InputError for fewer than one rank or no bandwidth. Adding up while receiving hides behind the bytes.
"""

from __future__ import annotations

from ..errors import InputError


def check(ranks: int, bandwidth: float) -> None:
    """Raises InputError for fewer than one rank or no bandwidth."""
    if ranks < 1 or not bandwidth > 0:
        raise InputError(f"a collective of {ranks} ranks at {bandwidth} bytes/s: expected both above 0")


def depth(ranks: int) -> int:
    """Levels below the root of a binary tree over ``ranks``: ceil(log2 ranks)."""
    return (ranks - 1).bit_length()


def ring_all_reduce_s(size_bytes: float, ranks: int, bandwidth: float, latency: float) -> float:
    """Reduce-scatter then all-gather: 2(n-1) steps of size/n each (Patarasuk & Yuan 2009, section 3)."""
    return 2 * ring_all_gather_s(size_bytes, ranks, bandwidth, latency)


def ring_all_gather_s(size_bytes: float, ranks: int, bandwidth: float, latency: float) -> float:
    """n-1 steps of size/n each (Thakur, Rabenseifner & Gropp 2005, section 4.1)."""
    check(ranks, bandwidth)
    return (ranks - 1) * (latency + size_bytes / ranks / bandwidth)


def ring_reduce_scatter_s(size_bytes: float, ranks: int, bandwidth: float, latency: float) -> float:
    """The all-gather backwards: as many steps of the same size."""
    return ring_all_gather_s(size_bytes, ranks, bandwidth, latency)


def ring_broadcast_s(size_bytes: float, ranks: int, bandwidth: float, latency: float) -> float:
    """A pipelined chain: n-1 hops of latency, then the whole buffer at full bandwidth (NCCL's ring)."""
    check(ranks, bandwidth)
    return (ranks - 1) * latency + size_bytes / bandwidth if ranks > 1 else 0.0


def pairwise_all_to_all_s(size_bytes: float, ranks: int, bandwidth: float, latency: float) -> float:
    """n-1 exchanges of size/n, each with another partner (Thakur et al. 2005, section 4.4)."""
    return ring_all_gather_s(size_bytes, ranks, bandwidth, latency)


def tree_all_reduce_s(size_bytes: float, ranks: int, bandwidth: float, latency: float) -> float:
    """Up and down a double binary tree, pipelined.

    Two trees carry half of the buffer each, so that every rank sends and receives it about once up and
    once down, over 2 log2(n) hops (Sanders, Speck & Träff 2009; NCCL 2.4).
    """
    check(ranks, bandwidth)
    if ranks == 1:
        return 0.0
    return 2 * depth(ranks) * latency + 2 * size_bytes / bandwidth


def tree_broadcast_s(size_bytes: float, ranks: int, bandwidth: float, latency: float) -> float:
    """Down a double binary tree, pipelined: log2(n) hops, then the whole buffer."""
    check(ranks, bandwidth)
    return depth(ranks) * latency + size_bytes / bandwidth if ranks > 1 else 0.0


def binary_tree_all_reduce_s(size_bytes: float, ranks: int, bandwidth: float, latency: float) -> float:
    """Up and down one binary tree, pipelined.

    A rank with two children receives the buffer twice on the way up and sends it twice on the way down,
    half as quick as two trees that share the ranks (Sanders, Speck & Träff 2009, section 1). Two ranks have
    one child.
    """
    return 2 * binary_tree_broadcast_s(size_bytes, ranks, bandwidth, latency)


def binary_tree_broadcast_s(size_bytes: float, ranks: int, bandwidth: float, latency: float) -> float:
    """Down one binary tree, pipelined: each inner rank sends the buffer to its (at most two) children."""
    check(ranks, bandwidth)
    children = min(2, ranks - 1)
    return depth(ranks) * latency + children * size_bytes / bandwidth


def binomial_broadcast_s(size_bytes: float, ranks: int, bandwidth: float, latency: float) -> float:
    """Those that have the buffer send it whole to those that have not: ceil(log2 n) steps (Chan, Heimlich,
    Purkayastha & van de Geijn 2007, MST broadcast)."""
    check(ranks, bandwidth)
    return depth(ranks) * (latency + size_bytes / bandwidth)


def binomial_all_reduce_s(size_bytes: float, ranks: int, bandwidth: float, latency: float) -> float:
    """A reduction to one rank along the binomial tree, then a broadcast (Chan et al. 2007, section 6)."""
    return 2 * binomial_broadcast_s(size_bytes, ranks, bandwidth, latency)


def doubling_all_gather_s(size_bytes: float, ranks: int, bandwidth: float, latency: float) -> float:
    """Recursive doubling, or Bruck's algorithm where n is no power of two: ceil(log2 n) steps, (n-1)/n of the
    buffer (Thakur et al. 2005, section 4.1)."""
    check(ranks, bandwidth)
    return depth(ranks) * latency + (ranks - 1) / ranks * size_bytes / bandwidth


def halving_reduce_scatter_s(size_bytes: float, ranks: int, bandwidth: float, latency: float) -> float:
    """Recursive halving: log2 n steps, (n-1)/n of the buffer (Thakur et al. 2005, section 4.3).

    Where n is no power of two, the ranks beyond one first hand their whole buffer to a partner and at the end
    get their part back: two more steps, and size (1 + 1/n) more.
    """
    check(ranks, bandwidth)
    core = 1 << (ranks.bit_length() - 1)
    seconds = doubling_all_gather_s(size_bytes, core, bandwidth, latency)
    if core == ranks:
        return seconds
    return seconds + 2 * latency + (1 + 1 / ranks) * size_bytes / bandwidth


def halving_doubling_all_reduce_s(size_bytes: float, ranks: int, bandwidth: float, latency: float) -> float:
    """Rabenseifner's algorithm: recursive halving, then recursive doubling (Thakur et al. 2005, section 4.5).

    2 log2 n steps and 2(n-1)/n of the buffer. Where n is no power of two, the ranks beyond one first hand
    their buffer to a partner and at the end get the result: two more steps of the whole buffer.
    """
    check(ranks, bandwidth)
    core = 1 << (ranks.bit_length() - 1)
    seconds = 2 * doubling_all_gather_s(size_bytes, core, bandwidth, latency)
    return seconds if core == ranks else seconds + 2 * (latency + size_bytes / bandwidth)


def scatter_all_gather_broadcast_s(size_bytes: float, ranks: int, bandwidth: float, latency: float) -> float:
    """A binomial scatter, then recursive doubling: van de Geijn's (Thakur et al. 2005, section 4.2)."""
    return 2 * doubling_all_gather_s(size_bytes, ranks, bandwidth, latency)


def bruck_all_to_all_s(size_bytes: float, ranks: int, bandwidth: float, latency: float) -> float:
    """ceil(log2 n) steps; step k moves the blocks whose index has bit k set, half of them where n is a power
    of two (Bruck et al. 1997; Thakur et al. 2005, section 4.4)."""
    check(ranks, bandwidth)
    blocks = sum(_indices_with_bit(ranks, bit) for bit in range(depth(ranks)))
    return depth(ranks) * latency + blocks / ranks * size_bytes / bandwidth


def _indices_with_bit(count: int, bit: int) -> int:
    """How many of 0 .. count-1 have ``bit`` set."""
    period = 2 << bit
    return count // period * (period // 2) + max(0, count % period - period // 2)


def direct_all_gather_s(size_bytes: float, ranks: int, bandwidth: float, latency: float) -> float:
    """Every rank sends its part to every other at once: one step (all-to-all through a full crossbar)."""
    check(ranks, bandwidth)
    return latency + (ranks - 1) / ranks * size_bytes / bandwidth if ranks > 1 else 0.0


def direct_all_reduce_s(size_bytes: float, ranks: int, bandwidth: float, latency: float) -> float:
    """A direct reduce-scatter, then a direct all-gather: two steps."""
    return 2 * direct_all_gather_s(size_bytes, ranks, bandwidth, latency)


def direct_broadcast_s(size_bytes: float, ranks: int, bandwidth: float, latency: float) -> float:
    """The root sends the buffer n-1 times, one step."""
    check(ranks, bandwidth)
    return latency + (ranks - 1) * size_bytes / bandwidth if ranks > 1 else 0.0


def in_network_all_reduce_s(size_bytes: float, ranks: int, bandwidth: float, latency: float) -> float:
    """Switches add what passes: every rank sends its buffer up once and receives the sum once, pipelined,
    two hops (SHARP: Graham et al. 2016; the limit of NVLS for many ranks)."""
    check(ranks, bandwidth)
    return 2 * latency + size_bytes / bandwidth if ranks > 1 else 0.0


def in_network_half_s(size_bytes: float, ranks: int, bandwidth: float, latency: float) -> float:
    """Reduce-scatter or all-gather by switches that add or multiply what passes: the busy direction carries
    all but a rank's own part, up and down."""
    check(ranks, bandwidth)
    return 2 * latency + (ranks - 1) / ranks * size_bytes / bandwidth if ranks > 1 else 0.0


def in_network_broadcast_s(size_bytes: float, ranks: int, bandwidth: float, latency: float) -> float:
    """One copy up, switches multiply it on the way down."""
    return in_network_all_reduce_s(size_bytes, ranks, bandwidth, latency)


def store_and_forward_broadcast_s(size_bytes: float, ranks: int, bandwidth: float, latency: float) -> float:
    """Down a binomial tree whose ranks receive all before they send: gloo's broadcast.

    A rank with c children sends to them at once over one link, c times the size; depth after depth there
    is one child less: D(D+1)/2 sizes for D = ceil(log2 n). 3 sizes for 4 ranks, as measured within 3 %
    (torch 2.13 gloo, 100 Mbit/s).
    """
    check(ranks, bandwidth)
    levels = depth(ranks)
    return levels * latency + levels * (levels + 1) / 2 * size_bytes / bandwidth


def point_to_point_s(size_bytes: float, bandwidth: float, latency: float) -> float:
    """One message from one rank to another."""
    check(2, bandwidth)
    return latency + size_bytes / bandwidth
