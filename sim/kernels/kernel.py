"""One launch on an accelerator: what it computes, reads and writes."""

from __future__ import annotations

from dataclasses import dataclass

FP32_BYTES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """One launch on the accelerator; FLOPs are those really done."""

    kind: str
    """`gemm`, `attention` or `memory` (bound by memory bandwidth)."""
    flops: float
    bytes: float
    """Read and written in device memory, each operand once."""
    m: int = 0
    """Rows of a GEMM; 0 where the kernel is none. The GEMM is [m, k] x [k, n]."""
    n: int = 0
    k: int = 0
    batch: int = 1
    """Independent GEMMs in one launch."""
    weights: bool = False
    """The gradient of a weight, which no other layer waits for."""
    attention: bool = False
    """Inside attention: what selective recompute repeats."""
    dropped: bool = False
    """Flash attention that drops some of its weights, whose numbers it draws itself."""
    launches: float = 1
    """Launches of the host it stands for, in the mean over a step's micro-batches."""
    speed: float = 1.0
    """Of what the accelerator's curve says such a kernel reaches."""
    precision: str = ""
    """What it multiplies in; empty is the job's."""
    family: str = ""
    """Kernels of one implementation, whose speed an accelerator may know (`Accelerator.kernel_speeds`)."""
