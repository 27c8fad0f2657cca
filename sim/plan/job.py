"""What is to be trained: a Model with its batch, sequence length, optimizer and precision."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..errors import Fault
from ..model.model import Model
from .mixed_precision import PRECISION_BYTES

OPTIMIZER_STATES = {"sgd": 0, "momentum": 1, "adamw": 2}
"""fp32 values an optimizer keeps for every parameter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One training job; what it takes in an optimizer step, not how long it trains."""

    model: Model
    global_batch: int
    """Samples of one optimizer step."""
    seq_len: int
    """Tokens of one sample."""
    optimizer: str = "adamw"
    precision: str = "bf16"
    learning_rate: float = 1e-3
    dropout: bool = False
    """Dropout after attention's probabilities, a block's halves and the embedding."""
    expert_imbalance: float = 1.0
    """Tokens of the busiest expert-parallel rank over the mean; 1 is balanced routing."""

    @property
    def bytes_per_value(self) -> int:
        """Bytes of one weight or activation as computed with."""
        return PRECISION_BYTES[self.precision]

    @property
    def tokens_per_step(self) -> int:
        return self.global_batch * self.seq_len

    def faults(self) -> list[Fault]:
        """Every rule this job breaks; empty when it is valid."""
        faults: list[Fault] = []
        for field in ("global_batch", "seq_len"):
            if getattr(self, field) < 1:
                faults.append(
                    Fault(path=f"job.{field}", found=str(getattr(self, field)), expected="at least 1")
                )
        if self.optimizer not in OPTIMIZER_STATES:
            faults.append(
                Fault(path="job.optimizer", found=self.optimizer, expected=" | ".join(OPTIMIZER_STATES))
            )
        if self.precision not in PRECISION_BYTES:
            faults.append(
                Fault(path="job.precision", found=self.precision, expected=" | ".join(PRECISION_BYTES))
            )
        if not 1.0 <= self.expert_imbalance < math.inf:
            faults.append(
                Fault(path="job.expert_imbalance", found=str(self.expert_imbalance), expected="at least 1")
            )
        faults += self._length_faults()
        return faults

    def _length_faults(self) -> list[Fault]:
        """Samples that are longer than the model's."""
        faults: list[Fault] = []
        network = self.model.network
        if network is not None and self.seq_len > network.max_tokens:
            whole = (
                "1: a sample of {} is one token"
                if network.max_tokens == 1
                else f"at most {network.max_tokens}, the tokens of {{}}"
            )
            faults.append(
                Fault(path="job.seq_len", found=str(self.seq_len), expected=whole.format(self.model.name))
            )
        limit = self.model.decoder.max_positions
        if self.model.decoder.positions == "learned" and self.seq_len > limit:
            faults.append(
                Fault(
                    path="job.seq_len",
                    found=str(self.seq_len),
                    expected=f"at most {limit}, the learned positions of {self.model.name}",
                )
            )
        return faults
