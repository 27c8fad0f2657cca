"""What of a model that is no decoder, or of its samples, cannot be run, and why."""

from __future__ import annotations

from ...sim.errors import TraincastError
from ...sim.plan.joined_backward import has_halves
from ...sim.plan.plan import Plan
from ...sim.plan.software_stacks import EXECUTOR_STACK
from ...sim.plan.strategy import Strategy
from .networks.program import Call, Program
from .workload import Workload

RECURRENT = ("lstm",)
"""Calls whose weights have all their gradients from one node of the graph."""


def refusals(plan: Plan) -> list[str]:
    """One sentence for each thing that cannot be run; code of the user's own that the plan names is
    imported."""
    workload = Workload(job=plan.job)
    try:
        program = workload.program
        workload.samples()
    except TraincastError as error:
        return [str(error)]
    if plan.job.model.network is None:
        return _of_decoder(plan)
    found = _of_strategy(plan)
    return found if program is None else found + _of_program(program, plan)


def _of_decoder(plan: Plan) -> list[str]:
    if not plan.job.loss:
        return []
    return [f"loss {plan.job.loss}: a decoder has its own, the cross entropy of the next token"]


def _of_strategy(plan: Plan) -> list[str]:
    """What is made for decoders alone."""
    strategy, name, found = plan.strategy, plan.job.model.name, []
    if strategy.ep > 1:
        found.append(f"ep {strategy.ep}: {name} has no experts that are known")
    if strategy.recompute not in ("none", "full"):
        found.append(
            f"recompute {strategy.recompute} needs to know the attention of {name}; run none or full"
        )
    if strategy.stack not in (Strategy().stack, EXECUTOR_STACK):
        found.append(f"stack {strategy.stack}: {name} runs eagerly; run {EXECUTOR_STACK}")
    if plan.job.loss and not plan.job.model.module:
        found.append(f"loss {plan.job.loss}: {name} has its own")
    return found


def _of_program(program: Program, plan: Plan) -> list[str]:
    name, found = plan.job.model.name, []
    if any(call.arguments.get("sparse") for call in program.calls if call.name == "lookup"):
        found.append(f"{name} has tables with sparse gradients, which are simulated but not run yet")
    if any(call.name in RECURRENT for call in program.calls) and has_halves(plan.actions):
        found.append(
            f"schedule {plan.strategy.schedule}: the recurrent layers of {name} are differentiated in one "
            "go, not in halves; run a schedule of whole backwards"
        )
    found += _cut_tables(program, plan)
    for call in program.losses[:-1]:
        if _stage_of(call, plan) != _stage_of(program.losses[-1], plan):
            found.append(
                f"{name} has an output before its last (layer {call.layer}), which a message between stages"
                " does not carry: run it with both on one stage"
            )
    return found


def _cut_tables(program: Program, plan: Plan) -> list[str]:
    """Tables that several layers use, on stages or servers of their own."""
    owner, name = program.table, plan.job.model.name
    if owner is None or not program.sharing:
        return []
    if plan.strategy.sharding != "ddp":
        return [f"sharding {plan.strategy.sharding}: layers of {name} share a table; run ddp"]
    if all(_stage_of(call, plan) == _stage_of(owner, plan) for call in program.sharing):
        return []
    users = ", ".join(sorted({str(call.layer) for call in program.sharing}, key=int))
    return [
        f"layers {users} of {name} share the table of layer {owner.layer}, whose gradients stages do not add"
        " up: run it with these on one stage"
    ]


def _stage_of(call: Call, plan: Plan) -> int:
    return next(stage.index for stage in plan.stages if call.layer in stage.layer_indices)
