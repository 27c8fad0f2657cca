"""Layers of a model that is no decoder, as a pipeline stage holds them: one tensor in, one tensor out.

Between its layers a stage may carry several tensors, such as the ways past a block; what crosses a cut is
packed into the one tensor of the message.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .decoder import Layers
from .recompute import block_again, policy_of

State = Any
"""What goes from layer to layer within a stage: a tensor, or a tuple of tensors."""


class StageLayers(Layers):
    """A run of a model's layers, in order; `layers` has one module for each layer of the plan.

    To whoever runs it, it is what a decoder's layers are; it is made otherwise.
    """

    def __init__(
        self,
        indices: tuple[int, ...],
        layers: Sequence[nn.Module],
        *,
        is_last: bool,
        recompute: str = "none",
        recompute_blocks: int = 0,
    ):
        nn.Module.__init__(self)
        self.indices = indices
        self.is_last = self.ends_in_logits = is_last
        self.pieces, self.partial_gradients = {}, set()
        self.layers = nn.ModuleList(layers)
        self.boundary_dtype = torch.float32
        """What is passed on to the next stage."""
        self.inputs: Tensor | None = None
        """Of the micro-batch whose forward comes next: set for stages that get a message instead."""
        self._again = [
            policy_of(place, recompute, recompute_blocks) == "full" for place in range(len(indices))
        ]

    def enter(self, x: Tensor) -> State:
        """From the model's inputs, or from the message of the stage before."""
        return x

    def leave(self, state: State, layer: int) -> Any:
        """The model's outputs, or the message to the stage that begins behind ``layer``."""
        return state

    def forward(self, x: Tensor) -> Any:
        """The model's outputs behind its last layer, elsewhere the message to the next stage."""
        return self._go(x, 0, len(self.indices))

    def first(self, x: Tensor) -> Tensor:
        """The output of the first layer alone, as a message."""
        return self._go(x, 0, 1)

    def rest(self, x: Tensor, *, first: int = 1) -> Any:
        """The output of all, from the message of the layers before number ``first``; it is that message where
        those are all."""
        return self._go(x, first, len(self.indices)) if first < len(self.indices) else x

    def _go(self, x: Tensor, begin: int, end: int) -> Any:
        state = self.enter(x) if begin == 0 else self.reenter(x, begin)
        for place in range(begin, end):
            state = block_again("full" if self._again[place] else "none", self.layers[place], state)
        out = self.leave(state, self.indices[end - 1])
        last = self.is_last and end == len(self.indices)
        return out if last else out.to(self.boundary_dtype)

    def reenter(self, x: Tensor, place: int) -> State:
        """What `first` left, as the state before layer number ``place`` of these."""
        return x

    def compile_blocks(self) -> None:
        """Have each layer compiled when it first runs."""
        for layer in self.layers:
            layer.compile()
