"""Whether a cluster has an accelerator for every rank of a strategy."""

from __future__ import annotations

from ..errors import InputError
from ..hardware.cluster import Cluster
from ..plan.strategy import Strategy


def refuse_too_many_ranks(strategy: Strategy, cluster: Cluster) -> None:
    """Raise InputError, with the numbers, where ``strategy`` has more ranks than ``cluster`` accelerators."""
    if strategy.world_size > cluster.accelerators:
        raise InputError(
            f"{strategy.label}: dp {strategy.dp} × tp {strategy.tp} × pp {strategy.pp} × cp {strategy.cp}"
            f" + {strategy.servers} servers = {strategy.world_size} ranks,"
            f" but {cluster.name} has {cluster.accelerators} accelerators; lower a degree or raise --nodes"
        )
