"""Which samples a job trains on: those that it names, or what suits its model."""

from __future__ import annotations

import torch
from torch import Tensor

from ....sim.errors import Fault, InputError
from ....sim.model.references import is_reference
from ....sim.plan.job import Job
from ..networks.inputs import Inputs
from ..networks.program import Program
from .digits import CLASSES, Digits
from .masked import Masked
from .samples import Samples
from .synthetic import Synthetic, SyntheticTokens
from .text import Text
from .users import UserSamples


def samples_of(job: Job, seed: int, program: Program | None) -> Samples:
    """The samples of ``job``; ``program`` is that of a named network.

    Raises:
        InputError: the model cannot be trained on what the job names.
    """
    if is_reference(job.data):
        return UserSamples(job, seed, job.data)
    if job.model.module:
        return _of_module(job, seed)
    if program is None:
        return _of_decoder(job, seed)
    inputs = Inputs(program=program)
    if inputs.is_sequence:
        return _of_sequences(job, seed, inputs)
    shape = _digit_shape(inputs)
    if job.data == "digits" or (not job.data and shape and inputs.outputs == CLASSES):
        if shape is None:
            raise _unsuited(job, "synthetic")
        return Digits(job, seed, shape)
    if job.data == "text":
        raise _unsuited(job, "digits | synthetic" if shape else "synthetic")
    return Synthetic(job, seed, inputs)


def _of_decoder(job: Job, seed: int) -> Samples:
    if job.data == "digits":
        raise _unsuited(job, "text | synthetic")
    return SyntheticTokens(job, seed, job.model.decoder.vocab) if job.data == "synthetic" else Text(job, seed)


def _of_module(job: Job, seed: int) -> Samples:
    if job.data != "digits":
        raise _unsuited(job, "digits | module:name")
    return Digits(job, seed)


def _of_sequences(job: Job, seed: int, inputs: Inputs) -> Samples:
    if job.data == "digits":
        raise _unsuited(job, "text | synthetic")
    vocabulary = inputs.rows[0]
    plain = (SyntheticTokens if job.data == "synthetic" else Text)(job, seed, vocabulary)
    return Masked(job, seed, plain, inputs) if inputs.is_masked else Paired(job, seed, plain, inputs)


class Paired(Samples):
    """Source and target of a translation, which are the same text here; each token is to tell the next."""

    def __init__(self, job: Job, seed: int, tokens: Samples, inputs: Inputs):
        super().__init__(job, seed)
        self.tokens, self.columns = tokens, len(inputs.rows)

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Inputs int64 [global_batch, seq_len, columns], targets int64 [global_batch, seq_len]."""
        inputs, targets = self.tokens.batch(step)
        return torch.stack([inputs] * self.columns, dim=-1), targets


def _digit_shape(inputs: Inputs) -> tuple[int, ...] | None:
    """In which shape a digit may be given; None where it cannot."""
    if inputs.rows or inputs.outputs < CLASSES:
        return None
    if inputs.image is not None:
        return (inputs.image.channels, inputs.image.height, inputs.image.width)
    side = round(inputs.features**0.5)
    return (inputs.features,) if side * side == inputs.features else None


def _unsuited(job: Job, expected: str) -> InputError:
    return InputError(
        Fault(path="job.data", found=job.data or "nothing said", expected=f"{expected} for {job.model.name}")
    )
