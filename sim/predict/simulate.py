"""The one interface of the engines: `simulate(plan, cluster)` gives the predicted Trace.

`compiled` is what runs by default; `simpy` is the reference that defines what the words mean. Both give
the same spans to the last bit.
"""

from __future__ import annotations

from ..costs.compute import probe_s
from ..engine.runner import ProgramRunner, Runner, Seconds
from ..engine.step_runner import StepRunner
from ..errors import InputError
from ..hardware.cluster import Cluster
from ..memory.peak import RankMemory, memory
from ..plan.plan import Plan
from ..plan.step_counts import filling_steps, is_unflushed, steps_played
from ..program.build import build_program
from ..program.built import Built
from ..program.step_arrays import StepArrays, step_arrays
from ..trace.load import CORE_SECONDS, CORES, PROBE
from ..trace.trace import Spans, Trace
from ..updates.predict import predict_updates
from .intervals import with_residual
from .remembered import remembered
from .spans import spans_of
from .world_size import refuse_too_many_ranks

NETWORKS = ("closed-form", "flow")
"""How messages share links."""


def simulate(
    plan: Plan,
    cluster: Cluster,
    *,
    engine: str = "compiled",
    samples: int = 0,
    seed: int = 0,
    stepwise: bool = False,
    spans: bool = True,
    network: str = NETWORKS[0],
) -> Trace:
    """Predict one step of ``plan`` on ``cluster``.

    ``samples`` > 0 also draws that many steps, each with the cluster's jitter on every operation and its
    calibration residual on the whole; the spans are always the deterministic ones. The same ``seed`` gives
    the same numbers. ``stepwise`` plays ring collectives step by step, each member from its own ready time,
    where ranks differ. Without ``spans`` the trace has none, which takes a fraction of the time.
    ``network`` says how messages share links: `closed-form` takes all groups like one to communicate at the
    same time as it; `flow` lays every message on the routes of the cluster's fabric, where those that are
    under way together share links by max-min fairness. Every rank is then played by itself.

    Raises:
        InputError: the plan has more ranks than the cluster has accelerators, its actions wait for each
            other, the engine or the network is unknown, or the cluster's network or the plan is none that
            flow level knows.
    """
    refuse_too_many_ranks(plan.strategy, cluster)
    if plan.strategy.gradient_exchange == "parameter_server":
        if network != NETWORKS[0]:
            raise InputError("network flow does not know parameter servers, whose queues share links already")
        return _simulate_updates(plan, cluster, engine, samples, seed)
    built, runner = _runner(plan, cluster, engine, stepwise, network)
    played = runner.deterministic()
    step = step_time_s(plan, built, played.lanes[0].ends, played.makespan)
    drawn = _draw(plan, cluster, runner, built, step, samples, seed) if samples else (step,)
    return Trace(
        spans=spans_of(built.rows, played) if spans else Spans.of(()),
        source="predicted",
        world_size=plan.world_size,
        step_times_s=drawn,
        peak_memory_bytes=_peak_memory(
            plan, cluster, [r + run.lane for run in played.lanes for r in built.ranks]
        ),
        metadata=_metadata(plan, cluster, built, engine, seed, step),
    )


def _runner(
    plan: Plan, cluster: Cluster, engine: str, stepwise: bool, network: str
) -> tuple[Built | StepArrays, Runner]:
    """What is run: arrays where the plan repeats itself, else, and for the reference, every operation."""
    if network not in NETWORKS:
        raise InputError(f"network {network!r} is unknown; expected {' | '.join(NETWORKS)}")
    if network == "flow":
        return _on_links(plan, cluster, engine, stepwise)
    if engine == "compiled":
        step = _step(plan, cluster, stepwise=stepwise)
        if step is not None:
            return step, StepRunner(step, cluster, plan.world_size)
    built = build_program(plan, cluster, stepwise=stepwise)
    return built, ProgramRunner(built, cluster, plan.world_size, engine)


def _on_links(plan: Plan, cluster: Cluster, engine: str, stepwise: bool) -> tuple[Built, Runner]:
    """What communicates at the same time shares links."""
    from ..engine.link_runner import LinkRunner

    if cluster.host is not None or engine != "compiled" or stepwise:
        what = (
            "shared cores" if cluster.host else "collectives step by step" if stepwise else f"engine {engine}"
        )
        raise InputError(f"network flow does not know {what}; leave that out, or take network closed-form")
    built = build_program(plan, cluster, alone=True)
    return built, LinkRunner(built, plan, cluster)


