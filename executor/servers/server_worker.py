"""A worker of parameter servers: pulls parameters, computes gradients, pushes them, as its actions say.

Messages are CPU tensors, wherever the worker computes: gradients are staged.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ...sim.errors import RunError
from ...sim.plan.action import Action, Kind
from ...sim.plan.plan import Plan
from ..measure.recorder import COMPUTE, Recorder
from ..model.data.text import Text
from ..model.decoder import build_layers
from ..model.decoder import loss as mean_loss
from ..train.handlers import Handlers, walk
from ..train.stage import precision
from .exchange import PULL, PUSH, flat, started, unflatten


class ServerWorker:
    """Pulls parameters, computes gradients of its samples, pushes them."""

    def __init__(self, plan: Plan, rank: int, device: torch.device, recorder: Recorder, seed: int):
        self.plan, self.rank, self.device, self.recorder = plan, rank, device, recorder
        self.text = Text(plan.job, seed)
        # Drawn on the CPU, where the servers draw theirs.
        self.layers = build_layers(
            plan.job.model.decoder,
            range(len(plan.job.model.layers)),
            seed=seed,
            recompute=plan.strategy.recompute,
            recompute_blocks=plan.strategy.recompute_blocks,
        ).to(device)
        held = self.layers.layer_parameters()
        self.shards: list[list[nn.Parameter]] = [
            [p for index in shard for p in held[index]] for shard in plan.shards
        ]
        self.buffers = [flat(shard) for shard in self.shards]
        self.receives = self._post_pulls()
        self.sends: list[dist.Work] = []
        self.handlers: Handlers = {
            Kind.PULL: self._pull,
            Kind.FORWARD: self._forward,
            Kind.BACKWARD: self._backward,
            Kind.PUSH: self._push,
        }

    def _post_pulls(self) -> list[dist.Work]:
        """Posted before the pushes that they answer, or the two directions would serialise."""
        pairs = zip(self.buffers, self.plan.server_ranks, strict=True)
        return [started(dist.irecv(buffer, server, tag=PULL)) for buffer, server in pairs]

    def train_step(self, step: int, last: bool) -> float:
        """One step of the plan; ``last`` pulls no more. Returns the worker's mean loss."""
        strategy = self.plan.strategy
        self.batches = self.text.micro_batches(step, self.rank, strategy.dp, strategy.micro_batch)
        self.losses: dict[int, Tensor] = {}
        self.last = last
        walk(self.plan.actions[0], self.handlers)
        return sum(float(loss) for loss in self.losses.values())

    def _forward(self, action: Action) -> None:
        issued = self.recorder.clock.stamp()
        inputs, targets = self.batches[action.micro_batch]
        with precision(self.plan.job, self.device):
            logits = self.layers(inputs.to(self.device))
            loss = mean_loss(logits, targets.to(self.device)) / self.plan.micro_batches
        if not torch.isfinite(loss):
            raise RunError(f"loss is {float(loss)} at step {self.recorder.step}")
        self.losses[action.micro_batch] = loss
        self.recorder.add(action, COMPUTE, issued, self.recorder.clock.stamp())

    def _backward(self, action: Action) -> None:
        issued = self.recorder.clock.stamp()
        loss = self.losses[action.micro_batch]
        loss.backward()
        self.losses[action.micro_batch] = loss.detach()
        self.recorder.add(action, COMPUTE, issued, self.recorder.clock.stamp())

    def _pull(self, action: Action) -> None:
        issued = self.recorder.clock.stamp()
        for number, work in enumerate(self.receives):
            with self.recorder.heartbeat.waiting():
                work.wait()
            self._note(action, number, issued, self.recorder.clock.stamp())
            for parameter, values in zip(
                self.shards[number], unflatten(self.buffers[number], self.shards[number]), strict=True
            ):
                parameter.data.copy_(values)

    def _push(self, action: Action) -> None:
        issued = self.recorder.clock.stamp()
        with self.recorder.heartbeat.waiting():
            for work in self.sends:
                work.wait()
        if not self.last:
            self.receives = self._post_pulls()
        self.pushed = [flat([_gradient(p) for p in shard]) for shard in self.shards]
        self.layers.zero_grad(set_to_none=True)
        pairs = zip(self.pushed, self.plan.server_ranks, strict=True)
        self.sends = [started(dist.isend(gradients, server, tag=PUSH)) for gradients, server in pairs]
        for number in range(len(self.sends)):
            self._note(action, number, issued, None)

    def _note(self, action: Action, number: int, issued: object, end: object) -> None:
        size = self.plan.sizes.shards[number]
        key = f"{action.kind}:{self.rank}:{number}"
        self.recorder.add(action, "ps", issued, end, size_bytes=size, key=key, channel=f"ps{key}")

    def finish(self) -> None:
        """Wait until the servers have the last gradients."""
        for work in self.sends:
            work.wait()

    def kept_state(self) -> dict[str, dict]:
        """Its own copy may be old; the servers' is what counts."""
        return {"parameters": {}}


def _gradient(parameter: nn.Parameter) -> Tensor:
    return parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)
