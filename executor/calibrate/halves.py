"""The two halves of a backward that is split, as schedules with `I` and `W` run them.

torch's functions for it are not public; `tests/executor/train/test_stage.py` holds them to the version they
were tested with.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .bench import Moment, total
from .stack import Stack, Times


def halves(stack: Stack, step: int) -> Times:
    """By (`input_gradient` or `weight_gradient`, layer kind): what the halves of one layer's backward take,
    each layer a stage of its own. A first stage leaves all of its backward to the second half."""
    from torch.distributed.pipelining import _backward as split

    stack.optimizer.zero_grad()
    bench, (x, y) = stack.bench, stack.batches(step)[0]
    inputs, outputs = [], []
    for layer in stack.net.layers:
        x = x.detach().requires_grad_() if x.is_floating_point() else x
        inputs.append(x)
        x = layer(x)
        outputs.append(x)
    outputs[-1] = stack.loss(outputs[-1], y)
    found: dict[tuple[str, str], list[Moment]] = {}
    gradient: Tensor | None = None
    left: list[tuple[str, nn.Module, Any]] = []
    for kind, layer, given, out in reversed(
        list(zip(stack.kinds, stack.net.layers, inputs, outputs, strict=True))
    ):
        start, exchanged = bench.now(), stack.part.exchanged
        if given.is_floating_point():
            gradients = None if gradient is None else [gradient]
            (gradient,), groups = split.stage_backward_input([out], gradients, [given], layer.parameters())
            took = bench.now().since(start).since(stack.part.exchanged.since(exchanged))
            found.setdefault(("input_gradient", kind), []).append(took)
            left.append((kind, layer, groups))
        else:
            torch.autograd.backward(out, gradient)
            found.setdefault(("weight_gradient", kind), []).append(bench.now().since(start))
    for kind, layer, groups in left:
        start = bench.now()
        split.stage_backward_weight(layer.parameters(), groups)
        found.setdefault(("weight_gradient", kind), []).append(bench.now().since(start))
    return {key: total(own).times(1 / len(own)) for key, own in found.items()}
