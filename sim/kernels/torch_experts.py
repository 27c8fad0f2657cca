"""The half of a block with experts as plain torch computes it, as `executor/model/experts.py` has it.

The router works in fp32. Each token is copied for each of its experts, sorted by expert; each expert casts
its own matrices, which are views of all experts' and so in no cache of autocast's, and multiplies by itself.
Most of its operations are small, and what a device waits for is the host, which waits for the device three
times to know how many tokens each expert has.

With tensor parallelism alone what goes in is gathered, and every rank routes all tokens; with expert
parallelism each routes its own. What compiled blocks make of it is the same: those numbers, which no compiler
knows, break the graph.
"""

from __future__ import annotations

from dataclasses import replace

from .elementwise import FP32
from .kernel import Kernel
from .layer_shape import Shape
from .torch_operations import Kernels, activation, activation_backward, cast, dropout, norm_family, of

INDEX_BYTES = 8


def forward(s: Shape) -> Kernels:
    """Norm, router, copies, experts, their weighed sum, shared experts and the residual."""
    b, values = s.bytes_per_value, _rows(s) * s.hidden
    outside = s.outside * s.hidden
    gathered = cast(s, outside) if _is_region(s) else ()
    return (
        of(norm_family(s), 2 * FP32 * outside),
        *gathered,
        *_router(s),
        *cast(s, values),
        of("sorting", 10 * INDEX_BYTES * _sent(s)),
        of("index", 2 * b * _sent(s) * s.hidden),
        *_sorted_there(s),
        *_each(s, _expert(s)),
        of("copy", 2 * b * s.routed * s.hidden),
        *_sorted_there(s),
        of("copy", (b + FP32) * _sent(s) * s.hidden),
        of("index_add", 3 * FP32 * (values + _sent(s) * s.hidden)),
        *_shared(s),
        *dropout(s, FP32 * outside, outside),
        of("residual", 3 * FP32 * outside),
    )


def backward(s: Shape) -> Kernels:
    """The forward in reverse; what reads a token adds up its gradient in fp32."""
    b, values = s.bytes_per_value, _rows(s) * s.hidden
    outside, sent = s.outside * s.hidden, _sent(s) * s.hidden
    inner, output = _matrices(s)
    return (
        *dropout(s, FP32 * outside, outside, backward=True),
        *_shared_backward(s),
        of("index", 2 * FP32 * sent),
        of("weighing_backward", (2 * FP32 + b + 3 * FP32 + 2 * FP32) * sent),
        *_sorted_there(s, backward=True),
        *_each(s, _expert_backward(s)),
        *(of("copy", 2 * FP32 * s.local_experts * size, weights=True) for size in (inner, output)),
        *_added(s, s.local_experts * (inner + output)),
        of("copy", 2 * b * s.routed * s.hidden),
        *_sorted_there(s, backward=True),
        of("index_backward", 2 * b * (values + sent)),
        *cast(s, values),
        *_router_backward(s),
        of("add", 3 * FP32 * values),
        of(f"{norm_family(s)}_backward", 5 * FP32 * outside),
        of("add", 3 * FP32 * outside),
    )


def _is_region(s: Shape) -> bool:
    """Whether router and experts are one tensor-parallel region."""
    return s.tp > 1 and s.ep == 1


def _rows(s: Shape) -> int:
    """Tokens that this rank routes."""
    return s.tokens if _is_region(s) else s.outside


def _sent(s: Shape) -> int:
    return _rows(s) * s.decoder.experts_per_token


def _matrices(s: Shape) -> tuple[int, int]:
    """Values of an expert's inner matrix and of its output's on this rank."""
    ffn = s.decoder.expert_ffn // s.tp
    return s.mlp_inputs * ffn * s.hidden, ffn * s.hidden


def _added(s: Shape, values: float) -> Kernels:
    """Gradients of weights onto those of earlier micro-batches."""
    size = 3 * FP32 * values * s.added
    return (of("add", size, weights=True),) if size else ()


def _router(s: Shape) -> Kernels:
    """Scores, the choice, counts, weights and the balance loss: small operations on numbers of experts, and
    of places of a sample where the choice is imposed by them."""
    d = s.decoder
    widened = cast(s, _rows(s) * s.hidden) if _is_region(s) else ()
    scores = of("routing" if s.imposed else "learned_routing", 8 * FP32 * _rows(s) * d.experts)
    if d.router_bias:
        scores = replace(scores, launches=scores.launches + 1)
    return *widened, _scores_gemm(s), scores


