"""Parameter servers and their workers, on point-to-point messages.

Each server holds the layers of its shard with their optimizer; a worker exchanges one flat message with it
each way. Messages are CPU tensors on gloo, wherever the worker computes: gradients are staged.

A synchronous server averages all workers' gradients and steps once. An asynchronous one steps for each
worker's gradients as they come, at 1/workers of the learning rate, so that as many updates as there are
workers move the parameters as far as one synchronous step would (Dean et al. 2012, section 4.1).
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ...sim.errors import RunError
from ...sim.plan.action import Action, Kind
from ...sim.plan.plan import Plan
from ..measure.recorder import COMPUTE, CpuClock, Recorder
from ..model.data import Text
from ..model.decoder import build_layers
from ..model.optimizer import make_optimizer
from ..train.stage import mean_loss, precision

PULL, PUSH = 1, 2
"""Message tags."""


def flat(parameters: Sequence[Tensor]) -> Tensor:
    """All values of ``parameters`` in one CPU tensor."""
    return torch.cat([p.detach().reshape(-1).cpu() for p in parameters])


def unflatten(values: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """The parts of ``values`` in the shapes of ``like``."""
    parts = values.split([p.numel() for p in like])
    return [part.view_as(p) for part, p in zip(parts, like, strict=True)]


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

    def _post_pulls(self) -> list[dist.Work]:
        """Posted before the pushes that they answer, or the two directions would serialise."""
        pairs = zip(self.buffers, self.plan.server_ranks, strict=True)
        return [_work(dist.irecv(buffer, server, tag=PULL)) for buffer, server in pairs]

    def train_step(self, step: int, last: bool) -> float:
        """One step of the plan; ``last`` pulls no more. Returns the worker's mean loss."""
        losses = []
        batches = self.text.micro_batches(
            step, self.rank, self.plan.strategy.dp, self.plan.strategy.micro_batch
        )
        for action in self.plan.actions[0]:
            issued = self.recorder.clock.stamp()
            if action.kind is Kind.PULL:
                self._pull(action, issued)
            elif action.kind is Kind.PUSH:
                self._push(action, issued, last)
            elif action.kind is Kind.FORWARD:
                losses.append(self._forward(*batches[action.micro_batch]))
                self.recorder.add(action, COMPUTE, issued, self.recorder.clock.stamp())
            elif action.kind is Kind.BACKWARD:
                losses[action.micro_batch].backward()
                losses[action.micro_batch] = losses[action.micro_batch].detach()
                self.recorder.add(action, COMPUTE, issued, self.recorder.clock.stamp())
        return sum(float(loss) for loss in losses)

    def _forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        with precision(self.plan.job, self.device):
            logits = self.layers(inputs.to(self.device))
            loss = mean_loss(logits, targets.to(self.device), self.plan.micro_batches)
        if not torch.isfinite(loss):
            raise RunError(f"loss is {float(loss)} at step {self.recorder.step}")
        return loss

    def _pull(self, action: Action, issued: object) -> None:
        for number, work in enumerate(self.receives):
            with self.recorder.heartbeat.waiting():
                work.wait()
            self._note(action, number, issued, self.recorder.clock.stamp())
            for parameter, values in zip(
                self.shards[number], unflatten(self.buffers[number], self.shards[number]), strict=True
            ):
                parameter.data.copy_(values)

    def _push(self, action: Action, issued: object, last: bool) -> None:
        with self.recorder.heartbeat.waiting():
            for work in self.sends:
                work.wait()
        if not last:
            self.receives = self._post_pulls()
        self.pushed = [flat([_gradient(p) for p in shard]) for shard in self.shards]
        self.layers.zero_grad(set_to_none=True)
        pairs = zip(self.pushed, self.plan.server_ranks, strict=True)
        self.sends = [_work(dist.isend(gradients, server, tag=PUSH)) for gradients, server in pairs]
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

    def parameters_by_layer(self) -> dict[int, list[Tensor]]:
        """Its own copy may be old; the servers' is what counts."""
        return {}


