"""The record of a plan's updates as the spans of a predicted Trace."""

from __future__ import annotations

import numpy as np

from ..costs.costs import Costs
from ..costs.stage import StageCosts
from ..plan.action import Action, Actions, Kind
from ..plan.plan import Plan, Portion
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
            for number, portion in enumerate(plan.portions):
                found += _messages(plan, record, worker, turn, number, portion)
    return [*found, *_steps(plan, record)]


def _passes(plan: Plan, costs: Costs, record: UpdateRecord, worker: int, turn: int) -> list[Span]:
    """A round's forwards, backwards and local steps, which share its seconds as they share their sum."""
    start, end = record.compute_start_s[worker, turn], record.compute_end_s[worker, turn]
    kinds = (Kind.FORWARD, Kind.BACKWARD, Kind.STEP)
    own: Actions = tuple(action for action in plan.actions[0] if action.kind in kinds)
    stage, layers, model = StageCosts(costs), plan.job.model.layers, plan.job.model
    seconds = {kind: stage.compute_s(layers, kind) for kind in kinds[:2]}
    seconds[Kind.STEP] = costs.optimizer.update_s(model.parameters)
    flops = {kind: stage.flops(layers, kind) for kind in kinds[:2]}
    weights = np.array([seconds[a.kind] for a in own])
    edges = start + (end - start) * np.concatenate([[0.0], np.cumsum(weights)]) / weights.sum()
    return [
        Span(
            worker,
            COMPUTE,
            str(a),
            *a.numbers,
            float(edges[i]),
            float(edges[i + 1]),
            0.0,
            flops.get(a.kind, 0.0),
        )
        for i, a in enumerate(own)
    ]


def _messages(
    plan: Plan, record: UpdateRecord, worker: int, turn: int, number: int, portion: Portion
) -> list[Span]:
    """A round's pull and push of one portion, on the worker and on its server."""
    size, server, bucket = portion.size_bytes, plan.server_ranks[portion.server], portion.bucket
    place = (worker, turn, number)
    found = []
    for kind, start, end in (
        (Kind.PULL, record.pull_start_s[place], record.pull_end_s[place]),
        (Kind.PUSH, record.push_start_s[place], record.push_end_s[place]),
    ):
        if server == worker or np.isnan(end):
            continue
        asked = Action.of(kind, stage=0, bucket=bucket)
        served = Action.of(kind, server=portion.server, worker=worker, bucket=bucket)
        for rank, action in ((worker, asked), (server, served)):
            found.append(Span(rank, SERVERS, str(action), *action.numbers, float(start), float(end), size))
    return found


def _steps(plan: Plan, record: UpdateRecord) -> list[Span]:
    """Every update once, on the server that holds the portion first."""
    found = set()
    for number, portion in enumerate(plan.portions):
        server = plan.server_ranks[portion.server]
        for worker, turn in np.argwhere(record.place[:, :, number] >= 0).tolist():
            action = Action.of(
                Kind.APPLY,
                server=portion.server,
                worker=-1 if record.joint else worker,
                bucket=portion.bucket,
            )
            start, end = record.apply_start_s[worker, turn, number], record.applied_s[worker, turn, number]
            found.add(Span(server, COMPUTE, str(action), *action.numbers, float(start), float(end)))
    return sorted(found)
