"""Messages between workers and servers: all values of a portion and one word more, as one CPU tensor.

Downwards the word is the version of the parameters; upwards it is the step that a gradient is made for, or
FINISHED. A receive is always posted before the message that it answers is sent: gloo lets the two directions
of a pair follow each other where sends come first. Between a worker and a server of one process a queue takes
the place of the network.
"""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Sequence
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor

PULL, PUSH, COPY, CONFIRM = range(4)
"""What a message is: parameters, gradients, an update for a further holder, and that it is there."""
FINISHED = -1
"""Instead of a step: the worker computes no more."""


def packed(values: Sequence[Tensor], word: float) -> Tensor:
    """All of ``values``, then ``word``, in one CPU tensor of their dtype that shares no memory with them."""
    parts = [value.detach().reshape(-1).cpu() for value in values]
    return torch.cat([*parts, torch.full((1,), float(word), dtype=parts[0].dtype if parts else None)])


def unpacked(message: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """The values of a message in the shapes of ``like``, without its last word."""
    parts = message[:-1].split([one.numel() for one in like])
    return [part.view_as(one) for part, one in zip(parts, like, strict=True)]


def word_of(message: Tensor) -> int:
    """The last word."""
    return int(message[-1])


class Line(Protocol):
    """One end of where a portion's messages pass between two places."""

    def expect(self) -> None:
        """Be ready for the next message."""
        ...

    def take(self) -> Tensor:
        """The next message, once it is expected and there; valid until another is expected."""
        ...

    def send(self, message: Tensor) -> None:
        """Send ``message``, which nobody may change any more; returns at once."""
        ...

    def settle(self, most: int | None = None) -> None:
        """Wait until what was sent is there; or the ``most`` that were sent first."""
        ...


class RemoteLine:
    """Over gloo, to the rank ``peer``; the portion's number and the kinds of message make the tags."""

    def __init__(self, peer: int, number: int, values: int, dtype: torch.dtype, *, takes: int, sends: int):
        self.peer, self.takes, self.sends = peer, 4 * number + takes, 4 * number + sends
        self._buffer = torch.empty(values + 1, dtype=dtype)
        self._expected: queue.SimpleQueue[dist.Work] = queue.SimpleQueue()
        self._sent: deque[tuple[dist.Work, Tensor]] = deque()

    def expect(self) -> None:
        work = dist.irecv(self._buffer, self.peer, tag=self.takes)
        assert work is not None, "every rank is in the default group"
        self._expected.put(work)

    def take(self) -> Tensor:
        self._expected.get().wait()
        return self._buffer

    def send(self, message: Tensor) -> None:
        work = dist.isend(message, self.peer, tag=self.sends)
        assert work is not None, "every rank is in the default group"
        self._sent.append((work, message))

    def settle(self, most: int | None = None) -> None:
        for _ in range(len(self._sent) if most is None else most):
            self._sent.popleft()[0].wait()


class HomeLine:
    """Within one process."""

    def __init__(self, inbox: queue.SimpleQueue[Tensor], outbox: queue.SimpleQueue[Tensor]):
        self.inbox, self.outbox = inbox, outbox

    @classmethod
    def pair(cls) -> tuple[HomeLine, HomeLine]:
        """Its two ends."""
        one, other = queue.SimpleQueue(), queue.SimpleQueue()
        return cls(one, other), cls(other, one)

    def expect(self) -> None:
        """Whatever comes is kept."""

    def take(self) -> Tensor:
        return self.inbox.get()

    def send(self, message: Tensor) -> None:
        self.outbox.put(message)

    def settle(self, most: int | None = None) -> None:
        """It is there at once."""
