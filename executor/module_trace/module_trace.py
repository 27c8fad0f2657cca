"""Any `nn.Module` as a Model of the simulator, from one forward on the meta device, which computes nothing.

Every ATen operation beneath autograd is seen, so whatever a module's Python does is followed as it goes. A
new layer begins wherever a parameter is multiplied with or looked up in; what autograd saves for backward is
kept by the layer that made it, once for each storage; a storage that a later layer reads crosses the cuts
between. A sample is one token of the Model, whatever its length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode

from ...sim.errors import Fault, InputError
from ...sim.model.model import Model
from ...sim.model.networks.network import MEMORY, Network, NetworkLayer, Operation
from .operations import is_weighted, operation_of, tensors

TRACED = 2
"""Samples of the traced batch: norms refuse to train on one."""


@dataclass(eq=False, slots=True)
class _Storage:
    """Memory that tensors share, while it is followed."""

    values: float
    part: int
    """The layer that wrote it last; -1 is an input."""
    trained: bool
    """Depends on parameters, so has a gradient."""
    readers: list[int] = field(default_factory=list)
    held: list[torch.Tensor] = field(default_factory=list)
    """Keeps its address from being given to another."""


@dataclass(eq=False, slots=True)
class _Part:
    """A layer while it is traced."""

    name: str
    parameters: int = 0
    operations: list[Operation] = field(default_factory=list)
    kept: float = 0.0
    kept_bytes: float = 0.0


def trace_module(
    module: nn.Module,
    inputs: Sequence[torch.Tensor],
    *,
    name: str,
    source: str = "",
    layers: Sequence[nn.Module] = (),
) -> Model:
    """The Model of ``module`` in training, called with ``inputs`` of `TRACED` samples each.

    With ``layers``, parts of ``module`` that give each other one tensor and are together what it computes,
    each of them is one layer of the Model.

    Raises:
        InputError: the forward fails, or computes nothing that has weights.
    """
    module = module.to("meta").train()
    tracer = _Tracer(module, by_layer=bool(layers))
    inputs = [one.to("meta") for one in inputs]
    for one in inputs:
        tracer.follow(one, trained=False)
    try:
        with saved_tensors_hooks(tracer.save, lambda saved: saved), tracer:
            if layers:
                tracer.run(layers, *inputs)
            else:
                module(*inputs)
    except Exception as error:
        said = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        raise InputError(
            Fault(path="module", found=said, expected="a forward that runs on the meta device")
        ) from error
    if not tracer.parts:
        raise InputError(Fault(path="module", found="no products", expected="a module with weights"))
    return Model(name=name, network=tracer.network(inputs), source=source)


class _Tracer(TorchDispatchMode):
    """Sees every operation, and what autograd saves."""

    def __init__(self, module: nn.Module, *, by_layer: bool = False):
        super().__init__()
        self.by_layer = by_layer
        self.parts: list[_Part] = []
        self._storages: dict[int, _Storage] = {}
        self._saved: set[int] = set()
        self._held: list[torch.Tensor] = []
        """Saved tensors, so that no other gets their address."""
        self._weights = {_key(p): p.numel() for p in module.parameters()}
        """Parameters that no layer has yet, by storage."""
        self._parameters = set(self._weights)
        self._last_use: dict[int, int] = {}
        """By parameter's storage: the layer that used it last."""
        self.passed: list[float] = []
        """Of parts that are layers: values of what they give."""
        self._buffers = {_key(buffer) for buffer in module.buffers()}

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        read = [one for one in tensors([*args, *kwargs.values()]) if _key(one) not in self._buffers]
        written = tensors(out)
        self._note(func, args, kwargs, out, read, written)
        return out

    def _note(self, func: Any, args: tuple, kwargs: dict, out: Any, read: list, written: list) -> None:
        of_parameters = [one for one in read if _key(one) in self._parameters]
        known = {_key(one) for one in read}
        if written and all(_key(one) in known for one in written) and not func._schema.is_mutable:
            return  # a view
        keys = [_key(one) for one in of_parameters]
        if not self.by_layer and (not self.parts or (is_weighted(func) and self._begins(keys))):
            self.parts.append(_Part(f"{func.overloadpacket.__name__}{len(self.parts)}"))
        here = len(self.parts) - 1
        for key in keys:
            self.parts[here].parameters += self._weights.pop(key, 0)
            self._last_use[key] = here
        activations = [one for one in read if _key(one) not in self._parameters]
        followed = [self._storages[_key(one)] for one in activations if _key(one) in self._storages]
        for storage in followed:
            storage.readers.append(here)
        wants_gradient = any(storage.trained for storage in followed)
        trained = wants_gradient or bool(of_parameters)
        self.parts[here].operations += operation_of(func, args, kwargs, out, TRACED, wants_gradient)
        for one in written:
            self.follow(one, trained=trained)

    def run(self, layers: Sequence[nn.Module], x: torch.Tensor) -> None:
        """The layers one after the other, each a part with all parameters that it trains."""
        for layer in layers:
            self.parts.append(_Part(f"{type(layer).__name__.lower()}{len(self.parts)}"))
            x = layer(x)
            own = {_key(p): p for p in layer.parameters()}
            for key in own:
                self._weights.pop(key, None)
            self.parts[-1].parameters = sum(p.numel() for p in own.values() if p.requires_grad)
            self.passed.append(x.numel() / TRACED)

    def _begins(self, keys: list[int]) -> bool:
        """Whether a product with these parameters begins a layer: not again and again where the last two are
        repeated, token by token in a recurrence, and not where nothing came before."""
        here = len(self.parts) - 1
        repeats = all(self._last_use.get(key, -1) in (here - 1, here) for key in keys) and here > 0
        return not repeats and bool(self.parts[here].operations)

    def follow(self, tensor: torch.Tensor, *, trained: bool) -> None:
        """From now on this is the last layer's output."""
        if not tensor.is_floating_point():
            return
        key, here = _key(tensor), len(self.parts) - 1
        storage = self._storages.get(key)
        if storage is None:
            self._storages[key] = _Storage(tensor.numel() / TRACED, here, trained, held=[tensor])
        else:
            storage.part, storage.trained = here, storage.trained or trained

    def save(self, tensor: torch.Tensor) -> torch.Tensor:
        """What autograd keeps for backward; parameters stand anyway."""
        key = _key(tensor)
        if key in self._parameters or key in self._buffers or key in self._saved:
            return tensor
        self._saved.add(key)
        whole = tensor.untyped_storage().nbytes() / tensor.element_size() / TRACED
        made_in = self._storages[key].part if key in self._storages else len(self.parts) - 1
        part = self._part(max(0, made_in))
        if tensor.is_floating_point():
            part.kept += whole
        else:
            part.kept_bytes += whole * tensor.element_size()
        self._held.append(tensor)
        return tensor

    def _part(self, index: int) -> _Part:
        """A layer; the first may be asked for before its product is seen."""
        if not self.parts:
            self.parts.append(_Part("input"))
        return self.parts[index]

    def network(self, inputs: Sequence[torch.Tensor]) -> Network:
        """What was traced. Parameters that the forward never used count with the last layer."""
        self.parts[-1].parameters += sum(self._weights.values())
        for storage in self._storages.values():
            self._add_up_gradients(storage)
        parts = tuple(
            NetworkLayer(
                name=part.name,
                parameters=part.parameters,
                operations=tuple(part.operations),
                kept=part.kept,
                kept_bytes=part.kept_bytes,
                passed=self._passed(index),
            )
            for index, part in enumerate(self.parts)
        )
        size = sum(one.numel() * one.element_size() for one in inputs) / TRACED
        return Network(parts=parts, input_bytes=size)

    def _passed(self, index: int) -> float:
        """Values that cross the cut behind a part."""
        if self.by_layer:
            return self.passed[index] if index < len(self.parts) - 1 else 0.0
        return sum(s.values for s in self._storages.values() if _crosses(s, index))

    def _add_up_gradients(self, storage: _Storage) -> None:
        """Where several layers read what one wrote."""
        extra = len(set(storage.readers) - {storage.part}) - 1
        if storage.part >= 0 and storage.trained and extra > 0:
            moved = 3.0 * extra * storage.values
            self.parts[storage.part].operations.append(
                Operation(kind=MEMORY, name="accumulate", moved_back=moved)
            )


def _crosses(storage: _Storage, index: int) -> bool:
    return 0 <= storage.part <= index < max(storage.readers, default=-1)


def _key(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata
