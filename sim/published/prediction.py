"""What the simulator says of a case: step time with its interval, peak memory, whether it fits.

Cases that are alike share one prediction.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ..errors import InputError
from ..gc_pause import no_garbage_collection
from ..hardware.cluster import Cluster
from ..memory.peak import memory
from ..plan.job import Job
from ..plan.make_plan import make_plan
from ..plan.strategy import Strategy
from ..predict.simulate import simulate
from .case import Case
from .hardware import Hardware, cluster_of
from .left_out import LeftOutError

Key = tuple[Job, Strategy, Hardware, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """Of one case."""

    step_s: float
    """Median of the drawn steps."""
    low_s: float
    """5th percentile."""
    high_s: float
    """95th percentile."""
    memory_bytes: float
    """Peak of what the framework asks its allocator for, on the fullest rank: what runs report."""
    fits: bool
    """Every rank's peak is within its accelerator's memory."""


@dataclass(slots=True)
class Predictor:
    """Predicts cases and remembers what it predicted."""

    samples: int = 32
    """Steps drawn for the interval."""
    seed: int = 0
    adjust: Callable[[Cluster], Cluster] | None = None
    """Puts other constants into a cluster before it is predicted with, as a fit finds them."""
    _known: dict[Key, Prediction | LeftOutError] = field(default_factory=dict)

    def predict(self, case: Case) -> Prediction:
        """The prediction of ``case``.

        Raises:
            LeftOutError: the simulator refuses its plan.
        """
        key = (case.job, case.strategy, case.hardware, case.gpus, case.gpus_per_node)
        if key not in self._known:
            with no_garbage_collection():
                self._known[key] = self._predicted(case)
        found = self._known[key]
        if isinstance(found, LeftOutError):
            raise found
        return found

    def _predicted(self, case: Case) -> Prediction | LeftOutError:
        cluster = cluster_of(case.hardware, case.gpus, case.gpus_per_node)
        if self.adjust:
            cluster = self.adjust(cluster)
        try:
            plan = make_plan(case.job, case.strategy)
        except InputError as error:
            return LeftOutError(f"not simulated: {error.faults[0].path} {error.faults[0].found}")
        trace = simulate(plan, cluster, samples=self.samples, seed=self.seed)
        places = memory(plan, cluster)
        quantiles = trace.quantiles
        return Prediction(
            step_s=quantiles["p50"],
            low_s=quantiles["p5"],
            high_s=quantiles["p95"],
            memory_bytes=max(place.allocated_bytes for place in places),
            fits=all(place.fits for place in places),
        )
