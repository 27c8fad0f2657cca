"""traincast: forecast distributed deep-learning training, then make the forecast come true.

    from traincast import Job, Strategy, make_plan, read_cluster, read_model, simulate

    job = Job(model=read_model("llama3-8b"), global_batch=256, seq_len=8192)
    plan = make_plan(job, Strategy(dp=2, tp=8, pp=8))
    trace = simulate(plan, read_cluster("hgx-h100"))

Names are loaded at first use, so importing the package costs next to nothing and never loads torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .executor.launcher import execute
    from .reports.compare import compare
    from .reports.report import write_report
    from .sim.cluster import Accelerator, Cluster, Link
    from .sim.cluster_file import read_cluster, write_cluster
    from .sim.engine import simulate
    from .sim.errors import TraincastError
    from .sim.hf_config import read_model
    from .sim.job import Job
    from .sim.lowering import make_plan
    from .sim.memory import memory
    from .sim.metrics import metrics
    from .sim.model import Decoder, Model
    from .sim.plan import Action, Plan
    from .sim.plan_file import read_plan, write_plan
    from .sim.planner import search
    from .sim.space import strategies
    from .sim.strategy import Strategy
    from .sim.trace import Span, Trace
    from .sim.trace_file import write_trace
    from .sim.trace_reader import read_trace

__version__ = "0.1.0"

_HOMES = {
    "Accelerator": "sim.cluster",
    "Action": "sim.plan",
    "Cluster": "sim.cluster",
    "Decoder": "sim.model",
    "Job": "sim.job",
    "Link": "sim.cluster",
    "Model": "sim.model",
    "Plan": "sim.plan",
    "Span": "sim.trace",
    "Strategy": "sim.strategy",
    "Trace": "sim.trace",
    "TraincastError": "sim.errors",
    "compare": "reports.compare",
    "execute": "executor.launcher",
    "make_plan": "sim.lowering",
    "memory": "sim.memory",
    "metrics": "sim.metrics",
    "read_cluster": "sim.cluster_file",
    "read_model": "sim.hf_config",
    "read_plan": "sim.plan_file",
    "read_trace": "sim.trace_reader",
    "search": "sim.planner",
    "simulate": "sim.engine",
    "strategies": "sim.space",
    "write_cluster": "sim.cluster_file",
    "write_plan": "sim.plan_file",
    "write_report": "reports.report",
    "write_trace": "sim.trace_file",
}

__all__ = [
    "Accelerator",
    "Action",
    "Cluster",
    "Decoder",
    "Job",
    "Link",
    "Model",
    "Plan",
    "Span",
    "Strategy",
    "Trace",
    "TraincastError",
    "compare",
    "execute",
    "make_plan",
    "memory",
    "metrics",
    "read_cluster",
    "read_model",
    "read_plan",
    "read_trace",
    "search",
    "simulate",
    "strategies",
    "write_cluster",
    "write_plan",
    "write_report",
    "write_trace",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
