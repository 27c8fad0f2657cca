"""Samples for BERT and for translation, of any tokens: some masked, half of them with another second half."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ....sim.plan.job import Job
from ..networks.inputs import Inputs
from ..networks.losses import UNMASKED
from ..networks.operations import MASKED_TOKEN
from .samples import Samples


class Masked(Samples):
    """Token, position and half of every token; of each sample the same number are masked, and to be told.

    ``tokens`` has whole texts [global_batch, seq_len] by step. In half of the samples the second half is
    another sample's, which the last column of the targets says.
    """

    def __init__(self, job: Job, seed: int, tokens: Samples, inputs: Inputs):
        super().__init__(job, seed)
        self.tokens, self.vocabulary = tokens, inputs.rows[0]
        self.count = max(1, round(job.seq_len * inputs.share_masked))

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Inputs int64 [global_batch, seq_len, 3]; targets int64 [global_batch, seq_len + 1]: the masked
        tokens, `UNMASKED` elsewhere, then whether the halves belong together."""
        random = np.random.default_rng([self.seed, step, 1])
        rows = self.tokens.batch(step)[0].numpy() % (self.vocabulary - 1)
        size, length = rows.shape
        is_next = random.integers(0, 2, size)
        half = length // 2
        other = np.where(is_next, np.arange(size), np.roll(np.arange(size), 1))
        rows = np.concatenate([rows[:, :half], rows[other, half:]], axis=1)
        places = np.argsort(random.random((size, length)), axis=1)[:, : self.count]
        targets = np.full((size, length + 1), UNMASKED)
        np.put_along_axis(targets, places, np.take_along_axis(rows, places, 1), 1)
        targets[:, -1] = is_next
        np.put_along_axis(rows, places, self.vocabulary + MASKED_TOKEN, 1)
        position = np.broadcast_to(np.arange(length), rows.shape)
        inputs = np.stack([rows, position, position >= half], axis=-1).astype(np.int64)
        return torch.from_numpy(inputs), torch.from_numpy(targets)
