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
    from .executor.run.launcher import execute
    from .reports.compare import compare
    from .reports.report import write_report
    from .sim.errors import TraincastError
    from .sim.hardware.cluster import Accelerator, Cluster, Link
    from .sim.hardware.cluster_file import read_cluster, write_cluster
    from .sim.memory.peak import memory
    from .sim.model.decoder import Decoder
    from .sim.model.hf_config import read_model
    from .sim.model.model import Model
    from .sim.plan.action import Action
    from .sim.plan.job import Job
    from .sim.plan.make_plan import make_plan
    from .sim.plan.plan import Plan
    from .sim.plan.plan_file import read_plan, write_plan
    from .sim.plan.strategy import Strategy
    from .sim.predict.metrics import metrics
    from .sim.predict.simulate import simulate
    from .sim.search.planner import search
    from .sim.search.space import strategies
    from .sim.trace.trace import Span, Trace
    from .sim.trace.trace_file import write_trace
    from .sim.trace.trace_reader import read_trace

__version__ = "0.1.0"

_HOMES = {
    "Accelerator": "sim.hardware.cluster",
    "Action": "sim.plan.action",
    "Cluster": "sim.hardware.cluster",
    "Decoder": "sim.model.model",
    "Job": "sim.plan.job",
    "Link": "sim.hardware.cluster",
    "Model": "sim.model.model",
    "Plan": "sim.plan.plan",
    "Span": "sim.trace.trace",
    "Strategy": "sim.plan.strategy",
    "Trace": "sim.trace.trace",
    "TraincastError": "sim.errors",
    "compare": "reports.compare",
    "execute": "executor.run.launcher",
    "make_plan": "sim.plan.make_plan",
    "memory": "sim.memory.peak",
    "metrics": "sim.predict.metrics",
    "read_cluster": "sim.hardware.cluster_file",
    "read_model": "sim.model.hf_config",
    "read_plan": "sim.plan.plan_file",
    "read_trace": "sim.trace.trace_reader",
    "search": "sim.search.planner",
    "simulate": "sim.predict.simulate",
    "strategies": "sim.search.space",
    "write_cluster": "sim.hardware.cluster_file",
    "write_plan": "sim.plan.plan_file",
    "write_report": "reports.report",
    "write_trace": "sim.trace.trace_file",
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
