"""The losses of named networks: of classes, of tokens, of masked tokens, of clicks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from .program import Program

AUXILIARY_WEIGHT = 0.3
"""Of an auxiliary classifier's loss (Szegedy et al. 2014, section 5)."""
UNMASKED = -100
"""Target of a token that is not to be told."""


def loss_of(program: Program) -> Callable[[Any, Tensor], Tensor]:
    """The mean loss of (outputs, targets) in fp32, for targets as `Inputs` has them."""
    if any(call.name == "predict_some" for call in program.losses):
        return _pretraining
    if program.network.classes:
        return _classes
    return _tokens if program.network.max_tokens > 1 else _clicks


def _classes(outputs: Any, targets: Tensor) -> Tensor:
    """Cross entropy of logits [batch, classes]; auxiliary classifiers come before the network's own."""
    *others, own = outputs if isinstance(outputs, tuple) else (outputs,)
    total = F.cross_entropy(own.flatten(1).float(), targets)
    for other in others:
        total = total + AUXILIARY_WEIGHT * F.cross_entropy(other.flatten(1).float(), targets)
    return total


def _tokens(outputs: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy of logits [batch, seq, vocabulary]."""
    return F.cross_entropy(outputs.flatten(0, 1).float(), targets.flatten())


def _clicks(outputs: Tensor, targets: Tensor) -> Tensor:
    """Binary cross entropy of probabilities [batch, 1]."""
    return F.binary_cross_entropy(outputs.float(), targets)


def _pretraining(outputs: tuple[Tensor, Tensor], targets: Tensor) -> Tensor:
    """Of both heads of BERT: logits [batch, 2] of the next sentence, told by the last column of the targets,
    and [masked tokens, vocabulary]."""
    sentence, masked = outputs
    tokens, is_next = targets[:, :-1], targets[:, -1]
    told = F.cross_entropy(masked.float(), tokens[tokens != UNMASKED])
    return told + F.cross_entropy(sentence.float(), is_next)
