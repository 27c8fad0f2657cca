"""Plans executed for real, held against a single process on the same global batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from ranks import run_ranks
from torch import Tensor

from traincast.executor.model.pieces import Piece, assemble, cut
from traincast.executor.model.reference import Outcome, relative_difference
from traincast.executor.run.collect import collect
from traincast.executor.run.environment import check_environment
from traincast.executor.run.walks import walks
from traincast.sim.files.writer import write_json_atomic
from traincast.sim.plan.plan import Plan
from traincast.sim.plan.plan_file import write_plan
from traincast.sim.trace.trace import Trace

LOSS, STATE = 1e-6, 1e-5
"""Relative: of losses, and of gradients and parameters to the largest value of their tensor."""
State = Mapping[str, Mapping[str, Any]]


def run(
    plan: Plan, directory: Path, *, steps: int, warmup: int, seed: int = 0, import_from: str = ""
) -> tuple[Trace, list[State]]:
    """Execute, and return the trace with what every rank ended with."""
    check_environment(plan)
    write_plan(plan, directory / "plan.json")
    spec = {"steps": steps, "warmup": warmup, "seed": seed, "keep_state": True}
    spec["import_from"] = import_from
    write_json_atomic(directory / "spec.json", spec)
    run_ranks(plan.world_size, _rank, str(directory), joined=False)
    trace = collect(plan, directory, warmup=walks(plan, warmup), seed=seed)
    return trace, [
        torch.load(directory / f"state.{rank}.pt", weights_only=False) for rank in range(plan.world_size)
    ]


def _rank(rank: int, directory: str) -> None:
    """What the worker of a run does, without its process."""
    from traincast.executor.run.worker import Rank

    Rank(Path(directory), rank).run()


def assert_agrees(outcome: Outcome, trace: Trace, states: Sequence[State]) -> None:
    """Losses of every step, parameters after the last and, where they were kept, its gradients."""
    measured = trace.metadata["losses"]
    assert isinstance(measured, list)
    assert len(measured) == len(outcome.losses)
    off = max(abs(a / b - 1) for a, b in zip(measured, outcome.losses, strict=True))
    assert off < LOSS, f"losses differ by {off:.2g}"
    pieces = [state.get("pieces", {}) for state in states]
    assert_same(outcome.parameters, [state["parameters"] for state in states], pieces, "parameter")
    if any(state.get("gradients") for state in states):
        assert_same(outcome.gradients, [state["gradients"] for state in states], pieces, "gradient")


def assert_same(
    expected: Mapping[str, Tensor],
    held: Sequence[Mapping[str, Tensor]],
    pieces: Sequence[Mapping[str, Piece]],
    what: str,
) -> None:
    """Every rank's tensors are those of a single process, or ``pieces`` of them, and all of them are held by
    somebody."""
    named = [_by_name_of_one_process(own, expected) for own in held]
    for rank, (own, parts) in enumerate(zip(named, pieces, strict=True)):
        for name, tensor in own.items():
            whole = expected[name]
            off = relative_difference(tensor, cut(whole, parts.get(name)), of=whole)
            assert off < STATE, f"rank {rank}: {what} {name} differs by {off:.2g}"
    found = assemble(zip(named, pieces, strict=True))
    assert found.keys() == expected.keys(), f"nobody holds {what} {sorted(expected.keys() - found.keys())}"


def _by_name_of_one_process(own: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A tied head on a stage of its own has a copy of the embedding's matrix."""
    return {name if name in expected else "0.tokens.weight": tensor for name, tensor in own.items()}
