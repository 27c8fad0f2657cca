"""One plan predicted: what happens when, and the numbers that people quote of it."""

from __future__ import annotations

from dataclasses import dataclass

from ..display import Shown
from ..hardware.cluster import Cluster
from ..plan.plan import Plan
from ..plan.synchrony import is_synchronous
from ..trace.trace import Trace
from .metrics import Metrics, metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction(Shown):
    """A plan with its predicted trace and metrics."""

    plan: Plan
    cluster: Cluster
    trace: Trace
    metrics: Metrics
    why_not: str = ""
    """In a ranking, what it loses against the best, of the synchronous or of the asynchronous; empty for
    these."""

    def __repr__(self) -> str:
        numbers = self.metrics
        text = f"{self.plan.strategy.label}: {numbers.step_time_s['p50']:.4g} s, MFU {numbers.mfu:.1%}"
        return f"Prediction({text}{'' if numbers.fits else ', does not fit'})"

    def to_dict(self) -> dict:
        """The numbers, as `plan --json` lists them and `simulate --json` prints them."""
        return {
            "label": self.plan.strategy.label,
            "strategy": self.plan.strategy.to_dict(),
            "synchronous": is_synchronous(self.plan.strategy),
            "world_size": self.plan.world_size,
            **self.metrics.to_dict(),
            "why_not": self.why_not,
        }


def prediction_of(plan: Plan, cluster: Cluster, trace: Trace) -> Prediction:
    """The prediction that ``trace`` is, with its metrics."""
    return Prediction(plan=plan, cluster=cluster, trace=trace, metrics=metrics(plan, cluster, trace))
