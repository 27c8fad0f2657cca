"""Seconds of what ranks communicate: messages, collectives, gathering and reduction of sharded parameters,
and what goes to host memory and back.

How long a transport takes is in `sim/network`; what is communicated in `traffic.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from ..errors import InputError
from ..hardware.cluster import Cluster
from ..model.layer import Layer
from ..network import transport as network
from ..plan.job import Job
from ..plan.rank_groups import Groups
from ..plan.rank_parameters import split_parameters
from ..plan.strategy import Strategy
from ..plan.traffic import Collective, gathering, reduction
from .remembered import Remembered


class Shares(NamedTuple):
    """Seconds of a collective that a rank is in, by who spends them."""

    wire_s: float
    """Of links and of waiting for them: a host's core is free meanwhile."""
    cpu_s: float
    """Of the core that the rank computes on; 0 where devices have engines for it."""

    @property
    def seconds(self) -> float:
        """Of a rank that has its core to itself."""
        return self.wire_s + self.cpu_s


class CommunicationCosts:
    """Of one rank; results are remembered."""

    def __init__(
        self, cluster: Cluster, job: Job, strategy: Strategy, groups: Groups, remembered: Remembered
    ):
        self.cluster, self.job, self.strategy, self.groups = cluster, job, strategy, groups
        self._remembered = remembered
        self._sums: dict[tuple[str, str], float] = {}
        self.alone = False
        """Whether nobody else is taken to use the links at the same time, since who does is played."""

    def group_s(self, collective: Collective, first: int = 0) -> float:
        """Seconds of one such collective in the group that begins at rank ``first``."""
        ranks = self.groups[collective.group].ranks(first)
        if collective.operation == network.SEND_RECV:
            if network.has_shifts(self.cluster, ranks):
                return self.collective_s(network.SHIFT, collective.size_bytes, ranks)
            ranks = ranks[:2]
        if collective.dimension == "ep" and self.strategy.expert_dispatch == "per_node":
            return self._dispatched_per_node_s(collective, ranks)
        return self.collective_s(collective.operation, collective.size_bytes, ranks)

    def _dispatched_per_node_s(self, collective: Collective, ranks: Sequence[int]) -> float:
        """A token of k experts goes to n (1 - (1 - 1/n)^k) of n nodes in the mean, where routing is even, and
        inside a node to each expert; the slower of the two, which run side by side (DeepSeek-AI 2024,
        DeepSeek-V3, section 3.2.2)."""
        members = network.nodes_of(self.cluster, ranks)
        nodes, copies = len(members), self.job.model.decoder.experts_per_token
        inside = self.collective_s(
            collective.operation, collective.size_bytes, ranks[: next(iter(members.values()))]
        )
        if nodes == 1:
            return inside
        share = nodes * (1.0 - (1.0 - 1.0 / nodes) ** copies) / copies
        return max(inside, self.collective_s(collective.operation, share * collective.size_bytes, ranks))

    def group_shares(self, collective: Collective, first: int = 0) -> Shares:
        """The seconds of one such collective, by who spends them, in the group that begins at ``first``."""
        ranks = self.groups[collective.group].ranks(first)
        operation = collective.operation
        if operation == network.SEND_RECV and network.has_shifts(self.cluster, ranks):
            operation = network.SHIFT
        return self._shares(operation, collective.size_bytes, ranks, self.group_s(collective, first))

    def shares(self, operation: str, size_bytes: float, ranks: Sequence[int]) -> Shares:
        """The seconds of a collective of ``ranks``, by who spends them."""
        return self._shares(operation, size_bytes, ranks, self.collective_s(operation, size_bytes, ranks))

    def _shares(self, operation: str, size_bytes: float, ranks: Sequence[int], whole_s: float) -> Shares:
        """Where the host's cores move the bytes, ranks of one core do so one after the other; without a
        measurement they take all of the time."""
        if not network.is_host_staged(self.cluster) or len(ranks) < 2:
            return Shares(whole_s, 0.0)
        each = network.ranks_of_a_core(self.cluster, ranks)
        measured = network.processor_s(self.cluster, operation, ranks, size_bytes)
        measured *= self.cluster.corrected(operation)
        own = min(measured or whole_s, whole_s / each)
        return Shares(max(0.0, whole_s - each * own), own)

    def gathering_s(self, layer: Layer) -> float:
        """Seconds to gather the parameters of ``layer`` from their shards."""
        return self._together_s(("gathering", layer.kind), gathering, layer)

    def reduction_s(self, layer: Layer) -> float:
        """Seconds to sum the gradients of ``layer`` over the replicas."""
        return self._together_s(("reduction", layer.kind), reduction, layer)

    def _together_s(self, key: tuple[str, str], collectives: Callable, layer: Layer) -> float:
        if key not in self._sums:
            dense, experts = split_parameters([layer], self.strategy)
            found = collectives(self.job, self.strategy, dense, experts)
            self._sums[key] = sum(self.group_shares(one).seconds * one.count for one in found)
        return self._sums[key]

    def host_s(self, size_bytes: float) -> float:
        """Seconds to move so much between an accelerator and the host's memory, one way.

        Raises:
            InputError: the cluster has no link that joins an accelerator to its host.
        """
        link = self.cluster.link("host")
        if link is None:
            raise InputError(
                f"cluster {self.cluster.name} has no link that joins host; offload needs one (joins: host)"
            )
        return link.latency + size_bytes / link.bandwidth

    def transfer_s(self, size_bytes: float, source_rank: int, target_rank: int) -> float:
        """Seconds of one message.

        Ranks of the source's stage send at once, so they share a link that is the node's.
        """
        pair = (source_rank, target_rank)
        sharing = self._node_ranks(self.strategy.replicas * self.strategy.tp)
        if self.alone or self.strategy.gradient_exchange == "parameter_server":
            sharing = 1
        seconds = self._remembered.of(
            ("transfer", size_bytes, sharing, *self._placed(pair)),
            lambda: network.transport(self.cluster, network.SEND_RECV, pair, size_bytes, sharing=sharing),
        )
        return seconds * self.cluster.corrected(network.SEND_RECV)

    def transfer_cpu_s(self, size_bytes: float) -> float:
        """Processor seconds that a host-staged message costs each of its two sides; 0 otherwise."""
        seconds = network.processor_s(self.cluster, network.SEND_RECV, (0, 1), size_bytes)
        return seconds * self.cluster.corrected(network.SEND_RECV)

    def collective_s(self, operation: str, size_bytes: float, ranks: Sequence[int]) -> float:
        """Seconds of a collective by the strategy's algorithm, once all of ``ranks`` are there.

        All ranks of a node are taken to be in such collectives at once, so the groups that cross a link
        that is the node's share it.
        """
        ranks = ranks if isinstance(ranks, range) else tuple(ranks)
        how = (self.strategy.collective_algorithm, self._node_ranks(self.strategy.world_size))
        seconds = self._remembered.of(
            (operation, size_bytes, ranks, how), lambda: self._collective_s(operation, size_bytes, ranks)
        )
        return seconds * self.cluster.corrected(operation)

    def _collective_s(self, operation: str, size_bytes: float, ranks: Sequence[int]) -> float:
        members = network.nodes_of(self.cluster, ranks)
        groups = self._node_ranks(self.strategy.world_size) // max(1, min(members.values(), default=1))
        if self.alone:
            groups = 1
        return self._remembered.of(
            (operation, size_bytes, self.strategy.collective_algorithm, groups, *self._placed(ranks)),
            lambda: network.transport(
                self.cluster,
                operation,
                ranks,
                size_bytes,
                algorithm=self.strategy.collective_algorithm,
                sharing=max(1, groups),
            ),
        )

    def _node_ranks(self, ranks: int) -> int:
        """How many of ``ranks`` consecutive ranks are on one node."""
        return min(ranks, self.cluster.accelerators_per_node)

    def _placed(self, ranks: Sequence[int]) -> tuple:
        """What of ``ranks`` decides their path: on a fabric all, on wires the nodes, else how many each."""
        if self.cluster.fabric is not None:
            return tuple(ranks)
        members = network.nodes_of(self.cluster, ranks)
        if self.cluster.wires:
            return tuple(members.items())
        return tuple(sorted(members.values()))
