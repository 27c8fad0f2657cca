"""Options that several commands share, and what they become: a Job, a Cluster, a Strategy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import click

from ..sim.cluster import Cluster
from ..sim.errors import InputError, UsageError
from ..sim.job import OPTIMIZER_STATES, PRECISION_BYTES, Job
from ..sim.strategy import (
    COLLECTIVE_ALGORITHMS,
    GRADIENT_EXCHANGES,
    RECOMPUTES,
    SCHEDULES,
    SYNCHRONIES,
    Strategy,
)

Decorator = Callable[[Callable], Callable]


def _apply(decorators: list[Decorator]) -> Decorator:
    def decorate(function: Callable) -> Callable:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


json_option = click.option("--json", "as_json", is_flag=True, help="Machine-readable result on stdout.")
seed_option = click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)

cluster_options = _apply(
    [
        click.option("--cluster", "cluster_name", required=True, help="Preset or cluster file."),
        click.option("--nodes", type=click.IntRange(min=1), help="Nodes, where not those of the file."),
    ]
)


def _job_options(required: bool) -> Decorator:
    return _apply(
        [
            click.option(
                "--global-batch", type=int, required=required, help="Samples of one optimizer step."
            ),
            click.option("--seq-len", type=int, required=required, help="Tokens of one sample."),
            click.option(
                "--optimizer", type=click.Choice(list(OPTIMIZER_STATES)), default="adamw", show_default=True
            ),
            click.option(
                "--precision",
                type=click.Choice(list(PRECISION_BYTES)),
                help="Of weights and activations.  [default: bf16, on a CPU fp32]",
            ),
        ]
    )


job_options = _job_options(required=True)
job_options_optional = _job_options(required=False)
"""Where a plan file may bring the job."""

strategy_options = _apply(
    [
        click.option("-dp", "--dp", type=int, default=1, show_default=True, help="Data-parallel replicas."),
        click.option("-tp", "--tp", type=int, default=1, show_default=True, help="Tensor-parallel ranks."),
        click.option("-pp", "--pp", type=int, default=1, show_default=True, help="Pipeline stages."),
        click.option("--micro-batch", type=int, default=1, show_default=True),
        click.option("--schedule", type=click.Choice(SCHEDULES), default="1f1b", show_default=True),
        click.option("--recompute", type=click.Choice(RECOMPUTES), default="none", show_default=True),
        click.option(
            "--gradient-exchange",
            type=click.Choice(GRADIENT_EXCHANGES),
            default="allreduce",
            show_default=True,
        ),
        click.option("--servers", type=int, default=0, show_default=True, help="Parameter servers."),
        click.option("--synchrony", type=click.Choice(SYNCHRONIES), default="sync", show_default=True),
        click.option(
            "--collective-algorithm",
            type=click.Choice(COLLECTIVE_ALGORITHMS),
            default="auto",
            show_default=True,
        ),
    ]
)

STRATEGY_FIELDS = (
    "dp",
    "tp",
    "pp",
    "micro_batch",
    "schedule",
    "recompute",
    "gradient_exchange",
    "servers",
    "synchrony",
    "collective_algorithm",
)


def cluster_from(cluster_name: str, nodes: int | None) -> Cluster:
    """The cluster of a preset or file. Warnings of the file go to stderr."""
    from ..sim.cluster_file import read_cluster

    cluster = read_cluster(cluster_name)
    if nodes is None:
        return cluster
    if cluster.wires and nodes != cluster.nodes:
        raise UsageError(
            f"--nodes {nodes}: {cluster.name} wires {cluster.nodes} nodes one by one; change its file instead"
        )
    if nodes * cluster.accelerators_per_node > 10**7:
        raise UsageError(f"--nodes {nodes}: more than 10,000,000 accelerators")
    return replace(cluster, nodes=nodes)


def job_from(
    model: str, cluster: Cluster, *, global_batch: int, seq_len: int, optimizer: str, precision: str | None
) -> Job:
    """The job of the options; raises InputError for a job that breaks a rule."""
    from ..sim.hf_config import read_model

    chosen = precision or ("fp32" if cluster.accelerator.kind == "cpu" else "bf16")
    job = Job(
        model=read_model(model),
        global_batch=global_batch,
        seq_len=seq_len,
        optimizer=optimizer,
        precision=chosen,
    )
    faults = job.faults()
    if faults:
        raise InputError(faults)
    return job


def strategy_from(options: dict, cluster: Cluster) -> Strategy:
    """The strategy of the options; raises InputError where the cluster has too few accelerators."""
    strategy = Strategy(**{name: options[name] for name in STRATEGY_FIELDS})
    if strategy.world_size > cluster.accelerators:
        raise InputError(
            f"{strategy.label}: dp {strategy.dp} × tp {strategy.tp} × pp {strategy.pp}"
            f" + {strategy.servers} servers = {strategy.world_size} ranks,"
            f" but {cluster.name} has {cluster.accelerators} accelerators; lower a degree or raise --nodes"
        )
    return strategy
