"""What a named network wants to be given: the shapes, types and ranges of its inputs and targets."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from ....sim.model.networks.graph import Tensor
from .program import LOOKUPS, Program


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """The inputs of a program."""

    program: Program

    @cached_property
    def image(self) -> Tensor | None:
        """The image that it looks at, if it does."""
        return next((t for t, call in self.program.inputs.items() if call.name == "image"), None)

    @cached_property
    def features(self) -> int:
        """Numbers before the look-ups."""
        return sum(t.values for t, call in self.program.inputs.items() if call.name == "features")

    @cached_property
    def rows(self) -> tuple[int, ...]:
        """By look-up: the rows of its table, any of which may be asked for."""
        table = self.program.table
        shared = table.arguments["rows"] if table else 0
        return tuple(
            call.arguments.get("rows", shared)
            for call in self.program.calls
            if call.name in LOOKUPS
            for _ in range(call.arguments.get("count", 1))
        )

    @cached_property
    def is_sequence(self) -> bool:
        """Whether samples have tokens."""
        return self.program.network.max_tokens > 1

    @cached_property
    def is_masked(self) -> bool:
        """Whether some tokens are masked and to be told (BERT)."""
        return any(call.name == "predict_some" for call in self.program.calls)

    @cached_property
    def share_masked(self) -> float:
        """Share of the tokens that is."""
        return next(c.arguments["share"] for c in self.program.calls if c.name == "predict_some")

    @cached_property
    def outputs(self) -> int:
        """Classes of a sample, or entries of the vocabulary, or 1 of a click."""
        return self.program.losses[-1].reads[0].values
