"""What the parts of a step are called and how they are drawn, alike in tables, figures and the report.

Colours are those of Okabe and Ito (https://jfly.uni-koeln.de/color/), told apart with every common colour
blindness; hatches tell them apart on grey paper too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """One part of a step."""

    key: str
    """In JSON and in tolerance expressions."""
    label: str
    kinds: tuple[str, ...]
    """Kinds of actions that belong to it."""
    colour: str
    hatch: str
    """As matplotlib writes it."""
    pattern: str
    """As plotly writes it."""


IDLE = "idle"
OTHER = "other"

PHASES = (
    Phase(key="forward", label="forward", kinds=("F",), colour="#0072B2", hatch="", pattern=""),
    Phase(key="backward", label="backward", kinds=("B", "I", "W"), colour="#E69F00", hatch="//", pattern="/"),
    Phase(
        key="send_recv",
        label="send / receive",
        kinds=("SEND_F", "RECV_F", "SEND_B", "RECV_B"),
        colour="#009E73",
        hatch="..",
        pattern=".",
    ),
    Phase(
        key="gradient_reduction",
        label="gradient reduction",
        kinds=("REDUCE_GRAD", "REDUCE_TIED"),
        colour="#CC79A7",
        hatch="xx",
        pattern="x",
    ),
    Phase(
        key="push_pull",
        label="push / pull",
        kinds=("PUSH", "PULL"),
        colour="#56B4E9",
        hatch="++",
        pattern="+",
    ),
    Phase(
        key="optimizer_step",
        label="optimizer step",
        kinds=("STEP",),
        colour="#D55E00",
        hatch="--",
        pattern="-",
    ),
    Phase(key=OTHER, label="other", kinds=(), colour="#F0E442", hatch="||", pattern="|"),
    Phase(key=IDLE, label="idle / bubble", kinds=(), colour="#999999", hatch="\\\\", pattern="\\"),
)

BY_KEY = {phase.key: phase for phase in PHASES}
_BY_KIND = {kind: phase for phase in PHASES for kind in phase.kinds}

MEMORY_PARTS = {
    "weights_bytes": ("weights", "#0072B2", "", ""),
    "gradients_bytes": ("gradients", "#E69F00", "//", "/"),
    "optimizer_bytes": ("optimizer", "#009E73", "..", "."),
    "activations_bytes": ("activations", "#CC79A7", "xx", "x"),
    "logits_bytes": ("logits", "#56B4E9", "++", "+"),
    "buffers_bytes": ("buffers", "#D55E00", "--", "-"),
    "reserved_bytes": ("reserved", "#999999", "\\\\", "\\"),
    "other_bytes": ("other", "#F0E442", "||", "|"),
}
"""By field of a memory estimate: label, colour, hatch, pattern."""


def phase_of(kind: str) -> Phase:
    """The phase of an action's kind, as ``SEND_F``."""
    return _BY_KIND.get(kind, BY_KEY[OTHER])


def memory_parts(row: Mapping[str, Any]) -> dict[str, float]:
    """Bytes by part of one rank's memory estimate, which add up to its ``total_bytes``.

    Parts that are absent are left out; what no part names counts as other.
    """
    known = {name: float(row[name]) for name in MEMORY_PARTS if isinstance(row.get(name), int | float)}
    total = row.get("total_bytes", 0.0)
    rest = total - sum(known.values()) if isinstance(total, int | float) else 0.0
    if rest > 0.5:
        known["other_bytes"] = known.get("other_bytes", 0.0) + rest
    return {name: known[name] for name in MEMORY_PARTS if name in known}
