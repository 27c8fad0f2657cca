"""Results that are remembered for the very objects they were made of."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def remembered(most: int) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Remember the last ``most`` results of a function of frozen objects, which are known by their identity.

    Plans and clusters are large, so comparing or hashing them by value would take as long as what is spared.
    They are held as long as their results are, so that no other object can take their identity.
    """

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        known: OrderedDict[tuple, tuple[object, T]] = OrderedDict()

        @wraps(function)
        def ask(*args: P.args, **kwargs: P.kwargs) -> T:
            key = (*map(id, args), *sorted(kwargs.items()))
            if key not in known:
                known[key] = (args, function(*args, **kwargs))
                if len(known) > most:
                    known.popitem(last=False)
            known.move_to_end(key)
            return known[key][1]

        return ask

    return decorate
