"""The YAML form of accelerators, as pydantic reads it; keys and units as in `cluster_schema.py`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StrictBool, StrictInt

from . import cluster as parts
from .form_types import (
    Bandwidth,
    Bytes,
    BytesCurve,
    BytesOrNone,
    Compute,
    FlopsCurve,
    Name,
    Number,
    Power,
    Precision,
    Price,
    ShareCurve,
    Strict,
    Text,
    TimeOrNone,
    Whole,
)

ACCELERATOR_SCHEMA = "traincast.accelerator/1"


class OptimizerCostForm(Strict):
    overhead: TimeOrNone = Field(description="a time, as 20 us")
    per_parameter: TimeOrNone = Field(description="a time, as 5 ps")

    def read(self) -> parts.OptimizerCost:
        return parts.OptimizerCost(overhead_s=self.overhead, per_parameter_s=self.per_parameter)


PROFILED_TIMES = (
    "forward",
    "backward",
    "input_gradient",
    "weight_gradient",
    "forward_exchange",
    "forward_exchange_cpu",
    "backward_exchange",
    "backward_exchange_cpu",
)
"""Fields of a profile that are seconds, by their names in files."""


class LayerProfileForm(Strict):
    kind: Literal["embedding", "block", "moe_block", "head", "network_layer"]
    hidden: Whole = 0
    heads: Whole = 0
    kv_heads: Whole = 0
    ffn: Whole = 0
    vocab: Whole = 0
    activation: Text = ""
    norm: Text = ""
    seq_len: Whole
    micro_batch: Whole
    precision: Name
    forward: TimeOrNone
    backward: TimeOrNone
    micro_batches: Whole = 1
    tp: Whole = 1
    sequence_parallel: StrictBool = False
    cp: Whole = 1
    cp_exchange: Literal["", "ring", "all_gather", "all_to_all"] = ""
    ep: Whole = 1
    variant: Text = ""
    input_gradient: TimeOrNone = 0.0
    weight_gradient: TimeOrNone = 0.0
    forward_exchange: TimeOrNone = 0.0
    forward_exchange_cpu: TimeOrNone = 0.0
    backward_exchange: TimeOrNone = 0.0
    backward_exchange_cpu: TimeOrNone = 0.0
    kept: BytesOrNone = 0.0

    def read(self) -> parts.LayerProfile:
        fields = self.model_dump()
        for name in PROFILED_TIMES:
            fields[f"{name}_s"] = fields.pop(name)
        return parts.LayerProfile(kept_bytes=fields.pop("kept"), **fields)


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
    attention_backward_efficiency: dict[Precision, FlopsCurve] = Field(default_factory=dict)
    memory_efficiency: BytesCurve = ()
    kernel_speeds: dict[Name, Number] = Field(default_factory=dict)
    launch_overhead: TimeOrNone = 0.0
    host_launch: TimeOrNone = 0.0
    host_backward_launch: TimeOrNone = 0.0
    host_recompute: dict[Name, TimeOrNone] = Field(default_factory=dict)
    sustained: Number = 1.0
    framework_factor: Number = 1.0
    sm_count: Annotated[StrictInt, Field(ge=0, le=100_000)] = 0
    optimizer_costs: dict[Name, OptimizerCostForm] = Field(default_factory=dict)
    layer_profiles: tuple[LayerProfileForm, ...] = ()
    reserved_memory: BytesOrNone = 0.0
    allocator_loss: ShareCurve = ()
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
            attention_backward_efficiency=dict(self.attention_backward_efficiency),
            memory_efficiency=self.memory_efficiency,
            kernel_speeds=dict(self.kernel_speeds),
            launch_overhead_s=self.launch_overhead,
            host_launch_s=self.host_launch,
            host_backward_launch_s=self.host_backward_launch,
            host_recompute_s=dict(self.host_recompute),
            sustained=self.sustained,
            framework_factor=self.framework_factor,
            sm_count=self.sm_count,
            optimizer_costs={name: cost.read() for name, cost in self.optimizer_costs.items()},
            layer_profiles=tuple(profile.read() for profile in self.layer_profiles),
            reserved_bytes=self.reserved_memory,
            allocator_loss=self.allocator_loss,
            basis=self.basis,
            price_per_hour=self.price,
            power_w=self.power,
            source=self.source,
            date=self.date,
        )
