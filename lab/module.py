"""Any torch module as a Model, without computing anything."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..sim.errors import EnvironmentMismatchError, InputError, UsageError
from ..sim.model.model import Model
from ..sim.model.networks.network import Network
from ..sim.plan.job import Job

if TYPE_CHECKING:
    import torch
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


def user_model(
    reference: str,
    *,
    data: str = "",
    shape: Shape | None = None,
    global_batch: int = 0,
) -> Model:
    """The Model of a module of the user's own, `package.module:function`, as a run splits it.

    It has a layer for each of its children, where its forward is nothing but these, else one layer in all.

    Shapes are those of the samples of ``data`` (`digits`, or a `module:name`, asked for ``global_batch``
    samples), or ``shape`` of one sample. The code of the module, and of its samples, is run; modules are
    looked for in the current directory too. Needs torch.

    >>> import traincast as tc
    >>> tc.user_model("mynet:net", data="digits")  # doctest: +SKIP

    Raises:
        InputError: the module cannot be imported, made or run.
        UsageError: there are neither samples nor a shape.
        EnvironmentMismatchError: torch is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise EnvironmentMismatchError(
            "a module of your own needs torch (pip install 'traincast[run]')"
        ) from error
    from ..executor.model.references import look_in
    from ..executor.model.user_module import make_module, split
    from ..executor.module_trace.module_trace import TRACED
    from ..executor.module_trace.module_trace import trace_module as traced

    look_in(Path.cwd())
    module = make_module(reference, 0)
    inputs = _first_samples(reference, data, shape, global_batch)
    layers = split(module, inputs)
    if len(layers) == 1 and any(True for _ in module.children()):
        logging.getLogger(__name__).warning(
            "%s: its forward is not its children one after the other, so it is one layer; to share it out"
            " over a pipeline, write it as a torch.nn.Sequential",
            reference,
        )
    given = torch.empty(TRACED, *inputs.shape[1:], dtype=inputs.dtype, device="meta")
    name = reference.rpartition(":")[2]
    model = traced(module, [given], name=name, source=reference, layers=layers)
    return replace(model, module=reference)


def _first_samples(reference: str, data: str, shape: Shape | None, global_batch: int) -> torch.Tensor:
    """A few inputs of the module."""
    import torch

    from ..executor.model.workload import PROBED, Workload

    if data:
        stand_in = Model(name=reference, network=Network(parts=()), module=reference)
        job = Job(stand_in, global_batch=max(global_batch, PROBED), data=data)
        return Workload(job=job).probe
    if shape is None:
        raise UsageError(f"{reference} needs --data, whose samples it is to be trained on")
    sizes, whole = _shape(shape)
    return torch.zeros(PROBED, *sizes, dtype=torch.int64) if whole else torch.randn(PROBED, *sizes)


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

    from ..executor.model.references import read_factory

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
