"""One pipeline stage of a rank: computes passes, and keeps what their backward needs by micro-batch.

Backward may be one pass (`B`), or its halves: the gradient of the input, which the stage before waits for
(`I`), and that of the weights (`W`) later (Qi et al. 2024, zero bubble). The halves are torch's own, which
are not public: this file is the only one that calls them, and `tests/executor/train/test_stage.py` holds them
to the version they were tested with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from ...sim.plan.job import Job
from ..model.dtypes import DTYPES

TESTED_TORCH = "2.13"
Group = dict[str, Any]
"""What torch's halves know of some weights: nodes of the graph, and gradients that arrived there."""


@dataclass(slots=True)
class _Kept:
    """What one micro-batch left behind."""

    entry: Tensor
    """What its backward ends at: the input, or behind the first layer of the first stage."""
    out: Tensor
    first: Tensor | None = None
    """The output of the first layer of the first stage, whose backward is a weight gradient alone."""
    groups: list[Group] | None = None
    """Between the halves of a backward: where the gradients of the weights begin."""
    weights: tuple[Tensor, ...] = ()
    """Those that its forward used, where they may be stepped before its backward."""


class Stage:
    """One stage, driven action by action."""

    def __init__(
        self,
        forward: Callable[[Tensor], Tensor],
        parameters: Callable[[], list[nn.Parameter]],
        *,
        takes_inputs: bool = False,
        split_after: Callable[[Tensor], tuple[Tensor, Callable[[Tensor], Tensor]]] | None = None,
        stashes_weights: bool = False,
    ):
        """``forward`` computes the stage. The first one ``takes_inputs``, whose gradient nobody wants; of it
        ``split_after`` gives the output of its first layer and what computes the rest, so that its backward
        can be halved. With ``stashes_weights`` backward uses the weights that forward used, though they were
        stepped since (PipeDream, Narayanan et al. 2019).
        """
        self._forward, self._parameters, self._split_after = forward, parameters, split_after
        self._takes_inputs = takes_inputs
        self._stashes = stashes_weights
        self._kept: dict[int, _Kept] = {}

    def forward(self, index: int, x: Tensor) -> Tensor:
        """Compute micro-batch ``index`` from ``x``: tokens on the first stage, else activations."""
        with self._stashing():
            first = None
            if self._split_after is not None:
                first, rest = self._split_after(x)
                entry = first.detach().requires_grad_()
                out = rest(entry)
            else:
                entry = x.detach()
                if not self._takes_inputs:
                    entry.requires_grad_()
                out = self._forward(entry)
        weights = tuple(p.data for p in self._parameters()) if self._stashes else ()
        self._kept[index] = _Kept(entry, out, first, weights=weights)
        return out

    def ends_in(self, index: int, loss: Tensor) -> None:
        """Backward of micro-batch ``index`` begins at ``loss``."""
        self._kept[index].out = loss

    def backward(self, index: int, gradient: Tensor | None) -> Tensor | None:
        """The whole backward, from the ``gradient`` of the output, or from the loss. Returns that of the
        input; None on the first stage."""
        kept = self._kept.pop(index)
        with self._with(kept.weights):
            torch.autograd.backward(kept.out, gradient)
        if kept.first is not None:
            torch.autograd.backward(kept.first, kept.entry.grad)
            return None
        return kept.entry.grad

    def backward_input(self, index: int, gradient: Tensor | None) -> Tensor | None:
        """The half that the stage before waits for."""
        from torch.distributed.pipelining._backward import stage_backward_input

        kept = self._kept[index]
        gradients = None if gradient is None else [gradient]
        _, kept.groups = stage_backward_input([kept.out], gradients, [kept.entry], iter(self._parameters()))
        return None if kept.first is not None else kept.entry.grad

    def backward_weight(
        self,
        index: int,
        runs: Sequence[Sequence[nn.Parameter]] = (),
        made: Callable[[int], None] = lambda number: None,
    ) -> None:
        """The other half. With ``runs`` of parameters their gradients are made one run after the other, and
        ``made`` is told the number of each that is there; what is in no run, and the first layer, comes with
        the last."""
        from torch.distributed.pipelining._backward import stage_backward_weight

        kept = self._kept.pop(index)
        assert kept.groups is not None, "I comes before W"
        parted = _by_run(kept.groups, runs)
        for number, groups in enumerate(parted):
            weights = [node.variable for group in groups for node in group["params"]]
            stage_backward_weight(iter(weights), groups)
            if kept.first is not None and number == len(parted) - 1:
                torch.autograd.backward(kept.first, kept.entry.grad)
            if runs:
                made(number)

    def before_update(self) -> None:
        """The weights are about to be stepped: micro-batches under way keep those they began with."""
        if self._stashes and self._kept:
            for parameter in self._parameters():
                parameter.data = parameter.data.clone()

    @contextmanager
    def _with(self, weights: Sequence[Tensor]) -> Iterator[None]:
        """What is computed again is so with the ``weights`` of its forward, if there are any."""
        latest = [p.data for p in self._parameters()] if weights else []
        self._use(weights)
        try:
            yield
        finally:
            self._use(latest)

    def _use(self, weights: Sequence[Tensor]) -> None:
        for parameter, values in zip(self._parameters() if weights else (), weights, strict=True):
            parameter.data = values

    def _stashing(self) -> AbstractContextManager[object]:
        """Autograd keeps aliases, which go on holding a parameter's storage when it gets another."""
        return saved_tensors_hooks(lambda t: t.detach(), lambda t: t) if self._stashes else nullcontext()


def _by_run(groups: list[Group], runs: Sequence[Sequence[nn.Parameter]]) -> list[list[Group]]:
    """Groups of weights whose gradients are made together, by the last run that any of them is in."""
    if not runs:
        return [groups]
    last = len(runs) - 1
    place = {parameter: number for number, run in enumerate(runs) for parameter in run}
    parted: list[list[Group]] = [[] for _ in runs]
    for group in groups:
        parted[max(place.get(node.variable, last) for node in group["params"])].append(group)
    return parted


def precision(job: Job, device: torch.device) -> AbstractContextManager[object]:
    """Mixed precision by autocast, with weights and optimizer in fp32; nothing for an fp32 job."""
    dtype = DTYPES[job.precision]
    return nullcontext() if dtype is torch.float32 else torch.autocast(device.type, dtype=dtype)


def use_products_of(job: Job) -> None:
    """Have this process multiply fp32 matrices as ``job`` says: in tf32, or exactly."""
    torch.set_float32_matmul_precision("high" if job.precision == "tf32" else "highest")
