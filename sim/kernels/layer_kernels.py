"""The kernels of one layer on one rank for one micro-batch, as a job and a strategy shape
them."""

from __future__ import annotations

from typing import Any

from ..plan.choices import IMPOSED
from ..plan.job import Job
from ..plan.strategy import FLASH, Strategy
from . import decoder_kernels as kernels
from .fp8 import FP8, in_fp8
from .kernel import Kernel
from .network_kernels import Batch, Choice, layer_choices, plain

PARTS = {
    "forward": kernels.forward_kernels,
    "backward": kernels.backward_kernels,
    "input_gradient": kernels.input_gradient_kernels,
    "weight_gradient": kernels.weight_gradient_kernels,
}
"""Parts of a pass; the two gradients together are the backward."""


def layer_kernels(job: Job, strategy: Strategy, kind: str, part: str) -> tuple[Kernel, ...]:
    """The kernels of ``part`` of a layer of ``kind``; nothing is recomputed."""
    if job.model.network is not None:
        return plain(network_choices(job, strategy, kind, part))
    shape = {
        **rank_shape(job, strategy),
        "imposed": job.routing == IMPOSED,
        "flash_kind": strategy.attention,
        "fused_softmax": strategy.attention != "eager",
        "stack": strategy.software,
        "added": 1.0 - 1.0 / max(1, strategy.micro_batches(job)),
    }
    by_hand = strategy.software.autocast
    own = PARTS[part](job.model.decoder, kind, fp8=by_hand and job.precision == FP8, **shape)
    return in_fp8(job.model.decoder, kind, own) if job.precision == FP8 and not by_hand else own


def network_choices(job: Job, strategy: Strategy, kind: str, part: str) -> tuple[Choice, ...]:
    """The same of a network's layer, with the algorithms that a library chooses among."""
    assert job.model.network is not None
    batch = Batch(
        micro_batch=strategy.micro_batch,
        seq_len=job.seq_len,
        bytes_per_value=job.bytes_per_value,
        fp32=job.precision == "fp32",
        flash=strategy.attention in FLASH,
        norm_speed=strategy.software.norm_speed,
        convolution_speed=strategy.software.convolution_speed,
        autocasts=strategy.software.autocasts,
        transposes=strategy.software.transposes_tf32 and job.precision == "tf32",
        filters_lines=strategy.software.filters_lines,
    )
    return layer_choices(job.model.network.by_kind[kind], batch, part)


def rank_shape(job: Job, strategy: Strategy) -> dict[str, Any]:
    return {
        "micro_batch": strategy.micro_batch,
        "seq_len": job.seq_len,
        "tp": strategy.tp,
        "bytes_per_value": job.bytes_per_value,
        "cp": strategy.cp,
        "ep": strategy.ep,
        "sequence_parallel": strategy.sequence_parallel,
        "expert_imbalance": job.expert_imbalance,
        "flash": strategy.attention in FLASH,
        "dropout": job.dropout,
    }
