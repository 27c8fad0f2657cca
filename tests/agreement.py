"""Plans executed for real, held against one process on the same global batch, or with the same updates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from delayed_updates import averaged_now_and_then, never_drained
from ranks import TIMEOUT_S, run_ranks
from torch import Tensor

from traincast.executor.model.pieces import Piece, assemble, cut
from traincast.executor.model.reference import Outcome, single_process
from traincast.executor.model.workload import Workload
from traincast.executor.run.collect import collect
from traincast.executor.run.environment import check_environment
from traincast.executor.run.walks import steps_of_walk, walks
from traincast.executor.servers.replay import Order, replay
from traincast.sim.files.writer import write_json_atomic
from traincast.sim.plan.action import Kind
from traincast.sim.plan.blocks import PASSES
from traincast.sim.plan.plan import Plan
from traincast.sim.plan.plan_file import write_plan
from traincast.sim.plan.step_counts import is_unflushed
from traincast.sim.trace.trace import Trace

LOSS, STATE = 1e-6, 1e-5
"""Relative: of losses, and of gradients and parameters to the largest value of their tensor."""
NOISE = 1e-4
"""Of the largest value of all: tensors whose values are smaller are 0 but for rounding, as the gradient of a
router that has nothing to balance."""
MESSAGES = (Kind.SEND_F, Kind.RECV_F, Kind.SEND_B, Kind.RECV_B)
State = Mapping[str, Mapping[str, Any]]


def run(
    plan: Plan,
    directory: Path,
    *,
    steps: int,
    warmup: int,
    seed: int = 0,
    import_from: str = "",
    timeout_s: float = TIMEOUT_S,
) -> tuple[Trace, list[State]]:
    """Execute, and return the trace with what every rank ended with."""
    check_environment(plan)
    write_plan(plan, directory / "plan.json")
    spec = {"steps": steps, "warmup": warmup, "seed": seed, "keep_state": True}
    spec["import_from"] = import_from
    write_json_atomic(directory / "spec.json", spec)
    run_ranks(plan.world_size, _rank, str(directory), joined=False, timeout_s=timeout_s)
    trace = collect(plan, directory, warmup=walks(plan, warmup), seed=seed)
    return trace, [
        torch.load(directory / f"state.{rank}.pt", weights_only=False) for rank in range(plan.world_size)
    ]


def _rank(rank: int, directory: str) -> None:
    """What the worker of a run does, without its process."""
    from traincast.executor.run.worker import Rank

    Rank(Path(directory), rank).run()


def assert_runs_and_agrees(plan: Plan, directory: Path, *, steps: int = 1, warmup: int = 1) -> Trace:
    """Execute ``plan``, and hold it against one process that makes the updates which the plan's protocol has:
    those of the global batch, those that servers wrote down, delayed or local ones."""
    trace, states = run(plan, directory, steps=steps, warmup=warmup, timeout_s=60)
    for outcome in _outcomes(plan, trace, walks(plan, steps) + walks(plan, warmup)):
        assert_agrees(outcome, trace, states, **_tolerances(plan))
    assert set(trace.peak_memory_bytes) == set(range(plan.world_size))
    assert len(trace.step_times_s) <= steps
    if not plan.strategy.servers:
        _assert_did_what_was_planned(plan, trace)
    return trace


def _assert_did_what_was_planned(plan: Plan, trace: Trace) -> None:
    """Each rank has the passes, messages and updates of its list in the last walk, and no others."""
    last = max(span.step for span in trace.spans)
    noted = {*PASSES, *MESSAGES, Kind.STEP, *([Kind.REDUCE_GRAD] if plan.strategy.replicas > 1 else [])}
    for rank in range(plan.world_size):
        done = [
            span.action
            for span in trace.spans
            if (span.rank, span.step) == (rank, last) and span.kind in noted
        ]
        planned = [str(action) for action in plan.rank_actions(rank) if action.kind in noted]
        assert set(done) == set(planned)


def _outcomes(plan: Plan, trace: Trace, count: int) -> list[Outcome]:
    """What ``count`` walks are to lead to, each found in another way."""
    job, strategy, found = plan.job, plan.strategy, []
    protocol = strategy.protocol[0]
    if strategy.servers:
        again = replay(plan, Order.of(trace.metadata["applied_order"]))  # type: ignore[arg-type]
        found.append(_trained(plan, Outcome(again.mean_losses(), again.parameters, {})))
    elif is_unflushed(strategy):
        return [never_drained(plan, count)]
    elif protocol == "local":
        return [averaged_now_and_then(plan, count * steps_of_walk(plan))]
    if protocol == "sync":
        # A named network's loss may be a mean over some of the tokens: over those of a micro-batch.
        own = None if job.model.network is None else strategy.micro_batch
        alone = single_process(job, count, ep=strategy.ep, micro_batch=own)
        found.append(_trained(plan, alone) if strategy.servers else alone)
    return found


def _trained(plan: Plan, outcome: Outcome) -> Outcome:
    """Without the parameters that have no gradients, which servers do not hold."""
    layers = Workload(job=plan.job).layers(range(len(plan.job.model.layers)))
    frozen = {name for name, parameter in layers.named().items() if not parameter.requires_grad}
    kept = {name: value for name, value in outcome.parameters.items() if name not in frozen}
    return outcome._replace(parameters=kept)


def _tolerances(plan: Plan) -> dict[str, float]:
    """Adaptive steps make of the rounding of a gradient that is 0 what they make of any; half precision has
    8 or 11 bits, and fp16's gradients a scale; dropout draws what one process does not."""
    job = plan.job
    if job.dropout:
        return {"loss": 0.2, "state": math.inf}
    if job.precision in ("bf16", "fp16"):
        return {"loss": 2e-2, "state": math.inf}
    return {"loss": 1e-4, "state": math.inf} if job.optimizer == "adamw" else {}


