"""What every source of samples is: global batches by step, of which replicas take their micro-batches."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from ....sim.plan.job import Job


class Samples(ABC):
    """Samples for one Job. A batch depends on the seed and the step alone, so every strategy trains on the
    same global batches; a data-parallel replica takes its rows of them."""

    def __init__(self, job: Job, seed: int):
        self.job, self.seed = job, seed

    @abstractmethod
    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """(inputs, targets) of the whole global batch of ``step``; the first dimension is the sample."""

    def micro_batches(
        self, step: int, replica: int, dp: int, micro_batch: int
    ) -> list[tuple[Tensor, Tensor]]:
        """(inputs, targets) of every micro-batch of one of ``dp`` replicas, in order."""
        inputs, targets = (part.chunk(dp)[replica].split(micro_batch) for part in self.batch(step))
        return [(x.contiguous(), y.contiguous()) for x, y in zip(inputs, targets, strict=True)]
