"""Clusters and accelerators written as YAML files, which read back to the bit."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..files.writer import write_text_atomic
from ..units import exact_quantity
from .cluster import Accelerator, Cluster, Curve, FabricSpec
from .stragglers_file import failures_to_dict, stragglers_to_dict

if TYPE_CHECKING:
    pass


def write_cluster(cluster: Cluster, path: str | os.PathLike[str]) -> None:
    """Write ``cluster`` as YAML, whole or not at all; `read_cluster` gives back an equal one.

    >>> import traincast as tc
    >>> tc.write_cluster(tc.cluster("hgx-h100", nodes=3), "mine.yaml")
    >>> tc.cluster("mine.yaml").nodes
    3

    Raises:
        InputError: a value is NaN or infinite.
        UsageError: the file cannot be written.
    """
    write_text_atomic(path, cluster_to_yaml(cluster))


def write_accelerator(accelerator: Accelerator, path: str | os.PathLike[str]) -> None:
    """Write ``accelerator`` as a YAML file of its own, whole or not at all.

    >>> import traincast as tc
    >>> tc.write_accelerator(tc.accelerator("l4"), "mine.yaml")
    >>> tc.accelerator("mine.yaml").name == tc.accelerator("l4").name
    True

    Raises:
        InputError: a value is NaN or infinite.
        UsageError: the file cannot be written.
    """
    from .accelerator_schema import ACCELERATOR_SCHEMA

    data = {"schema": ACCELERATOR_SCHEMA, **accelerator_to_dict(accelerator)}
    write_text_atomic(path, _to_yaml(data))


def cluster_to_yaml(cluster: Cluster) -> str:
    """The text of the YAML form: one curve a line, one key a line."""
    return _to_yaml(cluster_to_dict(cluster))


def _to_yaml(data: dict[str, Any]) -> str:
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.width = 110
    yaml.default_flow_style = False
    text = io.StringIO()
    yaml.dump(_flow_leaves(data), text)
    return text.getvalue()


def _flow_leaves(value: Any) -> Any:
    """Lists of lists, and mappings of a profile or a wire, on one line."""
    from ruamel.yaml.comments import CommentedMap, CommentedSeq

    if isinstance(value, dict):
        return CommentedMap((key, _flow_leaves(item)) for key, item in value.items())
    if not isinstance(value, list):
        return value
    items = [_flow_leaves(item) for item in value]
    sequence = CommentedSeq(items)
    if not any(isinstance(item, dict) for item in items):
        sequence.fa.set_flow_style()
    for item in items:
        if isinstance(item, CommentedMap) and not any(isinstance(v, dict | list) for v in item.values()):
            item.fa.set_flow_style()
    return sequence


def cluster_to_dict(cluster: Cluster) -> dict[str, Any]:
    """The YAML form as plain values: text with units, numbers, lists, dicts; defaults are left out."""
    from .cluster_schema import CLUSTER_SCHEMA

    data = {
        "schema": CLUSTER_SCHEMA,
        "name": cluster.name,
        "description": cluster.description,
        "source": cluster.source,
        "date": cluster.date,
        "nodes": cluster.nodes,
        "accelerators_per_node": cluster.accelerators_per_node,
        "accelerator": accelerator_to_dict(cluster.accelerator),
        "links": {name: _link(link) for name, link in cluster.links.items()},
        "switches": list(cluster.switches),
        "wires": [{"from": wire.a, "to": wire.b, "link": wire.link} for wire in cluster.wires],
        "fabric": _fabric(cluster.fabric) if cluster.fabric else {},
        "library": cluster.library,
        "node_groups": [
            {"nodes": group.nodes, "accelerator": accelerator_to_dict(group.accelerator)}
            for group in cluster.node_groups
        ],
        "transports": [_transport(transport) for transport in cluster.transports],
        "host": _host(cluster.host) if cluster.host else {},
        "jitter": cluster.jitter,
        "stragglers": stragglers_to_dict(cluster.stragglers) if cluster.stragglers else {},
        "failures": failures_to_dict(cluster.failures) if cluster.failures else {},
        "residuals": dict(cluster.residuals),
        "corrections": dict(cluster.corrections),
    }
    return _without_defaults(data)


def accelerator_to_dict(accelerator: Accelerator) -> dict[str, Any]:
    """The YAML form of an accelerator."""
    a = accelerator
    data = {
        "name": a.name,
        "kind": a.kind,
        "basis": a.basis,
        "source": a.source,
        "date": a.date,
        "peak_flops": {key: exact_quantity(value, "compute") for key, value in a.peak_flops.items()},
        "memory": exact_quantity(a.memory_bytes, "bytes"),
        "memory_bandwidth": exact_quantity(a.memory_bandwidth, "bandwidth"),
        "gemm_efficiency": _curves(a.gemm_efficiency),
        "attention_efficiency": _curves(a.attention_efficiency),
        "attention_backward_efficiency": _curves(a.attention_backward_efficiency),
        "memory_efficiency": _curve(a.memory_efficiency, "bytes"),
        "kernel_speeds": dict(a.kernel_speeds),
        "launch_overhead": exact_quantity(a.launch_overhead_s, "time"),
        "host_launch": exact_quantity(a.host_launch_s, "time"),
        "host_backward_launch": exact_quantity(a.host_backward_launch_s, "time"),
        "host_recompute": {key: exact_quantity(value, "time") for key, value in a.host_recompute_s.items()},
        "sustained": a.sustained,
        "framework_factor": a.framework_factor,
        "sm_count": a.sm_count,
        "optimizer_costs": {name: _optimizer(cost) for name, cost in a.optimizer_costs.items()},
        "layer_profiles": [_profile(profile) for profile in a.layer_profiles],
        "reserved_memory": exact_quantity(a.reserved_bytes, "bytes"),
        "allocator_loss": _curve(a.allocator_loss, "count", "count"),
        "price": exact_quantity(a.price_per_hour, "price"),
        "power": exact_quantity(a.power_w, "power"),
    }
    return _without_defaults(data)


_UNSAID = ("", 0, {}, [], "0 s", "0 B", "0 USD/h", "0 mW")
"""What a file need not say, since it is the default wherever it occurs."""


def _without_defaults(data: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in data.items() if isinstance(value, bool) or value not in _UNSAID}


def _curve(curve: Curve, x: str, y: str = "count") -> list[list[Any]]:
    return [[_value(a, x), _value(b, y)] for a, b in curve]


def _value(value: float, dimension: str) -> Any:
    """Text with a unit, or the number itself where there is none."""
    if dimension != "count":
        return exact_quantity(value, dimension)
    exact_quantity(value, dimension)  # refuses NaN
    return int(value) if float(value).is_integer() and abs(value) < 2**53 else value


def _curves(curves: Mapping[str, Curve]) -> dict[str, Any]:
    return {precision: _curve(curve, "flops") for precision, curve in curves.items()}


def _optimizer(cost: Any) -> dict[str, Any]:
    return {
        "overhead": exact_quantity(cost.overhead_s, "time"),
        "per_parameter": exact_quantity(cost.per_parameter_s, "time"),
    }


_PROFILE_SHAPE = (
    *("kind", "hidden", "heads", "kv_heads", "ffn", "vocab", "activation", "norm"),
    *("seq_len", "micro_batch", "precision"),
)


_DIVISIONS = ("micro_batches", "tp", "cp", "ep")


def _profile(profile: Any) -> dict[str, Any]:
    return {
        **{name: value for name in _PROFILE_SHAPE if (value := getattr(profile, name)) not in (0, "")},
        "forward": exact_quantity(profile.forward_s, "time"),
        "backward": exact_quantity(profile.backward_s, "time"),
        **{name: getattr(profile, name) for name in _DIVISIONS if getattr(profile, name) > 1},
        **({"sequence_parallel": True} if profile.sequence_parallel else {}),
        **_without_defaults(
            {
                "cp_exchange": profile.cp_exchange,
                "variant": profile.variant,
                "input_gradient": exact_quantity(profile.input_gradient_s, "time"),
                "weight_gradient": exact_quantity(profile.weight_gradient_s, "time"),
                **{
                    name: exact_quantity(getattr(profile, f"{name}_s"), "time")
                    for direction in ("forward", "backward")
                    for name in (f"{direction}_exchange", f"{direction}_exchange_cpu")
                },
                "kept": exact_quantity(profile.kept_bytes, "bytes"),
            }
        ),
    }


def _link(link: Any) -> dict[str, Any]:
    data = {
        "joins": link.joins,
        "bandwidth": exact_quantity(link.bandwidth, "bandwidth"),
        "latency": exact_quantity(link.latency, "time"),
        "efficiency": _curve(link.efficiency, "bytes"),
        "efficiency_by_operation": {
            operation: _curve(curve, "bytes") for operation, curve in link.efficiency_by_operation.items()
        },
        "source": link.source,
    }
    data = {key: value for key, value in data.items() if value not in ("", [], {})}
    return {**data, **{key: True for key in ("per_node", "in_network") if getattr(link, key)}}


def _fabric(fabric: FabricSpec) -> dict[str, Any]:
    numbers = ("radix", "pod", "groups", "routers", "trunk")
    data = {"kind": fabric.kind, "dimensions": list(fabric.dimensions)}
    data |= {name: getattr(fabric, name) for name in numbers}
    if fabric.parallel != 1:
        data["parallel"] = fabric.parallel
    if fabric.oversubscription != 1:
        data["oversubscription"] = _value(fabric.oversubscription, "count")
    return _without_defaults(data)


def _transport(transport: Any) -> dict[str, Any]:
    data = {
        "operation": transport.operation,
        "ranks": transport.ranks,
        "times": _curve(transport.times_s, "bytes", "time"),
    }
    data["cpu_times"] = _curve(transport.cpu_times_s, "bytes", "time")
    data["nodes"] = transport.nodes
    data["source"] = transport.source
    return _without_defaults(data)


def _host(host: Any) -> dict[str, Any]:
    data = {
        "cores": host.cores,
        "time_slice": exact_quantity(host.time_slice_s, "time"),
        "host_staged": host.host_staged,
        "concurrency": _curve(host.concurrency, "count", "count"),
        "traffic": 0 if host.traffic == 1.0 else host.traffic,
        "copied_per_byte": exact_quantity(host.copied_s_per_byte, "time"),
        "probe": exact_quantity(host.probe_s, "time"),
    }
    return _without_defaults(data)
