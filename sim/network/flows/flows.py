"""Flows on a network of links: when each of them ends, and what rate it has at a moment.

A flow waits for the latency of its route, then has its max-min fair rate until its bytes are over; rates
change when a flow starts or ends. `Rounds` chain flows: those of a round start when the round before is
over. Times agree with SimGrid's CM02 model (Casanova & Marchal 2002; cross-traffic and TCP's window off),
which weighs a flow by one over its latency: pass such ``weights`` for the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from ... import jit as native
from ...errors import InputError
from ..fabrics.fabric import Fabric
from . import kernel

COMPILE_FROM, LOADED_FROM = 20_000, 300
"""Work, as `_work` has it, from which numba pays, if it must be loaded and if it was: CPython does some
20,000 a second, and loading takes about one."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Flows:
    """What is sent over which links; arrays have a value a flow."""

    offsets: np.ndarray
    """int64[n + 1]: flow i crosses links[offsets[i]:offsets[i + 1]]; one without links takes no time"""
    links: np.ndarray
    """int32[...]; a link that is named twice by a flow is shared twice with it"""
    sizes: np.ndarray
    """bytes, float64[n]"""
    starts: np.ndarray
    """seconds, float64[n]; with `Rounds`, after the beginning of the flow's round"""
    weights: np.ndarray | None = None
    """Shares of a common bottleneck; all alike if None."""

    def __len__(self) -> int:
        return len(self.sizes)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Network:
    """The links that flows share."""

    bandwidth: np.ndarray
    """bytes/s, float64[links]"""
    latency: np.ndarray
    """seconds, float64[links]"""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rounds:
    """Flows in rounds: a round begins by itself, or when the one before is over."""

    first: np.ndarray
    """int64[r + 1]: the flows of round i are those from first[i] up to first[i + 1], at least one"""
    begin: np.ndarray
    """seconds, float64[r]; below 0 for a round that another begins"""
    after: np.ndarray
    """int64[r]: the round that this one begins; -1 for none"""
    repeats: np.ndarray
    """int64[r]: how often a round runs, each time when it is over, before the next"""


def flows_on(
    fabric: Fabric,
    sources: np.ndarray,
    targets: np.ndarray,
    sizes: np.ndarray | float,
    starts: np.ndarray | float = 0.0,
) -> tuple[Flows, Network]:
    """Flows between hosts of a fabric by its routes, and its links.

    Raises:
        InputError: a number that is no host.
    """
    offsets, links = fabric.routes(sources, targets)
    count = len(offsets) - 1
    flows = Flows(
        offsets=offsets,
        links=links,
        sizes=np.broadcast_to(np.asarray(sizes, float), count),
        starts=np.broadcast_to(np.asarray(starts, float), count),
    )
    return flows, Network(bandwidth=fabric.link_bandwidth, latency=fabric.link_latency)


def finish_times(flows: Flows, network: Network, *, compiled: bool | None = None) -> np.ndarray:
    """When each flow ends, seconds, float64[n].

    ``compiled`` says whether numba runs it; without it the number of flows decides.

    Raises:
        InputError: lengths that do not fit, links that do not exist, or numbers that cannot be.
    """
    state = _run(flows, network, _one_round(len(flows)), math.inf, compiled)
    return np.array(state.finish, float)


def rates_at(
    flows: Flows, network: Network, moment: float = math.inf, *, compiled: bool | None = None
) -> np.ndarray:
    """bytes/s of each flow right after ``moment`` (s), float64[n]; 0 of those that are not under way.

    Raises:
        InputError: as `finish_times`.
    """
    state = _run(flows, network, _one_round(len(flows)), moment, compiled)
    return np.array(state.rate, float)


def max_min_rates(flows: Flows, network: Network, *, compiled: bool | None = None) -> np.ndarray:
    """bytes/s of each flow while all are under way, whatever their sizes and starts, float64[n].

    Raises:
        InputError: as `finish_times`.
    """
    count = len(flows)
    always = Flows(
        offsets=flows.offsets,
        links=flows.links,
        sizes=np.ones(count),
        starts=np.zeros(count),
        weights=flows.weights,
    )
    silent = Network(bandwidth=network.bandwidth, latency=np.zeros(len(network.latency)))
    return rates_at(always, silent, 0.0, compiled=compiled)


def round_ends(flows: Flows, network: Network, rounds: Rounds, *, compiled: bool | None = None) -> np.ndarray:
    """When each round is over for the last time, seconds, float64[r].

    Raises:
        InputError: as `finish_times`; a round without flows, or that runs less than once.
    """
    _check_rounds(rounds, len(flows))
    return np.array(_run(flows, network, rounds, math.inf, compiled).round_end, float)


def _one_round(flows: int) -> Rounds:
    """All flows, each at its own start."""
    few = min(flows, 1)
    return Rounds(
        first=np.array([0, flows][: few + 1]),
        begin=np.zeros(few),
        after=np.full(few, -1),
        repeats=np.ones(few, np.int64),
    )


