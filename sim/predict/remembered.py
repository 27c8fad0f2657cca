"""Results of plans on clusters that are remembered for the very objects they were made of."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

from ..hardware.cluster import Cluster
from ..plan.plan import Plan

P = ParamSpec("P")
T = TypeVar("T")


def remembered(
    most: int,
) -> Callable[[Callable[Concatenate[Plan, Cluster, P], T]], Callable[Concatenate[Plan, Cluster, P], T]]:
    """Remember the last ``most`` results of a function of a plan, a cluster and named values.

    Plans and clusters are large and frozen, so they are known by their identity; of a plan by that of its
    parts, but for the cluster that it says it was made for. All are held as long as their results are, so no
    other object can take their identity.
    """

    def decorate(
        function: Callable[Concatenate[Plan, Cluster, P], T],
    ) -> Callable[Concatenate[Plan, Cluster, P], T]:
        known: OrderedDict[tuple, tuple[Plan, Cluster, T]] = OrderedDict()

        @wraps(function)
        def ask(plan: Plan, cluster: Cluster, /, *args: P.args, **kwargs: P.kwargs) -> T:
            parts = (plan.actions, plan.stages, plan.shards, plan.job, plan.strategy, cluster)
            key = (*map(id, parts), *args, *sorted(kwargs.items()))
            if key not in known:
                known[key] = (plan, cluster, function(plan, cluster, *args, **kwargs))
                if len(known) > most:
                    known.popitem(last=False)
            known.move_to_end(key)
            return known[key][2]

        return ask

    return decorate
