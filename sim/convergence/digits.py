"""Handwritten digits for a small network: the problem on which update protocols are compared.

1,797 pictures of 8 × 8 from the UCI repository, as scikit-learn carries them (Alpaydin & Kaynak 1998); a
network of one hidden layer (tanh) with softmax loss, written out in numpy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import EnvironmentMismatchError

CLASSES = 10


@dataclass(frozen=True, kw_only=True, eq=False)
class Digits:
    """Pictures, their classes, and a network to tell them apart; a `convergence.Problem`."""

    pictures: np.ndarray
    """float64[1797, 64], 0 to 1"""
    classes: np.ndarray
    """int64[1797]"""
    hidden: int = 32
    batch: int = 32
    """Pictures of one gradient."""
    seed: int = 0

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Of the parameters, in order: weights and biases of both layers."""
        inputs = self.pictures.shape[1]
        return ((inputs, self.hidden), (self.hidden,), (self.hidden, CLASSES), (CLASSES,))

    def initial(self) -> np.ndarray:
        """Weights of variance 1/inputs (LeCun et al. 1998), no biases."""
        random = np.random.default_rng(self.seed)
        parts = [
            random.standard_normal(shape) / np.sqrt(shape[0]) if len(shape) == 2 else np.zeros(shape)
            for shape in self.shapes
        ]
        return np.concatenate([part.reshape(-1) for part in parts])

    def chosen(self, worker: int, number: int) -> np.ndarray:
        """The pictures of a worker's ``number``-th batch."""
        return batch_of(self.seed, worker, number, len(self.classes), self.batch)

    def gradient(self, parameters: np.ndarray, worker: int, number: int) -> np.ndarray:
        """Of the mean loss of the batch, float64[p]."""
        chosen = self.chosen(worker, number)
        pictures, classes = self.pictures[chosen], self.classes[chosen]
        w1, b1, w2, b2 = self._parts(parameters)
        active = np.tanh(pictures @ w1 + b1)
        error = _softmax(active @ w2 + b2)
        error[np.arange(len(classes)), classes] -= 1.0
        error /= len(classes)
        below = (error @ w2.T) * (1.0 - active**2)
        parts = (pictures.T @ below, below.sum(axis=0), active.T @ error, error.sum(axis=0))
        return np.concatenate([part.reshape(-1) for part in parts])

    def loss(self, parameters: np.ndarray) -> float:
        """Mean cross-entropy over all pictures."""
        w1, b1, w2, b2 = self._parts(parameters)
        likely = _softmax(np.tanh(self.pictures @ w1 + b1) @ w2 + b2)
        return float(-np.mean(np.log(likely[np.arange(len(self.classes)), self.classes])))

    def _parts(self, parameters: np.ndarray) -> list[np.ndarray]:
        ends = np.cumsum([int(np.prod(shape)) for shape in self.shapes])
        parts = np.split(parameters, ends[:-1])
        return [part.reshape(shape) for part, shape in zip(parts, self.shapes, strict=True)]


def batch_of(seed: int, worker: int, number: int, count: int, batch: int) -> np.ndarray:
    """Places of ``batch`` out of ``count`` samples, drawn with replacement by (seed, worker, number)."""
    return np.random.default_rng([seed, worker, number]).integers(0, count, batch)


def _softmax(scores: np.ndarray) -> np.ndarray:
    raised = np.exp(scores - scores.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


def read_digits(**fields: int) -> Digits:
    """The digits of scikit-learn; ``fields`` are those of `Digits`.

    Raises:
        EnvironmentMismatchError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError:
        raise EnvironmentMismatchError(
            "scikit-learn is not installed, which carries the digits; pip install scikit-learn"
        ) from None
    pictures, classes = (np.asarray(part) for part in load_digits(return_X_y=True))
    return Digits(pictures=pictures / 16.0, classes=classes.astype(np.int64), **fields)
