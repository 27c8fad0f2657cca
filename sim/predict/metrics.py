"""What a Trace means: throughput, utilisation, bubble, exposed communication; the numbers people quote.

On every rank a step divides into compute, communication that no compute hides (by dimension), and bubble.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from ..costs.accelerator_mix import stage_accelerators
from ..hardware.cluster import Cluster
from ..kernels.flops import hardware_flops_per_token, model_flops_per_token
from ..kernels.recompute import repeated_blocks
from ..memory.peak import RankMemory, memory
from ..plan.plan import Plan
from ..trace.spans import length, merged
from ..trace.streams import COMMUNICATION, Stream
from ..trace.trace import Spans, Trace


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """A predicted step in numbers; field names are those of `plan --json`."""

    step_time_s: dict[str, float]
    """p5, p50 and p95."""
    samples_per_s: float
    tokens_per_s: float
    mfu: float
    """Model FLOPs utilisation (Chowdhery et al. 2022, PaLM, appendix B)."""
    hfu: float
    """Hardware FLOPs utilisation: recomputation counts too (Korthikanti et al. 2022, section 5)."""
    compute_s: float
    """Compute of the busiest rank."""
    bubble_fraction: float
    """Share of the step in which a rank neither computes nor communicates, averaged over ranks."""
    exposed_comm_s: dict[str, float]
    """By dimension: communication that no compute hides, averaged over ranks."""
    peak_memory_bytes: list[float]
    """By pipeline rank, then by server."""
    memory: list[dict[str, float]]
    """The same, broken down."""
    fits: bool

    def to_dict(self) -> dict[str, object]:
        """The fields as plain values."""
        return asdict(self)


def metrics(plan: Plan, cluster: Cluster, trace: Trace) -> Metrics:
    """The numbers of a predicted ``trace`` of ``plan`` on ``cluster``."""
    step = trace.step_time_s
    peak = _peak_flops(plan, cluster)
    tokens = plan.job.tokens_per_step
    model = model_flops_per_token(plan.job.model, plan.job.seq_len) * tokens
    blocks, policy = repeated_blocks(plan.job, plan.strategy), plan.strategy.recompute
    hardware = hardware_flops_per_token(plan.job.model, plan.job.seq_len, policy, blocks) * tokens
    places = memory(plan, cluster)
    compute, bubble, exposed = divide(trace, plan)
    return Metrics(
        step_time_s=trace.quantiles,
        samples_per_s=plan.job.global_batch / step,
        tokens_per_s=tokens / step,
        mfu=model / (step * peak) if peak else 0.0,
        hfu=hardware / (step * peak) if peak else 0.0,
        compute_s=compute,
        bubble_fraction=bubble,
        exposed_comm_s=exposed,
        peak_memory_bytes=[place.total_bytes for place in places],
        memory=[_memory_row(place) for place in places],
        fits=all(place.fits for place in places),
    )


def _peak_flops(plan: Plan, cluster: Cluster) -> float:
    """FLOP/s of all that computes: an accelerator for each worker, or the cores they take turns on."""
    workers, precision = plan.strategy.workers, plan.job.precision
    if cluster.host:
        cores = min(workers, cluster.host.cores * cluster.nodes)
        return cores * cluster.accelerator.peak_flops.get(precision, 0.0)
    if not cluster.node_groups:
        return workers * cluster.accelerator.peak_flops.get(precision, 0.0)
    kinds = stage_accelerators(cluster, range(workers)).values()
    return sum(len(ranks) * accelerator.peak_flops.get(precision, 0.0) for accelerator, ranks in kinds)


def _memory_row(place: RankMemory) -> dict[str, float]:
    row = {name: value for name, value in asdict(place).items() if name.endswith("_bytes")}
    return {**row, "total_bytes": place.total_bytes}


def divide(trace: Trace, plan: Plan) -> tuple[float, float, dict[str, float]]:
    """Compute seconds of the busiest worker, bubble fraction, exposed seconds by dimension.

    An asynchronous trace spans many steps; its shares are of the whole trace, scaled to one step.
    """
    spans = trace.spans
    whole = float(spans.end.max())
    order = np.argsort(spans.rank, kind="stable")
    ranks, first = np.unique(spans.rank[order], return_index=True)
    shares = [
        _shares(spans, own, whole)
        for rank, own in zip(ranks.tolist(), np.split(order, first[1:]), strict=True)
        if not plan.is_server(rank)
    ]
    step = trace.step_time_s
    mean = {name: sum(share[name] for share in shares) / len(shares) for name in shares[0]}
    exposed = {str(name): mean[name] * step for name in COMMUNICATION if mean[name] > 0}
    return max(share["compute"] for share in shares) * step, mean["bubble"], exposed


def _shares(spans: Spans, own: np.ndarray, whole: float) -> dict[str, float]:
    """Shares of ``whole`` seconds on one rank, whose spans are at the places ``own``: compute, each
    dimension's exposed communication, bubble."""
    on = {name: own[spans.stream_code[own] == code] for code, name in enumerate(spans.streams)}
    none = own[:0]
    compute = on.get(Stream.COMPUTE, none)
    covered = merged(spans.start[compute], spans.end[compute])
    before = length(*covered)
    shares = {"compute": before / whole}
    for name in COMMUNICATION:
        places = on.get(name, none)
        if len(places):
            ends = zip(covered, (spans.start[places], spans.end[places]), strict=True)
            covered = merged(*(np.concatenate(pair) for pair in ends))
        after = length(*covered)
        shares[name] = (after - before) / whole
        before = after
    shares["bubble"] = max(0.0, 1.0 - before / whole)
    return shares
