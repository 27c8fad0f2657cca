"""Real data without a download: the English text of Python's own help topics, one byte a token."""

from __future__ import annotations

import ast
import pydoc_data
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ....sim.plan.job import Job
from .samples import Samples


@cache
def corpus() -> bytes:
    """The help topics (`pydoc_data/topics.py`, about 700 kB of English), one after the other."""
    path = Path(pydoc_data.__file__).parent / "topics.py"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    (topics,) = [ast.literal_eval(node.value) for node in tree.body if isinstance(node, ast.Assign)]
    return "\n".join(topics[name] for name in sorted(topics)).encode("utf-8")


class Text(Samples):
    """Batches of token ids, each of which is to tell the next."""

    def __init__(self, job: Job, seed: int, vocabulary: int | None = None):
        """``vocabulary`` None is that of the job's decoder."""
        super().__init__(job, seed)
        tokens = np.frombuffer(corpus(), np.uint8).astype(np.int64)
        tokens = tokens % (vocabulary or job.model.decoder.vocab)
        # A sample longer than the text wraps around.
        self.tokens = np.resize(tokens, max(len(tokens), job.seq_len + 2))

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets [global_batch, seq_len] of ``step``, which overlap but for one token."""
        job = self.job
        random = np.random.default_rng([self.seed, step])
        starts = random.integers(0, len(self.tokens) - job.seq_len, job.global_batch)
        rows = torch.from_numpy(self.tokens[starts[:, None] + np.arange(job.seq_len + 1)])
        return rows[:, :-1], rows[:, 1:]
