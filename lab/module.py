"""Any torch module as a Model, without computing anything."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..sim.errors import EnvironmentMismatchError, InputError, UsageError
from ..sim.model.model import Model

if TYPE_CHECKING:
    from torch import nn

Shape = str | Sequence[int]
MOST = 10**9
"""Of one size of a sample."""


def trace_module(
    what: str | Callable[[], Any] | nn.Module, shapes: Sequence[Shape], *, name: str | None = None
) -> Model:
    """The Model of a torch module, of a function that makes one, or of `package.module:function`.

    ``shapes`` has the shape of one sample of each input: (3, 224, 224) or `3x224x224`; `128:int` is 128 whole
    numbers. Nothing is computed, but the code of the module is run. Needs torch.

    >>> import traincast as tc
    >>> tc.trace_module("torchvision.models:resnet50", ["3x224x224"])  # doctest: +SKIP

    Raises:
        InputError: the module cannot be made or traced.
        UsageError: a shape cannot be read.
        EnvironmentMismatchError: torch is not installed.
    """
    read = [_shape(shape) for shape in shapes]
    try:
        import torch
    except ImportError as error:
        raise EnvironmentMismatchError(
            "tracing a module needs torch (pip install 'traincast[run]')"
        ) from error
    from ..executor.module_trace.module_trace import TRACED
    from ..executor.module_trace.module_trace import trace_module as traced

    module = _made(what)
    inputs = [
        torch.empty(TRACED, *shape, dtype=torch.int64 if whole else torch.float32, device="meta")
        for shape, whole in read
    ]
    source = what if isinstance(what, str) else type(module).__name__
    return traced(module, inputs, name=name or source.rpartition(":")[2], source=source)


def _shape(shape: Shape) -> tuple[tuple[int, ...], bool]:
    """Sizes, and whether the sample is of whole numbers."""
    if not isinstance(shape, str):
        return tuple(shape), False
    sizes = shape.removesuffix(":int").split("x")
    if not all(size.isdecimal() and 0 < int(size) < MOST for size in sizes):
        raise UsageError(f"{shape!r} is no shape, as 3x224x224 or 128:int")
    return tuple(map(int, sizes)), shape.endswith(":int")


def _made(what: str | Callable[[], Any] | nn.Module) -> nn.Module:
    """The module itself, made on the meta device if it is to be made."""
    import torch

    from ..executor.module_trace.module_trace import read_factory

    if isinstance(what, torch.nn.Module):
        return what
    build = read_factory(what) if isinstance(what, str) else what
    try:
        with torch.device("meta"):
            module = build()
    except Exception as error:
        raise InputError(f"{what} failed: {type(error).__name__}: {error}") from error
    if not isinstance(module, torch.nn.Module):
        raise InputError(f"{what} returned {type(module).__name__}, no torch.nn.Module")
    return module
