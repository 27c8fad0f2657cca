"""One worker's pipeline stage: torch's `PipelineStage`, driven action by action.

The methods that `torch.distributed.pipelining` schedules call on a stage are not public. This file is the
only one that uses them; `tests/executor/train/test_stage.py` holds them to the version they were tested with.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ...sim.plan.job import Job
from ..model.decoder import loss
from ..parallel.process_groups import Groups

TESTED_TORCH = "2.13"
DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""What a job of this precision computes with and passes on."""


class PipelinedStage:
    """A stage among several: receives, computes, sends."""

    def __init__(
        self,
        module: nn.Module,
        index: int,
        stages: int,
        *,
        micro_batches: int,
        boundary: Tensor,
        groups: Groups,
    ):
        """``boundary`` is a tensor like the activations [micro_batch, seq, hidden] that stages pass on."""
        # A run without a pipeline does not depend on what is private here.
        from torch.distributed.pipelining import PipelineStage
        from torch.distributed.pipelining._utils import InferenceMode

        self.groups = groups
        edge = boundary.detach().requires_grad_()
        is_last, is_first = index == stages - 1, index == 0
        self.stage = PipelineStage(
            module,
            index,
            stages,
            boundary.device,
            # Shapes are known, so torch need not run the model once to find them.
            input_args=boundary.new_zeros(boundary.shape[:2], dtype=torch.long) if is_first else edge,
            output_args=edge,
            output_grads=boundary if not is_last else None,
            input_grads=boundary if not is_first else None,
            group=groups.pp,
        )
        self.stage.has_backward = True
        self.stage._inference_mode = InferenceMode.STATIC
        self.stage._prepare_forward_infra(micro_batches, (), {}, has_backward=True)
        self.stage._prepare_backward_infra(micro_batches)

    def begin_step(self) -> None:
        self.stage.clear_runtime_states()

    def receive_forward(self, index: int) -> list[dist.Work]:
        """Post the receive of a micro-batch's activations."""
        return self._start(self.stage.get_fwd_recv_ops(index), self.groups.pp)

    def receive_backward(self, index: int) -> list[dist.Work]:
        """Post the receive of a micro-batch's gradients."""
        return self._start(self.stage.get_bwd_recv_ops(index), self.groups.backward)

    def send_forward(self, index: int) -> list[dist.Work]:
        return self._start(self.stage.get_fwd_send_ops(index), self.groups.pp)

    def send_backward(self, index: int) -> list[dist.Work]:
        return self._start(self.stage.get_bwd_send_ops(index), self.groups.backward)

    def _start(self, ops: list[dist.P2POp], group: dist.ProcessGroup | None) -> list[dist.Work]:
        works = [op.op(op.tensor, op.peer, group=group) for op in ops]
        return [work for work in works if work is not None]

    def forward(self, index: int, tokens: Tensor) -> Tensor:
        return self.stage.forward_one_chunk(index, (tokens,), {}, save_forward_output=False)

    def backward(self, index: int, mean_loss: Tensor | None, last: bool) -> None:
        self.stage.backward_one_chunk(index, loss=mean_loss, last_backward=last)


class WholeModel:
    """The only stage: everything from tokens to logits, perhaps under DDP."""

    def __init__(self, module: nn.Module):
        self.module = module

    def begin_step(self) -> None:
        """Nothing is kept between steps."""

    def forward(self, index: int, tokens: Tensor) -> Tensor:
        return self.module(tokens)

    def backward(self, index: int, mean_loss: Tensor | None, last: bool) -> None:
        assert mean_loss is not None
        mean_loss.backward()


def mean_loss(logits: Tensor, targets: Tensor, micro_batches: int) -> Tensor:
    """A micro-batch's share of the mean loss of all of a replica's samples."""
    return loss(logits, targets) / micro_batches


def precision(job: Job, device: torch.device) -> AbstractContextManager[object]:
    """Mixed precision by autocast, with weights and optimizer in fp32; nothing for an fp32 job."""
    dtype = DTYPES[job.precision]
    return nullcontext() if dtype is torch.float32 else torch.autocast(device.type, dtype=dtype)


def use_products_of(job: Job) -> None:
    """Have this process multiply fp32 matrices as ``job`` says: in tf32, or exactly."""
    torch.set_float32_matmul_precision("high" if job.precision == "tf32" else "highest")
