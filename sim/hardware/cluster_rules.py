"""What must hold between the parts of a cluster file, and what is valid but hard to believe.

Works on the document before its quantities are read, so that one round shows every fault of a file.
"""

from __future__ import annotations

import re
from typing import Any

from ..errors import Fault
from ..files.document import Document, did_you_mean, shown
from ..units import format_quantity
from .cluster import MAX_ACCELERATORS, Cluster
from .fabric_rules import fabric_faults
from .stragglers_file import straggler_faults

_NODE = re.compile(r"node(0|[1-9]\d{0,8})\Z")

NIC_BANDWIDTH = 200e9
"""bytes/s. The fastest NICs sold in 2025 carry 800 Gb/s = 100 GB/s (NVIDIA ConnectX-8); twice that."""
NODE_BANDWIDTH = 8 * NIC_BANDWIDTH
ACCELERATOR_LINK_BANDWIDTH = 2e12
"""bytes/s each direction. NVLink 5 carries 900 GB/s (NVIDIA Blackwell); about twice that."""
LATENCY_S = 1.0
MEMORY_BANDWIDTH = 50e12
"""bytes/s. HBM3e on a B200 reaches 8 TB/s."""
PEAK_FLOPS = 1e17
"""A B200 computes 4.5e15 dense fp8 FLOP/s."""


def topology_faults(document: Document) -> list[Fault]:
    """Wires to nothing, loops, duplicates, parts that nothing joins, absurd totals."""
    data = document.data
    nodes = _whole(data.get("nodes"))
    faults = [*_total_faults(document, nodes), *_switch_faults(document), *_link_faults(document, nodes)]
    faults += straggler_faults(document, nodes, nodes * _whole(data.get("accelerators_per_node")))
    wire_faults = _wire_faults(document, nodes)
    if not wire_faults and not faults:
        wire_faults = _connection_faults(document, nodes)
    return [*faults, *wire_faults, *fabric_faults(document), *_group_faults(document, nodes)]


def _group_faults(document: Document, nodes: int) -> list[Fault]:
    """Groups of nodes must be all nodes."""
    groups = [group for group in _list(document.data, "node_groups") if isinstance(group, dict)]
    total = sum(_whole(group.get("nodes")) for group in groups)
    if not groups or total == nodes or not all(_whole(group.get("nodes")) for group in groups):
        return []
    return [document.fault(("node_groups",), f"{total} nodes", f"{nodes} in all, as nodes says")]


