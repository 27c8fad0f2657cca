"""What was measured of one layer: its shape, how it was divided over ranks, its seconds and bytes."""

from __future__ import annotations

from dataclasses import dataclass

SHAPE = ("hidden", "heads", "kv_heads", "ffn", "vocab", "activation", "norm")
"""Fields of a decoder that every profile names; its `variant` names the others."""

Shard = tuple[int, bool, int, str, int]
"""How a layer is divided: tp, sequence parallelism, cp, its exchange, ep."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerProfile:
    """Measured seconds of one layer of exactly this shape: what the roofline need not guess."""

    kind: str
    """`embedding`, `block`, `moe_block` or `head`; or `network_layer`, which `variant` tells."""
    hidden: int = 0
    heads: int = 0
    kv_heads: int = 0
    ffn: int = 0
    vocab: int = 0
    activation: str = ""
    norm: str = ""
    seq_len: int
    """Of the whole sequence, whatever part of it a rank has."""
    micro_batch: int
    precision: str
    forward_s: float
    backward_s: float
    micro_batches: int = 1
    """Of the steps it was profiled in, all but the first of which add to its gradients."""
    tp: int = 1
    """Ranks that shared the layer; seconds are one rank's, without what they say to each other."""
    sequence_parallel: bool = False
    cp: int = 1
    cp_exchange: str = ""
    """With `cp`: how ranks have the keys, which decides what attention each computes."""
    ep: int = 1
    variant: str = ""
    """Other fields of the decoder that are not as usual, as `experts=8 expert_ffn=352`; of a layer of any
    other network its digest."""
    input_gradient_s: float = 0.0
    """Seconds of the first half of a backward that was split; 0 where none was."""
    weight_gradient_s: float = 0.0
    """Seconds of its second half."""
    forward_exchange_s: float = 0.0
    """Seconds that the exchanges inside a forward add on a rank that has its core to itself: the bytes, and
    waiting for others; 0 where nobody looked."""
    forward_exchange_cpu_s: float = 0.0
    """Those of them in which the core that computes is at work."""
    backward_exchange_s: float = 0.0
    backward_exchange_cpu_s: float = 0.0
    kept_bytes: float = 0.0
    """What autograd keeps of the layer between its passes, the loss behind a head included; 0 where it was
    not looked at."""

    @property
    def shard(self) -> Shard:
        """How it was divided over ranks."""
        return (self.tp, self.sequence_parallel, self.cp, self.cp_exchange, self.ep)