def _run(flows: Flows, network: Network, rounds: Rounds, until: float, compiled: bool | None) -> kernel.State:
    _check(flows, network)
    state = _state(flows, network, rounds)
    if compiled is None:
        work = _work(flows, rounds)
        compiled = native.worthwhile(kernel.run_kernel, work, COMPILE_FROM, LOADED_FROM)
    if compiled:
        _register()
        native.compiled(kernel.run_kernel)(state, float(until))
    else:
        state = kernel.State(*(array.tolist() for array in state))
        kernel.run_kernel(state, float(until))
    return state


def _work(flows: Flows, rounds: Rounds) -> int:
    """Hops that start and end, in all repetitions."""
    times = np.repeat(rounds.repeats, np.diff(rounds.first))
    return int((np.diff(flows.offsets) * times).sum())


@cache
def _register() -> None:
    """Let numba compile the functions that the kernel calls, which stay plain for CPython."""
    from numba.extending import register_jitable

    for function in list(vars(kernel).values()):
        is_own = getattr(function, "__module__", "") == kernel.__name__
        if is_own and function not in (kernel.run_kernel, kernel.State):
            register_jitable(function)


def _state(flows: Flows, network: Network, rounds: Rounds) -> kernel.State:
    """All arrays of the kernel, nothing under way."""
    count, hops, links = len(flows), len(flows.links), len(network.bandwidth)
    link = flows.links.astype(np.int64)
    route = np.repeat(np.arange(count), np.diff(flows.offsets))
    latency = np.bincount(route, network.latency[link], minlength=count)
    base = np.concatenate([[0], np.cumsum(np.bincount(link, minlength=links))])
    return kernel.State(
        first=np.asarray(flows.offsets, np.int64),
        link=link,
        flow=route,
        weight=np.ones(count) if flows.weights is None else np.array(flows.weights, float),
        size=np.array(flows.sizes, float),
        delay=flows.starts + latency,
        mark=np.full(count, kernel.IDLE),
        level=np.zeros(count),
        bottleneck=np.full(count, -1),
        rate=np.zeros(count),
        left=np.zeros(count),
        since=np.zeros(count),
        finish=np.zeros(count),
        capacity=np.array(network.bandwidth, float),
        base=base,
        count=np.zeros(links, np.int64),
        member=np.zeros(hops, np.int64),
        place=np.zeros(hops, np.int64),
        due=np.full(links, kernel.NOTHING),
        frees=np.zeros(links, bool),
        stale=np.zeros(links, bool),
        touched=np.full(links, kernel.UNTOUCHED),
        dirty=np.zeros(links, np.int64),
        changed=np.zeros(count, np.int64),
        lengths=np.zeros(2, np.int64),
        round=np.repeat(np.arange(len(rounds.begin)), np.diff(rounds.first)),
        round_first=np.asarray(rounds.first, np.int64),
        round_begin=np.array(rounds.begin, float),
        round_next=np.asarray(rounds.after, np.int64),
        round_repeats=np.array(rounds.repeats, np.int64),
        round_open=np.zeros(len(rounds.begin), np.int64),
        round_end=np.zeros(len(rounds.begin)),
    )


def _check(flows: Flows, network: Network) -> None:
    count, links = len(flows), len(network.bandwidth)
    lengths = np.diff(flows.offsets)
    per_flow = [flows.starts, *([flows.weights] if flows.weights is not None else [])]
    if len(lengths) != count or any(len(values) != count for values in per_flow):
        raise InputError(f"{len(lengths)} routes, {count} sizes and {len(flows.starts)} starts of flows")
    if len(network.latency) != links:
        raise InputError(f"{links} bandwidths and {len(network.latency)} latencies of links")
    if (lengths < 0).any() or flows.offsets[0] != 0 or flows.offsets[-1] != len(flows.links):
        raise InputError(f"offsets of routes do not rise from 0 to the {len(flows.links)} links they cross")
    if len(flows.links) and (flows.links.min() < 0 or flows.links.max() >= links):
        raise InputError(f"flows cross links {flows.links.min()} .. {flows.links.max()} of {links}")
    _check_numbers("size of flow", flows.sizes, least=0.0)
    _check_numbers("start of flow", flows.starts, least=0.0)
    _check_numbers("latency of link", network.latency, least=0.0)
    _check_numbers("bandwidth of link", network.bandwidth, least=math.ulp(0.0))
    if flows.weights is not None:
        _check_numbers("weight of flow", flows.weights, least=math.ulp(0.0))


def _check_numbers(what: str, values: Any, *, least: float) -> None:
    """Refuse what is below ``least`` or not finite."""
    values = np.asarray(values, float)
    bad = np.flatnonzero(~((values >= least) & (values < math.inf)))
    if len(bad):
        allowed = "0 or more" if least == 0 else "above 0"
        raise InputError(f"{what} {bad[0]} is {values[bad[0]]}; expected a finite number {allowed}")


def _check_rounds(rounds: Rounds, flows: int) -> None:
    sizes = np.diff(rounds.first)
    if len(rounds.first) == 0 or rounds.first[0] != 0 or rounds.first[-1] != flows or (sizes < 1).any():
        raise InputError(f"rounds do not divide {flows} flows into parts of at least one")
    if (np.asarray(rounds.repeats) < 1).any():
        raise InputError("a round runs less than once")
    if np.max(rounds.after, initial=-1) >= len(sizes):
        raise InputError(f"a round begins round {np.max(rounds.after)} of {len(sizes)}")