def _whole(value: Any) -> int:
    """A whole number above 0; 0 where the file says anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _list(data: Any, key: str) -> list[Any]:
    value = data.get(key)
    return value if isinstance(value, list) else []


def _total_faults(document: Document, nodes: int) -> list[Fault]:
    per_node = _whole(document.data.get("accelerators_per_node"))
    if max(nodes, per_node) <= MAX_ACCELERATORS < nodes * per_node:
        found = f"{nodes} × {per_node} = {nodes * per_node} accelerators"
        return [document.fault(("nodes",), found, f"at most {MAX_ACCELERATORS}")]
    return []


def _switch_faults(document: Document) -> list[Fault]:
    faults, seen = [], set()
    for index, name in enumerate(_list(document.data, "switches")):
        place = ("switches", index)
        if not isinstance(name, str):
            continue
        if name in seen:
            faults.append(document.fault(place, f"{shown(name)} for the second time", "each name once"))
        if _NODE.match(name):
            faults.append(document.fault(place, shown(name), "a name that is no node's"))
        seen.add(name)
    return faults


def _link_faults(document: Document, nodes: int) -> list[Fault]:
    """Every pair of ranks needs a way: a link, or what was measured."""
    data = document.data
    links = data.get("links")
    kinds = (
        {link.get("joins") for link in links.values() if isinstance(link, dict)} if _is_map(links) else set()
    )
    if _list(data, "transports") or not _is_map(links or {}) or not kinds <= {"nodes", "accelerators"}:
        return []
    faults = []
    if nodes > 1 and "nodes" not in kinds:
        hint = "add one with joins: nodes"
        faults.append(document.fault(("links",), f"no link between the {nodes} nodes", hint=hint))
    per_node = _whole(data.get("accelerators_per_node"))
    if per_node > 1 and not kinds:
        hint = "add one with joins: accelerators"
        faults.append(document.fault(("links",), f"no link between the {per_node} accelerators", hint=hint))
    return faults


def _is_map(value: Any) -> bool:
    return isinstance(value, dict)


def _wire_faults(document: Document, nodes: int) -> list[Fault]:
    data = document.data
    switches = [name for name in _list(data, "switches") if isinstance(name, str)]
    links = list(data["links"]) if _is_map(data.get("links")) else []
    faults = []
    for index, wire in enumerate(_list(data, "wires")):
        if not isinstance(wire, dict):
            continue
        for key in ("from", "to"):
            place, end = ("wires", index, key), wire.get(key)
            if isinstance(end, str) and not _exists(end, nodes, switches):
                expected = f"node0 to node{nodes - 1} or a switch" if nodes else "a node or a switch"
                faults.append(document.fault(place, shown(end), expected, _near(end, switches)))
        if isinstance(wire.get("from"), str) and wire["from"] == wire.get("to"):
            faults.append(
                document.fault(("wires", index), f"from {shown(wire['to'])} to itself", "two different ends")
            )
        link = wire.get("link")
        if isinstance(link, str) and link not in links:
            faults.append(
                document.fault(
                    ("wires", index, "link"), shown(link), "the name of a link", did_you_mean(link, links)
                )
            )
    return faults


def _near(end: str, switches: list[str]) -> str:
    hint = did_you_mean(end, switches)
    return hint if hint.startswith("did you mean") else ""


def _exists(end: str, nodes: int, switches: list[str]) -> bool:
    match = _NODE.match(end)
    return end in switches or (match is not None and (int(match[1]) < nodes or not nodes))


def _connection_faults(document: Document, nodes: int) -> list[Fault]:
    """With wires, every node must be reachable from every other."""
    wires = [w for w in _list(document.data, "wires") if isinstance(w, dict) and "from" in w and "to" in w]
    if not wires or not 0 < nodes <= MAX_ACCELERATORS:
        return []
    import networkx

    graph = networkx.Graph()
    graph.add_edges_from((str(wire["from"]), str(wire["to"])) for wire in wires)
    unwired = next((i for i in range(nodes) if f"node{i}" not in graph), None)
    if unwired is not None:
        return [document.fault(("wires",), f"node{unwired} has no wire", f"all {nodes} nodes joined")]
    reached = networkx.node_connected_component(graph, "node0")
    apart = next((i for i in range(nodes) if f"node{i}" not in reached), None)
    if apart is None:
        return []
    found = f"no way from node0 to node{apart}"
    return [document.fault(("wires",), found, f"all {nodes} nodes joined")]


def warnings(document: Document, cluster: Cluster) -> list[Fault]:
    """What is valid but implausible; often bits taken for bytes."""
    found = accelerator_warnings(document, cluster, ("accelerator",))
    for name, link in cluster.links.items():
        place = ("links", name)
        limit = ACCELERATOR_LINK_BANDWIDTH
        if link.joins in ("switches", "zones"):
            continue  # a trunk stands for a bundle of any width
        if link.joins == "nodes":
            limit = NODE_BANDWIDTH if link.per_node else NIC_BANDWIDTH
        if link.bandwidth > limit:
            text = f"{format_quantity(link.bandwidth, 'bandwidth')} is implausible for a link between"
            hint = "are these bits? 400 Gb/s is 50 GB/s"
            found.append(document.fault((*place, "bandwidth"), f"{text} {link.joins}", hint=hint))
        if link.latency > LATENCY_S:
            text = f"{format_quantity(link.latency, 'time')} is implausible for a link"
            found.append(document.fault((*place, "latency"), text, hint="a switch takes about 1 us"))
    return found


def accelerator_warnings(
    document: Document, cluster_or_accelerator: Any, place: tuple[str, ...] = ()
) -> list[Fault]:
    """The same of an accelerator, which may stand in a file of its own."""
    accelerator = getattr(cluster_or_accelerator, "accelerator", cluster_or_accelerator)
    found = []
    if accelerator.memory_bandwidth > MEMORY_BANDWIDTH:
        text = f"{format_quantity(accelerator.memory_bandwidth, 'bandwidth')} is implausible"
        found.append(document.fault((*place, "memory_bandwidth"), text))
    for precision, peak in accelerator.peak_flops.items():
        if peak > PEAK_FLOPS:
            text = f"{format_quantity(peak, 'compute')} is implausible for one device"
            found.append(document.fault((*place, "peak_flops", precision), text))
    return found
