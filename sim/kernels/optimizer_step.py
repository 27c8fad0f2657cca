"""Bytes that an optimizer step reads and writes for each parameter, by optimizer, precision and software."""

from __future__ import annotations

from ..plan.job import OPTIMIZER_STATES, Job
from ..plan.mixed_precision import (
    LOSS_SCALING_BYTES,
    MASTER_BYTES,
    TORCH_LOSS_SCALING_BYTES,
    bytes_per_gradient,
)
from ..plan.strategy import Strategy
from .fp8 import CAST_BYTES, FP8

FP32_BYTES = 4

FOREACH_PASSES = {"sgd": 3, "momentum": 6, "adamw": 20}
"""Values read or written for each parameter by `torch._foreach_*`, one operation after the other
(torch/optim/adamw.py, `_multi_tensor_adamw`: decay 2, lerp 3, mul 2, addcmul 3, sqrt 2, div 2, add 2, addcdiv
4; sgd.py likewise)."""


def loss_scaling_bytes(job: Job, strategy: Strategy) -> int:
    """Bytes that an fp16 job's scaled loss adds to one parameter's update."""
    if job.precision != "fp16":
        return 0
    return TORCH_LOSS_SCALING_BYTES if strategy.software.autocast else LOSS_SCALING_BYTES


def update_bytes(job: Job, strategy: Strategy) -> int:
    """Bytes of one parameter's update, clipping included: its gradient's norm, then scaled in place."""
    stack, gradient = strategy.software, bytes_per_gradient(job.precision, strategy.software)
    kept = 2 * FP32_BYTES * (1 + OPTIMIZER_STATES[job.optimizer])
    if stack.optimizer == "foreach":
        kept = FP32_BYTES * FOREACH_PASSES[job.optimizer]
    written_again = job.bytes_per_value if MASTER_BYTES[job.precision] and not stack.autocast else 0
    if job.precision == FP8 and not stack.autocast:
        written_again += CAST_BYTES  # the weights' fp8 copies are made once a step
    written_again += loss_scaling_bytes(job, strategy)
    clipped = 3 * gradient if stack.clips_gradients else 0
    return kept + gradient + written_again + clipped
