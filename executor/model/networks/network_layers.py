"""The layers of a named network as torch modules, with the same parameters whatever the partition.

Every operation is initialised from a generator of its own, seeded by (seed, number of the operation), so a
pipeline stage that builds only its layers gets what a single process would have there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from ....sim.errors import InputError
from ....sim.model.model import Model
from ..stage_layers import StageLayers, State
from .operations import make_operation, make_table
from .program import Call, Program, Value, program_of

M = TypeVar("M", bound=nn.Module)
TABLE_STD = 0.02
"""Standard deviation of the rows of a table (BERT, Devlin et al. 2018, as released)."""


def build_network(
    model: Model,
    indices: Iterable[int],
    *,
    seed: int,
    recompute: str = "none",
    recompute_blocks: int = 0,
    device: torch.device | None = None,
) -> NetworkLayers:
    """The layers of a named network with these indices as one module.

    Raises:
        InputError: the model is no named network; or a layer shares the table of one that is not here.
    """
    program = program_of_model(model)
    with device or torch.device("cpu"):
        return NetworkLayers(
            program, tuple(indices), seed=seed, recompute=recompute, recompute_blocks=recompute_blocks
        )


def program_of_model(model: Model) -> Program:
    """What ``model`` computes.

    Raises:
        InputError: there is no preset of its name, or it is another network than that.
    """
    program = program_of(model.name)
    if program is None or program.network != model.network:
        raise InputError(
            f"{model.name} is a description of costs that no named network has: it can be simulated; to run"
            " it, name the module itself by --model package.module:function"
        )
    return program


class Part(nn.Module):
    """The operations of one layer of the plan, from what is carried to it to what it carries on."""

    def __init__(self, program: Program, index: int, operations: Sequence[tuple[Call, nn.Module]]):
        super().__init__()
        self.program, self.index = program, index
        self.calls = [call for call, _ in operations]
        self.operations = nn.ModuleList([module for _, module in operations])
        self.before: tuple[Value, ...] = program.carried(index - 1) if index else ()
        self.after = program.carried(index)

    def forward(self, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """(inputs of the micro-batch, values carried) to the same behind this layer."""
        inputs, *carried = state
        known: dict[Value, Tensor] = dict(zip(self.before, carried, strict=True))
        for call, operation in zip(self.calls, self.operations, strict=True):
            out = operation(inputs, *(self._read(x, known, inputs) for x in call.reads))
            known[call if call.writes is None else call.writes] = out
        return (inputs, *(known[value] for value in self.after))

    def _read(self, x: Any, known: dict[Value, Tensor], inputs: Tensor) -> Tensor:
        given = self.program.inputs.get(x)
        if given is None:
            return known[x]
        return inputs if given.whole else inputs[..., given.columns]


class NetworkLayers(StageLayers):
    """A run of a named network's layers."""

    def __init__(
        self, program: Program, indices: tuple[int, ...], *, seed: int, recompute: str, recompute_blocks: int
    ):
        count = len(program.network.parts)
        if indices and not (min(indices) >= 0 and max(indices) < count):
            raise InputError(f"layers {indices[0]} to {indices[-1]}: expected some of 0 to {count - 1}")
        self.program = program
        super().__init__(
            indices,
            _parts(program, indices, seed),
            is_last=indices[-1] == count - 1,
            recompute=recompute,
            recompute_blocks=recompute_blocks,
        )

    def enter(self, x: Tensor) -> State:
        """The inputs are all that the first layer is given."""
        if self.indices[0] == 0:
            return (x,)
        return self._unpacked(x, self.inputs, self.indices[0] - 1)

    def reenter(self, x: Tensor, place: int) -> State:
        return self._unpacked(x, self.inputs, self.indices[place] - 1)

    def leave(self, state: State, layer: int) -> Any:
        """What crosses the cut as one tensor [batch, tokens, values]; outputs as they are, several as a
        tuple."""
        _, *carried = state
        if self.is_last and layer == self.indices[-1]:
            return carried[0] if len(carried) == 1 else tuple(carried)
        return _flat(carried, self.program.network.max_tokens > 1)

    def _unpacked(self, x: Tensor, inputs: Tensor | None, layer: int) -> State:
        values = self.program.crossing[layer]
        parts = x.float().split([one.values for one in values], dim=-1)
        whole = [
            part.reshape(len(x), one.channels, one.height, one.width)
            if one in self.program.images
            else part
            if self.program.network.max_tokens > 1
            else part.squeeze(1)
            for part, one in zip(parts, values, strict=True)
        ]
        return (inputs, *whole)


def _flat(carried: Sequence[Tensor], has_tokens: bool) -> Tensor:
    parts = [x if has_tokens else x.reshape(len(x), 1, -1) for x in carried]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)


def _parts(program: Program, indices: tuple[int, ...], seed: int) -> list[Part]:
    """The layers, initialised; the table that several of them share is made where its own layer is."""
    numbers = {call: number for number, call in enumerate(program.calls)}
    held = set(indices)
    owner = program.table
    borrows = any(call.layer in held for call in program.sharing)
    table = None
    if owner is not None and owner.layer in held:
        table = _initialised(make_table(owner), seed, numbers[owner])
    elif borrows:
        raise InputError("a layer shares the table of a look-up that another stage holds")
    parts = []
    for index in indices:
        operations = []
        for call in program.of_layer(index):
            module = make_operation(call, program, numbers[call], table)
            operations.append((call, _initialised(module, seed, numbers[call], table)))
        parts.append(Part(program, index, operations))
    return parts


def _initialised(module: M, seed: int, number: int, table: nn.Embedding | None = None) -> M:
    """Matrices drawn from N(0, 2/inputs) (He et al. 2015), tables from N(0, `TABLE_STD`²), biases 0, norms 1;
    a shared ``table`` has been drawn. On the meta device there are no values."""
    if any(p.is_meta for p in module.parameters()):
        return module
    state = np.random.SeedSequence([seed, number]).generate_state(1, np.uint64)[0]
    generator: torch.Generator | None = None
    with torch.no_grad():
        for part in module.modules():
            if part is table:
                continue
            for name, parameter in part.named_parameters(recurse=False):
                if parameter.dim() > 1:
                    generator = generator or torch.Generator(parameter.device).manual_seed(int(state))
                    std = TABLE_STD if isinstance(part, nn.Embedding) else (2 / parameter[0].numel()) ** 0.5
                    parameter.normal_(0.0, std, generator=generator)
                elif "bias" in name:
                    parameter.zero_()
    return module
