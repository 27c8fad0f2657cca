"""What the figures of `memory.py` rest on, in words."""

from __future__ import annotations

from ..plan.job import OPTIMIZER_STATES, Job
from ..plan.mixed_precision import bytes_per_gradient
from ..plan.strategy import Strategy
from .parameters import FP32_BYTES, state_bytes

_SHARDED = {
    "ddp": "nothing is sharded over dp",
    "zero1": "optimizer states are sharded over dp × cp",
    "zero2": "optimizer states and gradients are sharded over dp × cp",
    "fsdp": "states, gradients and weights are sharded over dp × cp",
    "hsdp": "states, gradients and weights are sharded within groups of dp × cp",
}

_LOSS = {
    "vocab_parallel": "the last stage keeps fp32 probabilities for each micro-batch in flight, and at work "
    "its logits and an fp32 copy",
    "torch": "the last stage keeps fp32 log-probabilities for each micro-batch in flight, and at work two "
    "fp32 gradients",
    "fused": "the last stage keeps logits for each micro-batch in flight, and at work their gradient",
}


def assumptions(job: Job, strategy: Strategy) -> tuple[str, ...]:
    """What the figures of `memory` rest on, one sentence each."""
    stack = strategy.software
    said = [
        f"{_parameter_bytes(job, strategy)}; {_SHARDED[strategy.sharding]}",
        *(_of_network() if job.model.network is not None else _of_decoder(job, strategy)),
        "buffers are two messages for each neighbour stage and the largest gradient bucket",
        f"on GPUs the allocator holds {stack.fragmentation:.0%} beside what is allocated, and each dimension "
        "of parallelism has a communicator; on hosts the heap loses a share, found by calibration, of what "
        "one micro-batch keeps, and gradients stand once more where they are reduced",
    ]
    if strategy.recompute != "none":
        said.append("one block's activations stand whole while it is computed again")
    if job.model.decoder.tied_embeddings and strategy.pp > 1:
        said.append("the last stage has its own copy of the tied embedding table")
    if strategy.servers:
        said.append(
            "a server has a buffer for the gradients of each worker; workers keep no optimizer states"
        )
    return tuple(said)


def _parameter_bytes(job: Job, strategy: Strategy) -> str:
    """What a parameter takes, without sharding."""
    if strategy.software.autocast:
        states = FP32_BYTES * OPTIMIZER_STATES[job.optimizer]
        return (
            f"4 + 4 + {states} bytes per parameter: fp32 weight, gradient (once a micro-batch has left one) "
            f"and {job.optimizer} states; weights of GEMMs are cast for each micro-batch in flight"
        )
    weight, _, states = state_bytes(job)
    gradient = bytes_per_gradient(job.precision, strategy.software)
    return (
        f"{weight} + {gradient} + {states} bytes per parameter: {job.precision} weight, "
        f"gradient, and {job.optimizer} states with the fp32 copies of mixed precision"
    )


def _of_network() -> tuple[str, ...]:
    return ("backward wants the inputs of GEMMs and norms and the outputs of activations, each kept once",)


def _of_decoder(job: Job, strategy: Strategy) -> tuple[str, ...]:
    stack = strategy.software
    if stack.autocast:
        return (
            "activations are those that torch saves of eager layers, each storage once: an fp32 residual "
            "stream, GEMMs' inputs in half precision, every step of SwiGLU",
            _LOSS[stack.loss],
        )
    mlp = "fused" if stack.fused_activation else "step by step"
    return (
        f"{strategy.attention} attention, {'with' if job.dropout else 'no'} dropout, MLP activation {mlp}: "
        f"activations after Korthikanti et al. 2022, as the stack {stack.name} keeps them",
        "norms and inputs of GEMMs are split over the tensor-parallel ranks (sequence parallelism)"
        if strategy.sequence_parallel
        else "norms and inputs of GEMMs are whole on every tensor-parallel rank (no sequence parallelism)",
        _LOSS[stack.loss] + (" of the whole vocabulary" if stack.gathers_logits else ""),
    )
