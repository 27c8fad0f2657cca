"""Which device and back end a rank has, and its process groups: those of `sim/plan/rank_groups.py`.

NCCL between GPUs, gloo between CPUs, by what is there and what the plan was made for.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import cast

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import Store

from ...sim.plan.plan import Plan
from ...sim.plan.rank_groups import Groups as RankGroups

ALONG_A_STAGE = ("tp", "cp", "ep", "replicas", "shards", "shard_replicas", "expert_replicas")
"""Groups of ranks that hold the same stage, by their names in a plan."""
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

    pp: dist.ProcessGroup | None = None
    """This worker's pipeline."""
    backward: dist.ProcessGroup | None = None
    """The same ranks again, for gradients: NCCL would keep both directions of a pair in one queue."""
    tied: dist.ProcessGroup | None = None
    """First and last rank of this pipeline, where they share tied embeddings and this is one of them."""
    tp: dist.ProcessGroup | None = None
    """Ranks that share every layer."""
    cp: dist.ProcessGroup | None = None
    """Ranks that share every sequence."""
    ep: dist.ProcessGroup | None = None
    """Ranks that share the experts of a layer."""
    replicas: dist.ProcessGroup | None = None
    """The dp × cp ranks that hold the same dense layers."""
    shards: dist.ProcessGroup | None = None
    """Those of them that one sharding group is made of."""
    shard_replicas: dist.ProcessGroup | None = None
    """Those that hold the same shard."""
    expert_replicas: dist.ProcessGroup | None = None
    """Those that hold the same experts."""


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


def make_groups(plan: Plan, rank: int) -> Groups:
    """All ranks call this alike, since every rank takes part in making every group."""
    if plan.strategy.servers:
        return Groups()
    found = {name: _own_group(_members(plan, name), rank) for name in ALONG_A_STAGE}
    pipelines = plan.grid.reshape(plan.strategy.pp, -1).T.tolist()
    if plan.strategy.pp > 1:
        found |= {"pp": _own_group(pipelines, rank), "backward": _own_group(pipelines, rank)}
    if plan.has_copied_embedding:
        first, last = plan.stage_ranks[0], plan.stage_ranks[-1]
        found["tied"] = _own_group([[line[first], line[last]] for line in pipelines], rank)
    return Groups(**found)


def _members(plan: Plan, name: str) -> list[list[int]]:
    """The ranks of every group ``name`` of the plan; none where they would be alone."""
    group = RankGroups(plan.strategy)[name]
    if group.size == 1:
        return []
    firsts = plan.grid.reshape(plan.strategy.pp, -1)[:, 0].tolist()
    found = {
        tuple(group.of(int(rank), first))
        for first, ranks in zip(firsts, plan.grid.reshape(plan.strategy.pp, -1), strict=True)
        for rank in ranks
    }
    return [list(ranks) for ranks in sorted(found)]


def _own_group(members: list[list[int]], rank: int) -> dist.ProcessGroup | None:
    """Make a group of each list of ranks; the one that ``rank`` is in."""
    made = [dist.new_group(ranks, timeout=GROUP_TIMEOUT) for ranks in members]
    mine = next((group for group, ranks in zip(made, members, strict=True) if rank in ranks), None)
    return cast("dist.ProcessGroup | None", mine)
