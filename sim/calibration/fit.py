"""From measurements of a machine to a Cluster: curves, profiles, factors, and how far each fit is off.

Measurements are plain samples (`traincast.measurements/1`); of every series the median counts, since a
shared machine's slow moments would pull a mean. What one process computes counts in its own processor
seconds, without what other programs took from it. Each fit also gives the median absolute
relative error with which it predicts a point it was not given (leave one out), or, for `single_step`,
whole training steps that no fit has seen. Kernels are fitted in `calibration_compute`, communication in
`calibration_transport`.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..hardware.cluster import Accelerator, Cluster, Host
from ..kernels.profile_keys import WHOLE, is_of
from ..model.layer import BLOCK
from ..model.model import Model
from .fit_compute import fit_accelerator
from .fit_gpu import fit_gpu
from .fit_layers import decoder_of
from .fit_transport import fit_transports, loopback
from .samples import SLICE, Point, Samples

LEAST_TRAFFIC, MOST_TRAFFIC = 0.5, 2.0
"""Factors on communication next to compute beyond which it was noise."""
DEFAULT_SLICE_S = 0.004
"""Linux's base slice where it was not seen: 0.75 ms x (1 + log2 cores), at least one tick of 4 ms."""


def fit_cluster(measurements: Mapping[str, Any], *, name: str, date: str) -> Cluster:
    """The machine that ``measurements`` (schema traincast.measurements/1) were taken on.

    Peak FLOP/s is the best rate any measured GEMM reached, memory bandwidth the best of any addition,
    caches included: efficiencies are fractions of these.

    Raises:
        InputError: another schema, no GEMMs measured, or a time that is not above 0.
    """
    samples = Samples(measurements)
    source = _source(samples)
    fit = fit_gpu if samples.machine["kind"] == "gpu" and samples.of("elementwise") else fit_accelerator
    accelerator, residuals = fit(samples, source=source, date=date)
    transports, transport_residuals = fit_transports(samples)
    host = _host(samples)
    residuals |= transport_residuals | _step_residuals(samples, accelerator, host)
    counts = [curve.ranks for curve in transports]
    machine = samples.machine
    ranks = max([*counts, machine["cores"]]) if host else machine["devices"]
    return Cluster(
        name=name,
        nodes=1,
        accelerators_per_node=ranks,
        accelerator=accelerator,
        links=loopback(transports),
        transports=transports,
        host=host,
        jitter=_jitter(samples),
        residuals=residuals,
        description=_description(samples, host),
        source=source,
        date=date,
    )


def _description(samples: Samples, host: Host | None) -> str:
    if host is None:
        return "as measured"
    lost = _disturbance(samples)
    return f"ranks are processes that take the cores in turn; other programs took {lost:.0%} while measuring"


def _source(samples: Samples) -> str:
    m = samples.machine
    return (
        f"traincast calibrate on {m['device']}, {m['cores']} cores, {m['system']}, torch {m['torch']}, "
        f"medians of {samples.rounds} round{'s' if samples.rounds > 1 else ''}"
    )


def _host(samples: Samples) -> Host | None:
    """What ranks on the host's cores share; None on GPUs."""
    machine = samples.machine
    if machine["kind"] != "cpu":
        return None
    slices = [point.median_s for point in samples.of(SLICE)]
    return Host(
        cores=machine["cores"],
        time_slice_s=statistics.median(slices) if slices else DEFAULT_SLICE_S,
        concurrency=tuple((float(count), factor) for count, factor in samples.concurrency.items()),
        traffic=_traffic(samples),
        copied_s_per_byte=_copied_s_per_byte(samples),
        probe_s=samples.probe_s,
    )


def _traffic(samples: Samples) -> float:
    """What an all-reduce adds to the processor seconds of compute next to it, over its own alone: the median
    over samples that were taken one after the other."""
    found: dict[str, list[float]] = {"transport": [], "compute": [], "both": []}
    for point in samples.of("traffic"):
        found[point.parameters["of"]] += point.cpu_seconds
    if not found["transport"] or not found["both"]:
        return 1.0
    added = [both - compute for both, compute in zip(found["both"], found["compute"], strict=True)]
    factor = statistics.median(added) / statistics.median(found["transport"])
    return min(MOST_TRAFFIC, max(LEAST_TRAFFIC, factor))


