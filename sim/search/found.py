"""What a search found: ranked plans, what became of all the others, and why each runner-up lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from ..display import Shown
from ..hardware.cluster import Cluster
from ..plan.job import Job
from ..plan.synchrony import is_synchronous
from ..predict.prediction import Prediction
from ..units import format_quantity

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(slots=True, kw_only=True)
class Search(Shown):
    """Ranked plans, synchronous ones first and each kind best first, and what became of all the others."""

    job: Job
    cluster: Cluster
    plans: list[Prediction] = field(default_factory=list)
    considered: int = 0
    refusals: Counter[str] = field(default_factory=Counter)
    """By rule: how many strategies broke it."""
    bounded: int = 0
    """How many could not have been among the best."""

    @property
    def best(self) -> Prediction:
        """The plan ranked first: the fastest synchronous one, where there is any."""
        return self.plans[0]

    @property
    def counts(self) -> dict[str, int]:
        refused = sum(self.refusals.values())
        simulated = self.considered - refused - self.bounded
        return {
            "considered": self.considered,
            "refused": refused,
            "bounded": self.bounded,
            "simulated": simulated,
        }

    def __repr__(self) -> str:
        found = f"best of {self.considered:,} for {self.job.model.name} on {self.cluster.name}"
        return f"Search({found}: {self.best!r})" if self.plans else f"Search({found}: none)"

    def frame(self) -> DataFrame:
        """A row for each plan in order of rank: strategy, step time, throughput, utilisation, memory."""
        from pandas import DataFrame

        rows = [
            {
                "strategy": one.plan.strategy.label,
                "synchronous": is_synchronous(one.plan.strategy),
                **{f"step_{name}_s": value for name, value in one.metrics.step_time_s.items()},
                "samples_per_s": one.metrics.samples_per_s,
                "tokens_per_s": one.metrics.tokens_per_s,
                "mfu": one.metrics.mfu,
                "hfu": one.metrics.hfu,
                "bubble_fraction": one.metrics.bubble_fraction,
                "exposed_comm_s": sum(one.metrics.exposed_comm_s.values()),
                "peak_memory_bytes": max(one.metrics.peak_memory_bytes),
                "why_not": one.why_not,
            }
            for one in self.plans
        ]
        return DataFrame(rows, index=range(1, len(rows) + 1))

    def to_dict(self) -> dict:
        """What `plan --json` prints."""
        job, cluster = self.job, self.cluster
        return {
            "schema": "traincast.plans/1",
            "model": {**job.model.to_dict(), "parameters": job.model.parameters},
            "job": {
                "global_batch": job.global_batch,
                "seq_len": job.seq_len,
                "optimizer": job.optimizer,
                "precision": job.precision,
            },
            "cluster": {
                "name": cluster.name,
                "accelerator": cluster.accelerator.name,
                "kind": cluster.accelerator.kind,
                "accelerators": cluster.accelerators,
                "memory_bytes": cluster.accelerator.memory_bytes,
                "residuals": dict(cluster.residuals),
            },
            "counts": self.counts,
            "refusals": dict(self.refusals),
            "plans": [one.to_dict() for one in self.plans],
        }


def in_rank(predictions: Iterable[Prediction]) -> list[Prediction]:
    """Synchronous plans first, each kind fastest first; each but the first of its kind says what costs it the
    place."""
    ranked = sorted(
        predictions, key=lambda one: (not is_synchronous(one.plan.strategy), one.trace.step_time_s)
    )
    firsts: dict[bool, dict[str, float]] = {}
    explained = []
    for one in ranked:
        parts, kind = _parts(one), is_synchronous(one.plan.strategy)
        why = _difference(firsts[kind], parts) if kind in firsts else ""
        firsts.setdefault(kind, parts)
        explained.append(replace(one, why_not=why))
    return explained


_NAMES = {
    "compute": "compute",
    "bubble": "waiting",
    "tp": "tensor-parallel communication",
    "pp": "pipeline transfers",
    "dp": "gradient all-reduce",
    "ps": "push and pull",
}


def _parts(ranked: Prediction) -> dict[str, float]:
    """Seconds of a step by what they are spent on, averaged over ranks."""
    step = ranked.trace.deterministic_step_time_s
    sampled = ranked.trace.step_time_s
    exposed = {name: seconds / sampled * step for name, seconds in ranked.metrics.exposed_comm_s.items()}
    bubble = ranked.metrics.bubble_fraction * step
    compute = step - bubble - sum(exposed.values())
    return {**exposed, "bubble": bubble, "compute": compute, "step": sampled}


def _difference(first: dict[str, float], other: dict[str, float]) -> str:
    behind = other["step"] / first["step"] - 1
    changes = {name: other.get(name, 0.0) - first.get(name, 0.0) for name in _NAMES}
    worth_saying = 1e-3 * first["step"]
    worst = sorted((seconds, name) for name, seconds in changes.items() if seconds > worth_saying)[::-1][:2]
    reasons = ", ".join(f"{_NAMES[name]} +{format_quantity(seconds, 'time')}" for seconds, name in worst)
    return f"{behind:+.1%}" + (f": {reasons}" if reasons else "")
