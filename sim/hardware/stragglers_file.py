"""The sections `stragglers` and `failures` of a cluster file: written, and checked against the rest.

`cluster_schema.py` reads them.
"""

from __future__ import annotations

from typing import Any

from ..errors import Fault
from ..files.document import Document
from ..reliability.failures import TIMES, Failures
from ..units import exact_quantity
from .stragglers import Stragglers


def stragglers_to_dict(stragglers: Stragglers) -> dict[str, Any]:
    """The YAML form of ``stragglers``; defaults are left out."""
    data: dict[str, Any] = {}
    if stragglers.persistent:
        data["persistent"] = [{s.kind: s.place, "factor": s.factor} for s in stragglers.persistent]
    if stragglers.transient:
        data["transient"] = {
            "probability": stragglers.transient.probability,
            "factors": [list(point) for point in stragglers.transient.factors],
        }
    if stragglers.slow_links:
        data["slow_links"] = [
            {"node": link.node, "bandwidth": link.bandwidth} for link in stragglers.slow_links
        ]
    return data


def failures_to_dict(failures: Failures) -> dict[str, Any]:
    """The YAML form of ``failures``, every number written out, since its defaults are not zeros."""
    data: dict[str, Any] = {
        name: exact_quantity(getattr(failures, f"{name}_s"), "time") for name in sorted(TIMES)
    }
    data["nodes_per_switch"] = failures.nodes_per_switch
    data["shape"] = failures.shape
    if failures.spare_nodes is not None:
        data["spare_nodes"] = failures.spare_nodes
    data["storage_bandwidth"] = exact_quantity(failures.storage_bandwidth, "bandwidth")
    if failures.source:
        data["source"] = failures.source
    return data


def straggler_faults(document: Document, nodes: int, ranks: int) -> list[Fault]:
    """Stragglers and slow links of a cluster file that are not in the cluster, or there twice.

    ``nodes`` or ``ranks`` of 0 are unknown.
    """
    stragglers = document.data.get("stragglers")
    if not isinstance(stragglers, dict):
        return []
    faults = []
    for key, kinds in (("persistent", ("rank", "node")), ("slow_links", ("node",))):
        seen = set()
        for index, item in enumerate(_mappings(stragglers.get(key))):
            for kind in kinds:
                place, count = item.get(kind), ranks if kind == "rank" else nodes
                where = ("stragglers", key, index, kind)
                if not isinstance(place, int) or isinstance(place, bool):
                    continue
                if count and place >= count:
                    faults.append(document.fault(where, f"{place}", f"{kind} 0 to {count - 1}"))
                if (kind, place) in seen:
                    faults.append(document.fault(where, f"{place} for the second time", "each once"))
                seen.add((kind, place))
    return faults


def _mappings(items: Any) -> list[dict[str, Any]]:
    """``items`` with an empty mapping for whatever is none, so that places stay."""
    return [item if isinstance(item, dict) else {} for item in items] if isinstance(items, list) else []
