"""A whole model, or the first blocks of it, in training by itself: what layers are profiled in.

Layers may be divided as a plan divides them; then this is one rank of several, whose exchanges are left out
(`alone.py`), so what remains is what it computes; or with the others, so that nothing is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, replace
from itertools import pairwise
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ...sim.model.decoder import Decoder
from ...sim.model.layer import NETWORK_LAYER
from ...sim.model.model import Model
from ...sim.plan.job import Job
from ..model.optimizer import make_optimizer
from ..model.workload import Workload
from ..train.stage import precision
from .alone import Division, divided
from .bench import Bench, Moment, total
from .trained import trained_job

STACK_BLOCKS = 4
"""Blocks that are profiled; deeper models are cut to so many."""
STEP_MICRO_BATCHES, STEP_SAMPLES = 4, 8
"""A profiled step has this many micro-batches, or fewer of no more samples in all."""

Times = dict[tuple[str, str], Moment]


class Stack:
    """A model in training."""

    def __init__(
        self,
        bench: Bench,
        decoder: Decoder,
        seq_len: int,
        micro_batch: int,
        *,
        optimizer: str = "adamw",
        count: int | None = None,
        division: Division | None = None,
        blocks: int = STACK_BLOCKS,
        trained: str = "",
        group: dist.ProcessGroup | None = None,
    ):
        """``count`` micro-batches a step; None is as many as are profiled. ``trained`` is a model that is no
        decoder (`trained.py`), of which all layers are there. ``group`` are the ranks that share them."""
        self.bench = bench
        self.decoder = replace(decoder, layers=min(decoder.layers, blocks))
        self.count = count or max(1, min(STEP_MICRO_BATCHES, STEP_SAMPLES // micro_batch))
        self.micro_batch = micro_batch
        size = self.count * micro_batch
        if trained:
            self.job = trained_job(
                trained,
                global_batch=size,
                seq_len=seq_len,
                optimizer=optimizer,
                precision=bench.precision,
            )
        else:
            self.job = Job(
                model=Model(name="stack", decoder=self.decoder),
                global_batch=size,
                seq_len=seq_len,
                optimizer=optimizer,
                precision=bench.precision,
            )
        division = division or Division()
        workload = Workload(job=self.job, ep=division.ep)
        self.samples = workload.samples()
        self.kinds = [layer.kind for layer in self.job.model.layers]
        net = workload.layers(range(len(self.kinds)), device=bench.device)
        self.part = divided(net, workload, division, bench.device, group)
        """The layers as this rank has them."""
        self.net = self.part.layers
        self.optimizer = make_optimizer(self.job, self.net.parameters())

    def batches(self, step: int) -> list[tuple[Tensor, Tensor]]:
        """(inputs, targets) of each micro-batch of ``step``."""
        parts = self.samples.micro_batches(step, 0, 1, self.micro_batch)[: self.count]
        own, device = self.part.tokens, self.bench.device
        return [(own(x).to(device), own(y).to(device)) for x, y in parts]

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """A micro-batch's share of the mean loss of a step."""
        return self.net.loss(outputs, targets) / self.count

    def plain(self, step: int) -> Moment:
        """What one whole step takes."""
        batches = self.batches(step)
        start = self.bench.now()
        self.optimizer.zero_grad()
        for x, y in batches:
            with precision(self.job, self.bench.device):
                scalar = self.loss(self.net(x), y)
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

    def kept_bytes(self) -> dict[str, float]:
        """By layer kind: bytes of what autograd keeps of one layer's forward, each storage once, parameters
        not counted. The loss is the head's."""
        held = {p.untyped_storage().data_ptr() for p in self.net.parameters()}
        sizes: dict[int, int] = {}

        def note(kept: Tensor) -> Tensor:
            storage = kept.untyped_storage()
            if storage.data_ptr() not in held:
                sizes.setdefault(storage.data_ptr(), storage.nbytes())
            return kept.detach()  # with its graph it would hold itself, and nothing would ever be freed

        found: dict[str, list[float]] = {}
        x, y = self.batches(0)[0]
        kept_so_far = []  # a storage that is gone would give its address to the next
        hooks = torch.autograd.graph.saved_tensors_hooks(note, lambda kept: kept)
        with hooks, precision(self.job, self.bench.device):
            state = self.net.enter(x)
            for kind, layer in zip(self.kinds, self.net.layers, strict=True):
                before = sum(sizes.values())
                state = layer(state)
                kept_so_far.append(state)
                if layer is self.net.layers[-1]:
                    kept_so_far.append(self.loss(self._outputs(state), y))
                found.setdefault(kind, []).append(float(sum(sizes.values()) - before))
        return {kind: sum(own) / len(own) for kind, own in found.items()}

    def _stamp(self, x: Tensor, y: Tensor) -> Times:
        stamp = self._stamped_now
        stamps: list[Any] = [stamp()]
        arrivals: list[Any] = []
        with precision(self.job, self.bench.device):
            state = self.net.enter(x)
            for layer in self.net.layers:
                before, state = state, layer(state)
                stamps.append(stamp())
                if layer is not self.net.layers[-1]:
                    _when_gradients_come(before, state, lambda *_: arrivals.append(stamp()))
            scalar = self.loss(self._outputs(state), y)
        stamps[-1] = stamp()
        arrivals.insert(0, stamp())
        scalar.backward()
        arrivals.append(stamp())
        self.bench.clock.settle()
        return {
            **self._means("forward", self.kinds, stamps),
            **self._means("backward", self.kinds[::-1], arrivals),
        }

    def _outputs(self, state: Any) -> Any:
        """What the loss is of, from what the last layer gave."""
        return self.net.leave(state, self.net.indices[-1])

    def _stamped_now(self) -> tuple[Any, Moment]:
        """This moment, and what left-out exchanges took until now."""
        return self.bench.stamp(), self.part.exchanged

    def _means(self, name: str, kinds: list[str], stamps: list[tuple[Any, Moment]]) -> Times:
        times = [(self.bench.resolve(stamp), exchanged) for stamp, exchanged in stamps]
        each = [
            end.since(start).since(until.since(before)) for (start, before), (end, until) in pairwise(times)
        ]
        found: dict[str, list[Moment]] = {}
        for kind, moment in zip(kinds, each, strict=True):
            found.setdefault(kind, []).append(moment)
        return {(name, kind): total(own).times(1 / len(own)) for kind, own in found.items()}