@remembered(4)
def _step(plan: Plan, cluster: Cluster, *, stepwise: bool) -> StepArrays | None:
    """The arrays of a step, which may be run again, with other seeds or without spans."""
    return step_arrays(plan, cluster, stepwise=stepwise)


@remembered(16)
def _memory(plan: Plan, cluster: Cluster) -> tuple[RankMemory, ...]:
    return memory(plan, cluster)


def _simulate_updates(plan: Plan, cluster: Cluster, engine: str, samples: int, seed: int) -> Trace:
    """Parameter servers: who is served first, and when, is decided update by update."""
    found = predict_updates(plan, cluster, engine=engine, samples=samples, seed=seed)
    step = found.step_time_s
    return Trace.of(
        found.spans,
        source="predicted",
        world_size=plan.world_size,
        step_times_s=with_residual(cluster, found.drawn_s, seed) if samples else (step,),
        peak_memory_bytes=_peak_memory(plan, cluster, list(range(plan.world_size))),
        metadata={
            "label": plan.strategy.label,
            "cluster": cluster.name,
            "engine": engine,
            "seed": seed,
            "deterministic_step_time_s": step,
            "folded": False,
            "lanes": 1,
            **found.metadata,
        },
    )


def step_time_s(plan: Plan, built: Built | StepArrays, ends: Seconds, makespan: float) -> float:
    """Seconds of one step: the makespan over the steps that were played, or, where a pipeline never drains,
    those of a step in which it is full."""
    if is_unflushed(plan.strategy):
        return _steady_step_s(plan, built, ends)
    return makespan / steps_played(plan.strategy, plan.job)


def _steady_step_s(plan: Plan, built: Built | StepArrays, ends: Seconds) -> float:
    """The mean of the steps in which a pipeline that never drains is full, by the first rank's updates."""
    steps, filling = steps_played(plan.strategy, plan.job), filling_steps(plan.strategy, plan.job)
    of_first = [ends[op] for rank, op in built.steps if rank == built.ranks[0]]
    a_step = len(of_first) // steps
    full = of_first[(steps - filling) * a_step - 1] - of_first[filling * a_step - 1]
    return float(full) / (steps - 2 * filling)


def _draw(
    plan: Plan,
    cluster: Cluster,
    runner: Runner,
    built: Built | StepArrays,
    step: float,
    samples: int,
    seed: int,
) -> tuple[float, ...]:
    """``samples`` step times: with jitter and transient stragglers, times the error that the calibration
    leaves."""
    steps = _drawn_steps(plan, runner, built, samples, seed) if runner.has_factors else [step] * samples
    return with_residual(cluster, steps, seed)


def _drawn_steps(
    plan: Plan, runner: Runner, built: Built | StepArrays, samples: int, seed: int
) -> list[float]:
    if is_unflushed(plan.strategy):
        return [step_time_s(plan, built, ends, max(ends)) for ends in runner.ends(samples, seed)]
    return [step_time_s(plan, built, (), makespan) for makespan in runner.makespans(samples, seed)]


def _peak_memory(plan: Plan, cluster: Cluster, ranks: list[int]) -> dict[int, float]:
    by_place = _memory(plan, cluster)
    peaks = {}
    for rank in ranks:
        server = rank - plan.strategy.workers
        place = plan.strategy.pp + server if plan.is_server(rank) else plan.coordinates(rank)[0]
        peaks[rank] = by_place[place].total_bytes
    return peaks


def _metadata(
    plan: Plan,
    cluster: Cluster,
    built: Built | StepArrays,
    engine: str,
    seed: int,
    step: float,
) -> dict[str, object]:
    return {
        "label": plan.strategy.label,
        "cluster": cluster.name,
        "engine": engine,
        "seed": seed,
        "deterministic_step_time_s": step,
        "folded": len(built.ranks) < plan.world_size,
        "lanes": built.lanes,
        **_cores(plan, cluster, built),
    }


def _cores(plan: Plan, cluster: Cluster, built: Built | StepArrays) -> dict[str, object]:
    """What ranks that share a host's cores take of them in a step, and how fast these are taken to be;
    nothing where they have devices."""
    if cluster.host is None or not isinstance(built, Built):
        return {}
    steps = steps_played(plan.strategy, plan.job)
    return {
        CORE_SECONDS: built.core_s / steps,
        CORES: cluster.host.cores,
        PROBE: probe_s(cluster, plan.world_size),
    }
