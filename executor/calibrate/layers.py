"""Calibration tasks of a rank in training: layers as a step runs them, whole steps, optimizer steps.

Layers are timed inside whole training steps, where caches, allocator and autograd are as in a run: a sum of
kernels measured alone is 11-21 % short of a step.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch.distributed as dist
from torch import Tensor

from ...sim.model.decoder import Decoder
from ...sim.model.layer import BLOCK, EMBEDDING, HEAD
from ...sim.model.model import Model
from ...sim.plan.job import Job
from ..model.data.text import Text
from ..model.decoder import Layers, build_layers
from ..model.optimizer import make_optimizer
from ..train.stage import mean_loss, precision
from .bench import SAMPLES, Bench, LaidOut, Moment, series, total

STACK_BLOCKS = 8
"""Blocks of the stack that layers are profiled in; deeper models are cut to it."""
STEP_MICRO_BATCHES, STEP_SAMPLES = 4, 8
"""A profiled step has this many micro-batches, or fewer of no more samples in all."""
LAYERS_S = 0.8
"""Steps are profiled for at least so long: short ones more often, since they vary more."""
TOGETHER_STEPS = 2
"""Steps of one visit; there are several visits in a round."""

Times = dict[tuple[str, str], Moment]


class Stack:
    """A whole model, or the first blocks of it, in training."""

    def __init__(
        self,
        bench: Bench,
        decoder: Decoder,
        seq_len: int,
        micro_batch: int,
        *,
        optimizer: str = "adamw",
        count: int = STEP_MICRO_BATCHES,
    ):
        self.bench = bench
        self.decoder = replace(decoder, layers=min(decoder.layers, STACK_BLOCKS))
        self.count = max(1, min(count, STEP_SAMPLES // micro_batch))
        """Micro-batches of a step."""
        self.micro_batch = micro_batch
        job = Job(
            model=Model(name="stack", decoder=self.decoder),
            global_batch=self.count * micro_batch,
            seq_len=seq_len,
            optimizer=optimizer,
            precision=bench.precision,
        )
        self.text = Text(job, seed=0)
        indices = range(self.decoder.layers + 2)
        self.net: Layers = build_layers(self.decoder, indices, seed=0, device=bench.device)
        self.job = job
        self.optimizer = make_optimizer(job, self.net.parameters())

    def batches(self, step: int) -> list[tuple[Tensor, Tensor]]:
        parts = self.text.micro_batches(step, 0, 1, self.micro_batch)
        return [(x.to(self.bench.device), y.to(self.bench.device)) for x, y in parts]

    def plain(self, step: int) -> Moment:
        """What one whole step takes."""
        start = self.bench.now()
        self.optimizer.zero_grad()
        for x, y in self.batches(step):
            with precision(self.job, self.bench.device):
                scalar = mean_loss(self.net(x), y, self.count)
            scalar.backward()
        self.optimizer.step()
        return self.bench.now().since(start)

    def stamped(self, step: int) -> Times:
        """By (`forward` or `backward`, layer kind): what one layer takes, the mean of a step's.

        Forward is stamped between layers; the gradient of a layer's output arrives when everything
        behind it is done, which parts the backward of one layer from that of the next.
        """
        self.optimizer.zero_grad()
        found = [self._stamp(x, y) for x, y in self.batches(step)]
        self.optimizer.step()
        return {key: total(one[key] for one in found).times(1 / len(found)) for key in found[0]}

    def _stamp(self, x: Tensor, y: Tensor) -> Times:
        stamp = self.bench.stamp
        stamps: list[Any] = [stamp()]
        arrivals: list[Any] = []
        with precision(self.job, self.bench.device):
            for layer in self.net.layers:
                x = layer(x)
                stamps.append(stamp())
                if layer is not self.net.layers[-1]:
                    x.register_hook(lambda _: arrivals.append(stamp()))
            scalar = mean_loss(x, y, self.count)
        stamps[-1] = stamp()
        arrivals.insert(0, stamp())
        scalar.backward()
        arrivals.append(stamp())
        self.bench.clock.settle()
        kinds = [EMBEDDING, *[BLOCK] * self.decoder.layers, HEAD]
        return {
            **self._means("forward", kinds, stamps),
            **self._means("backward", kinds[::-1], arrivals),
        }

    def _means(self, name: str, kinds: list[str], stamps: list[Any]) -> Times:
        times = [self.bench.resolve(stamp) for stamp in stamps]
        each = [end.since(start) for start, end in pairwise(times)]
        found: dict[str, list[Moment]] = {}
        for kind, moment in zip(kinds, each, strict=True):
            found.setdefault(kind, []).append(moment)
        return {(name, kind): total(own).times(1 / len(own)) for kind, own in found.items()}


def layers(
    bench: Bench, *, decoder: dict[str, Any], seq_len: int, micro_batch: int, repeats: int
) -> list[LaidOut]:
    """Forward and backward of every kind of layer, and in turns with them whole steps without stamps."""
    stack = Stack(bench, Decoder(**decoder), seq_len, micro_batch)
    stack.stamped(0)
    stack.plain(0)  # memory is as it stays only after a second step
    stamped, plain = [], []
    start = bench.now()
    while len(stamped) < 2 * repeats or bench.now().since(start).wall < repeats * LAYERS_S:
        stamped.append(stack.stamped(2 * len(stamped) + 1))
        if len(plain) < len(stamped) - 1 or not plain:
            plain.append(stack.plain(2 * len(stamped)))
    shape = {**_shape(bench, stack, seq_len), "micro_batch": micro_batch}
    return [
        *(
            series(name, {"kind": kind, **shape}, [means[name, kind] for means in stamped])
            for name, kind in stamped[0]
        ),
        series("step", _step(stack, shape, 1), plain),
    ]


def step(
    bench: Bench, *, decoder: dict[str, Any], seq_len: int, micro_batch: int, repeats: int, processes: int
) -> list[LaidOut]:
    """Whole steps while ``processes`` ranks do the same."""
    stack = _kept_stack(bench, Decoder(**decoder), seq_len, micro_batch)
    if processes > 1:
        dist.barrier(bench.groups[processes])
    samples = [stack.plain(repeat + 1) for repeat in range(TOGETHER_STEPS * repeats)]
    shape = {**_shape(bench, stack, seq_len), "micro_batch": micro_batch}
    return [series("together", _step(stack, shape, processes), samples)]


def _kept_stack(bench: Bench, decoder: Decoder, seq_len: int, micro_batch: int) -> Stack:
    """A stack of one micro-batch, built and warmed up at the first visit."""
    key = (decoder, seq_len, micro_batch)
    if key not in bench.kept:
        stack = bench.kept[key] = Stack(bench, decoder, seq_len, micro_batch, count=1)
        stack.plain(0)
        stack.plain(0)
    return bench.kept[key]


def _shape(bench: Bench, stack: Stack, seq_len: int) -> dict[str, Any]:
    d = stack.decoder
    names = ("hidden", "heads", "kv_heads", "head_dim", "ffn", "vocab", "activation", "norm", "positions")
    sizes = {name: getattr(d, name) for name in (*names, "attention_bias", "output_bias", "mlp_bias")}
    others = {"qk_norm": d.qk_norm, "tied_embeddings": d.tied_embeddings, "max_positions": d.max_positions}
    return {**sizes, **others, "seq_len": seq_len, "precision": bench.precision}


def _step(stack: Stack, shape: dict[str, Any], processes: int) -> dict[str, Any]:
    """What a whole step depends on."""
    return {
        **shape,
        "layers": stack.decoder.layers,
        "micro_batches": stack.count,
        "parameters": sum(p.numel() for p in stack.net.parameters()),
        "optimizer": "adamw",
        "processes": processes,
    }


def optimizer(bench: Bench, *, decoder: dict[str, Any], optimizer: str) -> list[LaidOut]:
    """Optimizer steps on models of one block and of all, each after a backward."""
    found = []
    whole = Decoder(**decoder)
    most = min(whole.layers, STACK_BLOCKS)
    for blocks in sorted({1, (most + 1) // 2, most}):
        stack = Stack(
            bench, replace(whole, layers=blocks), min(whole.max_positions, 32), 1, optimizer=optimizer
        )
        stack.plain(0)
        samples = []
        for repeat in range(SAMPLES):
            x, y = stack.batches(repeat)[0]
            mean_loss(stack.net(x), y, 1).backward()
            start = bench.now()
            stack.optimizer.step()
            stack.optimizer.zero_grad(set_to_none=True)
            samples.append(bench.now().since(start))
        parameters = sum(p.numel() for p in stack.net.parameters())
        found.append(series("optimizer", {"name": optimizer, "parameters": parameters}, samples))
    return found
