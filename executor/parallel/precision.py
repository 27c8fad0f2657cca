"""What layers compute in, and what they drop: fp8 and dropout of a rank's layers.

Both hold inside one rank, but depend on its place in the plan and on what divides its layers. A scaled loss,
which fp16 needs, is the optimizer's matter (`executor/train/loss_scaling.py`).
"""

from __future__ import annotations

from ...sim.plan.plan import Plan
from ...sim.plan.step_counts import is_unflushed
from ..model.decoder import Layers
from ..model.dropout import add_dropout, seed_numbers
from ..model.float8 import CAPABLE, FP8, MULTIPLE, use_float8
from .rank_context import RankContext
from .surroundings import Surroundings


def refusals(plan: Plan, surroundings: Surroundings) -> list[str]:
    """What of a plan's precision and dropout cannot be run here, and why."""
    found = []
    if plan.job.model.network is not None:
        if plan.job.dropout or plan.job.precision == FP8:
            found.append("fp8 and a job's dropout are for the blocks of decoders, and this model is none")
        return found
    if plan.job.dropout and plan.strategy.cp > 1:
        found.append("dropout inside attention is not drawn in parts: run plans with cp 1")
    if plan.job.precision == FP8:
        found += _float8_refusals(plan, surroundings)
    return found


def apply(layers: Layers, here: RankContext) -> None:
    """Have the linear layers of the blocks multiply in fp8, and ``layers`` drop values by numbers of this
    rank's place, as the job does. Tensor-parallel ranks draw alike."""
    job = here.plan.job
    if job.precision == FP8:
        use_float8(layers)
    if job.dropout:
        pp, dp, *_ = here.plan.coordinates(here.rank)
        seed_numbers(here.workload.seed, pp, dp)
        add_dropout(layers)


def _float8_refusals(plan: Plan, surroundings: Surroundings) -> list[str]:
    job, strategy, decoder = plan.job, plan.strategy, plan.job.model.decoder
    if surroundings.kind == "cpu":
        return ["fp8 needs a GPU of compute capability 8.9 or later; run bf16 or fp32 on the CPU"]
    found = []
    if surroundings.capability < CAPABLE:
        found.append(
            f"fp8 needs a GPU of compute capability 8.9 or later, and here is "
            f"{'.'.join(map(str, surroundings.capability))}; run bf16"
        )
    if strategy.tp > 1 or strategy.sharding != "ddp" or decoder.experts or decoder.kv_rank:
        found.append("fp8 runs with whole dense layers only: tp 1, sharding ddp, no experts, no latents")
    if is_unflushed(strategy):
        found.append("fp8 keeps no copies of weights that are stashed; run a schedule that drains")
    if strategy.recompute == "selective_op":
        found.append(
            "fp8 GEMMs are not among those that recompute selective_op tells apart; run full or none"
        )
    tokens = strategy.micro_batch * job.seq_len // strategy.cp
    sizes = (decoder.hidden, decoder.q_size + decoder.kv_size + decoder.v_size, decoder.o_size, decoder.ffn)
    odd = [str(size) for size in (*sizes, tokens) if size % MULTIPLE]
    if odd:
        found.append(f"fp8 GEMMs need sizes that are multiples of {MULTIPLE}, not {', '.join(odd)}")
    return found
