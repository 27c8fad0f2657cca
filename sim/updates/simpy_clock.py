"""Time of the reference engine: simpy's, with an order for what happens at one moment.

What happens at one moment happens in order of (kind, item), as in `kernel.py`: a process takes its turn
there by waiting for `Clock.turn`. simpy's own events have priorities 0 and 1, so that all that follows at
once from a turn is done before the next turn.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import cast

import simpy
from simpy.events import EventPriority

Waiting = Generator[simpy.Event, None, None]


class Clock(simpy.Environment):
    """simpy's environment, from 0 s on; ``items`` is how many there are of each kind of event."""

    def __init__(self, items: int) -> None:
        super().__init__(initial_time=0.0)
        self.items = items

    def turn(self, kind: int, item: int, delay: float = 0.0) -> simpy.Event:
        """Happens in ``delay`` seconds, after all of that moment that comes before (kind, item)."""
        turn = simpy.Event(self)
        turn._ok, turn._value = True, None  # as `succeed` does, which knows no priority
        self.schedule(turn, cast(EventPriority, 2 + kind * self.items + item), delay)
        return turn
