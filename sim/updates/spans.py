"""The record of a plan's updates as the spans of a predicted Trace."""

from __future__ import annotations

import numpy as np

from ..costs.costs import Costs
from ..costs.stage import StageCosts
from ..plan.action import Action, Actions, Kind
from ..plan.plan import Plan
from ..trace.trace import Span
from .record import UpdateRecord

COMPUTE, SERVERS = "compute", "ps"


def record_spans(plan: Plan, costs: Costs, record: UpdateRecord) -> list[Span]:
    """The record's spans: what workers compute, what passes between them and the servers, the steps."""
    found: list[Span] = []
    for worker in range(record.place.shape[0]):
        for turn in range(record.place.shape[1]):
            if not np.isnan(record.compute_end_s[worker, turn]):
                found += _passes(plan, costs, record, worker, turn)
            for number, server in enumerate(plan.server_ranks):
                found += _messages(plan, record, worker, turn, number, server)
    return [*found, *_steps(plan, record)]


def _passes(plan: Plan, costs: Costs, record: UpdateRecord, worker: int, turn: int) -> list[Span]:
    """A round's forwards and backwards, which share its seconds as they share their sum."""
    start, end = record.compute_start_s[worker, turn], record.compute_end_s[worker, turn]
    own: Actions = tuple(a for a in plan.actions[0] if a.kind in (Kind.FORWARD, Kind.BACKWARD))
    stage, layers, kinds = StageCosts(costs), plan.job.model.layers, (Kind.FORWARD, Kind.BACKWARD)
    seconds = {kind: stage.compute_s(layers, kind) for kind in kinds}
    flops = {kind: stage.flops(layers, kind) for kind in kinds}
    weights = np.array([seconds[a.kind] for a in own])
    edges = start + (end - start) * np.concatenate([[0.0], np.cumsum(weights)]) / weights.sum()
    return [
        Span(
            worker,
            COMPUTE,
            str(a),
            0,
            a.micro_batch,
            float(edges[i]),
            float(edges[i + 1]),
            0.0,
            flops[a.kind],
        )
        for i, a in enumerate(own)
    ]


def _messages(
    plan: Plan, record: UpdateRecord, worker: int, turn: int, number: int, server: int
) -> list[Span]:
    """A round's pull and push of one shard, on the worker and on its server."""
    size = plan.sizes.shards[number]
    place = (worker, turn, number)
    found = []
    for kind, start, end in (
        (Kind.PULL, record.pull_start_s[place], record.pull_end_s[place]),
        (Kind.PUSH, record.push_start_s[place], record.push_end_s[place]),
    ):
        if server == worker or np.isnan(end):
            continue
        served = next(a for a in plan.server_actions[number] if a.kind is kind and a.worker == worker)
        for rank, action in ((worker, Action(0, kind)), (server, served)):
            found.append(Span(rank, SERVERS, str(action), *action.numbers, float(start), float(end), size))
    return found


def _steps(plan: Plan, record: UpdateRecord) -> list[Span]:
    """Every update once, on the server that holds the shard first."""
    found = set()
    for number, server in enumerate(plan.server_ranks):
        applies = {
            action.worker: action for action in plan.server_actions[number] if action.kind is Kind.APPLY
        }
        for worker, turn in np.argwhere(record.place[:, :, number] >= 0).tolist():
            action = applies[-1 if record.joint else worker]
            start, end = record.apply_start_s[worker, turn, number], record.applied_s[worker, turn, number]
            found.add(Span(server, COMPUTE, str(action), *action.numbers, float(start), float(end)))
    return sorted(found)