def _when_gradients_come(before: Any, state: Any, call: Callable[..., None]) -> None:
    """Call ``call`` in backward once the gradients of what a layer made are there: of ``state``, but for what
    it only carries on from ``before``."""
    given = before if isinstance(before, tuple) else (before,)
    made = state if isinstance(state, tuple) else (state,)
    new = [x for x in made if x.requires_grad and not any(x is one for one in given)]
    torch.autograd.graph.register_multi_grad_hook(new, call)


def shape_of(stack: Stack, division: Division) -> dict[str, Any]:
    """What a profile of ``stack`` depends on, as plain values."""
    common = {**asdict(division), "seq_len": stack.job.seq_len, "precision": stack.bench.precision}
    network = stack.job.model.network
    if network is not None:
        return {"network": dict(Counter(part.digest for part in network.parts)), **common}
    fields = asdict(stack.decoder)
    del fields["layers"]
    return {**fields, **common}


def kind_shape(stack: Stack, shape: dict[str, Any], kind: str) -> dict[str, Any]:
    """``shape`` of the profile of one kind of layer."""
    network = stack.job.model.network
    if network is None:
        return {"kind": kind, **shape}
    own = {name: value for name, value in shape.items() if name != "network"}
    return {"kind": NETWORK_LAYER, "variant": network.by_kind[kind].digest, **own}