class Server:
    """Holds a shard of the layers and steps them."""

    def __init__(self, plan: Plan, rank: int, recorder: Recorder, seed: int):
        self.plan, self.rank, self.recorder = plan, rank, recorder
        self.number = rank - plan.strategy.workers
        self.shard = plan.shards[self.number]
        layers = range(len(plan.job.model.layers))
        self.layers = build_layers(plan.job.model.decoder, layers, seed=seed).layer_parameters()
        self.parameters = [p for index in self.shard for p in self.layers[index]]
        workers = plan.strategy.dp
        factor = 1.0 / workers if plan.strategy.synchrony == "async" else 1.0
        self.optimizer = make_optimizer(plan.job, self.parameters, rate_factor=factor)
        self.buffers = [flat(self.parameters) for _ in range(workers)]
        self.clock = CpuClock()
        self.version = 0
        self.staleness: list[int] = []
        self.lock = threading.Lock()
        self.failure: BaseException | None = None

    def synchronous_step(self, step: int) -> None:
        """Send everyone the parameters, take everyone's gradients, step once."""
        workers = range(self.plan.strategy.dp)
        receives = [_work(dist.irecv(self.buffers[w], w, tag=PUSH)) for w in workers]
        issued = self.clock.stamp()
        values = flat(self.parameters)
        sends = [_work(dist.isend(values, w, tag=PULL)) for w in workers]
        for worker in workers:
            self._note(Kind.PULL, worker, issued, None, step)
        for worker, work in enumerate(receives):
            with self.recorder.heartbeat.waiting():
                work.wait()
            self._note(Kind.PUSH, worker, issued, self.clock.stamp(), step)
        begun = self.clock.stamp()
        self._apply(torch.stack(self.buffers).mean(dim=0))
        done = Action.of(Kind.APPLY, server=self.number)
        self.recorder.add(done, COMPUTE, begun, self.clock.stamp(), step=step)
        with self.recorder.heartbeat.waiting():
            for work in sends:
                work.wait()

    def serve_asynchronously(self, steps: int) -> None:
        """Serve every worker at its own pace until all have made ``steps`` updates."""
        threads = [
            threading.Thread(target=self._serve, args=(worker, steps), name=f"worker-{worker}")
            for worker in range(self.plan.strategy.dp)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self.failure:
            raise self.failure

    def _serve(self, worker: int, steps: int) -> None:
        try:
            for step in range(steps):
                self._serve_once(worker, step)
        except BaseException as error:
            self.failure = self.failure or error

    def _serve_once(self, worker: int, step: int) -> None:
        receive = _work(dist.irecv(self.buffers[worker], worker, tag=PUSH))
        with self.lock:
            values, version = flat(self.parameters), self.version
        issued = self.clock.stamp()
        send = _work(dist.isend(values, worker, tag=PULL))
        self._note(Kind.PULL, worker, issued, None, step)
        with self.recorder.heartbeat.waiting():
            send.wait()
            receive.wait()
        self._note(Kind.PUSH, worker, issued, self.clock.stamp(), step)
        with self.lock:
            begun = self.clock.stamp()
            self._apply(self.buffers[worker])
            self.staleness.append(self.version - version)
            self.version += 1
            self.recorder.heartbeat.ended(self.version // self.plan.strategy.dp - 1)
            done = Action.of(Kind.APPLY, server=self.number, worker=worker)
            self.recorder.add(done, COMPUTE, begun, self.clock.stamp(), step=step)

    def _apply(self, gradients: Tensor) -> None:
        for parameter, gradient in zip(self.parameters, unflatten(gradients, self.parameters), strict=True):
            parameter.grad = gradient
        self.optimizer.step()

    def _note(self, kind: Kind, worker: int, issued: object, end: object, step: int) -> None:
        size = self.plan.sizes.shards[self.number]
        key = f"{kind}:{worker}:{self.number}"
        action = Action.of(kind, server=self.number, worker=worker)
        self.recorder.add(action, "ps", issued, end, size_bytes=size, key=key, channel=f"ps{key}", step=step)

    def parameters_by_layer(self) -> dict[int, list[Tensor]]:
        """A copy of the shard."""
        return {index: [p.detach().clone() for p in self.layers[index]] for index in self.shard}


def _gradient(parameter: nn.Parameter) -> Tensor:
    return parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)


def _work(work: dist.Work | None) -> dist.Work:
    assert work is not None, "every rank is in the default group"
    return work
