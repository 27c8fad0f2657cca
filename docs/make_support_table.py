"""Writes the README's table of what is simulated and what is run, from the executor's own refusals.

A plan is made for every value of every field of a strategy and of a job, and for every family of products; it
is simulated, and shown to the executor as on a machine of processors and on one of eight GPUs. `--check`
compares.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import traincast as tc
from traincast.executor.parallel.surroundings import Surroundings
from traincast.executor.run.environment import refused
from traincast.lab.families import family, ways
from traincast.sim.errors import NoPlanError
from traincast.sim.plan.choices import (
    ATTENTIONS,
    COLLECTIVE_ALGORITHMS,
    CP_EXCHANGES,
    EXPERT_DISPATCHES,
    OFFLOADS,
    RECOMPUTES,
    ROUTINGS,
    SHARDINGS,
)
from traincast.sim.plan.job import OPTIMIZER_STATES
from traincast.sim.plan.make_plan import make_plan
from traincast.sim.plan.mixed_precision import PRECISION_BYTES
from traincast.sim.plan.schedules import CARRIED, Orders, is_registered, schedule, schedules
from traincast.sim.plan.software_stacks import STACKS
from traincast.sim.plan.strategy_fields import StrategyFields

README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- made by docs/make_support_table.py -->\n", "<!-- end of what it made -->\n"
MACHINES = {
    "run on CPUs (gloo)": Surroundings(kind="cpu", cores=8),
    "run on GPUs (NCCL)": Surroundings(
        kind="gpu", devices=("NVIDIA H100 80GB HBM3",) * 8, capability=(9, 0), cores=64
    ),
}
DENSE = tc.Job("tiny-llama-bytes", global_batch=16, seq_len=128, precision="bf16")
EXPERTS = replace(DENSE, model=tc.model("tiny-moe-bytes"))
SERVERS = {"gradient_exchange": "parameter_server", "servers": 1, "dp": 4}
PRODUCTS_OF = 4
"""Ranks of the products."""
MODELS = (
    *("tiny-llama-bytes", "tiny-gpt2-bytes", "tiny-moe-bytes", "tiny-mla-bytes"),
    *("resnet50", "inception-v3-aux", "bert-base", "gnmt", "dlrm", "mlp"),
)
MOST_NAMED = 16
"""Values that a row names; of more it says how many."""


@dataclass(frozen=True, slots=True)
class Case:
    """One value, as the table calls it, in a job and a strategy that have it."""

    name: str
    job: tc.Job
    strategy: tc.Strategy
    orders: Orders | None = None
    """The passes of each pipeline rank, where the schedule is a user's own."""

    @property
    def plan(self) -> tc.Plan:
        return make_plan(self.job, self.strategy, orders=self.orders)


Rows = dict[str, list[Case]]


def rows() -> Rows:
    """Everything that the table tells of: by title the values."""
    return {
        "data parallelism": [
            _case("overlapped buckets", dp=2, bucket_bytes=2**20),
            _case("buckets after backward", dp=2, overlap_gradients=False),
        ],
        "local SGD": [_case("local:H", dp=2, synchrony="local:4")],
        "sharded states": list(_sharded()),
        "offload to the host": [_case(name, dp=2, offload=name) for name in OFFLOADS[1:]],
        "tensor parallelism": [
            _case("tensor", tp=2),
            _case("sequence", tp=2, sequence_parallel=True),
            _case("overlapped with its GEMMs", tp=2, sequence_parallel=True, overlap_tensor=True),
        ],
        "context parallelism": [_case(name, cp=2, cp_exchange=name) for name in CP_EXCHANGES],
        "expert parallelism": [
            *(_case(name, EXPERTS, dp=2, ep=2, expert_dispatch=name) for name in EXPERT_DISPATCHES),
            *(_case(f"{name} routing", replace(EXPERTS, routing=name), dp=2, ep=2) for name in ROUTINGS),
            _case("overlapped with another micro-batch", EXPERTS, dp=2, ep=2, overlap_experts=True),
        ],
        "pipelines": list(_pipelines()),
        "products": list(_products()),
        "recomputation": [
            *(_case(name, dp=2, recompute=name) for name in RECOMPUTES),
            _case("of some blocks", dp=2, recompute="full", recompute_blocks=1),
        ],
        "parameter servers": [
            *(_case(name, **SERVERS, synchrony=name) for name in ("sync", "async", "stale:1", "backup:1")),
            _case("local:H", **SERVERS, synchrony="local:4"),
            _case("sharded", **SERVERS | {"servers": 2}),
            _case("replicated", **SERVERS | {"servers": 2}, server_replicas=2),
            _case("colocated", **SERVERS, servers_colocated=True),
        ],
        "collective algorithms": [
            _case(name, dp=4, collective_algorithm=name) for name in COLLECTIVE_ALGORITHMS
        ],
        "attention": [_case(name, attention=name) for name in ATTENTIONS],
        "software stacks": [_case(name, stack=name) for name in STACKS],
        "precision": [_case(name, replace(DENSE, precision=name)) for name in PRECISION_BYTES],
        "optimizers": [_case(name, replace(DENSE, optimizer=name)) for name in OPTIMIZER_STATES],
        "dropout": [_case("dropout", replace(DENSE, dropout=True))],
        "models": [_case(name, _job_of(name)) for name in MODELS],
    }


