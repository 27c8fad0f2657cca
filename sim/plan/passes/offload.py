"""Activations in host memory between forward and backward: out behind the one, back ahead of the other."""

from __future__ import annotations

from ..action import Action, Actions, Kind
from ..schedules import Orders
from .lists import is_pass

_BACK = (Kind.BACKWARD, Kind.INPUT_GRADIENT)
"""What computes with activations first, after the forward that made them."""


def add_offload(actions: Orders) -> Orders:
    """Send a micro-batch's activations to the host after its forward, and fetch them one pass before they are
    needed: ahead of the pass before the backward, unless that is the forward that makes them."""
    return tuple(_offloaded(own) for own in actions)


def _offloaded(own: Actions) -> Actions:
    passes = [place for place, action in enumerate(own) if is_pass(action.passes[0])]
    fetches: dict[int, list[Action]] = {}
    for number, place in enumerate(passes):
        for part in own[place].passes:
            if part.kind in _BACK:
                fetch = Action(part.stage, Kind.FETCH, part.micro_batch)
                before = passes[number - 1] if number else place
                fetches.setdefault(place if _makes(own[before], part) else before, []).append(fetch)
    lowered: list[Action] = []
    for place, action in enumerate(own):
        lowered += [*fetches.get(place, ()), action]
        lowered += [
            Action(part.stage, Kind.OFFLOAD, part.micro_batch)
            for part in action.passes
            if part.kind is Kind.FORWARD
        ]
    return tuple(lowered)


def _makes(action: Action, backward: Action) -> bool:
    """Whether ``action`` makes the activations of ``backward``."""
    made = Action(backward.stage, Kind.FORWARD, backward.micro_batch)
    return made in action.passes
