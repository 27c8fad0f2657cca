"""Options that several commands share, and what they become: a Job, a Cluster, a Strategy."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import click

from ..sim.errors import InputError, UsageError
from ..sim.files.writer import check_file
from ..sim.hardware.cluster import Cluster
from ..sim.plan.job import OPTIMIZER_STATES, Job
from ..sim.plan.mixed_precision import PRECISION_BYTES
from ..sim.plan.plan import Plan
from ..sim.plan.schedules import CARRIED, find_schedule, schedules
from ..sim.plan.software_stacks import DEFAULT_STACK, STACKS
from ..sim.plan.strategy import (
    ATTENTIONS,
    COLLECTIVE_ALGORITHMS,
    CP_EXCHANGES,
    EXPERT_DISPATCHES,
    GRADIENT_EXCHANGES,
    OFFLOADS,
    RECOMPUTES,
    SHARDINGS,
    Strategy,
)
from ..sim.plan.strategy_fields import DDP_BUCKET_BYTES
from ..sim.plan.strategy_rules import strategy_faults

Decorator = Callable[[Callable], Callable]


class OutputFile(click.Path):
    """A path that a file will be written to: what may not be replaced is refused before the work begins."""

    def __init__(self, *, parents_are_made: bool = False):
        super().__init__(dir_okay=False, readable=False, path_type=Path)
        self.parents_are_made = parents_are_made

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        check_file(path, parents_are_made=self.parents_are_made)
        return path


def png_option(help_text: str, *names: str) -> Decorator:
    """`--png`, a picture whose folder is made where there is none."""
    return click.option("--png", *names, type=OutputFile(parents_are_made=True), help=help_text)


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
            click.option("--seq-len", type=int, help="Tokens of one sample; images have none."),
            click.option(
                "--optimizer", type=click.Choice(list(OPTIMIZER_STATES)), default="adamw", show_default=True
            ),
            click.option(
                "--precision",
                type=click.Choice(list(PRECISION_BYTES)),
                help="Of weights and activations.  [default: bf16, on a CPU fp32]",
            ),
            click.option("--dropout", is_flag=True, help="Train with dropout."),
            click.option(
                "--expert-imbalance",
                type=float,
                default=1.0,
                show_default=True,
                help="Tokens of the busiest expert-parallel rank over the mean.",
            ),
        ]
    )


job_options = _job_options(required=True)
job_options_optional = _job_options(required=False)
"""Where a plan file may bring the job."""


def _degree(name: str, text: str) -> Decorator:
    return click.option(f"-{name}", f"--{name}", type=int, default=1, show_default=True, help=text)


def _choice(name: str, choices: tuple[str, ...], default: str, text: str = "") -> Decorator:
    return click.option(name, type=click.Choice(choices), default=default, show_default=True, help=text)


class NameNow(click.ParamType):
    """One of the names that there are at the moment of asking, as of schedules, which can be added to."""

    name = "choice"

    def __init__(self, names: Callable[[], tuple[str, ...]]):
        self._names = names

    def _choice(self) -> click.Choice:
        return click.Choice(self._names())

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return self._choice().convert(value, param, ctx)

    def get_metavar(self, *asked: Any, **named: Any) -> str | None:
        return self._choice().get_metavar(*asked, **named)

    def get_missing_message(self, *asked: Any, **named: Any) -> str:
        return self._choice().get_missing_message(*asked, **named)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
        return self._choice().shell_complete(ctx, param, incomplete)


class _Numbers(click.ParamType):
    """Whole numbers with commas between, as 3,4,4,3."""

    name = "N,N,..."

    def convert(self, value, param, ctx):
        if isinstance(value, tuple):
            return value
        try:
            return tuple(int(part) for part in value.split(","))
        except ValueError:
            self.fail(f"{value!r} is not a list of whole numbers, as 3,4,4,3", param, ctx)


strategy_options = _apply(
    [
        _degree("dp", "Data-parallel replicas."),
        _degree("tp", "Tensor-parallel ranks."),
        _degree("pp", "Pipeline ranks."),
        _degree("vp", "Virtual stages of each pipeline rank."),
        _degree("cp", "Context-parallel ranks."),
        _degree("ep", "Expert-parallel ranks, among dp x cp."),
        click.option("--micro-batch", type=int, default=1, show_default=True),
        click.option(
            "--schedule",
            type=NameNow(lambda: tuple(one.name for one in schedules() if one.generate)),
            default=Strategy().schedule,
            show_default=True,
        ),
        click.option("--schedule-csv", "schedule_csv", help="A schedule in PyTorch's CSV format instead."),
        click.option("--stage-layers", type=_Numbers(), default=(), help="Blocks of each stage."),
        _choice("--recompute", RECOMPUTES, "none"),
        click.option("--recompute-blocks", type=int, default=0, help="Of each stage; 0 is all."),
        _choice("--attention", ATTENTIONS, "flash"),
        _choice("--stack", tuple(STACKS), DEFAULT_STACK, "Software that trains."),
        _choice("--sharding", SHARDINGS, "ddp", "What the replicas share out."),
        click.option("--shard-degree", type=int, default=0, help="Replicas of one hsdp group."),
        click.option(
            "--reshard-after-forward/--keep-after-forward",
            default=True,
            show_default=True,
            help="Drop gathered parameters after each pass (fsdp, hsdp).",
        ),
        click.option("--prefetch", type=int, default=1, show_default=True, help="Blocks gathered ahead."),
        click.option("--sequence-parallel", is_flag=True, help="Split norms and residuals over tp."),
        _choice("--cp-exchange", CP_EXCHANGES, "ring"),
        _choice("--offload", OFFLOADS, "none", "What lives in host memory."),
        _choice("--gradient-exchange", GRADIENT_EXCHANGES, "allreduce"),
        click.option("--servers", type=int, default=0, show_default=True, help="Parameter servers."),
        click.option("--server-replicas", type=int, default=1, show_default=True),
        click.option("--servers-colocated", is_flag=True, help="Servers on the workers' own places."),
        click.option(
            "--synchrony",
            default="sync",
            show_default=True,
            help="sync, async, stale:K, backup:B or local:H.",
        ),
        _choice("--collective-algorithm", COLLECTIVE_ALGORITHMS, "auto"),
        click.option("--bucket-bytes", type=int, default=DDP_BUCKET_BYTES, show_default=True),
        click.option(
            "--overlap-gradients/--no-overlap-gradients",
            default=True,
            show_default=True,
            help="Reduce gradients while backward runs.",
        ),
        click.option(
            "--overlap-transfers/--no-overlap-transfers",
            default=True,
            show_default=True,
            help="Send between stages beside compute.",
        ),
        click.option("--overlap-tensor", is_flag=True, help="Gather and scatter over tp beside products."),
        _choice("--expert-dispatch", EXPERT_DISPATCHES, "all_to_all"),
        click.option("--overlap-experts", is_flag=True, help="Send to experts beside another micro-batch."),
    ]
)

STRATEGY_FIELDS = tuple(field.name for field in fields(Strategy))


def cluster_from(cluster_name: str, nodes: int | None) -> Cluster:
    """The cluster of a preset or file. Warnings of the file go to stderr."""
    from ..sim.hardware.cluster_file import read_cluster

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
    model: str,
    cluster: Cluster,
    *,
    global_batch: int,
    seq_len: int | None,
    optimizer: str,
    precision: str | None,
    dropout: bool = False,
    expert_imbalance: float = 1.0,
) -> Job:
    """The job of the options; raises InputError for a job that breaks a rule."""
    from ..sim.model.hf_config import read_model

    architecture = read_model(model)
    if seq_len is None:
        if architecture.network is None or architecture.network.max_tokens > 1:
            raise UsageError("a model needs --seq-len")
        seq_len = 1
    chosen = precision or ("fp32" if cluster.accelerator.kind == "cpu" else "bf16")
    job = Job(
        model=architecture,
        global_batch=global_batch,
        seq_len=seq_len,
        optimizer=optimizer,
        precision=chosen,
        dropout=dropout,
        expert_imbalance=expert_imbalance,
    )
    faults = job.faults()
    if faults:
        raise InputError(faults)
    return job


def strategy_from(options: dict, cluster: Cluster) -> Strategy:
    """The strategy of the options; raises InputError where the cluster has too few accelerators."""
    chosen = {name: options[name] for name in STRATEGY_FIELDS}
    if options.get("schedule_csv"):
        chosen["schedule"] = CARRIED
    strategy = Strategy(**chosen)
    if strategy.world_size > cluster.accelerators:
        raise InputError(
            f"{strategy.label}: dp {strategy.dp} × tp {strategy.tp} × pp {strategy.pp} × cp {strategy.cp}"
            f" + {strategy.servers} servers = {strategy.world_size} ranks,"
            f" but {cluster.name} has {cluster.accelerators} accelerators; lower a degree or raise --nodes"
        )
    return strategy


def plan_of(job: Job, options: dict, cluster: Cluster) -> Plan:
    """The plan of a job and the strategy of the options, with the orders of a schedule's CSV file."""
    from ..sim.plan.make_plan import make_plan
    from ..sim.search.planner import describe

    strategy = strategy_from(options, cluster)
    if options.get("schedule_csv"):
        from ..sim.plan.schedule_csv import read_schedule_csv

        orders = read_schedule_csv(options["schedule_csv"])
        return make_plan(job, strategy, describe(cluster), orders=orders)
    times = None
    faults = [*job.faults(), *strategy_faults(strategy, job)]
    if not faults and find_schedule(strategy.schedule).arranged_by_times:
        from ..sim.costs.pass_costs import pass_times

        times = pass_times(job, strategy, cluster)
    return make_plan(job, strategy, describe(cluster), times=times)
