"""Can this machine run that plan? Asked before any process starts."""

from __future__ import annotations

import torch

from ...sim.errors import EnvironmentMismatchError
from ...sim.plan.plan import Plan
from ...sim.plan.strategy import Strategy
from ..model.decoder import STACKS
from ..model.refusals import refusals
from ..parallel import context, expert, offload, pipeline, precision, recompute, sharded, tensor
from ..parallel.process_groups import devices
from ..parallel.surroundings import Surroundings
from ..servers import refusals as servers
from ..train import loss_scaling

PARALLELISMS = (
    *(tensor, context, expert, precision, loss_scaling),
    *(recompute, offload, sharded, pipeline, servers),
)
"""Each says what of a plan it cannot run here."""
CUDNN_GENERATIONS = (9, 10)
"""Compute capabilities whose attention torch leaves to cuDNN."""


def check_environment(plan: Plan, *, force: bool = False) -> None:
    """Raise EnvironmentMismatchError, listing everything that does not match.

    ``force`` lets a plan that was made for other hardware run on what is here.
    """
    faults = refused(plan)
    if not force:
        faults += _made_for_another(plan)
    if faults:
        raise EnvironmentMismatchError("; ".join(faults))


def refused(plan: Plan, surroundings: Surroundings | None = None) -> list[str]:
    """What of ``plan`` cannot be run here, or on a machine like ``surroundings``, whatever it was made for:
    one sentence each, which names the field of the strategy or job, and says why."""
    there = surroundings or Surroundings.of(plan)
    faults = _simulated_only(plan.strategy, there)
    faults += [fault for one in PARALLELISMS for fault in one.refusals(plan, there)]
    return faults + refusals(plan) + _of_machine(plan, there)


def _of_machine(plan: Plan, surroundings: Surroundings) -> list[str]:
    strategy, faults = plan.strategy, []
    if plan.job.precision == "tf32" and surroundings.kind == "cpu":
        faults.append("precision tf32 is a format of GPUs; run fp32 or bf16 on the CPU")
    algorithm, gpus = strategy.collective_algorithm, len(surroundings.devices)
    if strategy.workers > 1 and algorithm not in ("auto", "ring") and surroundings.kind == "cpu":
        faults.append(
            f"collective_algorithm {algorithm}: gloo reduces around a ring only; run plans with auto or ring"
        )
    # Parameter servers hold their parameters on the CPU.
    if surroundings.kind == "gpu" and strategy.workers > gpus:
        faults.append(f"dp × tp × pp × cp: {strategy.workers} workers, but {gpus} GPUs here")
    return faults


def _simulated_only(strategy: Strategy, surroundings: Surroundings) -> list[str]:
    """What of a strategy the executor cannot do."""
    found = []
    if strategy.attention not in _attentions(surroundings):
        found.append(f"attention {strategy.attention}")
    if strategy.stack not in (Strategy().stack, *STACKS):
        found.append(f"stack {strategy.stack}")
    return [f"{', '.join(found)}: simulated but not run yet"] if found else []


def _attentions(surroundings: Surroundings) -> tuple[str, ...]:
    """What torch's own attention is there: on Hopper and Blackwell it is cuDNN's kernel (ATen,
    native/transformers/cuda/sdp_utils.cpp, `check_prefer_cudnn_attention`)."""
    return ("flash", "flash3") if surroundings.capability[0] in CUDNN_GENERATIONS else ("flash",)


def _made_for_another(plan: Plan) -> list[str]:
    made_for = plan.cluster.get("kind")
    if made_for is None:
        return []
    here = "gpu" if torch.cuda.is_available() else "cpu"
    if made_for == "gpu" and here == "cpu":
        accelerator = f"{plan.cluster.get('accelerator')} on {plan.cluster.get('name')}"
        return [
            f"the plan was made for {plan.world_size} × {accelerator}, but there is no GPU here (--force)"
        ]
    expected = str(plan.cluster.get("accelerator", ""))
    if made_for == "gpu" and not any(_same(expected, name) for name in devices()):
        return [f"the plan was made for {expected}, but here is {', '.join(devices())} (--force)"]
    return []


def _same(expected: str, name: str) -> bool:
    """`h100-sxm` and `NVIDIA H100 80GB HBM3` are the same: the model number is what both have."""
    words = name.lower().replace("-", " ").split()
    return any(
        word in words for word in expected.lower().replace("-", " ").split() if any(c.isdigit() for c in word)
    )
