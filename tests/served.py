"""Ranks of a plan with parameter servers, forked for tests, and what they found."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from ranks import run_ranks

from traincast.sim.model.decoder import Decoder
from traincast.sim.model.model import Model
from traincast.sim.plan.job import Job
from traincast.sim.plan.make_plan import make_plan
from traincast.sim.plan.plan import Plan
from traincast.sim.plan.strategy import Strategy

SEED = 3
SLOW_S = 0.03
"""What a round of the slow worker takes longer."""


def tiny_job(optimizer: str = "sgd", *, tied: bool = False) -> Job:
    decoder = Decoder(
        layers=2, hidden=16, heads=2, kv_heads=2, head_dim=8, ffn=32, vocab=64, max_positions=16,
        tied_embeddings=tied,
    )  # fmt: skip
    model = Model(name="tiny", decoder=decoder)
    return Job(
        model=model, global_batch=8, seq_len=8, optimizer=optimizer, precision="fp32", learning_rate=0.1
    )


def served_plan(synchrony: str, *, job: Job | None = None, dp: int = 2, **fields: Any) -> Plan:
    """Two micro-batches on each of two workers, one on each of four; buckets of one layer."""
    strategy = {"servers": 1, "micro_batch": 2, "bucket_bytes": 1, **fields}
    return make_plan(
        job or tiny_job(),
        Strategy(dp=dp, gradient_exchange="parameter_server", synchrony=synchrony, **strategy),
    )


@dataclass
class Served:
    """What all ranks of a run found."""

    parts: list[dict[str, Any]]
    parameters: dict[str, Any]
    copies: list[dict[str, Any]]
    marks: list[Any]

    @property
    def portions(self) -> dict[str, Any]:
        return {number: own for part in self.parts for number, own in part["portions"].items()}


def serve(plan: Plan, rounds: int, *, slow: int | None = None) -> Served:
    """Run ``plan``; worker ``slow`` takes longer over each of its rounds."""
    found = run_ranks(plan.world_size, rank_of_servers, plan, rounds, slow)
    parameters = {name: own for _, held, _, _ in found for name, own in held.items()}
    marks = [mark for *_, own in found for mark in own]
    return Served([part for part, *_ in found], parameters, [copies for _, _, copies, _ in found], marks)


def rank_of_servers(rank: int, plan: Plan, rounds: int, slow: int | None) -> tuple[Any, ...]:
    import torch

    from traincast.executor.measure.heartbeat import Silent
    from traincast.executor.measure.recorder import CpuClock, Recorder
    from traincast.executor.model.workload import Workload
    from traincast.executor.servers.server_rank import ServerRank

    recorder = Recorder(rank, CpuClock(), Silent())
    workload = Workload(job=plan.job, seed=SEED)
    one = ServerRank(plan, rank, torch.device("cpu"), recorder, workload, rounds)
    if rank == slow and one.worker:
        draw = one.worker.samples.micro_batches

        def late(*arguments: int) -> Any:
            time.sleep(SLOW_S)
            return draw(*arguments)

        one.worker.samples.micro_batches = late  # type: ignore[method-assign]
    one.run(lambda step: None)
    recorder.settle()
    copies = one.server.copied() if one.server else {}
    return one.part(), one.kept_state()["parameters"], copies, [tuple(mark) for mark in one.marks]
