"""Running a program on a fabric: whoever communicates at the same time shares links."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from ..errors import InputError
from ..hardware.cluster import Cluster
from ..network.fabrics.fabric import Fabric
from ..network.flows.collective import fabric_for_flows
from ..network.flows.steps import collective_flows
from ..network.paths import is_torus
from ..plan.plan import Plan
from ..program.built import Built
from ..program.fold import lane_groups, unfold
from ..program.program import Operation
from ..variability.jitter import LaneFactors
from .runner import SHOWN_LANES, LaneRun, Played, Runner, Seconds
from .shared_links import Traffic, run_on_links

MOST_OPERATIONS = 300_000
"""Of all ranks; each that communicates changes the rates of those it meets, in a part of a millisecond."""

NOMINAL_BYTES = 2.0**26
"""Size at which links' efficiency is taken; only ratios of rates count."""


class LinkRunner(Runner):
    """Runs one built Program, every rank by itself, as often as is wanted.

    Raises:
        InputError: the cluster's network is no fabric, or there are too many operations.
    """

    def __init__(self, built: Built, plan: Plan, cluster: Cluster):
        super().__init__(cluster, plan.world_size, built.slowness)
        self.built, self.plan = built, plan
        count = len(built.program.operations) * built.lanes
        if count > MOST_OPERATIONS:
            raise InputError(
                f"{count:,} operations of {plan.world_size:,} ranks; with network flow there are at most "
                f"{MOST_OPERATIONS:,}: take fewer micro-batches or ranks, or network closed-form"
            )
        self.fabric = fabric_for_flows(cluster, NOMINAL_BYTES)

    def deterministic(self) -> Played:
        """No jitter and no transient stragglers; lanes may differ even so, by what they share."""
        starts, ends = self._run(LaneFactors(slow=self.slowness), 0)
        lanes = range(min(self.built.lanes, 1 + SHOWN_LANES))
        runs = tuple(
            LaneRun(
                lane=lane,
                starts=starts[[first[lane] for first in self._unfolded.first]],
                ends=ends[[last[lane] for last in self._unfolded.last]],
            )
            for lane in lanes
        )
        return Played(makespan=float(ends.max(initial=0.0)), lanes=runs)

    def makespans(self, count: int, seed: int) -> list[float]:
        """Of ``count`` runs with factors drawn, over all lanes."""
        factors = self._factors(count, seed)
        return [float(self._run(factors, sample)[1].max(initial=0.0)) for sample in range(count)]

    def ends(self, count: int, seed: int) -> list[Seconds]:
        """Of the same runs, when each operation ended on lane 0."""
        factors, last = self._factors(count, seed), [last[0] for last in self._unfolded.last]
        return [self._run(factors, sample)[1][last] for sample in range(count)]

    def _run(self, factors: LaneFactors, sample: int) -> tuple[np.ndarray, np.ndarray]:
        unfolded = self._unfolded
        operations = unfolded.program.operations
        owners = np.array([op.rank for op in operations], dtype=np.int64)
        durations = np.array([op.duration for op in operations])
        drawn = factors.durations(durations, sample, unfolded.base, unfolded.lane, owners)
        return run_on_links(unfolded.program, self._traffic, drawn)

    @cached_property
    def _unfolded(self):
        return unfold(self.built.program)

    @cached_property
    def _traffic(self) -> dict[int, Traffic]:
        """By unfolded operation that communicates."""
        program = self.built.program
        groups = {op.sync: lane_groups(program.axes, op.sync) for op in program.operations}
        known: dict[tuple, Traffic] = {}
        found = {}
        places = zip(self._unfolded.base.tolist(), self._unfolded.lane.tolist(), strict=True)
        for op, (base, lane) in enumerate(places):
            folded = program.operations[base]
            members = _members(folded, lane, groups[folded.sync])
            if len(members) < 2:
                continue
            key = (folded.spans[0].stream, len(folded.spans) > 1 and not folded.sync, *members)
            if key not in known:
                known[key] = self._between(folded, members)
            found[op] = known[key]
        return found

    def _between(self, folded: Operation, members: list[int]) -> Traffic:
        stream = folded.spans[0].stream
        exchanges = stream == "ep" or (stream == "cp" and self.plan.strategy.cp_exchange == "all_to_all")
        if stream == "pp":
            operation, algorithm = "send_recv", "direct"
        else:
            operation, algorithm = ("all_to_all", "direct") if exchanges else ("all_gather", "ring")
        per_node = 1 if is_torus(self.cluster) else self.cluster.accelerators_per_node
        (step,) = collective_flows(operation, algorithm, members, 1.0, per_node=per_node)
        return _traffic_of(self.fabric, step.sources, step.targets, step.sizes)


def _traffic_of(fabric: Fabric, sources: np.ndarray, targets: np.ndarray, sizes: np.ndarray) -> Traffic:
    """Without what a host sends to itself."""
    apart = sources != targets
    return Traffic(fabric=fabric, sources=sources[apart], targets=targets[apart], shares=sizes[apart])


def _members(folded: Operation, lane: int, groups: np.ndarray) -> list[int]:
    """The ranks between which an operation on ``lane`` communicates; none if it computes."""
    if not folded.spans or folded.spans[0].stream in ("compute", "host"):
        return []
    if not folded.sync:
        return [label.rank + lane for label in folded.spans]
    (row,) = groups[(groups == lane).any(axis=1)]
    return (folded.spans[0].rank + row).tolist()
