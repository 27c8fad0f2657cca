"""The YAML form of clusters and accelerators, as pydantic reads it: a unit on every quantity.

Keys have the names of the dataclasses in `cluster.py` without their unit suffixes, since the unit stands
with the value: `memory: 80 GiB`, `latency: 5 us`, curves as `[[1 MiB, 0.6], [16 MiB, 0.8]]`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, StrictBool, StrictInt, model_validator

from ..files.document import RefusalError
from ..reliability import failures
from . import cluster as parts
from . import stragglers
from .accelerator_schema import AcceleratorForm
from .form_types import (
    Bandwidth,
    BandwidthOrNone,
    BytesCurve,
    FactorCurve,
    Fraction,
    FractionCurve,
    Name,
    Number,
    NumberOrNone,
    Operation,
    ProcessorCurve,
    SlowFactor,
    Strict,
    Text,
    Time,
    TimeCurve,
    TimeOrNone,
    Whole,
    WholeOrNone,
    quantity,
)

CLUSTER_SCHEMA = "traincast.cluster/1"
PUBLISHED = failures.Failures()


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
        float, BeforeValidator(quantity("count", least=1.0, words="a factor of 1 or more"))
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
    ranks: Annotated[StrictInt, Field(ge=2, le=parts.MAX_ACCELERATORS)]
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
    traffic: Number = 1.0
    copied_per_byte: TimeOrNone = 0.0
    probe: TimeOrNone = 0.0

    def read(self) -> parts.Host:
        return parts.Host(
            cores=self.cores,
            time_slice_s=self.time_slice,
            concurrency=self.concurrency,
            host_staged=self.host_staged,
            traffic=self.traffic,
            copied_s_per_byte=self.copied_per_byte,
            probe_s=self.probe,
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
    corrections: dict[Name, Number] = Field(default_factory=dict)
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
            corrections=dict(self.corrections),
            description=self.description,
            source=self.source,
            date=self.date,
        )
