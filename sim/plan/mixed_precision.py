"""Mixed precision: bytes of weights, gradients and fp32 copies by the precision that a job trains in."""

from __future__ import annotations

from .software_stacks import Stack

PRECISION_BYTES = {"fp32": 4, "tf32": 4, "bf16": 2, "fp16": 2, "fp8": 2}
"""Bytes of one weight or activation as kept. `fp8` keeps both in bf16 and casts them for linear layers
(`fp8.py`)."""

GRADIENT_BYTES = {"fp32": 4, "tf32": 4, "bf16": 4, "fp16": 2, "fp8": 4}
"""Bytes of one gradient as accumulated and reduced. Megatron-LM does both in fp32 for bf16 weights, in
fp16 for fp16 weights (Megatron Core user guide, "Distributed Optimizer")."""

MASTER_BYTES = {"fp32": 0, "tf32": 0, "bf16": 4, "fp16": 8, "fp8": 4}
"""Bytes for one parameter that mixed precision adds: an fp32 copy of it, and of the fp16 gradient."""

LOSS_SCALING_BYTES = 6 + 8 + 8
"""For each parameter of an fp16 job: its gradient is copied to fp32, divided by the loss scale while
infinities are looked for, and read and clipped in fp32 (NVIDIA/Megatron-LM megatron/optimizer/optimizer.py,
`Float16OptimizerWithFloat16Params.step`)."""

TORCH_LOSS_SCALING_BYTES = 8 + 4
"""The same in plain torch, whose gradients are fp32: read and written while infinities are looked for, and
written again divided by the scale by the fused optimizer (torch/amp/grad_scaler.py, `_check_inf_per_device`;
ATen, native/cuda/fused_adam_utils.cuh)."""


def bytes_per_gradient(precision: str, stack: Stack) -> int:
    """Bytes of one gradient as accumulated and reduced: in the weights' own precision where the software
    does so."""
    if stack.autocast:
        return GRADIENT_BYTES["fp32"]
    half = stack.accumulation == "same" or stack.half_gradients
    return PRECISION_BYTES[precision] if half else GRADIENT_BYTES[precision]
