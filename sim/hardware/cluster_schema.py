"""The YAML form of clusters and accelerators, as pydantic reads it: a unit on every quantity.

Keys have the names of the dataclasses in `cluster.py` without their unit suffixes, since the unit stands
with the value: `memory: 80 GiB`, `latency: 5 us`, curves as `[[1 MiB, 0.6], [16 MiB, 0.8]]`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    model_validator,
)

from ..files.document import RefusalError, printable, shown
from ..reliability import failures
from ..units import parse_quantity
from . import cluster as parts
from . import stragglers

CLUSTER_SCHEMA = "traincast.cluster/1"
ACCELERATOR_SCHEMA = "traincast.accelerator/1"
MAX_ACCELERATORS = 10**7
MAX_TEXT = 4000
PUBLISHED = failures.Failures()

PRECISIONS = ("fp64", "fp32", "tf32", "bf16", "fp16", "fp8", "int8")


def _precision(value: str) -> str:
    if value not in PRECISIONS:
        raise RefusalError(shown(value), " | ".join(PRECISIONS))
    return value


def _quantity(
    dimension: str, *, zero: bool = False, least: float = 0.0, most: float = math.inf, words: str = ""
) -> Callable:
    """A reader of positive (or not negative) quantities, at least ``least`` and at most ``most``."""

    def read(value: object) -> float:
        number = parse_quantity(value, dimension)
        if not (number > 0 or (zero and number == 0)) or not least <= number <= most:
            raise RefusalError(shown(value), words or ("0 or more" if zero else "more than 0"))
        return number

    return read


def _rising(curve: parts.Curve) -> parts.Curve:
    for (x0, _), (x1, _) in pairwise(curve):
        if x1 <= x0:
            raise RefusalError(f"a point at {x1:g} after one at {x0:g}", "points in rising order, each once")
    return curve


def _text(value: str) -> str:
    if len(value) > MAX_TEXT:
        raise RefusalError(f"{len(value)} characters", f"at most {MAX_TEXT}")
    if printable(value.replace("\n", " ")) != value.replace("\n", " "):
        raise RefusalError(shown(value), "text without control characters")
    return value


def _name(value: str) -> str:
    if not value.strip() or len(value) > 200 or "\n" in value:
        raise RefusalError(shown(value), "a name of 1 to 200 characters")
    return _text(value)


Bandwidth = Annotated[float, BeforeValidator(_quantity("bandwidth"))]
Bytes = Annotated[float, BeforeValidator(_quantity("bytes"))]
BytesOrNone = Annotated[float, BeforeValidator(_quantity("bytes", zero=True))]
Time = Annotated[float, BeforeValidator(_quantity("time"))]
TimeOrNone = Annotated[float, BeforeValidator(_quantity("time", zero=True))]
Compute = Annotated[float, BeforeValidator(_quantity("compute"))]
Flops = Annotated[float, BeforeValidator(_quantity("flops"))]
Power = Annotated[float, BeforeValidator(_quantity("power", zero=True))]
Price = Annotated[float, BeforeValidator(_quantity("price", zero=True))]
Number = Annotated[float, BeforeValidator(_quantity("count"))]
NumberOrNone = Annotated[float, BeforeValidator(_quantity("count", zero=True))]
Fraction = Annotated[
    float, BeforeValidator(_quantity("count", most=1.0, words="a fraction above 0 and at most 1"))
]
SlowFactor = Annotated[float, BeforeValidator(_quantity("count", most=stragglers.MAX_FACTOR))]
BandwidthOrNone = Annotated[float, BeforeValidator(_quantity("bandwidth", zero=True))]
Whole = Annotated[StrictInt, Field(ge=1, le=MAX_ACCELERATORS)]
WholeOrNone = Annotated[StrictInt, Field(ge=0, le=MAX_ACCELERATORS)]
Text = Annotated[str, AfterValidator(_text)]
Name = Annotated[str, AfterValidator(_name)]
Precision = Annotated[str, AfterValidator(_precision)]
Operation = Literal["all_reduce", "broadcast", "all_gather", "reduce_scatter", "all_to_all", "send_recv"]

FlopsCurve = Annotated[tuple[tuple[Flops, Fraction], ...], AfterValidator(_rising)]
BytesCurve = Annotated[tuple[tuple[Bytes, Fraction], ...], AfterValidator(_rising)]
TimeCurve = Annotated[tuple[tuple[Bytes, Time], ...], AfterValidator(_rising)]
ProcessorCurve = Annotated[tuple[tuple[Bytes, TimeOrNone], ...], AfterValidator(_rising)]
FractionCurve = Annotated[tuple[tuple[Fraction, SlowFactor], ...], AfterValidator(_rising)]
FactorCurve = Annotated[tuple[tuple[Number, Number], ...], AfterValidator(_rising)]


class Strict(BaseModel):
    """Unknown keys are faults, not ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class OptimizerCostForm(Strict):
    overhead: TimeOrNone = Field(description="a time, as 20 us")
    per_parameter: TimeOrNone = Field(description="a time, as 5 ps")

    def read(self) -> parts.OptimizerCost:
        return parts.OptimizerCost(overhead_s=self.overhead, per_parameter_s=self.per_parameter)


