"""One layer of a model, and the kinds of layers a decoder has."""

from __future__ import annotations

from dataclasses import dataclass

EMBEDDING, BLOCK, MOE_BLOCK, HEAD = "embedding", "block", "moe_block", "head"
NETWORK_LAYER = "network_layer"
"""What profiles call any layer of a model that is no decoder."""
BLOCKS = (BLOCK, MOE_BLOCK)
"""Transformer blocks: with a dense MLP, with experts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One layer of a Model; layers of the same `kind` in one Model cost the same."""

    index: int
    kind: str
    """`embedding`, `block`, `moe_block` or `head`; of a network the first layer that costs the same."""
    parameters: int
    expert_parameters: int = 0
    """Those of them that expert parallelism divides."""
    whole_parameters: int = 0
    """Those of them that tensor parallelism does not divide: norms, biases added after a sum over the ranks,
    learned positions, the router, the way down to latents."""
