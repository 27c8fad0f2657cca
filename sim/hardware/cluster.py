"""The hardware: accelerators in nodes, links between them, and what was measured on them.

Quantities are SI floats. A Cluster is symbolic: `nodes` alike nodes, not one object a device, so
100,000 accelerators cost nothing. Reading and writing the YAML form is in `cluster_file.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from numbers import Integral

from ..display import Shown
from ..errors import UsageError
from ..reliability.failures import Failures
from .layer_profile import LayerProfile
from .stragglers import Stragglers

MAX_ACCELERATORS = 10**7
"""Of one cluster."""

Curve = tuple[tuple[float, float], ...]
"""Points (x, y), x rising; between points y is linear in log x, outside it stays at the end value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerCost:
    """Seconds of one optimizer step: ``overhead_s + per_parameter_s * parameters``."""

    overhead_s: float
    per_parameter_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Accelerator:
    """One device. Fractions are of peak; a curve that is missing falls back to `default_efficiency`."""

    name: str
    kind: str
    """`gpu` or `cpu`."""
    peak_flops: Mapping[str, float]
    """FLOP/s by precision, dense."""
    memory_bytes: float
    memory_bandwidth: float
    """bytes/s"""
    gemm_efficiency: Mapping[str, Curve] = field(default_factory=dict)
    """By precision: fraction of peak against the FLOPs of one GEMM."""
    attention_efficiency: Mapping[str, Curve] = field(default_factory=dict)
    """By precision: fraction of peak against the causal FLOPs of one head of one sample forward."""
    attention_backward_efficiency: Mapping[str, Curve] = field(default_factory=dict)
    """The same of its backward, against the same FLOPs; missing ones follow from forward."""
    memory_efficiency: Curve = ()
    """Fraction of `memory_bandwidth` against the bytes one kernel moves."""
    kernel_speeds: Mapping[str, float] = field(default_factory=dict)
    """Speed of families of kernels beside the curve of their kind: memory-bound ones by their names in
    `torch_kernels.py`, `unaligned` GEMMs."""
    launch_overhead_s: float = 0.0
    """Host seconds per kernel that the device cannot hide."""
    host_launch_s: float = 0.0
    """Seconds of the host for one launch of an eager framework, as measured; 0 is the software stack's."""
    host_backward_launch_s: float = 0.0
    """The same in a backward, which runs without an interpreter; 0 is as in a forward."""
    host_recompute_s: Mapping[str, float] = field(default_factory=dict)
    """By recompute policy: seconds of the host for one block of which something is computed again, beside its
    launches, in an eager framework."""
    sustained: float = 1.0
    """Part of the arithmetic rate of short bursts, which the curves hold, that is left in hours of training:
    power and heat hold the clock down."""
    framework_factor: float = 1.0
    """Whole layer as measured over the sum of its kernels; autograd, dispatch, cold caches."""
    sm_count: int = 0
    """Streaming multiprocessors, for wave quantisation; 0 where it does not apply."""
    optimizer_costs: Mapping[str, OptimizerCost] = field(default_factory=dict)
    """By optimizer name; missing ones are bound by memory bandwidth."""
    layer_profiles: tuple[LayerProfile, ...] = ()
    reserved_bytes: float = 0.0
    """Memory of context and libraries that a job never gets."""
    allocator_loss: Curve = ()
    """(micro-batches of a step, bytes that a process holds beyond its states and what its passes keep, over
    the latter), where the host's own allocator serves it: what passes work with, and what lies between."""
    basis: str = ""
    """`measured`: GEMMs or layers were timed on this device, at least its best GEMM; `datasheet`: only
    what its vendor says is known. Empty: measured where it has a curve of GEMMs or a layer's profile."""
    price_per_hour: float = 0.0
    """USD per device and hour; 0 is unknown."""
    power_w: float = 0.0
    source: str = ""
    date: str = ""

    @property
    def is_measured(self) -> bool:
        """Whether its efficiencies come from the device, not from what others have."""
        return self.basis == "measured" if self.basis else bool(self.gemm_efficiency or self.layer_profiles)


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One kind of link; every device (or node) has its own of this bandwidth, each direction."""

    name: str
    joins: str
    """`accelerators`: inside a node; `nodes`: one per accelerator between nodes, unless `per_node`;
    `switches` with each other; `zones` of a fabric; `host`: an accelerator and its host's memory."""
    bandwidth: float
    """bytes/s each direction"""
    latency: float
    """seconds one way"""
    per_node: bool = False
    """The bandwidth is the whole node's, shared by its accelerators."""
    efficiency: Curve = ()
    """Fraction of bandwidth reached against message bytes."""
    efficiency_by_operation: Mapping[str, Curve] = field(default_factory=dict)
    """The same by operation (as in TransportCurve), for those that reach another fraction."""
    in_network: bool = False
    """Switches of this link add what passes (SHARP, NVLS)."""
    source: str = ""

    def efficiency_of(self, operation: str) -> Curve:
        """The efficiency curve of ``operation``; empty where all of the bandwidth is reached."""
        return self.efficiency_by_operation.get(operation, self.efficiency)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wire:
    """An edge of the explicit topology: from a node (`node0`) or switch to another, over a Link."""

    a: str
    b: str
    link: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FabricSpec:
    """The network between nodes (or, a torus, between accelerators) in a few numbers; `fabrics/` builds it.

    A host's port is the link that joins `nodes`; up to a switch and down again takes the latency of that
    link, half of it each way. Links between switches are `trunk`s, each crossing at its whole latency.
    """

    kind: str
    """`switch`, `fat_tree`, `rail`, `dragonfly`, `torus` or `wan`."""
    radix: int = 0
    """fat_tree: hosts of a leaf; rail: nodes of a group; dragonfly: hosts of a router; wan: hosts of a leaf
    inside a zone, 0 is one switch a zone"""
    pod: int = 0
    """fat_tree: leaves of a pod, which makes three tiers; 0 is two tiers"""
    oversubscription: float = 1.0
    """Bandwidth into a leaf over bandwidth out of it."""
    dimensions: tuple[int, ...] = ()
    """torus: hosts along each axis"""
    groups: int = 0
    """dragonfly: groups; wan: zones"""
    routers: int = 0
    """dragonfly: routers of a group"""
    parallel: int = 1
    """dragonfly: links between every two groups, each way"""
    trunk: str = ""
    """Name of the link between switches (dragonfly: between groups); without one they are as the ports."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeGroup:
    """Consecutive nodes with accelerators of one kind."""

    nodes: int
    accelerator: Accelerator


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportCurve:
    """Measured seconds of one communication by message size, for one number of ranks."""

    operation: str
    """`all_reduce`, `broadcast`, `all_gather`, `reduce_scatter`, `all_to_all`, `send_recv`, or `shift`:
    each rank of a ring to the next."""
    ranks: int
    times_s: Curve
    """(message bytes, seconds until the last rank is done)"""
    cpu_times_s: Curve = ()
    """(message bytes, processor seconds each rank spends on it)"""
    nodes: int = 0
    """Nodes it was measured on; 0: as many as its ranks fill."""
    source: str = ""
    """Where the curve is from; empty where the cluster's own source says it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What ranks of one node share, where the accelerator is the host's own processor."""

    cores: int
    """Processor cores that ranks are pinned to, in turn."""
    time_slice_s: float = 0.004
    """How long the kernel lets one of several ready processes run."""
    concurrency: Curve = ()
    """(ranks that compute at once, factor on compute time beyond a fair share of the cores)"""
    host_staged: bool = True
    """Communication runs on the processor that computes, so it does not hide behind compute."""
    traffic: float = 1.0
    """Processor seconds of communication next to compute over those of communication alone."""
    copied_s_per_byte: float = 0.0
    """Processor seconds that a rank spends on a byte of gradients besides the collective, to lay them one
    after the other."""
    probe_s: float = 0.0
    """Processor seconds that the speed probe took one rank by itself when all else was measured; 0 where
    nobody looked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster(Shown):
    """Alike nodes of alike accelerators, and the links that join them."""

    name: str
    nodes: int
    accelerators_per_node: int
    accelerator: Accelerator
    links: Mapping[str, Link]
    """By name."""
    switches: tuple[str, ...] = ()
    """Switches of an explicit topology; empty is one ideal switch between all nodes."""
    wires: tuple[Wire, ...] = ()
    fabric: FabricSpec | None = None
    """The network by a builder; absent is one ideal switch between all nodes, unless there are wires."""
    library: str = ""
    """`nccl`: its tuner chooses algorithm and protocol and gives their latencies; empty: the closed forms of
    the links as they are, whose efficiency then holds what a library loses."""
    node_groups: tuple[NodeGroup, ...] = ()
    """Accelerators by node, first nodes first, where they differ; `accelerator` is then the first group's."""
    transports: tuple[TransportCurve, ...] = ()
    host: Host | None = None
    """Given where ranks run on the host's cores; absent on GPUs."""
    jitter: float = 0.0
    """Coefficient of variation of one action's time, as measured."""
    stragglers: Stragglers | None = None
    """Who is slow; absent where nobody is."""
    failures: Failures | None = None
    """How often what breaks; absent where the file says nothing of it."""
    residuals: Mapping[str, float] = field(default_factory=dict)
    """Median absolute relative error of each calibrated fit."""
    corrections: Mapping[str, float] = field(default_factory=dict)
    """Factors that runs put on what is predicted: by `compute`, `optimizer`, or operation of ranks."""
    description: str = ""
    source: str = ""
    date: str = ""

    def __repr__(self) -> str:
        kinds = [group.accelerator.name for group in self.node_groups] or [self.accelerator.name]
        size = f"{self.nodes:,} nodes × {self.accelerators_per_node} {' / '.join(dict.fromkeys(kinds))}"
        return f"Cluster({self.name}: {size} = {self.accelerators:,} accelerators)"

    def corrected(self, phase: str) -> float:
        """The factor of ``phase``, 1 where no run says anything of it."""
        return self.corrections.get(phase, 1.0)

    @property
    def accelerators(self) -> int:
        return self.nodes * self.accelerators_per_node

    @property
    def is_measured(self) -> bool:
        """Whether all of its kinds of accelerators are."""
        kinds = [group.accelerator for group in self.node_groups] or [self.accelerator]
        return all(accelerator.is_measured for accelerator in kinds)

    def with_nodes(self, nodes: int) -> Cluster:
        """The same cluster with another number of nodes.

        Raises:
            UsageError: there cannot be so many: none, nodes that are wired one by one, or too many.
        """
        if not isinstance(nodes, Integral) or isinstance(nodes, bool) or nodes < 1:
            raise UsageError(f"--nodes {nodes!r}: expected a whole number, at least 1")
        if self.wires and nodes != self.nodes:
            raise UsageError(
                f"--nodes {nodes}: {self.name} wires {self.nodes} nodes one by one; change its file instead"
            )
        if nodes * self.accelerators_per_node > MAX_ACCELERATORS:
            raise UsageError(f"--nodes {nodes}: more than {MAX_ACCELERATORS:,} accelerators")
        return replace(self, nodes=nodes)

    def facts(self) -> dict[str, object]:
        """What a plan remembers of the cluster that it was made for."""
        return {
            "name": self.name,
            "accelerator": self.accelerator.name,
            "kind": self.accelerator.kind,
            "accelerators": self.accelerators,
            "accelerators_per_node": self.accelerators_per_node,
        }

    def accelerator_of(self, rank: int) -> Accelerator:
        """The accelerator of ``rank``; ranks fill nodes in order. Nodes beyond all groups are as the last."""
        node = rank // self.accelerators_per_node
        for group in self.node_groups:
            if node < group.nodes:
                return group.accelerator
            node -= group.nodes
        return self.node_groups[-1].accelerator if self.node_groups else self.accelerator

    def link(self, joins: str) -> Link | None:
        """The link that joins ``accelerators``, ``nodes``, ``zones`` or ``host``; the fastest of several."""
        found = [link for link in self.links.values() if link.joins == joins]
        return max(found, key=lambda link: link.bandwidth, default=None)
