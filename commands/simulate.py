"""`traincast simulate`: predict one step of one strategy or plan."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from ..sim.errors import UsageError
from ..sim.hardware.cluster import Cluster
from ..sim.plan.plan import Plan
from .options import (
    OutputFile,
    cluster_from,
    cluster_options,
    job_from,
    job_options_optional,
    json_option,
    plan_of,
    seed_option,
    strategy_options,
)
from .output import echo_json, note


@click.command("simulate", short_help="Predict one step of one strategy or plan.")
@click.argument("what", metavar="MODEL|PLAN")
@cluster_options
@job_options_optional
@strategy_options
@click.option("--engine", type=click.Choice(["compiled", "simpy"]), default="compiled", show_default=True)
@click.option(
    "--samples", type=click.IntRange(min=1), default=32, show_default=True, help="Steps drawn for p5 to p95."
)
@click.option(
    "--trace",
    "trace_path",
    type=OutputFile(),
    help="Write the spans, as Perfetto opens them.",
)
@click.option("--all-ranks", is_flag=True, help="Write like ranks to the trace too, not one for all of them.")
@click.option("--max-slices", type=click.IntRange(min=1), help="Spans of the trace at most.  [default: 1e6]")
@click.option("--slow-rank", multiple=True, metavar="RANK=FACTOR", help="A rank that computes slower.")
@click.option("--slow-node", multiple=True, metavar="NODE=FACTOR", help="A node that computes slower.")
@click.option("--slow-link", multiple=True, metavar="NODE=FRACTION", help="A node with less bandwidth.")
@click.option(
    "--collectives",
    type=click.Choice(["together", "stepwise"]),
    default="together",
    show_default=True,
    help="Members start together, or pass data on as soon as each can.",
)
@click.option(
    "--network",
    type=click.Choice(["closed-form", "flow"]),
    default="closed-form",
    show_default=True,
    help="All groups share links all the time, or messages as they meet, max-min fair.",
)
@click.option("--jitter", type=click.FloatRange(0.0, 10.0), help="Spread of every operation's time.")
@seed_option
@json_option
def command(
    what: str,
    cluster_name: str,
    nodes: int | None,
    all_ranks: bool,
    max_slices: int | None,
    slow_rank: tuple[str, ...],
    slow_node: tuple[str, ...],
    slow_link: tuple[str, ...],
    collectives: str,
    network: str,
    jitter: float | None,
    engine: str,
    samples: int,
    trace_path: Path | None,
    seed: int,
    as_json: bool,
    **options,
) -> None:
    """Predict one step of MODEL by the strategy of the options, or of a PLAN file.

    \b
    Example:
      traincast simulate llama3-8b --cluster hgx-h100 --nodes 2 --tp 8 --pp 2 \\
          --global-batch 64 --seq-len 8192 --recompute selective
    """
    from ..sim.hardware.stragglers import merged, parse_slow
    from ..sim.plan.soundness import validate
    from ..sim.predict.metrics import metrics
    from ..sim.predict.simulate import simulate
    from ..sim.search.planner import Ranked
    from ..sim.search.result import prediction_to_dict
    from ..sim.trace.trace_file import MAX_SLICES, write_trace

    cluster = cluster_from(cluster_name, nodes)
    plan = plan_from(what, cluster, options)
    validate(plan)
    slow = parse_slow(slow_rank, slow_node, slow_link, ranks=plan.world_size, nodes=cluster.nodes)
    spread = cluster.jitter if jitter is None else jitter
    cluster = replace(cluster, stragglers=merged(cluster.stragglers, slow), jitter=spread)
    stepwise = collectives == "stepwise"
    trace = simulate(
        plan, cluster, engine=engine, samples=samples, seed=seed, stepwise=stepwise, network=network
    )
    if trace_path:
        left = write_trace(trace, trace_path, unfold=all_ranks, max_slices=max_slices or MAX_SLICES)
        note(f"wrote {trace_path}" + (f"; {left:,} ranks are like those in it" if left else ""))
    ranked = Ranked(plan=plan, trace=trace, metrics=metrics(plan, cluster, trace))
    if as_json:
        echo_json({"schema": "traincast.prediction/1", **prediction_to_dict(ranked)})
        return
    from ..reports.table import show
    from .tables import prediction

    show(prediction(ranked, cluster))


def plan_from(what: str, cluster: Cluster, options: dict) -> Plan:
    """The plan of a file, or the one that the options make of a model."""
    if is_plan_file(what):
        from ..sim.plan.plan_file import read_plan
        from ..sim.search.planner import describe

        return replace(read_plan(what), cluster=describe(cluster))
    if options["global_batch"] is None:
        raise UsageError("a model needs --global-batch")
    named = ("global_batch", "seq_len", "optimizer", "precision", "dropout", "expert_imbalance")
    job_arguments = {name: options[name] for name in named}
    job = job_from(what, cluster, **job_arguments)
    return plan_of(job, options, cluster)


def is_plan_file(what: str) -> bool:
    """Whether a JSON file says that it is a plan; a model's config.json does not."""
    path = Path(what)
    if path.suffix != ".json" or not path.is_file():
        return False
    with path.open("rb") as file:
        return b"traincast.plan/" in file.read(4096)
