"""What is to be trained: a Model with its batch, sequence length, optimizer and precision."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from ..errors import Fault, InputError, UsageError
from ..model.hf_config import read_model
from ..model.model import Model
from ..model.references import is_reference
from .choices import IMPOSED, ROUTINGS
from .field_types import type_faults
from .mixed_precision import PRECISION_BYTES

OPTIMIZER_STATES = {"sgd": 0, "momentum": 1, "adamw": 2}
"""fp32 values an optimizer keeps for every parameter."""


DATA = ("", "text", "digits", "synthetic")
"""Samples that a run can have without a user's own; nothing said is what suits the model."""


class _Unsaid(str):
    """A precision that nobody asked for; the text is the default's."""

    __slots__ = ()


_BF16, _FP32 = _Unsaid("bf16"), _Unsaid("fp32")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One training job; what it takes in an optimizer step, not how long it trains.

    The model may be given as the name of a preset or the path of a file.

    >>> import traincast as tc
    >>> tc.Job("llama3-8b", global_batch=256, seq_len=8192)
    Job(llama3-8b: 256 samples of 8,192 tokens a step, adamw, bf16)

    Raises:
        InputError: there is no such model; or lists every field of a wrong type.
        UsageError: no sequence length, of a model whose samples have one.
    """

    model: Model = field(kw_only=False)
    global_batch: int
    """Samples of one optimizer step."""
    seq_len: int = None  # type: ignore[assignment]
    """Tokens of one sample; images have none, and are one token each."""
    optimizer: str = "adamw"
    precision: str = _BF16
    """Of weights and activations; where nobody says it, fp32 on processors (`on`)."""
    learning_rate: float = 1e-3
    dropout: bool = False
    """Dropout after attention's probabilities, a block's halves and the embedding."""
    expert_imbalance: float = 1.0
    """Tokens of the busiest expert-parallel rank over the mean; 1 is balanced routing."""
    routing: str = IMPOSED
    """Which experts a token visits when the plan is run: `imposed`, by its place in the sample, so that loads
    are as `expert_imbalance` says; `learned`, those that the router scores highest, whose counts the ranks
    then tell each other. Loads are predicted alike."""
    data: str = ""
    """What a run trains on: `text`, `digits`, `synthetic`, or the `module:name` of samples of the user's own;
    nothing said is what suits the model."""
    loss: str = ""
    """The `module:name` of the loss of a user's own module; nothing said is cross entropy."""

    if TYPE_CHECKING:

        def __init__(
            self,
            model: Model | str | os.PathLike[str],
            *,
            global_batch: int,
            seq_len: int | None = None,
            optimizer: str = "adamw",
            precision: str = "bf16",
            learning_rate: float = 1e-3,
            dropout: bool = False,
            expert_imbalance: float = 1.0,
            routing: str = "imposed",
            data: str = "",
            loss: str = "",
        ) -> None: ...

    def __post_init__(self) -> None:
        if not isinstance(self.model, Model):
            object.__setattr__(self, "model", read_model(self.model))
        if self.seq_len is None:
            network = self.model.network
            if network is None or network.max_tokens > 1:
                raise UsageError("a model needs --seq-len")
            object.__setattr__(self, "seq_len", 1)
        if faults := type_faults(self, "job"):
            raise InputError(faults)

    def __repr__(self) -> str:
        samples = f"{self.global_batch:,} samples"
        tokens = f" of {self.seq_len:,} tokens" if self.seq_len > 1 else ""
        return f"Job({self.model.name}: {samples}{tokens} a step, {self.optimizer}, {self.precision})"

    def on(self, kind: str) -> Job:
        """The same job for accelerators of ``kind``: in fp32 on a `cpu` if nobody said a precision."""
        if kind != "cpu" or not isinstance(self.precision, _Unsaid):
            return self
        return replace(self, precision=_FP32)

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
        for name in ("global_batch", "seq_len"):
            if getattr(self, name) < 1:
                faults.append(
                    Fault(path=f"job.{name}", found=str(getattr(self, name)), expected="at least 1")
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
        if self.routing not in ROUTINGS:
            faults.append(Fault(path="job.routing", found=self.routing, expected=" | ".join(ROUTINGS)))
        if not 0.0 <= self.learning_rate < math.inf:
            faults.append(
                Fault(path="job.learning_rate", found=str(self.learning_rate), expected="0 or more, finite")
            )
        faults += self._length_faults()
        faults += self._reference_faults()
        return faults

    def _reference_faults(self) -> list[Fault]:
        """Names of data and loss that nothing has."""
        faults = []
        if self.data not in DATA and not is_reference(self.data):
            expected = " | ".join([*filter(None, DATA), "module:name"])
            faults.append(Fault(path="job.data", found=self.data, expected=expected))
        if self.loss and not is_reference(self.loss):
            faults.append(Fault(path="job.loss", found=self.loss, expected="module:name"))
        return faults

    @property
    def references(self) -> tuple[str, ...]:
        """Code of the user's own that a run imports, as `module:name`."""
        named = (self.model.module, self.data, self.loss)
        return tuple(dict.fromkeys(name for name in named if is_reference(name)))

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
