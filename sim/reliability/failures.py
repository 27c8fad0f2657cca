"""What breaks, how often, and what it takes to go on: means of a cluster, and moments drawn from them.

Four kinds of things fail: accelerators, nodes, switches, and the software of a job. Between the failures of
all things of one kind lie independent gaps, exponential or Weibull (Schroeder and Gibson 2006, "A large-scale
study of failures in high-performance computing systems", fit shapes of 0.7 to 0.8: failures come in
bursts). The n-th gap of a kind depends on (seed, sample, kind, n) alone.

Moments are whole microseconds, so that a long run's sums are exact whatever their order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from ..variability.random_streams import Stream, uniforms

DAY_S = 86_400.0
TICK_S = 1e-6
"""One unit of the whole numbers in which moments are counted."""

NEVER = np.iinfo(np.int64).max
"""A moment that does not come."""

MAX_FAILURES = 5_000_000
"""Failures that are drawn at once, over all samples: 0.3 GB with what sorting takes."""


NODES_PER_SPARE = 12
"""BigScience kept 4 spare nodes for 48 (BLOOM 176B, bigscience-workshop/bigscience train/tr11-176B-ml)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failures:
    """Means of a cluster's failures and of what follows each; a mean time of 0 is never.

    The defaults are published figures of the largest runs. Llama 3 405B was interrupted unexpectedly 419
    times in 54 days on 16,384 H100 in 2,048 nodes: 268 times by accelerators and their memory, 53 by nodes
    (hosts, adapters and their unplanned maintenance), 35 by switches and cables, 63 by software and unknown
    causes (Llama Team 2024, arXiv 2407.21783, table 5; 2 nodes to a switch by its section 3.3.1). All
    together that is one failure in 5.8 years of an accelerator.
    """

    accelerator_mtbf_s: float = 54 * DAY_S * 16384 / 268
    """Of one accelerator, whether it computes or not: 9.0 years."""
    node_mtbf_s: float = 54 * DAY_S * 2048 / 53
    """Of one node but for its accelerators: 5.7 years."""
    switch_mtbf_s: float = 54 * DAY_S * 1024 / 35
    """Of one switch and its cables: 4.3 years."""
    nodes_per_switch: int = 2
    """How many nodes bring one switch along."""
    software_mtbf_s: float = 54 * DAY_S * 2048 / 63
    """Of the software on one node: 4.8 years. That it grows with the nodes is an assumption."""
    shape: float = 1.0
    """Weibull shape of the gaps between failures: 1 is exponential, less comes in bursts."""
    detection_s: float = 600.0
    """Until a failure is seen and diagnosed: under 10 minutes on average on more than 10,000 accelerators
    (Jiang et al. 2024, MegaScale, arXiv 2402.15627, section 6.3)."""
    restart_s: float = 160.0
    """Start of the processes and loading of the checkpoint: under 30 s (MegaScale, section 3.5) and 129.5 s
    (405B on 8,960 accelerators; Wan et al. 2025, ByteCheckpoint, arXiv 2407.20143, table 8)."""
    repair_s: float = DAY_S
    """Until a node that was taken out is a spare again: an assumption."""
    spare_nodes: int | None = None
    """Healthy nodes kept aside; None is one for each `NODES_PER_SPARE` in use."""
    checkpoint_s: float = 51.06
    """Until a checkpoint is on storage (ByteCheckpoint, table 8, 405B on 8,960 accelerators)."""
    checkpoint_stall_s: float = 0.59
    """For how long of that training stands still (the same row); `checkpoint_s` where writing blocks."""
    storage_bandwidth: float = 0.0
    """bytes/s that all nodes write together; where it and a model are known, it gives `checkpoint_s`. 0 is
    unknown. Llama 3's storage sustained 2 TB/s."""
    source: str = ""


TIMES = frozenset(
    {
        *("accelerator_mtbf", "node_mtbf", "switch_mtbf", "software_mtbf"),
        *("detection", "restart", "repair", "checkpoint", "checkpoint_stall"),
    }
)
"""Fields of `Failures` that are times, as a file names them: without their `_s`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """How many things of each kind can fail a job."""

    accelerators: int
    nodes: int
    switches: int


def machine(failures: Failures, nodes: int, accelerators_per_node: int) -> Machine:
    """The machine of a job on ``nodes`` nodes."""
    return Machine(
        accelerators=nodes * accelerators_per_node,
        nodes=nodes,
        switches=math.ceil(nodes / failures.nodes_per_switch),
    )


def spare_nodes(failures: Failures, nodes: int) -> int:
    """Healthy nodes kept aside for a job on ``nodes`` nodes."""
    return math.ceil(nodes / NODES_PER_SPARE) if failures.spare_nodes is None else failures.spare_nodes


TAKES_NODE = {"accelerator": True, "node": True, "switch": False, "software": False}
"""Whether a failure takes a node out until it is repaired. A switch's nodes are whole when it is."""

