"""What the updates of a Plan with parameter servers come to on a Cluster: spans, step times, staleness."""

from __future__ import annotations

from dataclasses import dataclass

from ..costs.compute import probe_s
from ..costs.costs import Costs
from ..hardware.cluster import Cluster
from ..plan.plan import Plan
from ..trace.load import CORE_SECONDS, CORES, PROBE
from ..trace.trace import Span
from .engine import run_updates
from .model import UpdateModel
from .model_of_plan import interface_of, update_model
from .record import UpdateRecord
from .spans import record_spans


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What the updates of a plan come to."""

    spans: list[Span]
    step_time_s: float
    drawn_s: list[float]
    """By sample: the step time with its jitter and stragglers."""
    metadata: dict[str, object]


def predict_updates(plan: Plan, cluster: Cluster, *, engine: str, samples: int, seed: int) -> Prediction:
    """The deterministic spans and step time, and ``samples`` drawn step times.

    Raises:
        InputError: the engine is unknown, or the cluster has no link between a worker and a server.
    """
    costs = Costs(cluster, plan.job, plan.strategy)
    model = update_model(plan, cluster, costs)
    record = run_updates(model, engine=engine)
    steps = model.local_steps
    drawn = [
        run_updates(update_model(plan, cluster, costs, seed, sample), engine=engine).step_time_s / steps
        for sample in range(samples)
    ]
    return Prediction(
        spans=record_spans(plan, costs, record),
        step_time_s=record.step_time_s / steps,
        drawn_s=drawn,
        metadata={
            "staleness": record.staleness.tolist(),
            "dropped": record.dropped,
            "server_utilisation": _of_servers(plan, cluster, model, record),
            **_cores(plan, cluster, model, record),
        },
    )


def _cores(plan: Plan, cluster: Cluster, model: UpdateModel, record: UpdateRecord) -> dict[str, object]:
    """What ranks that share a host's cores take of them in a step, and how fast these are taken to be;
    nothing where they have devices."""
    if cluster.host is None:
        return {}
    busy = float(record.utilisation(record.processor_busy_s).sum())
    return {
        CORE_SECONDS: busy * record.step_time_s / model.local_steps,
        CORES: cluster.host.cores,
        PROBE: probe_s(cluster, plan.world_size),
    }


def _of_servers(
    plan: Plan, cluster: Cluster, model: UpdateModel, record: UpdateRecord
) -> dict[str, list[float]]:
    """Shares of the run in which each server's processor worked, and its interface received and sent."""
    interface = interface_of(plan, cluster)
    own = [interface[rank] for rank in plan.server_ranks]
    places = model.workers + model.servers
    processors = list(model.cores or range(places))[-model.servers :]
    return {
        "processor": record.utilisation(record.processor_busy_s)[processors].tolist(),
        "receives": record.utilisation(record.in_busy_s)[own].tolist(),
        "sends": record.utilisation(record.out_busy_s)[own].tolist(),
    }
