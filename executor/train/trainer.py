"""A worker without parameter servers: walks its stage's actions, step by step."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from ...sim.errors import RunError
from ...sim.plan.action import Action, Actions, Kind
from ...sim.plan.plan import Plan
from ..measure.recorder import COMPUTE, Recorder
from ..model.data import Text
from ..model.decoder import Layers, build_layers
from ..model.optimizer import make_optimizer
from ..parallel.data import Reduction
from ..parallel.process_groups import Groups
from .stage import DTYPES, PipelinedStage, WholeModel, mean_loss, precision, use_products_of

WAITED_S = 300e-6
"""A receive that returns sooner than this had arrived before anybody looked: asking gloo for a message that
is there takes 0.05 to 0.2 ms."""


class Trainer:
    """One worker's model, data and optimizer."""

    def __init__(
        self, plan: Plan, rank: int, device: torch.device, groups: Groups, recorder: Recorder, seed: int
    ):
        self.plan, self.rank, self.device, self.groups, self.recorder = plan, rank, device, groups, recorder
        self.pp, self.dp, _, self.tp = plan.coordinates(rank)
        self.text = Text(plan.job, seed)
        use_products_of(plan.job)
        self.layers: Layers = build_layers(
            plan.job.model.decoder,
            plan.stages[self.pp].layer_indices,
            seed=seed,
            recompute=plan.strategy.recompute,
            recompute_blocks=plan.strategy.recompute_blocks,
            device=device,
        )
        self.optimizer = make_optimizer(plan.job, self.layers.parameters())
        self.reduction: Reduction | None = None
        self.module: torch.nn.Module = self.layers
        if groups.dp is not None:
            place = f"stage{self.pp}"
            self.reduction = Reduction(groups.dp, recorder, self.pp, place)
            self.module = self.reduction.wrap(self.layers, plan.stages[self.pp].buckets)
        self.stage = self._stage()
        self.handlers: dict[Kind, Callable[[Action], None]] = {
            Kind.FORWARD: self._forward,
            Kind.BACKWARD: self._backward,
            Kind.SEND_F: self._send,
            Kind.SEND_B: self._send,
            Kind.RECV_F: self._receive,
            Kind.RECV_B: self._receive,
            Kind.REDUCE_GRAD: self._reduced,
            Kind.REDUCE_TIED: self._reduce_tied,
            Kind.STEP: self._step,
        }

    def _stage(self) -> PipelinedStage | WholeModel:
        plan = self.plan
        if plan.strategy.pp == 1:
            return WholeModel(self.module)
        shape = (plan.strategy.micro_batch, plan.job.seq_len, plan.job.model.decoder.hidden)
        self.layers.boundary_dtype = DTYPES[plan.job.precision]
        boundary = torch.zeros(shape, dtype=self.layers.boundary_dtype, device=self.device)
        return PipelinedStage(
            self.module,
            self.pp,
            plan.strategy.pp,
            micro_batches=plan.micro_batches,
            boundary=boundary,
            groups=self.groups,
        )

    def train_step(self, step: int) -> float | None:
        """One step of the plan. Returns the replica's mean loss on the last stage, None elsewhere."""
        plan = self.plan
        self.batches = self.text.micro_batches(step, self.dp, plan.strategy.dp, plan.strategy.micro_batch)
        self.losses: dict[int, Tensor] = {}
        self.pending: dict[Action, tuple[object, list[dist.Work]]] = {}
        self.sends: list[dist.Work] = []
        self.stage.begin_step()
        actions = plan.actions[self.pp]
        self._post_receives(actions)
        for action in actions:
            self.handlers[action.kind](action)
        with self.recorder.heartbeat.waiting():
            for work in self.sends:
                work.wait()
        return sum(float(part) for part in self.losses.values()) if self.losses else None

    def _post_receives(self, actions: Actions) -> None:
        """All at once and first: gloo serialises the directions of a pair whose sends come first."""
        if not isinstance(self.stage, PipelinedStage):
            return
        for action in actions:
            if action.kind is Kind.RECV_F:
                self.pending[action] = (
                    self.recorder.clock.stamp(),
                    self.stage.receive_forward(action.micro_batch),
                )
            elif action.kind is Kind.RECV_B:
                self.pending[action] = (
                    self.recorder.clock.stamp(),
                    self.stage.receive_backward(action.micro_batch),
                )

    def _forward(self, action: Action) -> None:
        inputs, targets = self.batches[action.micro_batch]
        issued = self.recorder.clock.stamp()
        with precision(self.plan.job, self.device), self._no_sync(action):
            out = self.stage.forward(action.micro_batch, inputs.to(self.device))
            if self.pp == self.plan.strategy.pp - 1:
                self.losses[action.micro_batch] = mean_loss(
                    out, targets.to(self.device), self.plan.micro_batches
                )
        self.recorder.add(action, COMPUTE, issued, self.recorder.clock.stamp())

    def _no_sync(self, action: Action):
        """Only the last micro-batch's backward reduces gradients. A pipeline's stage sees to it itself."""
        whole = isinstance(self.stage, WholeModel)
        if whole and isinstance(self.module, DistributedDataParallel) and not self._is_last(action):
            return self.module.no_sync()
        return nullcontext()

    def _is_last(self, action: Action) -> bool:
        return action.micro_batch == self.plan.micro_batches - 1

    def _backward(self, action: Action) -> None:
        issued = self.recorder.clock.stamp()
        if self.reduction:
            self.reduction.begin_backward()
        loss = self.losses.get(action.micro_batch)
        with self._no_sync(action):
            self.stage.backward(action.micro_batch, loss, self._is_last(action))
        if self.reduction:
            self.reduction.end_backward()
        if loss is not None:
            self.losses[action.micro_batch] = loss.detach()
        # DDP waits for its reductions inside backward; compute is over once the last one is issued.
        reduced = self.reduction.issued_last if self.reduction else None
        self.recorder.add(action, COMPUTE, issued, reduced or self.recorder.clock.stamp())

    def _message_key(self, action: Action) -> str:
        """The same on both sides: direction, the lower stage, micro-batch, replica."""
        forward = action.kind in (Kind.SEND_F, Kind.RECV_F)
        sender_lower = action.kind in (Kind.SEND_F, Kind.RECV_B)
        lower = action.stage if sender_lower else action.stage - 1
        return f"{'F' if forward else 'B'}{lower}:{action.micro_batch}:{self.dp}:{self.tp}"

    def _send(self, action: Action) -> None:
        assert isinstance(self.stage, PipelinedStage)
        issued = self.recorder.clock.stamp()
        forward = action.kind is Kind.SEND_F
        send = self.stage.send_forward if forward else self.stage.send_backward
        self.sends += send(action.micro_batch)
        self._note_message(action, issued, None)

    def _receive(self, action: Action) -> None:
        issued, works = self.pending.pop(action)
        before = self.recorder.clock.stamp()
        with self.recorder.heartbeat.waiting():
            for work in works:
                work.wait()
        after = self.recorder.clock.stamp()
        waited = not isinstance(before, float) or not isinstance(after, float) or after - before > WAITED_S
        self._note_message(action, issued, after if waited else None)

    def _note_message(self, action: Action, issued: object, end: object) -> None:
        upstream = action.kind in (Kind.SEND_F, Kind.RECV_B)
        size = self.plan.sizes.messages[action.stage if upstream else action.stage - 1]
        channel = "pp-forward" if action.kind in (Kind.SEND_F, Kind.RECV_F) else "pp-backward"
        key = self._message_key(action)
        self.recorder.add(action, "pp", issued, end, size_bytes=size, key=key, channel=channel)

    def _reduced(self, action: Action) -> None:
        """DDP has reduced its buckets inside the last backward, and noted them itself."""

    def _reduce_tied(self, action: Action) -> None:
        """The embedding's matrix lives on the first and the last stage; each has part of its gradient."""
        gradient = self.tied_parameter().grad
        assert gradient is not None
        issued = self.recorder.clock.stamp()
        with self.recorder.heartbeat.waiting():
            dist.all_reduce(gradient, group=self.groups.tied)
        size = gradient.numel() * gradient.element_size()
        key = f"tied:{self.dp}:{self.tp}"
        self.recorder.add(action, "dp", issued, self.recorder.clock.stamp(), size_bytes=size, key=key)

    def tied_parameter(self) -> torch.nn.Parameter:
        """The matrix that embedding and head share."""
        layer = self.layers.layers[0] if self.pp == 0 else self.layers.layers[-1]
        return layer.tokens.weight if self.pp == 0 else layer.output.weight  # type: ignore[union-attr, return-value]

    def _step(self, action: Action) -> None:
        self._check_losses()
        issued = self.recorder.clock.stamp()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.recorder.add(action, COMPUTE, issued, self.recorder.clock.stamp())

    def _check_losses(self) -> None:
        """Nothing is learned from a loss that is no number."""
        for index, loss in self.losses.items():
            if not torch.isfinite(loss):
                raise RunError(f"loss of micro-batch {index} is {float(loss)} at step {self.recorder.step}")

    def parameters_by_layer(self) -> dict[int, list[Tensor]]:
        """A copy of what it holds, for comparison with a single process."""
        held = self.layers.layer_parameters()
        return {index: [p.detach().cpu().clone() for p in own] for index, own in held.items()}
