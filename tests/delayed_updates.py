"""One process that makes updates as other rules than synchronous training have them, in turn.

A pipeline that is never drained computes with weights that later updates do not touch (PipeDream: Narayanan
et al. 2019, section 3.3); replicas that average now and then drift apart between (local SGD: Stich 2019).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from traincast.executor.model.decoder import Layers
from traincast.executor.model.optimizer import make_optimizer
from traincast.executor.model.reference import Outcome
from traincast.executor.model.workload import Workload
from traincast.sim.plan.action import BACKWARDS, Action, Kind
from traincast.sim.plan.plan import Plan
from traincast.sim.plan.step_counts import steps_played

TABLE = "0.tokens.weight"


class _StageWeights:
    """The versions of one stage's parameters, as its list of actions makes them."""

    def __init__(self, plan: Plan, actions: Sequence[Action], parameters: dict[str, Tensor]):
        self.actions = actions
        self.own = {name: nn.Parameter(value.detach().clone()) for name, value in parameters.items()}
        self.optimizer = make_optimizer(plan.job, self.own.values())
        self.gradients: dict[int, dict[str, Tensor]] = {}
        """By micro-batch."""
        self.place = 0

    def until_forward(self, micro_batch: int | None) -> None:
        """Make the updates that come before the forward of ``micro_batch``, or all."""
        while self.place < len(self.actions):
            action = self.actions[self.place]
            if action.kind is Kind.FORWARD and action.micro_batch == micro_batch:
                return
            self.place += 1
            if action.kind in BACKWARDS:
                for name, gradient in self.gradients[action.micro_batch].items():
                    held = self.own[name]
                    held.grad = gradient.clone() if held.grad is None else held.grad + gradient
            if action.kind is Kind.STEP:
                self.optimizer.step()
                self.optimizer.zero_grad()


def never_drained(plan: Plan, walks: int = 1) -> Outcome:
    """Losses by step and final parameters of a pipeline that is never drained, from each rank's list: a
    micro-batch meets on every stage the version that was the latest when the list has its forward. A walk
    begins with what the one before left."""
    job, strategy, per_step = plan.job, plan.strategy, plan.micro_batches
    decoder = job.model.decoder
    tied, head = decoder.tied_embeddings and strategy.pp > 1, f"{decoder.layers + 1}.output.weight"
    model = _untied(plan) if tied else _layers(plan)
    named = model.named()
    samples = Workload(job=job).samples()
    stages = [
        _StageWeights(
            plan,
            plan.actions[plan.stage_ranks[stage.index]],
            {n: p for n, p in named.items() if int(n.split(".")[0]) in stage.layer_indices},
        )
        for stage in plan.stages
    ]
    count = steps_played(strategy, job) * per_step
    losses = []
    for walk in range(walks):
        batches = [
            [
                part
                for step in range(count // per_step)
                for part in samples.micro_batches(
                    walk * count // per_step + step, dp, strategy.dp, strategy.micro_batch
                )
            ]
            for dp in range(strategy.dp)
        ]
        for stage in stages:
            stage.place = 0
        for index in range(count):
            for stage in stages:
                stage.until_forward(index)
                with torch.no_grad():
                    for name, value in stage.own.items():
                        named[name].copy_(value)
            model.zero_grad()
            model.set_loss_scale(1.0 / (per_step * strategy.dp))
            total = 0.0
            for own in batches:
                value = model.loss(model(own[index][0]), own[index][1]) / (per_step * strategy.dp)
                value.backward()
                total += value.item()
            losses.append(total)
            gradients = {name: p.grad.clone() for name, p in named.items() if p.grad is not None}
            if tied:
                gradients[TABLE] = gradients[head] = gradients[TABLE] + gradients[head]
            for stage in stages:
                stage.gradients[index] = {n: gradients[n] for n in stage.own if n in gradients}
        for stage in stages:
            stage.until_forward(None)
    final = {name: p.detach() for stage in stages for name, p in stage.own.items()}
    if tied:
        del final[head]
    return Outcome([sum(losses[s : s + per_step]) for s in range(0, len(losses), per_step)], final, {})


def _layers(plan: Plan) -> Layers:
    return Workload(job=plan.job, ep=plan.strategy.ep).layers(range(len(plan.job.model.layers)))


def _untied(plan: Plan) -> Layers:
    """The layers with a head of their own that begins as the embedding."""
    job, own = plan.job, replace(plan.job.model.decoder, tied_embeddings=False)
    model = replace(job.model, decoder=own)
    made = _layers(replace(plan, job=replace(job, model=model)))
    with torch.no_grad():
        made.named()[f"{own.layers + 1}.output.weight"].copy_(made.named()[TABLE])
    return made


def averaged_now_and_then(plan: Plan, steps: int) -> Outcome:
    """Replicas that each make steps of their own, and average their parameters every so many."""
    job, strategy = plan.job, plan.strategy
    replicas = [_layers(plan) for _ in range(strategy.dp)]
    samples = Workload(job=job).samples()
    optimizers = [
        make_optimizer(job, [p for p in model.parameters() if p.requires_grad]) for model in replicas
    ]
    losses = []
    for step in range(steps):
        total = 0.0
        for dp, (model, optimizer) in enumerate(zip(replicas, optimizers, strict=True)):
            parts = samples.micro_batches(step, dp, strategy.dp, strategy.micro_batch)
            model.set_loss_scale(1.0 / len(parts))
            optimizer.zero_grad()
            for inputs, targets in parts:
                value = model.loss(model(inputs), targets) / len(parts)
                value.backward()
                total += value.item() / strategy.dp
            optimizer.step()
        losses.append(total)
        if (step + 1) % strategy.protocol[1] == 0:
            with torch.no_grad():
                for several in zip(*(model.parameters() for model in replicas), strict=True):
                    mean = torch.stack(list(several)).mean(0)
                    for one in several:
                        one.copy_(mean)
    return Outcome(losses, {name: p.detach() for name, p in replicas[0].named().items()}, {})
