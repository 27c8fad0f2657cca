"""What must hold of the `fabric` of a cluster file, and between it and the rest of the file."""

from __future__ import annotations

import math
from typing import Any

from ..errors import Fault
from ..files.document import Document, did_you_mean, shown

NEEDED = {
    "switch": (),
    "fat_tree": ("radix",),
    "rail": ("radix",),
    "dragonfly": ("radix", "groups", "routers"),
    "torus": ("dimensions",),
    "wan": ("groups",),
}
"""By kind the keys a fabric must have."""

_UPLINKS = ("oversubscription", "trunk")
OPTIONAL = {
    "fat_tree": ("pod", *_UPLINKS),
    "rail": _UPLINKS,
    "dragonfly": ("parallel", "trunk"),
    "wan": ("radix", "pod", *_UPLINKS),
}
"""By kind the keys it may have besides."""


def fabric_faults(document: Document) -> list[Fault]:
    """Keys that are missing or say nothing for this kind, links that are not there, sizes that do not fit."""
    fabric = document.data.get("fabric")
    if not isinstance(fabric, dict) or fabric.get("kind") not in NEEDED:
        return []
    kind = fabric["kind"]
    faults = [*_key_faults(document, fabric, kind), *_link_faults(document, fabric, kind)]
    if document.data.get("wires"):
        faults.append(document.fault(("wires",), "wires besides a fabric", "one of the two"))
    return faults or _size_faults(document, fabric, kind)


def _key_faults(document: Document, fabric: dict[str, Any], kind: str) -> list[Fault]:
    faults = [
        document.fault(("fabric",), f"a {kind} without {key}", f"{key} in it")
        for key in NEEDED[kind]
        if not fabric.get(key)
    ]
    known = {"kind", *NEEDED[kind], *OPTIONAL.get(kind, ())}
    every = {key for keys in (*NEEDED.values(), *OPTIONAL.values()) for key in keys}
    expected = ", ".join(sorted(known))
    faults += [
        document.fault(("fabric", key), f"says nothing of a {kind}", expected)
        for key in fabric
        if key in every - known
    ]
    return faults


def _link_faults(document: Document, fabric: dict[str, Any], kind: str) -> list[Fault]:
    links = document.data.get("links")
    if not isinstance(links, dict):
        return [document.fault(("fabric",), "a fabric without links", "a link that joins nodes")]
    joined = {link.get("joins") for link in links.values() if isinstance(link, dict)}
    needed = ("nodes", "zones") if kind == "wan" else ("nodes",)
    faults = [
        document.fault(("links",), f"no link that joins {name}, which a {kind} needs")
        for name in needed
        if name not in joined
    ]
    trunk = fabric.get("trunk")
    if isinstance(trunk, str) and trunk and trunk not in links:
        hint = did_you_mean(trunk, list(links))
        faults.append(document.fault(("fabric", "trunk"), shown(trunk), "the name of a link", hint))
    return faults


def _size_faults(document: Document, fabric: dict[str, Any], kind: str) -> list[Fault]:
    """Whether the hosts the fabric has are those of the cluster."""
    hosts = _hosts(document.data)
    if not hosts:
        return []
    if kind == "torus" and _wholes(fabric["dimensions"]) and math.prod(fabric["dimensions"]) != hosts:
        have = f"{' x '.join(map(str, fabric['dimensions']))} = {math.prod(fabric['dimensions'])} hosts"
        return [document.fault(("fabric", "dimensions"), have, f"{hosts}")]
    sizes: list[Any] = [fabric.get(key) for key in ("groups", "routers", "radix")]
    if kind == "dragonfly" and _wholes(sizes) and math.prod(sizes) < hosts:
        have = f"room for {math.prod(sizes)} hosts"
        return [document.fault(("fabric",), have, f"groups x routers x radix of at least {hosts}")]
    nodes = document.data["nodes"]
    if kind == "wan" and _wholes(sizes[:1]) and nodes % sizes[0]:
        return [document.fault(("fabric", "groups"), f"{sizes[0]} zones", f"a divisor of {nodes} nodes")]
    return []


def _hosts(data: dict[str, Any]) -> int:
    """Ports of the network: one an accelerator, or one a node; 0 where the file is not clear."""
    counts: list[Any] = [data.get("nodes"), data.get("accelerators_per_node")]
    if not _wholes(counts):
        return 0
    ports = [
        link for link in data["links"].values() if isinstance(link, dict) and link.get("joins") == "nodes"
    ]
    return counts[0] if any(link.get("per_node") is True for link in ports) else counts[0] * counts[1]


def _wholes(values: Any) -> bool:
    """Whether ``values`` are all whole numbers above 0."""
    return isinstance(values, list) and all(type(value) is int and value > 0 for value in values)