_STREAMS = {
    "accelerator": Stream.ACCELERATOR_FAILURES,
    "node": Stream.NODE_FAILURES,
    "switch": Stream.SWITCH_FAILURES,
    "software": Stream.SOFTWARE_FAILURES,
}


def mtbf_by_kind_s(failures: Failures, job: Machine) -> dict[str, float]:
    """Mean seconds between failures of all things of a kind; infinite where none fails."""
    each = {
        "accelerator": (failures.accelerator_mtbf_s, job.accelerators),
        "node": (failures.node_mtbf_s, job.nodes),
        "switch": (failures.switch_mtbf_s, job.switches),
        "software": (failures.software_mtbf_s, job.nodes),
    }
    return {kind: mean / count if mean and count else math.inf for kind, (mean, count) in each.items()}


def system_mtbf_s(failures: Failures, job: Machine) -> float:
    """Mean seconds between failures of the whole machine: rates add. Infinite where nothing fails."""
    rate = sum(1.0 / mean for mean in mtbf_by_kind_s(failures, job).values())
    return 1.0 / rate if rate else math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureTimes:
    """When a machine fails, for several samples; rows are in order of time and end in `NEVER`."""

    ticks: np.ndarray
    """int64[samples, most failures of a sample]: microseconds since the start."""
    takes_node: np.ndarray
    """bool of the same shape: whether the failure takes a node out."""
    until: int
    """All failures before this tick are there."""


def draw_failures(
    failures: Failures, job: Machine, *, horizon_s: float, samples: int, seed: int = 0
) -> FailureTimes:
    """Failures of ``job`` in the first ``horizon_s`` seconds, ``samples`` times over.

    A longer horizon only adds failures, another number of samples changes none.

    Raises:
        InputError: a time is not sensible, or more than `MAX_FAILURES` would come.
    """
    until = ticks(horizon_s, "horizon")
    if not (failures.shape > 0 and math.isfinite(failures.shape)):
        raise InputError(f"Weibull shape is {failures.shape!r}; expected a number above 0")
    means = mtbf_by_kind_s(failures, job)
    expected = sum(horizon_s / mean for mean in means.values()) * samples
    if not expected <= MAX_FAILURES:
        raise InputError(
            f"{expected:.3g} failures in {samples} runs of {horizon_s:g} s, but at most {MAX_FAILURES:,}"
            " are drawn; take fewer samples or less time"
        )
    drawn = [
        (_kind_ticks(_STREAMS[kind], mean, failures.shape, until, samples, seed), TAKES_NODE[kind])
        for kind, mean in means.items()
        if math.isfinite(mean)
    ]
    return _in_order(drawn, until, samples)


def _kind_ticks(
    stream: Stream, mean_s: float, shape: float, until: int, samples: int, seed: int
) -> np.ndarray:
    """int64[samples, n]: moments of one kind, rising, the last of each row at or past ``until``."""
    # Mean of a Weibull is scale * gamma(1 + 1 / shape).
    scale = mean_s / TICK_S / math.gamma(1.0 + 1.0 / shape)
    count = 8 + int(1.2 * until * TICK_S / mean_s)
    while True:
        numbers = uniforms(stream, seed, np.arange(samples), np.arange(count))
        moments = np.cumsum(scale * (-np.log(numbers)) ** (1.0 / shape), axis=1)
        if moments[:, -1].min() >= until:
            return np.minimum(moments, float(until)).astype(np.int64)
        count *= 2


def _in_order(drawn: list[tuple[np.ndarray, bool]], until: int, samples: int) -> FailureTimes:
    """All kinds' failures in one row a sample; those past the end become `NEVER`."""
    if not drawn:
        nothing = np.full((samples, 1), NEVER)
        return FailureTimes(ticks=nothing, takes_node=np.zeros((samples, 1), dtype=bool), until=until)
    moments = np.concatenate([kind for kind, _ in drawn], axis=1)
    takes = np.concatenate([np.full(kind.shape, takes) for kind, takes in drawn], axis=1)
    moments[moments >= until] = NEVER
    order = np.argsort(moments, axis=1, kind="stable")
    # One column of NEVER stays, so that every row ends.
    most = int((moments != NEVER).sum(axis=1).max()) + 1
    order = order[:, :most]
    return FailureTimes(
        ticks=np.take_along_axis(moments, order, axis=1),
        takes_node=np.take_along_axis(takes, order, axis=1),
        until=until,
    )


def ticks(seconds: float, name: str) -> int:
    """``seconds`` in whole microseconds.

    Raises:
        InputError: negative, not finite, or more than 10,000 years.
    """
    if not 0.0 <= seconds <= 3.2e11:
        raise InputError(f"{name} is {seconds!r} s; expected 0 to 10,000 years")
    return round(seconds / TICK_S)