class LayerProfileForm(Strict):
    kind: Literal["embedding", "block", "head"]
    hidden: Whole
    heads: Whole
    kv_heads: Whole
    ffn: Whole
    vocab: Whole
    activation: Name
    norm: Name
    seq_len: Whole
    micro_batch: Whole
    precision: Name
    forward: TimeOrNone
    backward: TimeOrNone

    def read(self) -> parts.LayerProfile:
        fields = self.model_dump()
        return parts.LayerProfile(
            forward_s=fields.pop("forward"), backward_s=fields.pop("backward"), **fields
        )


class AcceleratorForm(Strict):
    schema_: Literal["traincast.accelerator/1"] = Field(default="traincast.accelerator/1", alias="schema")
    name: Name = Field(description="the device's name")
    kind: Literal["gpu", "cpu"] = Field(description="gpu | cpu")
    peak_flops: dict[Precision, Compute] = Field(
        min_length=1, description="dense FLOP/s by precision, as {bf16: 989 TFLOP/s}"
    )
    memory: Bytes = Field(description="a size in bytes, as 80 GiB")
    memory_bandwidth: Bandwidth = Field(description="a bandwidth, as 3.35 TB/s")
    gemm_efficiency: dict[Precision, FlopsCurve] = Field(default_factory=dict)
    attention_efficiency: dict[Precision, FlopsCurve] = Field(default_factory=dict)
    memory_efficiency: BytesCurve = ()
    launch_overhead: TimeOrNone = 0.0
    sustained: Number = 1.0
    framework_factor: Number = 1.0
    sm_count: Annotated[StrictInt, Field(ge=0, le=100_000)] = 0
    optimizer_costs: dict[Name, OptimizerCostForm] = Field(default_factory=dict)
    layer_profiles: tuple[LayerProfileForm, ...] = ()
    reserved_memory: BytesOrNone = 0.0
    basis: Literal["", "measured", "datasheet"] = Field(
        default="", description="measured | datasheet, or nothing"
    )
    price: Price = 0.0
    power: Power = 0.0
    source: Text = ""
    date: Text = ""

    def read(self) -> parts.Accelerator:
        return parts.Accelerator(
            name=self.name,
            kind=self.kind,
            peak_flops=dict(self.peak_flops),
            memory_bytes=self.memory,
            memory_bandwidth=self.memory_bandwidth,
            gemm_efficiency=dict(self.gemm_efficiency),
            attention_efficiency=dict(self.attention_efficiency),
            memory_efficiency=self.memory_efficiency,
            launch_overhead_s=self.launch_overhead,
            sustained=self.sustained,
            framework_factor=self.framework_factor,
            sm_count=self.sm_count,
            optimizer_costs={name: cost.read() for name, cost in self.optimizer_costs.items()},
            layer_profiles=tuple(profile.read() for profile in self.layer_profiles),
            reserved_bytes=self.reserved_memory,
            basis=self.basis,
            price_per_hour=self.price,
            power_w=self.power,
            source=self.source,
            date=self.date,
        )


