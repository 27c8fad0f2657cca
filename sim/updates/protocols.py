"""Update protocols of data-parallel training: what sets synchronous and asynchronous training apart.

    sync      every step takes a gradient of every worker, and all wait for it
    backup:B  as sync, but a step takes the first n - B gradients and drops the others (Chen et al. 2016)
    local:H   as sync, but workers exchange only after H steps of their own (Stich 2019)
    async     every gradient is an update of its own; nobody waits for others (Dean et al. 2012)
    stale:K   as async, but nobody is more than K rounds ahead of the slowest (SSP, Ho et al. 2013)

Gradients that are put together are made for the lowest version that their worker read of any shard, so no
shard gets more than a step ahead of another (as TensorFlow's SyncReplicasOptimizer counts steps). The engines
know a protocol only by the numbers here. What they make of them is, for who may go on,
`simpy_synchrony.py` to read and `confirmed` of `kernel.py` for speed.
"""

from __future__ import annotations

from typing import NamedTuple

from ..errors import Fault
from ..plan.choices import parse_synchrony


class Protocol(NamedTuple):
    """A protocol's name, and its number where it has one, else 0."""

    name: str
    number: int

    @property
    def joint(self) -> bool:
        """Whether gradients are put together before they are applied."""
        return self.name in ("sync", "backup", "local")

    @property
    def local_steps(self) -> int:
        """Gradients that a worker applies to its own parameters before it exchanges."""
        return self.number if self.name == "local" else 1

    def needed(self, workers: int) -> int:
        """Gradients that close a joint step."""
        return workers - (self.number if self.name == "backup" else 0)

    def bound(self, rounds: int) -> int:
        """Rounds that a worker may be ahead of the slowest; as many as there are where nothing bounds it."""
        return self.number if self.name == "stale" else rounds


def read_protocol(synchrony: str) -> Protocol:
    """The protocol that ``synchrony`` names; one of that name and number 0 where it names none."""
    return Protocol(*(parse_synchrony(synchrony) or (synchrony, 0)))


def protocol_faults(synchrony: str, workers: int, gradients: int) -> list[Fault]:
    """What is wrong with a protocol for so many workers of so many gradients each."""
    name, count = read_protocol(synchrony)
    expected = ""
    if parse_synchrony(synchrony) is None:
        expected = "sync | async | stale:K | backup:B | local:H"
    elif name == "backup" and count >= workers:
        expected = f"fewer backup workers than the {workers} workers"
    elif name == "local" and not 1 <= count <= gradients:
        expected = f"1 to {gradients} local steps, the gradients given"
    return [Fault(path="synchrony", found=synchrony, expected=expected)] if expected else []
