"""Which device and back end a rank has, and its process groups: one for every dimension of the plan's grid.

NCCL between GPUs, gloo between CPUs, by what is there and what the plan was made for.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import cast

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import Store
from torch.distributed.device_mesh import init_device_mesh

from ...sim.plan.plan import Plan

DIMENSIONS = ("pp", "dp", "cp", "tp")
GROUP_TIMEOUT = timedelta(hours=1)
"""Hangs are the launcher's to see, which knows who is late; a back end's own timeout only knows that."""


def available_backends() -> list[str]:
    """Back ends of torch.distributed that work here."""
    if not dist.is_available():
        return []
    nccl = ["nccl"] if dist.is_nccl_available() and torch.cuda.is_available() else []
    return nccl + (["gloo"] if dist.is_gloo_available() else [])


def devices() -> list[str]:
    """Names of the GPUs at hand; empty where there is only the CPU."""
    return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]


def device_kind(plan: Plan) -> str:
    """`gpu` or `cpu`: what the plan was made for if it is here, else what is here."""
    if not torch.cuda.is_available():
        return "cpu"
    return "cpu" if plan.cluster.get("kind") == "cpu" else "gpu"


def device_of(plan: Plan, rank: int) -> torch.device:
    """Where ``rank`` computes."""
    if device_kind(plan) == "cpu":
        return torch.device("cpu")
    return torch.device("cuda", rank % torch.cuda.device_count())


@dataclass(frozen=True, slots=True, kw_only=True)
class Groups:
    """Process groups of one worker; a group of one is left out."""

    pp: dist.ProcessGroup | None
    """This worker's pipeline."""
    backward: dist.ProcessGroup | None
    """The same ranks again, for gradients: NCCL would keep both directions of a pair in one queue."""
    dp: dist.ProcessGroup | None
    """The replicas of this worker's stage."""
    tied: dist.ProcessGroup | None
    """First and last stage of this pipeline, where they share tied embeddings and this is one of them."""


def join(plan: Plan, rank: int, store: Store) -> torch.device:
    """Join the run's default group through ``store``. Returns the rank's device."""
    device = device_of(plan, rank)
    # Parameter servers exchange CPU tensors wherever the workers compute.
    backend = "gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl"
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group(
        backend, store=store, rank=rank, world_size=plan.world_size, timeout=GROUP_TIMEOUT
    )
    return device


def make_groups(plan: Plan, rank: int, device: torch.device) -> Groups:
    """All ranks call this alike, since every rank takes part in making every group."""
    if plan.strategy.servers:
        return Groups(pp=None, backward=None, dp=None, tied=None)
    mesh = init_device_mesh(device.type, plan.grid.shape, mesh_dim_names=DIMENSIONS)
    pipelines = plan.grid.reshape(plan.strategy.pp, -1).T.tolist()
    deep = plan.strategy.pp > 1
    tied = deep and plan.job.model.decoder.tied_embeddings
    return Groups(
        pp=mesh.get_group("pp") if deep else None,
        backward=_own_group(pipelines, rank) if deep else None,
        dp=mesh.get_group("dp") if plan.strategy.dp > 1 else None,
        tied=_own_group([[line[0], line[-1]] for line in pipelines], rank) if tied else None,
    )


def _own_group(members: list[list[int]], rank: int) -> dist.ProcessGroup | None:
    """Make a group of each list of ranks; the one that ``rank`` is in."""
    made = [dist.new_group(ranks, timeout=GROUP_TIMEOUT) for ranks in members]
    mine = next((group for group, ranks in zip(made, members, strict=True) if rank in ranks), None)
    return cast("dist.ProcessGroup | None", mine)