class LinkForm(Strict):
    joins: Literal["accelerators", "nodes", "switches", "zones", "host"] = Field(
        description="accelerators | nodes | switches | zones | host"
    )
    bandwidth: Bandwidth = Field(description="a bandwidth, as 400 Gb/s (bits) or 50 GB/s (bytes)")
    latency: TimeOrNone = Field(description="a time, as 5 us")
    per_node: StrictBool = False
    efficiency: BytesCurve = ()
    efficiency_by_operation: dict[Operation, BytesCurve] = Field(default_factory=dict)
    in_network: StrictBool = False
    source: Text = ""

    def read(self, name: str) -> parts.Link:
        return parts.Link(name=name, **self.model_dump())


class WireForm(Strict):
    from_: Name = Field(alias="from", description="a node or switch")
    to: Name = Field(description="a node or switch")
    link: Name = Field(description="the name of a link")

    def read(self) -> parts.Wire:
        return parts.Wire(a=self.from_, b=self.to, link=self.link)


class FabricForm(Strict):
    kind: Literal["switch", "fat_tree", "rail", "dragonfly", "torus", "wan"] = Field(
        description="switch | fat_tree | rail | dragonfly | torus | wan"
    )
    radix: WholeOrNone = 0
    pod: WholeOrNone = 0
    oversubscription: Annotated[
        float, BeforeValidator(_quantity("count", least=1.0, words="a factor of 1 or more"))
    ] = 1.0
    dimensions: Annotated[tuple[Whole, ...], Field(max_length=6)] = ()
    groups: WholeOrNone = 0
    routers: WholeOrNone = 0
    parallel: Whole = 1
    trunk: Text = ""

    def read(self) -> parts.FabricSpec:
        return parts.FabricSpec(**self.model_dump())


class NodeGroupForm(Strict):
    nodes: Whole = Field(description="a whole number")
    accelerator: AcceleratorForm = Field(description="an accelerator's name, or its description")

    def read(self) -> parts.NodeGroup:
        return parts.NodeGroup(nodes=self.nodes, accelerator=self.accelerator.read())


class TransportForm(Strict):
    operation: Operation
    ranks: Annotated[StrictInt, Field(ge=2, le=MAX_ACCELERATORS)]
    times: TimeCurve = Field(min_length=1, description="points, as [[1 MiB, 250 us]]")
    cpu_times: ProcessorCurve = ()
    nodes: WholeOrNone = 0
    source: Text = ""

    def read(self) -> parts.TransportCurve:
        return parts.TransportCurve(
            operation=self.operation,
            ranks=self.ranks,
            times_s=self.times,
            cpu_times_s=self.cpu_times,
            nodes=self.nodes,
            source=self.source,
        )


class HostForm(Strict):
    cores: Whole = Field(description="a whole number")
    time_slice: Time = 0.004
    concurrency: FactorCurve = ()
    host_staged: StrictBool = True

    def read(self) -> parts.Host:
        return parts.Host(
            cores=self.cores,
            time_slice_s=self.time_slice,
            concurrency=self.concurrency,
            host_staged=self.host_staged,
        )


class StragglerForm(Strict):
    rank: WholeOrNone | None = None
    node: WholeOrNone | None = None
    factor: SlowFactor = Field(description="a factor on the time of compute, as 1.5")

    @model_validator(mode="after")
    def _one_place(self) -> StragglerForm:
        if (self.rank is None) == (self.node is None):
            raise RefusalError("both rank and node" if self.node is not None else "no place", "rank or node")
        return self

    def read(self) -> stragglers.Straggler:
        kind, place = ("node", self.node) if self.rank is None else ("rank", self.rank)
        return stragglers.Straggler(kind=kind, place=place or 0, factor=self.factor)


class TransientForm(Strict):
    probability: Fraction = Field(description="a probability of one rank in one step, as 0.01")
    factors: FractionCurve = Field(min_length=1, description="points, as [[0.5, 1.1], [1, 3]], or [[1, 1.5]]")

    def read(self) -> stragglers.Transient:
        return stragglers.Transient(probability=self.probability, factors=self.factors)


