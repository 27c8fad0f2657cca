"""Is a schedule what its descriptor says? Its orders of small pipelines are made and played.

All that a descriptor claims is relied on elsewhere: bounds that prune the search take whole backwards for
whole. So a schedule from outside is checked when it is registered; those of this folder are by the tests.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from itertools import product

from ...errors import InputError
from ..action import Action, Kind
from .descriptor import Orders, PipelineShape, Schedule
from .order_arrays import PASS_KINDS

LARGEST = 4, 3, 9
"""Ranks, virtual stages where they are free, and micro-batches of the largest pipeline that is tried."""

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*\Z")

_GRADIENTS = (Kind.BACKWARD, Kind.INPUT_GRADIENT)


def check_schedule(schedule: Schedule) -> None:
    """Raise InputError where the orders of ``schedule`` are not sound or not what its descriptor says."""
    if not _NAME.match(schedule.name):
        raise InputError(f"schedule {schedule.name!r}; expected a name of a-z, 0-9, '.', '_' and '-'")
    tried = 0
    for shape in _shapes(schedule):
        if schedule.generate is None or schedule.rules(shape):
            continue
        tried += 1
        problem = _problem(schedule, shape, schedule.generate(shape))
        if problem:
            raise InputError(
                f"schedule {schedule.name} of {shape.ranks} ranks × {shape.virtual_stages} stages,"
                f" {shape.micro_batches} micro-batches: {problem}"
            )
    if not tried:
        raise InputError(
            f"schedule {schedule.name} has no order on up to {LARGEST[0]} ranks with up to {LARGEST[2]}"
            " micro-batches; expected `generate`, and `rules` that allow some"
        )


def _shapes(schedule: Schedule) -> Iterator[PipelineShape]:
    ranks, stages, micro_batches = LARGEST
    virtual = range(1, stages + 1) if schedule.virtual_stages is None else (schedule.virtual_stages,)
    for sizes in product(range(1, ranks + 1), virtual, range(1, micro_batches + 1)):
        yield PipelineShape(ranks=sizes[0], virtual_stages=sizes[1], micro_batches=sizes[2])


def _problem(schedule: Schedule, shape: PipelineShape, orders: Orders) -> str:
    """What is wrong with the orders; empty where nothing."""
    if len(orders) != shape.ranks:
        return f"{len(orders)} lists of passes, expected one for each rank"
    passes = [(rank, part) for rank, own in enumerate(orders) for action in own for part in action.passes]
    for rank, part in passes:
        if part.kind not in PASS_KINDS or not 0 <= part.stage < shape.stages:
            return f"{part} on rank {rank}, expected F, B, I or W of stages 0 to {shape.stages - 1}"
        if schedule.stage_rank(part.stage, shape.ranks) != rank:
            held = schedule.stage_rank(part.stage, shape.ranks)
            return f"{part} on rank {rank}, expected on rank {held}, where `stage_rank` has its stage"
    return (
        _miscounted(shape, Counter(part for _, part in passes))
        or _undeclared(schedule, orders, {part.kind for _, part in passes})
        or _unplayable(shape, orders)
    )


def _miscounted(shape: PipelineShape, counts: Counter[Action]) -> str:
    for stage, index in product(range(shape.stages), range(shape.micro_batches)):
        made = [counts.pop(Action(stage, kind, index), 0) for kind in PASS_KINDS]
        if made not in ([1, 1, 0, 0], [1, 0, 1, 1]):
            return (
                f"micro-batch {index} goes through stage {stage} as F, B, I, W {made} times,"
                " expected a forward and a backward, whole or both halves"
            )
    return f"{min(counts)}, expected micro-batches 0 to {shape.micro_batches - 1}" if counts else ""


def _undeclared(schedule: Schedule, orders: Orders, kinds: set[Kind]) -> str:
    if Kind.INPUT_GRADIENT in kinds and not schedule.splits_backward:
        return "backwards in halves, expected whole ones or `splits_backward=True`"
    if any(action.parts for own in orders for action in own) and not schedule.overlaps:
        return "passes side by side, expected none or `overlaps=True`"
    return ""


def _unplayable(shape: PipelineShape, orders: Orders) -> str:
    """Play all ranks; say where they wait for each other."""
    done: set[tuple[int, bool, int]] = set()
    """Stage, whether forward, micro-batch."""
    places = [0] * shape.ranks
    moved = True
    while moved:
        moved = False
        for rank, own in enumerate(orders):
            while places[rank] < len(own) and _is_ready(own[places[rank]], done, shape.stages - 1):
                made = own[places[rank]].passes
                done |= {(p.stage, p.kind is Kind.FORWARD, p.micro_batch) for p in made if _passes_on(p)}
                places[rank] += 1
                moved = True
    waits = ", ".join(str(own[at]) for own, at in zip(orders, places, strict=True) if at < len(own))
    return f"ranks wait for each other at {waits}, expected an order that ends" if waits else ""


def _passes_on(part: Action) -> bool:
    return part.kind is Kind.FORWARD or part.kind in _GRADIENTS


def _is_ready(action: Action, done: set[tuple[int, bool, int]], last: int) -> bool:
    return all(_input(part, last) in done for part in action.passes if _input(part, last))


def _input(part: Action, last: int) -> tuple[int, bool, int] | None:
    """What a pass waits for; None for the forwards of the first stage."""
    if part.kind is Kind.FORWARD:
        return (part.stage - 1, True, part.micro_batch) if part.stage else None
    is_gradient = part.kind in _GRADIENTS
    if is_gradient and part.stage < last:
        return (part.stage + 1, False, part.micro_batch)
    return (part.stage, is_gradient, part.micro_batch)
