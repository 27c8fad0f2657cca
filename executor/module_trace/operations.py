"""What an operation of ATen is to the simulator: a product, a convolution, a look-up, or memory traffic."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import torch

from ...sim.model.networks.network import CONVOLUTION, LOOKUP, MEMORY, PRODUCT, Operation

aten = torch.ops.aten

NORMS = {
    aten.native_batch_norm: (3, 5),
    aten.cudnn_batch_norm: (3, 5),
    aten._native_batch_norm_legit: (3, 5),
    aten._batch_norm_with_update: (3, 5),
    aten.native_layer_norm: (2, 5),
    aten.native_group_norm: (3, 5),
    aten._fused_rms_norm: (2, 5),
}
"""Times that a norm reads or writes its input forward and backward, as `model/networks/builder.py` has it."""
LAYER_NORMS = (aten.native_layer_norm, aten._fused_rms_norm)
FREE_BACKWARD = (aten.add, aten.add_, aten.sub, aten.sub_)
"""Gradients go to both sides as they are."""
FREE = (
    aten._local_scalar_dense,
    aten.empty,
    aten.empty_like,
    aten.new_empty,
    aten.detach,
    aten.lift_fresh,
    aten.arange,
    aten.zeros,
    aten.ones,
    aten.full,
)
"""What makes tensors of nothing: little, or no memory at all."""
IN_PLACE = (aten.relu_, aten.relu, aten.hardtanh_, aten.sigmoid_)
"""Backward reads the gradient and the output, and writes a gradient."""
POOLS = (aten.max_pool2d_with_indices, aten.max_pool1d)


def operation_of(
    func: Any, args: tuple[Any, ...], kwargs: dict, out: Any, batch: int, wants_gradient: bool
) -> list[Operation]:
    """One sample's operations of one call of ``func``; ``batch`` samples were traced.

    ``wants_gradient`` says whether the first input's gradient is needed. Views cost nothing and are not
    passed here.
    """
    packet = func.overloadpacket
    if packet in FREE:
        return []
    if packet in _MULTIPLIES:
        return _MULTIPLIES[packet](args, kwargs, out, batch, wants_gradient)
    return [_moved(packet, args, out, batch)]


def is_weighted(func: Any) -> bool:
    """Whether ``func`` multiplies or looks up, and so begins a layer where its matrix is a parameter."""
    return func.overloadpacket in _MULTIPLIES


def tensors(tree: Any) -> list[torch.Tensor]:
    """All tensors of nested arguments or results."""
    if isinstance(tree, torch.Tensor):
        return [tree]
    if isinstance(tree, list | tuple):
        return [one for part in tree for one in tensors(part)]
    return []


def _convolution(
    args: tuple[Any, ...], _: dict, out: Any, batch: int, wants_gradient: bool
) -> list[Operation]:
    x, weight, _, stride = args[:4]
    transposed, groups = args[6], args[8]
    places = x if transposed else out
    channels = weight.shape[0] if transposed else weight.shape[1]
    others = weight.shape[1] if transposed else weight.shape[0] // groups
    channels = channels // groups if transposed else channels
    window, image = _pair(weight.shape[2:]), _pair(places.shape[2:])
    values = out.numel() / batch
    bias = [_memory("bias", 2 * values, values)] if args[2] is not None else []
    return [
        Operation(
            kind=CONVOLUTION,
            rows=prod(places.shape[2:]),
            n=others,
            k=channels * prod(weight.shape[2:]),
            groups=groups,
            window=window,
            stride=max(stride),
            image=image,
            reads=x.numel() / batch,
            writes=out.numel() / batch,
            weights=weight.numel(),
            has_input_gradient=wants_gradient,
        ),
        *bias,
    ]


def _pair(sizes: Any) -> tuple[int, int]:
    """Height and width; of three dimensions the first two are one."""
    sizes = (1, *sizes) if len(sizes) == 1 else tuple(sizes)
    return prod(sizes[:-1]), sizes[-1]


def _product(x: Any, y: Any, out: Any, batch: int, wants_gradient: bool) -> list[Operation]:
    """[..., m, k] x [..., k, n]; all samples share a y of two dimensions, which is a matrix of weights."""
    m, k = x.shape[-2:]
    n = y.shape[-1]
    groups = prod(x.shape[:-2])
    shared = x.dim() == 2
    rows = m / batch if shared else m
    own = 1 if shared else max(1, groups // batch)
    return [
        Operation(
            kind=PRODUCT,
            rows=max(1, round(rows)),
            n=n,
            k=k,
            groups=own,
            reads=(x.numel() + (0 if shared else y.numel())) / batch,
            writes=out.numel() / batch,
            weights=y.numel() if shared else 0,
            has_input_gradient=wants_gradient,
        )
    ]


def _mm(args: tuple[Any, ...], _: dict, out: Any, batch: int, wants_gradient: bool) -> list[Operation]:
    return _product(args[0], args[1], out, batch, wants_gradient)


def _addmm(args: tuple[Any, ...], _: dict, out: Any, batch: int, wants_gradient: bool) -> list[Operation]:
    """The bias is added in the product; its gradient is a sum over the samples."""
    bias = Operation(kind=MEMORY, name="bias", moved_back=out.numel() / batch)
    return [*_product(args[1], args[2], out, batch, wants_gradient), bias]


def _attention(args: tuple[Any, ...], _: dict, out: Any, batch: int, wants_gradient: bool) -> list[Operation]:
    """Scores and their sum over values, in one kernel that writes neither scores nor probabilities."""
    q, k, v = args[:3]
    scores = torch.empty(*q.shape[:-1], k.shape[-2], device="meta")
    first = _product(q, k.transpose(-1, -2), scores, batch, wants_gradient)
    return first + _product(scores, v, tensors(out)[0], batch, wants_gradient)


def _lookup(args: tuple[Any, ...], kwargs: dict, out: Any, batch: int, _: bool) -> list[Operation]:
    given = list(args)
    sparse = bool(kwargs.get("sparse", given[4] if len(given) > 4 else False))
    read, written = given[1].numel() * given[0].shape[-1] / batch, tensors(out)[0].numel() / batch
    name = "sparse" if sparse else "dense"
    return [Operation(kind=LOOKUP, name=name, reads=read, writes=written, weights=given[0].numel())]


_MULTIPLIES: dict[Any, Callable[[tuple[Any, ...], dict, Any, int, bool], list[Operation]]] = {
    aten.convolution: _convolution,
    aten.mm: _mm,
    aten.bmm: _mm,
    aten.addmm: _addmm,
    aten.embedding: _lookup,
    aten._embedding_bag: _lookup,
    aten._scaled_dot_product_flash_attention: _attention,
    aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    aten._scaled_dot_product_efficient_attention: _attention,
    aten._scaled_dot_product_fused_attention_overrideable: _attention,
}


def _moved(packet: Any, args: tuple[Any, ...], out: Any, batch: int) -> Operation:
    """What a memory-bound operation reads and writes: its operands once each, norms theirs more often."""
    written = tensors(out)[0].numel() if tensors(out) else 0
    if packet in NORMS:
        forward, backward = (times * args[0].numel() for times in NORMS[packet])
        name = "layer_norm" if packet in LAYER_NORMS else "norm"
        return _memory(name, forward / batch, backward / batch)
    read = sum(one.numel() for one in tensors(list(args)))
    name = packet.__name__.strip("_")
    both = (read + written) / batch
    if packet in FREE_BACKWARD:
        return _memory(name, both, 0.0)
    if packet in IN_PLACE:
        return _memory("relu" if "relu" in name else name, both, 3 * written / batch)
    if packet in POOLS:
        return _memory("pool", both, 2 * both)
    return _memory(name, both, both)


def _memory(name: str, forward: float, backward: float) -> Operation:
    return Operation(kind=MEMORY, name=name, moved=float(forward), moved_back=float(backward))
