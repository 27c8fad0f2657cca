"""Real data without a download: the English text of Python's own help topics, one byte a token.

A batch depends on the seed and the step alone, so every strategy trains on the same global batches; a
data-parallel replica takes its rows of them.
"""

from __future__ import annotations

import ast
import pydoc_data
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...sim.plan.job import Job


@cache
def corpus() -> bytes:
    """The help topics (`pydoc_data/topics.py`, about 700 kB of English), one after the other."""
    path = Path(pydoc_data.__file__).parent / "topics.py"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    (topics,) = [ast.literal_eval(node.value) for node in tree.body if isinstance(node, ast.Assign)]
    return "\n".join(topics[name] for name in sorted(topics)).encode("utf-8")


class Text:
    """Batches of token ids for one Job."""

    def __init__(self, job: Job, seed: int):
        self.job, self.seed = job, seed
        tokens = np.frombuffer(corpus(), np.uint8).astype(np.int64) % job.model.decoder.vocab
        # A sample longer than the text wraps around.
        self.tokens = np.resize(tokens, max(len(tokens), job.seq_len + 2))

    def batch(self, step: int) -> Tensor:
        """Token ids [global_batch, seq_len + 1] of ``step``; input and target overlap but for one token."""
        job = self.job
        random = np.random.default_rng([self.seed, step])
        starts = random.integers(0, len(self.tokens) - job.seq_len, job.global_batch)
        rows = starts[:, None] + np.arange(job.seq_len + 1)
        return torch.from_numpy(self.tokens[rows])

    def micro_batches(
        self, step: int, replica: int, dp: int, micro_batch: int
    ) -> list[tuple[Tensor, Tensor]]:
        """(inputs, targets), each [micro_batch, seq_len], of one of ``dp`` replicas, in order."""
        rows = self.batch(step).chunk(dp)[replica]
        return [(part[:, :-1].contiguous(), part[:, 1:].contiguous()) for part in rows.split(micro_batch)]
