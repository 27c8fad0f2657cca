"""When the gradients of a bucket are whole: hooks on its parameters, while backward still runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor, nn


class WholeBuckets:
    """Calls ``on_whole`` with the number of each bucket, in order, as soon as it and those before are whole.

    A parameter counts once its gradient is accumulated. What gets none in this backward is whole when the
    backward is over.
    """

    def __init__(self, buckets: Sequence[Sequence[nn.Parameter]], on_whole: Callable[[int], None]):
        self.sizes, self.on_whole = [len(own) for own in buckets], on_whole
        self.missing: list[int] = []
        """By bucket: gradients to come; empty while nobody asks."""
        self.next = 0
        for number, own in enumerate(buckets):
            for parameter in own:
                parameter.register_post_accumulate_grad_hook(partial(self._accumulated, number))

    def begin(self) -> None:
        """The backward that makes gradients whole begins."""
        self.missing, self.next = list(self.sizes), 0

    def end(self) -> None:
        """It is over: so is every bucket."""
        while self.next < len(self.missing):
            self._whole()
        self.missing = []

    def _accumulated(self, number: int, _: Tensor) -> None:
        if not self.missing:
            return
        self.missing[number] -= 1
        while self.next < len(self.missing) and self.missing[self.next] <= 0:
            self._whole()

    def _whole(self) -> None:
        self.next += 1
        self.on_whole(self.next - 1)