def assert_agrees(
    outcome: Outcome, trace: Trace, states: Sequence[State], *, loss: float = LOSS, state: float = STATE
) -> None:
    """Losses of every step, parameters after the last and, where they were kept, its gradients."""
    measured = trace.metadata["losses"]
    assert isinstance(measured, list)
    assert len(measured) == len(outcome.losses)
    off = max(abs(a / b - 1) for a, b in zip(measured, outcome.losses, strict=True))
    assert off < loss, f"losses differ by {off:.2g}"
    pieces = [held.get("pieces", {}) for held in states]
    parameters = [held["parameters"] for held in states]
    assert_same(outcome.parameters, parameters, pieces, "parameter", state)
    if outcome.gradients and any(held.get("gradients") for held in states):
        assert_same(outcome.gradients, [held["gradients"] for held in states], pieces, "gradient", state)


def assert_same(
    expected: Mapping[str, Tensor],
    held: Sequence[Mapping[str, Tensor]],
    pieces: Sequence[Mapping[str, Piece]],
    what: str,
    tolerance: float = STATE,
) -> None:
    """Every rank's tensors are those of a single process, or ``pieces`` of them, and all of them are held by
    somebody."""
    floor = max(NOISE * max(map(_largest, expected.values())), 1e-12)
    named = [_by_name_of_one_process(own, expected) for own in held]
    pieces = [_by_name_of_one_process(own, expected) for own in pieces]
    for rank, (own, parts) in enumerate(zip(named, pieces, strict=True)):
        for name, tensor in own.items():
            whole = expected[name]
            off = float((tensor - cut(whole, parts.get(name))).abs().max()) / max(_largest(whole), floor)
            assert off < tolerance, f"rank {rank}: {what} {name} differs by {off:.2g}"
    found = assemble(zip(named, pieces, strict=True))
    assert found.keys() == expected.keys(), f"nobody holds {what} {sorted(expected.keys() - found.keys())}"


def _largest(values: Tensor) -> float:
    return float(values.abs().max())


def _by_name_of_one_process(own: Mapping[str, Any], expected: Mapping[str, Tensor]) -> dict[str, Any]:
    """A tied head on a stage of its own has a copy of the embedding's matrix."""
    return {name if name in expected else "0.tokens.weight": value for name, value in own.items()}
