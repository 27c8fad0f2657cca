"""What was computed once and is asked for again, by strategies that are alike in what decides it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Remembered(dict[tuple, Any]):
    """Results by what decides them: of one job on one cluster, for any number of strategies."""

    def of(self, key: tuple, compute: Callable[[], Any]) -> Any:
        """The result for ``key``, computed where it is not known yet."""
        if key not in self:
            self[key] = compute()
        return self[key]
