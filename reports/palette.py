"""What the parts of a step are called and how they are drawn, alike in tables, figures and the report.

Colours are those of Okabe and Ito (https://jfly.uni-koeln.de/color/) and, where these run out, of Tol's muted
scheme (https://sronpersonalpages.nl/~pault/), told apart with every common colour blindness; hatches tell
them apart on grey paper too.
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
    streams: tuple[str, ...] = ()
    """Streams of communication inside layers, all of whose spans belong to it whatever their action."""
    colour: str
    hatch: str
    """As matplotlib writes it."""
    pattern: str
    """As plotly writes it."""


IDLE = "idle"
OTHER = "other"

PHASES = (
    Phase(key="forward", label="forward", kinds=("F",), colour="#0072B2", hatch="", pattern=""),
    Phase(key="backward", label="backward", kinds=("B", "I"), colour="#E69F00", hatch="//", pattern="/"),
    Phase(
        key="weight_gradient",
        label="weight gradient",
        kinds=("W",),
        colour="#DDCC77",
        hatch="\\\\",
        pattern="\\",
    ),
    Phase(
        key="overlap",
        label="forward overlapped with backward",
        kinds=("OVERLAP_F_B",),
        colour="#44AA99",
        hatch="**",
        pattern="x",
    ),
    Phase(
        key="exchange",
        label="exchange inside layers",
        kinds=(),
        streams=("tp", "cp", "ep"),
        colour="#882255",
        hatch="oo",
        pattern="+",
    ),
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
        kinds=("REDUCE_GRAD", "REDUCE_TIED", "AVERAGE"),
        colour="#CC79A7",
        hatch="xx",
        pattern="x",
    ),
    Phase(
        key="parameter_gathering",
        label="parameter gathering",
        kinds=("UNSHARD",),
        colour="#332288",
        hatch="OO",
        pattern="-",
    ),
    Phase(
        key="offload",
        label="to and from host memory",
        kinds=("OFFLOAD", "FETCH"),
        streams=("host",),
        colour="#999933",
        hatch="..",
        pattern=".",
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
        kinds=("STEP", "APPLY"),
        colour="#D55E00",
        hatch="--",
        pattern="-",
    ),
    Phase(key=OTHER, label="other", kinds=(), colour="#F0E442", hatch="||", pattern="|"),
    Phase(key=IDLE, label="idle / bubble", kinds=(), colour="#999999", hatch="\\\\", pattern="\\"),
)

BY_KEY = {phase.key: phase for phase in PHASES}
_BY_KIND = {kind: phase for phase in PHASES for kind in phase.kinds}
_BY_STREAM = {stream: phase for phase in PHASES for stream in phase.streams}
COMPUTE_PHASES = ("forward", "backward", "weight_gradient", "overlap", "optimizer_step")
"""Keys of what is no communication."""

MEMORY_PARTS = {
    "weights_bytes": ("weights", "#0072B2", "", ""),
    "gradients_bytes": ("gradients", "#E69F00", "//", "/"),
    "optimizer_bytes": ("optimizer", "#009E73", "..", "."),
    "activations_bytes": ("activations", "#CC79A7", "xx", "x"),
    "logits_bytes": ("logits", "#56B4E9", "++", "+"),
    "workspace_bytes": ("workspace", "#DDCC77", "||", "|"),
    "buffers_bytes": ("buffers", "#D55E00", "--", "-"),
    "fragmentation_bytes": ("fragmentation", "#882255", "oo", "+"),
    "communicators_bytes": ("communicators", "#332288", "**", "x"),
    "reserved_bytes": ("reserved", "#999999", "\\\\", "\\"),
    "other_bytes": ("other", "#F0E442", "||", "|"),
}
"""By field of a memory estimate: label, colour, hatch, pattern."""


def phase_of(kind: str, stream: str = "") -> Phase:
    """The phase of an action's kind, as ``SEND_F``, on a stream."""
    return _BY_STREAM.get(stream) or _BY_KIND.get(kind, BY_KEY[OTHER])


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
