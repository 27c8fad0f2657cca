"""A layer's sizes on one rank, and the kernels that are made of them.

Tensor parallelism divides heads, inner widths and the vocabulary, context parallelism the tokens of every
sequence, sequence parallelism the tokens between the parallel regions, expert parallelism the experts.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..model.decoder import Decoder
from ..model.expert_imbalance import busiest_visits
from ..plan.software_stacks import DEFAULT_STACK, STACKS, Stack
from .kernel import FP32_BYTES, Kernel


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Sizes on one rank, and constructors of kernels over them."""

    decoder: Decoder
    micro_batch: int
    seq_len: int
    tp: int
    bytes_per_value: int
    cp: int = 1
    ep: int = 1
    sequence_parallel: bool = False
    expert_imbalance: float = 1.0
    """Tokens of the busiest expert-parallel rank over the mean."""
    imposed: bool = True
    """Experts follow from a token's place, not from the router's scores."""
    flash: bool = True
    """Attention is one flash kernel."""
    fused_softmax: bool = True
    """Without flash attention, scale, mask and softmax are one kernel."""
    flash_kind: str = "flash"
    """Which flash kernel: `flash`, `flash1` or `triton`."""
    dropout: bool = False
    """After attention's probabilities, a block's halves and the embedding."""
    fp8: bool = False
    """Linear layers of blocks multiply in fp8, step by step in plain torch (`torch_float8.py`)."""
    stack: Stack = STACKS[DEFAULT_STACK]
    """What is fused, in what precision."""
    added: float = 1.0
    """Share of the micro-batches whose gradients of weights are added to earlier ones, where the first one's
    are kept as they come."""

    @property
    def tokens(self) -> int:
        """Tokens of this rank's part of the sequences."""
        return self.micro_batch * self.seq_len // self.cp

    @property
    def outside(self) -> int:
        """Tokens of which this rank computes what tensor parallelism does not divide: norms, residuals,
        routing, the way down to latents."""
        return self.tokens // self.tp if self.sequence_parallel else self.tokens

    @property
    def hidden(self) -> int:
        return self.decoder.hidden

    @property
    def q(self) -> int:
        return self.decoder.q_size // self.tp

    @property
    def k(self) -> int:
        return self.decoder.kv_size // self.tp

    @property
    def v(self) -> int:
        return self.decoder.v_size // self.tp

    @property
    def o(self) -> int:
        return self.decoder.o_size // self.tp

    @property
    def vocab(self) -> int:
        """Rows of the vocabulary on this rank, padded as the stack does; without padding, of most ranks."""
        multiple = self.stack.vocab_multiple
        if multiple == 1:
            return max(1, self.decoder.vocab // self.tp)
        return -(-self.decoder.vocab // (self.tp * multiple)) * multiple

    @property
    def mlp_inputs(self) -> int:
        """Matrices that lead into an MLP."""
        return self.decoder.mlp_matrices - 1

    @property
    def routed(self) -> float:
        """Tokens that this rank's experts work on, each counted once for every expert it visits.

        As many come from the expert-parallel ranks as go to them, times the imbalance; never more than all
        their tokens to each of its experts.
        """
        return self.tokens * busiest_visits(self.decoder, self.ep, self.expert_imbalance)

    @property
    def sent(self) -> int:
        """Tokens that this rank sends to experts, each counted once for every expert it visits."""
        return self.outside * self.decoder.experts_per_token

    @property
    def local_experts(self) -> int:
        return max(1, self.decoder.experts // self.ep)

    def gemm(self, m: int, n: int, k: int, *, weights: bool = False) -> Kernel:
        """A GEMM [m, k] x [k, n]; a weight gradient may be added onto the accumulated one on the way."""
        size = self.bytes_per_value * (m * k + k * n) + self._written(weights=weights) * m * n
        return Kernel(
            kind="gemm",
            flops=2.0 * m * n * k,
            bytes=float(size),
            m=m,
            n=n,
            k=k,
            weights=weights,
        )

    def _written(self, *, weights: bool) -> int:
        """Bytes moved for each value of a GEMM: written once, or read and written in fp32."""
        if weights and self.stack.accumulation == "fused":
            return 2 * FP32_BYTES
        return self.bytes_per_value

    def grouped(self, n: int, k: int, *, weights: bool = False) -> Kernel:
        """The GEMMs of all local experts, from ``k`` to ``n`` values for every token routed here."""
        rows, experts = self.routed, self.local_experts
        size = self.bytes_per_value * rows * (k + n) + experts * k * n * self._written(weights=weights)
        each = max(1, round(rows / experts))
        m, inner = (n, each) if weights else (each, k)
        return Kernel(
            kind="gemm",
            flops=2.0 * rows * n * k,
            bytes=float(size),
            m=m,
            n=k if weights else n,
            k=inner,
            batch=experts,
            weights=weights,
        )

    def memory(self, values: float) -> Kernel:
        """A kernel that reads and writes ``values`` values of the layer's precision."""
        return Kernel(kind="memory", flops=0.0, bytes=float(values * self.bytes_per_value))
