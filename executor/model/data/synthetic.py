"""Samples of the right shapes that mean nothing, for any named network or decoder."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ....sim.plan.job import Job
from ..networks.inputs import Inputs
from .samples import Samples


class SyntheticTokens(Samples):
    """Tokens, uniform in the vocabulary; each is to tell the next."""

    def __init__(self, job: Job, seed: int, vocabulary: int):
        super().__init__(job, seed)
        self.vocabulary = vocabulary

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets [global_batch, seq_len]."""
        job, random = self.job, np.random.default_rng([self.seed, step])
        tokens = random.integers(0, self.vocabulary, (job.global_batch, job.seq_len + 1))
        rows = torch.from_numpy(tokens)
        return rows[:, :-1], rows[:, 1:]


class Synthetic(Samples):
    """Whatever a named network wants: normal numbers, uniform indices, uniform targets."""

    def __init__(self, job: Job, seed: int, inputs: Inputs):
        super().__init__(job, seed)
        self.inputs = inputs

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Inputs [global_batch, channels, height, width] of an image, [global_batch, columns] of a row,
        [global_batch, seq_len, columns] of tokens; targets as the network's loss reads them."""
        random = np.random.default_rng([self.seed, step])
        image, size = self.inputs.image, self.job.global_batch
        if image is not None:
            shape = (size, image.channels, image.height, image.width)
            return _normal(random, shape), self._classes(random)
        if self.inputs.is_sequence:
            tokens = self._indices(random, (size, self.job.seq_len))
            return tokens, torch.from_numpy(random.integers(0, self.inputs.outputs, (size, self.job.seq_len)))
        numbers = _normal(random, (size, self.inputs.features))
        if not self.inputs.rows:
            return numbers, self._classes(random)
        both = torch.cat([numbers, self._indices(random, (size,)).float()], dim=1)
        return both, torch.from_numpy(random.integers(0, 2, (size, 1)).astype(np.float32))

    def _classes(self, random: np.random.Generator) -> Tensor:
        return torch.from_numpy(random.integers(0, self.inputs.outputs, self.job.global_batch))

    def _indices(self, random: np.random.Generator, shape: tuple[int, ...]) -> Tensor:
        """One column for each look-up."""
        return torch.from_numpy(np.stack([random.integers(0, n, shape) for n in self.inputs.rows], axis=-1))


def _normal(random: np.random.Generator, shape: tuple[int, ...]) -> Tensor:
    return torch.from_numpy(random.standard_normal(shape, dtype=np.float32))