def _router_backward(s: Shape) -> Kernels:
    d = s.decoder
    widened = cast(s, _rows(s) * s.hidden) if _is_region(s) else ()
    return (
        of("routing_backward", 8 * FP32 * _rows(s) * d.experts),
        _scores_gemm(s, "input"),
        _scores_gemm(s, "weight"),
        *_added(s, d.experts * s.hidden),
        *widened,
    )


def _scores_gemm(s: Shape, of_what: str = "output") -> Kernel:
    """The router's, in fp32 whatever the job multiplies in; a job in tf32 has it so too."""
    rows, experts = _rows(s), s.decoder.experts
    whole = replace(s, bytes_per_value=FP32)
    made = {
        "output": lambda: whole.gemm(rows, experts, s.hidden),
        "input": lambda: whole.gemm(rows, s.hidden, experts),
        "weight": lambda: whole.gemm(experts, s.hidden, rows, weights=True),
    }[of_what]()
    return replace(made, precision="" if s.bytes_per_value == FP32 else "fp32")


def _sorted_there(s: Shape, *, backward: bool = False) -> Kernels:
    """What arrives from several ranks, or goes back to them, in the order of this rank's experts."""
    if s.ep == 1 or s.local_experts == 1:
        return ()
    return (of("index_add" if backward else "index", 2 * s.bytes_per_value * s.routed * s.hidden),)


def _each(s: Shape, kernels: Kernels) -> Kernels:
    """Those of one expert after those of another."""
    return kernels * s.local_experts


def _expert(s: Shape) -> Kernels:
    """One expert's: each matrix is cast for its GEMM."""
    rows, ffn = max(1, round(s.routed / s.local_experts)), s.decoder.expert_ffn // s.tp
    inner, output = _matrices(s)
    return (
        *cast(s, inner),
        s.gemm(rows, s.mlp_inputs * ffn, s.hidden),
        activation(s, rows * ffn),
        *cast(s, output),
        s.gemm(rows, s.hidden, ffn),
    )


def _expert_backward(s: Shape) -> Kernels:
    rows, ffn = max(1, round(s.routed / s.local_experts)), s.decoder.expert_ffn // s.tp
    inner, output = _matrices(s)
    return (
        s.gemm(rows, ffn, s.hidden),
        s.gemm(s.hidden, ffn, rows, weights=True),
        *cast(s, output, weights=True),
        activation_backward(s, rows * ffn),
        s.gemm(rows, s.hidden, s.mlp_inputs * ffn),
        s.gemm(s.mlp_inputs * ffn, s.hidden, rows, weights=True),
        *cast(s, inner, weights=True),
    )


def _shared(s: Shape) -> Kernels:
    """An MLP that every token visits, scaled by a gate of one value or not, and added to the others' sum."""
    if not s.decoder.shared_ffn:
        return ()
    rows, ffn, b = _rows(s), s.decoder.shared_ffn // s.tp, s.bytes_per_value
    values = rows * s.hidden
    gate = (
        *cast(s, values),
        *cast(s, s.hidden),
        s.gemm(rows, 1, s.hidden),
        of("sigmoid", 2 * b * rows),
        of("copy", 2 * b * values),
    )
    return (
        *cast(s, values),
        *cast(s, s.mlp_inputs * ffn * s.hidden),
        s.gemm(rows, s.mlp_inputs * ffn, s.hidden),
        activation(s, rows * ffn),
        *cast(s, ffn * s.hidden),
        s.gemm(rows, s.hidden, ffn),
        *(gate if s.decoder.shared_gate else ()),
        of("residual", (2 * FP32 + b) * values),
    )


def _shared_backward(s: Shape) -> Kernels:
    if not s.decoder.shared_ffn:
        return ()
    rows, ffn, b = _rows(s), s.decoder.shared_ffn // s.tp, s.bytes_per_value
    values, inner = rows * s.hidden, s.mlp_inputs * ffn
    gate = (
        of("gate_backward", 6 * b * values),
        s.gemm(rows, s.hidden, 1),
        s.gemm(1, s.hidden, rows, weights=True),
        *cast(s, s.hidden, weights=True),
        *cast(s, values),
        of("add", 3 * FP32 * values),
    )
    return (
        *cast(s, values),
        *(gate if s.decoder.shared_gate else ()),
        s.gemm(rows, ffn, s.hidden),
        s.gemm(s.hidden, ffn, rows, weights=True),
        *cast(s, ffn * s.hidden, weights=True),
        activation_backward(s, rows * ffn),
        s.gemm(rows, s.hidden, inner),
        s.gemm(inner, s.hidden, rows, weights=True),
        *cast(s, inner * s.hidden, weights=True),
        *_added(s, (inner + ffn) * s.hidden),
        *cast(s, values),
        of("add", 3 * FP32 * values),
    )
