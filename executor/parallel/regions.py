"""Where tensor-parallel regions begin and end: what is exchanged forward and, the other way round, backward.

The four of Megatron-LM (Shoeybi et al. 2019, section 3; Korthikanti et al. 2022, section 4.2.2), by hand on
plain tensors, so that every exchange is one collective of the group's `Wire`. Tokens are dimension 1 of
[batch, tokens, ...]; sequence parallelism gives the i-th rank the i-th of equal parts of them. Exchanges are
in the dtype that GEMMs compute in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd import Function

from .wire import Wire


def in_working_dtype(x: Tensor) -> Tensor:
    """``x`` as autocast would give it to a GEMM; itself where autocast is off."""
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x


def copied(x: Tensor, wire: Wire) -> Tensor:
    """``x``, which all ranks have alike; its gradients are summed, in place: only a GEMM may read it."""
    return _apply(_Copied, x, wire)


def summed(x: Tensor, wire: Wire) -> Tensor:
    """The sum of all ranks' ``x``, which is overwritten; each has the whole gradient of it."""
    return _apply(_Summed, x, wire)


def gathered(x: Tensor, wire: Wire) -> Tensor:
    """All tokens, of which each rank has its part; gradients are summed and cut into the parts."""
    return _apply(_Gathered, x, wire)


def scattered(x: Tensor, wire: Wire) -> Tensor:
    """This rank's part of the tokens of the sum of all ranks' ``x``; gradients are gathered."""
    return _apply(_Scattered, x, wire)


def gather_tokens(x: Tensor, wire: Wire) -> Tensor:
    """[batch, n, ...] of every rank as [batch, size × n, ...]; no gradient."""
    parts = wire.all_gather(x).wait().unflatten(0, (wire.size, x.shape[0]))
    return parts.transpose(0, 1).flatten(1, 2)


def scatter_tokens(x: Tensor, wire: Wire) -> Tensor:
    """The sum of all ranks' [batch, size × n, ...], of which each keeps [batch, n, ...]; no gradient."""
    parts = x.unflatten(1, (wire.size, x.shape[1] // wire.size)).transpose(0, 1)
    return wire.reduce_scatter(parts.flatten(0, 1)).wait()


_eagerly: Callable[..., Any] = torch.compiler.disable(lambda function, *inputs: function.apply(*inputs))
"""Compiled blocks are compiled between exchanges, which are no part of a graph."""


def _apply(function: type[Function], x: Tensor, wire: Wire) -> Tensor:
    return cast(Tensor, _eagerly(function, x, wire))


class _Copied(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, wire: Wire) -> Tensor:
        ctx.wire = wire
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return ctx.wire.all_reduce(grads[0].contiguous()).wait(), None


class _Summed(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, wire: Wire) -> Tensor:
        ctx.mark_dirty(x)
        return wire.all_reduce(x).wait()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


class _Gathered(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, wire: Wire) -> Tensor:
        ctx.wire = wire
        return gather_tokens(x, wire)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return scatter_tokens(grads[0], ctx.wire), None


class _Scattered(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, wire: Wire) -> Tensor:
        ctx.wire = wire
        return scatter_tokens(x, wire)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return gather_tokens(grads[0], ctx.wire), None
