"""Seconds of an optimizer step: Adam's, SGD's, with what mixed precision and offload add.

What one parameter's update reads and writes is in `kernels/optimizer_step.py`.
"""

from __future__ import annotations

from ..hardware.cluster import Cluster
from ..kernels.kernel import Kernel
from ..kernels.optimizer_step import loss_scaling_bytes, update_bytes
from ..kernels.roofline import kernels_s
from ..plan.job import OPTIMIZER_STATES, Job
from ..plan.mixed_precision import MASTER_BYTES
from ..plan.strategy import Strategy
from .communication import CommunicationCosts

FP32_BYTES = 4


class OptimizerCosts:
    """Seconds to step parameters on one rank."""

    def __init__(self, cluster: Cluster, job: Job, strategy: Strategy, communication: CommunicationCosts):
        self.cluster, self.job, self.strategy = cluster, job, strategy
        self._communication = communication

    def update_s(self, parameters: float) -> float:
        """Seconds to step ``parameters`` parameters of one rank, that is after the division by tp.

        Measured where the accelerator says so; else bound by memory: gradient, fp32 weight and states are
        read, weight and states written (and the weight as computed with).
        """
        # Who takes turns with others stretches an update as it does compute, corrections of that included.
        corrected = self.cluster.corrected("optimizer") / self.cluster.corrected("compute")
        return self._as_measured_s(parameters) * corrected

    def _as_measured_s(self, parameters: float) -> float:
        accelerator = self.cluster.accelerator
        measured = accelerator.optimizer_costs.get(self.job.optimizer)
        if measured is not None:
            return measured.overhead_s + measured.per_parameter_s * parameters + self._scaling_s(parameters)
        if parameters <= 0:
            return 0.0
        update = Kernel(kind="memory", flops=0.0, bytes=parameters * update_bytes(self.job, self.strategy))
        return kernels_s(accelerator, [update], self.job.precision)

    def _scaling_s(self, parameters: float) -> float:
        """Seconds that a scaled loss adds to a measured step, which had none."""
        size = parameters * loss_scaling_bytes(self.job, self.strategy)
        if not size:
            return 0.0
        looked = Kernel(kind="memory", flops=0.0, bytes=size)
        return kernels_s(self.cluster.accelerator, [looked], self.job.precision)

    def step_s(self, dense: float, experts: float) -> float:
        """Seconds to step a rank's share of so many parameters, held whole before sharding.

        Offloaded states stream from host memory and back while the step computes.
        """
        shards = self.strategy.shards
        own = dense / shards + experts / max(1, shards // self.strategy.ep)
        seconds = self.update_s(own)
        if self.strategy.offload in ("optimizer", "both"):
            each = OPTIMIZER_STATES[self.job.optimizer] * FP32_BYTES + MASTER_BYTES[self.job.precision]
            seconds = max(seconds, self._communication.host_s(own * each))
        return seconds