def _copied_s_per_byte(samples: Samples) -> float:
    copies = [point.own_s / point.parameters["bytes"] for point in samples.of("copies")]
    return statistics.median(copies) if copies else 0.0


def _disturbance(samples: Samples) -> float:
    """Share of their time that ranks with cores of their own lost to other programs."""
    cores = samples.machine["cores"]
    own = [p for p in samples.of("together") if p.cpu_seconds and p.parameters["processes"] <= cores]
    lost = [1.0 - c / w for p in own for w, c in zip(p.seconds, p.cpu_seconds, strict=True)]
    return max(0.0, statistics.fmean(lost)) if lost else 0.0


def _jitter(samples: Samples) -> float:
    """Coefficient of variation of a piece of compute: 1.4826 x median absolute deviation, as of a normal.

    On the CPU of steps on several ranks at once, whose wall time also holds what else the machine did; on
    GPUs of a block. Deviations are from each series' own median, which n samples pull towards themselves.
    """
    crowded = [p for p in samples.of("together") if p.parameters["processes"] > 1]
    blocks = [p for what in ("forward", "backward") for p in samples.of(what)]
    chosen = crowded or [p for p in blocks if p.parameters["kind"] == BLOCK]
    deviations = [
        abs(seconds / point.median_s - 1.0) * (len(point.seconds) / (len(point.seconds) - 1)) ** 0.5
        for point in chosen
        if len(point.seconds) > 1
        for seconds in point.seconds
    ]
    return 1.4826 * statistics.median(deviations) if deviations else 0.0


def _step_residuals(samples: Samples, accelerator: Accelerator, host: Host | None) -> dict[str, float]:
    """Whole steps as the sum of their layers and the optimizer, against the same measured.

    `single_step` on one rank, in its own processor time: does the sum hold? `crowded_step` on several at
    once, where each step counts by itself and by the wall clock: a run meets the machine as it is then.
    """
    factors = dict(host.concurrency) if host else {}
    single, crowded = [], []
    for point in (*samples.of("step"), *samples.of("together")):
        own, count = predicted_step_s(accelerator, point), point.parameters["processes"]
        if own is None:
            continue
        predicted = own * factors.get(count, 1.0) * (max(1.0, count / host.cores) if host else 1.0)
        if count == 1:
            single.append(abs(predicted / point.own_s - 1.0))
        else:
            crowded += [abs(predicted / seconds - 1.0) for seconds in point.seconds]
    found = {"single_step": single, "crowded_step": crowded}
    return {name: statistics.median(errors) for name, errors in found.items() if errors}


def predicted_step_s(accelerator: Accelerator, step: Point) -> float | None:
    """Seconds of the whole step that ``step`` measured, from profiles; None where they are missing."""
    p = step.parameters
    if "network" in p:
        return _network_step_s(accelerator, step)
    decoder = replace(decoder_of(p), layers=p["layers"])
    counts = Counter(layer.kind for layer in Model(name="step", decoder=decoder).layers)
    total = 0.0
    for profile in accelerator.layer_profiles:
        alike = all(getattr(profile, name) == p[name] for name in PROFILE_KEYS)
        if alike and profile.shard == WHOLE and is_of(profile, decoder):
            total += counts.pop(profile.kind, 0) * (profile.forward_s + profile.backward_s)
    cost = accelerator.optimizer_costs.get(p["optimizer"])
    if counts or cost is None:
        return None
    return p["micro_batches"] * total + cost.overhead_s + cost.per_parameter_s * p["parameters"]


def _network_step_s(accelerator: Accelerator, step: Point) -> float | None:
    """The same of a model that is no decoder, whose layers the step counts by digest."""
    p = step.parameters
    counts, total = dict(p["network"]), 0.0
    for profile in accelerator.layer_profiles:
        if all(getattr(profile, name) == p[name] for name in PROFILE_KEYS):
            total += counts.pop(profile.variant, 0) * (profile.forward_s + profile.backward_s)
    cost = accelerator.optimizer_costs.get(p["optimizer"])
    if counts or cost is None:
        return None
    return p["micro_batches"] * total + cost.overhead_s + cost.per_parameter_s * p["parameters"]


PROFILE_KEYS = ("seq_len", "micro_batch", "precision")
"""What a profile and a measured step must agree in."""