class SlowLinkForm(Strict):
    node: WholeOrNone = Field(description="a node's number, from 0")
    bandwidth: Fraction = Field(description="the fraction of bandwidth left, as 0.25")

    def read(self) -> stragglers.SlowLink:
        return stragglers.SlowLink(node=self.node, bandwidth=self.bandwidth)


class StragglersForm(Strict):
    persistent: tuple[StragglerForm, ...] = ()
    transient: TransientForm | None = None
    slow_links: tuple[SlowLinkForm, ...] = ()

    def read(self) -> stragglers.Stragglers:
        return stragglers.Stragglers(
            persistent=tuple(straggler.read() for straggler in self.persistent),
            transient=self.transient.read() if self.transient else None,
            slow_links=tuple(link.read() for link in self.slow_links),
        )


class FailuresForm(Strict):
    """What is left out is as published for the largest runs; a mean time of `0 s` is never."""

    accelerator_mtbf: TimeOrNone = PUBLISHED.accelerator_mtbf_s
    node_mtbf: TimeOrNone = PUBLISHED.node_mtbf_s
    switch_mtbf: TimeOrNone = PUBLISHED.switch_mtbf_s
    nodes_per_switch: Whole = PUBLISHED.nodes_per_switch
    software_mtbf: TimeOrNone = PUBLISHED.software_mtbf_s
    shape: Number = PUBLISHED.shape
    detection: TimeOrNone = PUBLISHED.detection_s
    restart: TimeOrNone = PUBLISHED.restart_s
    repair: TimeOrNone = PUBLISHED.repair_s
    spare_nodes: WholeOrNone | None = PUBLISHED.spare_nodes
    checkpoint: TimeOrNone = PUBLISHED.checkpoint_s
    checkpoint_stall: TimeOrNone = PUBLISHED.checkpoint_stall_s
    storage_bandwidth: BandwidthOrNone = PUBLISHED.storage_bandwidth
    source: Text = ""

    def read(self) -> failures.Failures:
        fields = self.model_dump()
        return failures.Failures(
            **{name + "_s" if name in failures.TIMES else name: value for name, value in fields.items()}
        )


class ClusterForm(Strict):
    schema_: Literal["traincast.cluster/1"] = Field(alias="schema", description=CLUSTER_SCHEMA)
    name: Name = Field(description="the cluster's name")
    nodes: Whole = Field(description="a whole number")
    accelerators_per_node: Whole = Field(description="a whole number")
    accelerator: AcceleratorForm = Field(description="an accelerator's name, or its description")
    links: dict[Name, LinkForm] = Field(default_factory=dict)
    switches: tuple[Name, ...] = ()
    wires: tuple[WireForm, ...] = ()
    fabric: FabricForm | None = None
    library: Literal["", "nccl"] = Field(default="", description="nccl, or nothing")
    node_groups: tuple[NodeGroupForm, ...] = ()
    transports: tuple[TransportForm, ...] = ()
    host: HostForm | None = None
    jitter: NumberOrNone = 0.0
    stragglers: StragglersForm | None = None
    failures: FailuresForm | None = None
    residuals: dict[Name, NumberOrNone] = Field(default_factory=dict)
    description: Text = ""
    source: Text = ""
    date: Text = ""

    def read(self) -> parts.Cluster:
        return parts.Cluster(
            name=self.name,
            nodes=self.nodes,
            accelerators_per_node=self.accelerators_per_node,
            accelerator=self.accelerator.read(),
            links={name: link.read(name) for name, link in self.links.items()},
            switches=self.switches,
            wires=tuple(wire.read() for wire in self.wires),
            fabric=self.fabric.read() if self.fabric else None,
            library=self.library,
            node_groups=tuple(group.read() for group in self.node_groups),
            transports=tuple(transport.read() for transport in self.transports),
            host=self.host.read() if self.host else None,
            jitter=self.jitter,
            stragglers=self.stragglers.read() if self.stragglers else None,
            failures=self.failures.read() if self.failures else None,
            residuals=dict(self.residuals),
            description=self.description,
            source=self.source,
            date=self.date,
        )