def _case(name: str, job: tc.Job = DENSE, /, **strategy: object) -> Case:
    return Case(name, job, tc.Strategy(**{"micro_batch": 2, **strategy}))


def _job_of(name: str) -> tc.Job:
    model = tc.model(name)
    length = 128 if model.network is None else min(128, model.network.max_tokens)
    return tc.Job(model, global_batch=16, seq_len=length, precision="fp32")


def _sharded() -> Iterator[Case]:
    for name in SHARDINGS[1:]:
        yield _case(name, dp=4, sharding=name, shard_degree=2 if name == "hsdp" else 0)
    yield _case("kept after forward", dp=4, sharding="fsdp", reshard_after_forward=False)
    yield _case("deeper prefetch", dp=4, sharding="fsdp", prefetch=2)


def _pipelines() -> Iterator[Case]:
    """Every schedule that comes with the package, with three stages a rank where it leaves that open."""
    for one in schedules():
        if not is_registered(one.name) and one.name != CARRIED:
            yield _case(one.name, pp=2, vp=one.virtual_stages or 3, schedule=one.name)
    own = tc.Strategy(pp=2, schedule=CARRIED)
    orders = schedule("1f1b", ranks=2, virtual_stages=1, micro_batches=own.micro_batches(DENSE))
    yield Case("any in a CSV file", DENSE, own, orders)
    yield _case("uneven stages", pp=2, stage_layers=(4, 2))
    yield _case("messages not overlapped", pp=2, overlap_transfers=False)


def _products() -> Iterator[Case]:
    """Of every family that shares work out in several ways, a strategy."""
    seen: set[str] = set()
    for job in (DENSE, EXPERTS):
        for strategy in ways(job, PRODUCTS_OF):
            name = family(strategy)
            if " × " in name and "recompute" not in name and name not in seen:
                seen.add(name)
                yield Case(name, job, strategy)


def varied() -> set[str]:
    """Fields of a strategy that some case changes."""
    usual = tc.Strategy()
    return {
        field.name
        for cases in rows().values()
        for case in cases
        for field in fields(StrategyFields)
        if getattr(case.strategy, field.name) != getattr(usual, field.name)
    }


def table() -> str:
    """The table, a row a title."""
    lines = [f"| | values | simulated | {' | '.join(MACHINES)} |", f"|---|---|---|{'---|' * len(MACHINES)}"]
    for title, cases in rows().items():
        plans = {case.name: case.plan for case in cases}
        cells = [_simulated(plans)]
        for machine in MACHINES.values():
            found = {name: refused(plan, machine) for name, plan in plans.items()}
            cells.append(_cell(list(plans), {name: why for name, why in found.items() if why}))
        lines.append(f"| {title} | {_named(list(plans))} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _simulated(plans: dict[str, tc.Plan]) -> str:
    """What a step of each plan takes is predicted; here on eight GPUs of a preset."""
    cluster = tc.cluster("hgx-h100", nodes=1)
    failed: dict[str, list[str]] = {}
    for name, plan in plans.items():
        try:
            tc.simulate(plan, cluster, samples=1)
        except NoPlanError as error:
            failed[name] = [str(error)]
    return _cell(list(plans), failed)


def _cell(names: Sequence[str], refused: dict[str, list[str]]) -> str:
    """`yes`; or which are refused and why, or which alone are not, whatever is shorter."""
    if not refused:
        return "yes"
    reasons: dict[str, list[str]] = {}
    for name, why in refused.items():
        reasons.setdefault(short(why[0]), []).append(name)
    taken = [name for name in names if name not in refused]
    why = "; ".join(
        (f"{', '.join(own)}: " if len(reasons) > 1 else "") + reason for reason, own in reasons.items()
    )
    if not taken:
        return f"no: {why}"
    if len(taken) < len(refused):
        return f"{', '.join(taken)} only: {why}"
    return f"all but {why}" if len(reasons) > 1 else f"all but {', '.join(refused)}: {why}"


def _named(names: Sequence[str]) -> str:
    if len(names) <= MOST_NAMED:
        return ", ".join(names)
    return f"{', '.join(names[: MOST_NAMED - 2])} and {len(names) - MOST_NAMED + 2} more"


def short(reason: str) -> str:
    """A refusal without what it is about, and without what to do instead.

    >>> short("offload both (there is nothing to offload to)")
    'there is nothing to offload to'
    >>> short("tree: gloo reduces around a ring only; run plans with auto or ring")
    'gloo reduces around a ring only'
    """
    inner = re.fullmatch(r"[^(]*\((.*)\)", reason, re.DOTALL)
    text = inner[1] if inner else reason.partition(": ")[2] or reason
    return text.partition("; ")[0]


def page(text: str) -> str:
    """``text``, the README, with the table as it is now."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


def main() -> None:
    text = README.read_text()
    made = page(text)
    if "--check" not in sys.argv[1:]:
        README.write_text(made)
    elif made != text:
        sys.exit(f"{README} is not what the refusals say; run `python docs/make_support_table.py`")


if __name__ == "__main__":
    main()
