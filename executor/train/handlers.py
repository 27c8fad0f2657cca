"""The table by which a rank walks its actions."""

from __future__ import annotations

from collections.abc import Callable

from ...sim.plan.action import Action, Actions, Kind

Handlers = dict[Kind, Callable[[Action], None]]
"""By kind: what does an action of it."""


def walk(actions: Actions, handlers: Handlers) -> None:
    """Do ``actions`` in order."""
    for action in actions:
        handlers[action.kind](action)
