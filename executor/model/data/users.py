"""Samples of the user's own: a function or an iterable that gives (inputs, targets) of the global batch."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from ....sim.errors import Fault, InputError
from ....sim.plan.job import Job
from ..references import read_reference
from .samples import Samples

EXPECTED = "(inputs, targets) of {} samples each, as tensors or arrays"


class UserSamples(Samples):
    """What ``module:name`` gives.

    It is a function of the step, or of the step and the number of samples, that gives one global batch; or an
    iterable of global batches, or a function without arguments that gives one: it starts again at its end.
    """

    def __init__(self, job: Job, seed: int, reference: str):
        super().__init__(job, seed)
        self.reference = reference
        given = read_reference(reference, what="data")
        self._by_step = _function_of_step(given, job.global_batch)
        self._again: Callable[[], Any] = given if callable(given) else lambda: given
        self._drawn: Iterator[Any] = iter(())
        self._next = 0
        self._last: tuple[int, tuple[Tensor, Tensor]] | None = None

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets of ``step``.

        Raises:
            InputError: what is given is no such pair, or of another number of samples.
        """
        if self._last is None or self._last[0] != step:
            given = self._by_step(step) if self._by_step else self._drawn_at(step)
            self._last = (step, self._checked(given))
        return self._last[1]

    def _drawn_at(self, step: int) -> Any:
        """Number ``step`` of the iterable; an earlier one starts it again."""
        if step < self._next or not self._next:
            self._drawn, self._next = iter(self._again()), 0
        while True:
            item = next(self._drawn, None)
            if item is None:
                self._drawn = iter(self._again())
                item = next(self._drawn, None)
                if item is None:
                    raise InputError(
                        Fault(path="data", found=f"{self.reference} gives nothing", expected="batches")
                    )
            self._next += 1
            if self._next > step:
                return item

    def _checked(self, given: Any) -> tuple[Tensor, Tensor]:
        size = self.job.global_batch
        if not isinstance(given, tuple | list) or len(given) != 2:
            found = f"{self.reference} gives {type(given).__name__}"
            raise InputError(Fault(path="data", found=found, expected=EXPECTED.format(size)))
        inputs, targets = (torch.as_tensor(part) for part in given)
        if len(inputs) != size or len(targets) != size:
            found = f"{self.reference} gives {len(inputs)} inputs and {len(targets)} targets"
            raise InputError(Fault(path="data", found=found, expected=EXPECTED.format(size)))
        return inputs, targets


def _function_of_step(given: Any, samples: int) -> Callable[[int], Any] | None:
    """``given`` as a function of the step; None where it has no arguments, or is none."""
    if not callable(given):
        return None
    wanted = [
        one
        for one in inspect.signature(given).parameters.values()
        if one.default is one.empty and one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)
    ]
    if not wanted:
        return None
    return given if len(wanted) == 1 else lambda step: given(step, samples)
