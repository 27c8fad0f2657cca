"""A user's own module as layers: its children in order, where its forward is nothing but these.

A layer begins at every child with parameters; those without go with the one before. `nn.Sequential` among the
children is opened. Whether the forward of another module is its children one after the other is found by
running both; where it is not, the module is one layer.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...sim.errors import Fault, InputError
from ...sim.model.model import Model
from .references import read_factory
from .stage_layers import StageLayers, State


def make_module(reference: str, seed: int) -> nn.Module:
    """The module that ``reference`` makes, on the CPU, its parameters drawn from ``seed``.

    Raises:
        InputError: it cannot be imported or made, or is no torch module.
    """
    factory = read_factory(reference)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            module = factory()
        except Exception as error:
            raise InputError(f"{reference} failed: {type(error).__name__}: {error}") from error
    if not isinstance(module, nn.Module):
        raise InputError(f"{reference} returned {type(module).__name__}, no torch.nn.Module")
    return module.train()


def split(module: nn.Module, inputs: Tensor) -> list[nn.Module]:
    """``module`` as layers: its children in order if that is what it computes of ``inputs``, else itself."""
    children = _opened(module)
    if _is_sequential(module) or _computes_alike(module, children, inputs):
        layers = _layers(children)
        if not _share_parameters(layers):
            return layers
    return [module]


def layers_of(module: nn.Module, count: int) -> list[nn.Module]:
    """``module`` as the ``count`` layers that `split` made of it."""
    return [module] if count == 1 else _layers(_opened(module))


def _is_sequential(module: nn.Module) -> bool:
    return type(module).forward is nn.Sequential.forward


def _opened(module: nn.Module) -> list[nn.Module]:
    """The children, those of a Sequential instead of it."""
    found = []
    for child in module.children():
        found += _opened(child) if _is_sequential(child) else [child]
    return found


def _layers(children: Sequence[nn.Module]) -> list[nn.Module]:
    groups: list[list[nn.Module]] = []
    for child in children:
        has_own = any(True for _ in child.parameters())
        if not groups or (has_own and any(True for one in groups[-1] for _ in one.parameters())):
            groups.append([])
        groups[-1].append(child)
    return [group[0] if len(group) == 1 else nn.Sequential(*group) for group in groups]


def _share_parameters(layers: Sequence[nn.Module]) -> bool:
    held = [p for layer in layers for p in set(layer.parameters())]
    return len(held) != len(set(held))


def _computes_alike(module: nn.Module, children: Sequence[nn.Module], inputs: Tensor) -> bool:
    """Whether the children one after the other give what the module gives, from the same random numbers."""
    own, others = copy.deepcopy(module), copy.deepcopy(nn.ModuleList(children))
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        wanted = own(inputs)
        torch.manual_seed(0)
        x = inputs
        try:
            for child in others:
                x = child(x)
        except Exception:
            return False
    return isinstance(wanted, Tensor) and isinstance(x, Tensor) and torch.equal(wanted, x)


class ModuleLayers(StageLayers):
    """A run of the layers of a user's module; each gives the next one tensor, of one of ``shapes``."""

    def __init__(
        self,
        indices: tuple[int, ...],
        layers: Sequence[nn.Module],
        shapes: Sequence[tuple[int, ...]],
        **named: Any,
    ):
        super().__init__(indices, layers, is_last=indices[-1] == len(shapes) - 1, **named)
        self.shapes = shapes

    def enter(self, x: Tensor) -> State:
        return self.reenter(x, 0) if self.indices[0] else x

    def reenter(self, x: Tensor, place: int) -> State:
        return x.float().reshape(len(x), *self.shapes[self.indices[place] - 1])

    def leave(self, state: State, layer: int) -> Tensor:
        is_output = self.is_last and layer == self.indices[-1]
        return state if is_output else state.reshape(len(state), 1, -1)


def build_module_layers(
    model: Model,
    indices: Iterable[int],
    probe: Tensor,
    *,
    seed: int,
    recompute: str = "none",
    recompute_blocks: int = 0,
    device: torch.device | None = None,
) -> ModuleLayers:
    """The layers of a user's module with these indices as one module.

    The whole module is made, as a single process would make it, and the rest of it dropped. ``probe`` is a
    few inputs, which show what layers give each other.

    Raises:
        InputError: it cannot be made, or is another module than the one that was planned.
    """
    made = layers_of(make_module(model.module, seed), len(model.layers))
    found = [trained(layer) for layer in made]
    planned = [layer.parameters for layer in model.layers]
    if found != planned:
        raise InputError(
            Fault(
                path=model.module,
                found=f"{len(found)} layers with {found} parameters",
                expected=f"{len(planned)} with {planned}, as planned",
                hint="plan it again: the module has changed",
            )
        )
    indices = tuple(indices)
    shapes = output_shapes(made, probe)
    held = nn.ModuleList([made[index] for index in indices]).to(device or torch.device("cpu"))
    return ModuleLayers(indices, list(held), shapes, recompute=recompute, recompute_blocks=recompute_blocks)


def trained(layer: nn.Module) -> int:
    """Parameters that are trained."""
    return sum(p.numel() for p in layer.parameters() if p.requires_grad)


def output_shapes(layers: Sequence[nn.Module], inputs: Tensor) -> list[tuple[int, ...]]:
    """By layer: the shape of what it gives for one sample."""
    shapes, x = [], inputs
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        for layer in copy.deepcopy(nn.ModuleList(layers)):
            x = layer(x)
            shapes.append(tuple(x.shape[1:]))
    return shapes
