"""Plans executed on this machine."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from ..sim.errors import EnvironmentMismatchError, UsageError
from ..sim.plan.plan import Plan
from ..sim.trace.trace import Trace
from .calibrate import PlanFile, Progress, plan_of


def execute(
    plan: PlanFile,
    *,
    steps: int = 10,
    warmup: int = 2,
    nproc_per_node: int | None = None,
    out_dir: str | os.PathLike[str] | None = None,
    seed: int = 0,
    timeout_s: float = 60.0,
    force: bool = False,
    trust: bool | Collection[str] = False,
    on_progress: Progress | None = None,
) -> Trace:
    """Train ``steps`` steps by ``plan`` on this machine, after ``warmup`` steps that do not count.

    Returns the measured trace, with losses in its metadata. ``timeout_s`` is how long no rank may come to the
    end of a step. Logs of the ranks stay in ``out_dir``. With ``force`` a plan that was made for another
    machine runs too. A plan that names a module, samples or a loss of a user's own has their code run, which
    only happens with ``trust``, or if it has these names; they are looked for in the current directory too.
    Needs torch.

    >>> import traincast as tc
    >>> plan = tc.make_plan(tc.Job("tiny-llama-bytes", global_batch=4, seq_len=32, precision="fp32"), dp=2)
    >>> run = tc.execute(plan, steps=2, warmup=1)  # doctest: +SKIP
    >>> run.source, run.world_size, len(run.step_times_s)  # doctest: +SKIP
    ('measured', 2, 2)

    Raises:
        EnvironmentMismatchError: this machine cannot run the plan; nothing was started.
        RunError: a rank died or raised; has attributes `rank`, `host`, `cause` and `step`.
        HangError: no rank made progress; the same attributes.
        UsageError: ``out_dir`` cannot be made or written; or the plan names code that is not trusted.
    """
    whole = plan_to_run(plan, nproc_per_node)
    _check_trust(whole, trust)
    from ..executor.model.references import look_in
    from ..executor.run.launcher import execute as launch

    folder = Path.cwd() if whole.job.references else None
    if folder is not None:
        look_in(folder)
    return launch(
        whole,
        steps=steps,
        warmup=warmup,
        out_dir=None if out_dir is None else Path(out_dir),
        seed=seed,
        timeout_s=timeout_s,
        force=force,
        import_from=folder,
        on_progress=on_progress,
    )


def _check_trust(plan: Plan, trust: bool | Collection[str]) -> None:
    """Raise UsageError for code that a plan names and nobody has said to trust."""
    if trust is True:
        return
    strange = [name for name in plan.job.references if not trust or name not in trust]
    if strange:
        raise UsageError(
            f"the plan has the code of {', '.join(strange)} run: if you trust it, give --trust, or name it by"
            " --model, --data and --loss"
        )


def plan_to_run(plan: PlanFile, nproc_per_node: int | None = None) -> Plan:
    """The plan, read from its file if need be, that ``nproc_per_node`` processes are to run.

    >>> import traincast as tc
    >>> plan = tc.make_plan(tc.Job("gpt2", global_batch=8, seq_len=512), pp=2)
    >>> tc.plan_to_run(plan, nproc_per_node=2) is plan
    True

    Raises:
        InputError: the file cannot be used.
        EnvironmentMismatchError: another number of processes than the plan has ranks.
    """
    whole = plan_of(plan)
    if nproc_per_node not in (None, whole.world_size):
        raise EnvironmentMismatchError(
            f"--nproc-per-node {nproc_per_node}, but the plan has {_factors(whole)}"
            f" = {whole.world_size} ranks"
        )
    return whole


def _factors(plan: Plan) -> str:
    s = plan.strategy
    servers = f" + {s.servers} servers" if s.servers else ""
    cp = f" × cp {s.cp}" if s.cp > 1 else ""
    return f"dp {s.dp} × tp {s.tp} × pp {s.pp}{cp}{servers}"
