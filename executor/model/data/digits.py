"""Handwritten digits: 1,797 pictures of 8 × 8 with their classes, as scikit-learn carries them (Alpaydin &
Kaynak 1998)."""

from __future__ import annotations

import gzip
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ....sim.errors import EnvironmentMismatchError
from ....sim.plan.job import Job
from .samples import Samples

CLASSES, SIDE, DARKEST = 10, 8, 16.0


def load_digits() -> tuple[np.ndarray, np.ndarray]:
    """Pictures float32 [1797, 1, 8, 8] from 0 to 1, and classes int64 [1797].

    Read from scikit-learn's file: importing the library for it would take every rank seconds.

    Raises:
        EnvironmentMismatchError: scikit-learn is not installed.
    """
    found = find_spec("sklearn")
    if found is None or not found.submodule_search_locations:
        raise EnvironmentMismatchError("the digits come with scikit-learn (pip install 'traincast[run]')")
    path = Path(found.submodule_search_locations[0]) / "datasets" / "data" / "digits.csv.gz"
    with gzip.open(path, "rt") as file:
        rows = np.loadtxt(file, delimiter=",", dtype=np.float32)
    return rows[:, :-1].reshape(-1, 1, SIDE, SIDE) / DARKEST, rows[:, -1].astype(np.int64)


class Digits(Samples):
    """Batches of digits, drawn with replacement; enlarged, or with copied channels, where a network wants
    larger images."""

    def __init__(self, job: Job, seed: int, shape: tuple[int, ...] = (1, SIDE, SIDE)):
        """``shape`` is that of one sample: (channels, height, width), or one number for a row of values."""
        super().__init__(job, seed)
        self.shape = shape
        pictures, classes = load_digits()
        self.pictures, self.classes = torch.from_numpy(pictures), torch.from_numpy(classes)

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Pictures [global_batch, *shape] and classes [global_batch] of ``step``."""
        random = np.random.default_rng([self.seed, step])
        chosen = torch.from_numpy(random.integers(0, len(self.classes), self.job.global_batch))
        return _shaped(self.pictures[chosen], self.shape), self.classes[chosen]


def _shaped(pictures: Tensor, shape: tuple[int, ...]) -> Tensor:
    if len(shape) == 1:
        side = round(shape[0] ** 0.5)
        return _shaped(pictures, (1, side, side)).flatten(1)
    channels, height, width = shape
    if (height, width) != (SIDE, SIDE):
        pictures = F.interpolate(pictures, (height, width), mode="bilinear")
    return pictures.expand(-1, channels, -1, -1).contiguous()
