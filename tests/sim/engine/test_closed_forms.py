"""Programs built by hand whose times are known in closed form, on both engines."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest

from traincast.sim.engine import compiled as engine_compiled
from traincast.sim.engine import reference as engine_simpy
from traincast.sim.program.program import Program

Times = tuple[list[float], list[float]]

both_engines = pytest.mark.parametrize(
    "run", [engine_simpy.run, engine_compiled.run], ids=["simpy", "compiled"]
)


def pipeline(orders: list[list[tuple[str, int]]], forward: float, backward: float) -> Program:
    """Stages that each do ("F" or "B", micro-batch) in the order given; passing on costs nothing."""
    program = Program()
    ids: dict[tuple[int, str, int], int] = {}
    for stage, order in enumerate(orders):
        stream = program.stream(stage, "compute")
        for kind, index in order:
            ids[stage, kind, index] = program.add(forward if kind == "F" else backward, (stream,))
    last = len(orders) - 1
    for (stage, kind, index), op in ids.items():
        if kind == "F" and stage > 0:
            program.depend(op, ids[stage - 1, "F", index])
        if kind == "B":
            program.depend(op, ids[stage + 1, "B", index] if stage < last else ids[stage, "F", index])
    return program


def gpipe_order(stages: int, micro_batches: int) -> list[list[tuple[str, int]]]:
    """All forwards, then all backwards."""
    return [[(kind, i) for kind in "FB" for i in range(micro_batches)]] * stages


def one_f_one_b_order(stages: int, micro_batches: int) -> list[list[tuple[str, int]]]:
    """Stage s does min(m, p - s) forwards, then backwards and forwards in turn."""

    def stage_order(stage: int) -> Iterable[tuple[str, int]]:
        warmup = min(micro_batches, stages - stage)
        yield from (("F", i) for i in range(warmup))
        for i in range(micro_batches):
            yield "B", i
            if warmup + i < micro_batches:
                yield "F", warmup + i

    return [list(stage_order(stage)) for stage in range(stages)]


@pytest.mark.parametrize(
    ("stages", "micro_batches"), [(1, 1), (1, 5), (2, 1), (2, 8), (4, 4), (4, 3), (7, 20)]
)
@pytest.mark.parametrize("order", [gpipe_order, one_f_one_b_order])
@both_engines
def test_uniform_pipeline_takes_m_plus_p_minus_1_rounds(
    run: Callable[..., Times], order: Callable, stages: int, micro_batches: int
) -> None:
    """(m + p - 1)(f + b): GPipe and 1F1B have the same bubble (Narayanan et al. 2021, section 2.2)."""
    _, ends = run(pipeline(order(stages, micro_batches), 1.25, 2.5))
    assert max(ends) == (micro_batches + stages - 1) * (1.25 + 2.5)


@both_engines
def test_1f1b_times_of_two_stages_in_full(run: Callable[..., Times]) -> None:
    """Every start, drawn by hand: stage 0 F0 F1 B0 F2 B1 B2, stage 1 F0 B0 F1 B1 F2 B2."""
    starts, _ = run(pipeline(one_f_one_b_order(2, 3), 1.0, 2.0))
    assert starts == [0.0, 1.0, 4.0, 6.0, 7.0, 10.0, 1.0, 2.0, 4.0, 5.0, 7.0, 8.0]


def ring_all_reduce(ranks: int, chunk_s: float, latency_s: float, ready_s: list[float]) -> Program:
    """2(n-1) steps; in each every rank sends one chunk to the next, once it has the one before it.

    A transfer keeps the sender's port out and the receiver's port in busy for ``chunk_s`` and is there
    ``latency_s`` later. The last n operations end when a rank has everything.
    """
    program = Program()
    begin = [program.add(seconds) for seconds in ready_s]
    has = [[(op, 0.0)] for op in begin]
    for _ in range(2 * (ranks - 1)):
        sent = [
            program.add(
                chunk_s,
                (program.stream(rank, "out"), program.stream((rank + 1) % ranks, "in")),
                after=has[rank] + [(begin[(rank + 1) % ranks], 0.0)],
            )
            for rank in range(ranks)
        ]
        has = [[(sent[rank - 1], latency_s)] for rank in range(ranks)]
    for rank in range(ranks):
        program.add(0.0, after=has[rank])
    return program


@pytest.mark.parametrize("ranks", [2, 3, 4, 8, 16])
@both_engines
def test_ring_all_reduce_takes_2_n_minus_1_steps(run: Callable[..., Times], ranks: int) -> None:
    """2(n-1)(alpha + S / (n B)) (Patarasuk and Yuan 2009), exactly where the seconds are binary fractions."""
    latency, chunk = 2.0**-17, 2.0**-10
    _, ends = run(ring_all_reduce(ranks, chunk, latency, [0.0] * ranks))
    assert ends[-ranks:] == [2 * (ranks - 1) * (latency + chunk)] * ranks


@both_engines
def test_ring_all_reduce_of_real_sizes_matches_to_rounding(run: Callable[..., Times]) -> None:
    """1 GiB over 8 ranks at 25 GB/s and 5 us: sums round, but no more than 14 steps can."""
    latency, chunk = 5e-6, 2**30 / 8 / 25e9
    _, ends = run(ring_all_reduce(8, chunk, latency, [0.0] * 8))
    assert max(ends) == pytest.approx(14 * (latency + chunk), rel=30 * 2.0**-53)


@both_engines
def test_ring_all_reduce_waits_for_the_last_rank(run: Callable[..., Times]) -> None:
    """A rank 10 s late delays everybody: its first chunk makes 6 steps of 1.5 s; worked out by hand."""
    _, ends = run(ring_all_reduce(4, 1.0, 0.5, [0.0, 0.0, 10.0, 0.0]))
    assert ends[-4:] == [19.0, 18.0, 18.5, 19.0]


@pytest.mark.parametrize("workers", [1, 4, 9])
@both_engines
def test_incast_on_one_server_serves_in_turn(run: Callable[..., Times], workers: int) -> None:
    """Messages of equal size that are ready together take the server's link one after the other, by id."""
    program = Program()
    link = program.resource("link", 0)
    for worker in range(workers):
        program.add(2.0, (program.stream(worker, "out"),), resources=(link,))
    starts, ends = run(program)
    assert starts == [2.0 * worker for worker in range(workers)]
    assert ends == [2.0 * worker + 2.0 for worker in range(workers)]
