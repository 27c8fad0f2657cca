"""What one rank has done so far, as its steps become operations.

Each map is filled by one subject and read by others: passes give what messages send and reductions wait for,
messages and copies give what passes wait for.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from ..plan.action import Action, Kind
from .steps import Step


@dataclass(slots=True)
class RankState:
    """What one rank has done so far."""

    number: int
    pipeline_rank: int
    queue: deque[Step]
    """Steps that have not become operations yet."""
    received: dict[Action, int] = field(default_factory=dict)
    """By receive: the operation after which the message is there."""
    outputs: dict[tuple[Kind, int, int], int] = field(default_factory=dict)
    """By (F or B, stage, micro-batch): the operation after which it can be sent on."""
    passes: dict[int, int] = field(default_factory=dict)
    """By number: the operation that ends a block of a pass."""
    gathered: dict[int, list[int]] = field(default_factory=dict)
    """By number of a block: what gathers its parameters."""
    buckets: dict[tuple[int, int], int] = field(default_factory=dict)
    """By (stage, bucket): the operation after which its gradients are whole."""
    reduced: list[int] = field(default_factory=list)
    """Reductions since the last optimizer step."""
    stepped: list[int] = field(default_factory=list)
    """Optimizer steps, in order."""
    offloaded: dict[tuple[int, int], int] = field(default_factory=dict)
    """By (stage, micro-batch): the operation after which its activations are in host memory."""
    fetched: dict[tuple[int, int], int] = field(default_factory=dict)
    """By (stage, micro-batch): the operation after which they are back, for the pass that needs them."""
    meetings: dict[tuple[Action, str], int] = field(default_factory=dict)
    """How often it was in a collective: the n-th of one rank is the n-th of all members."""
    last_op: int = -1
    first_of_span: int = -1
    is_blocked: bool = False
    """Waits for a message that has not been sent."""
