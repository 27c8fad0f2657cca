"""traincast: forecast distributed deep-learning training, then make the forecast come true.

    import traincast as tc

    cluster = tc.cluster("hgx-h100", nodes=16)
    job = tc.Job("llama3-8b", global_batch=256, seq_len=8192)
    found = tc.plan(job, cluster)
    trace = tc.simulate(found.best, cluster)

Names are loaded at first use, so importing the package costs next to nothing and never loads torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .sim import display

if TYPE_CHECKING:
    from .lab.calibrate import calibrate as calibrate
    from .lab.calibrate import calibrate_from_runs as calibrate_from_runs
    from .lab.converge import converge as converge
    from .lab.demo import demo as demo
    from .lab.doctor import doctor as doctor
    from .lab.doctor import remedies as remedies
    from .lab.module import trace_module as trace_module
    from .lab.module import user_model as user_model
    from .lab.run import execute as execute
    from .lab.run import plan_to_run as plan_to_run
    from .reports.compare import compare as compare
    from .reports.report import write_report as write_report
    from .reports.report_files import report as report
    from .sim.api.check import check as check
    from .sim.api.choices import CHOICES as CHOICES
    from .sim.api.collective import collective as collective
    from .sim.api.collective import rank_range as rank_range
    from .sim.api.collective import size_range as size_range
    from .sim.api.goodput import goodput as goodput
    from .sim.api.imports import MEASURED_OPERATIONS as MEASURED_OPERATIONS
    from .sim.api.imports import import_gemm_table as import_gemm_table
    from .sim.api.imports import import_nccl_tests as import_nccl_tests
    from .sim.api.inputs import accelerator as accelerator
    from .sim.api.inputs import cluster as cluster
    from .sim.api.inputs import cluster as read_cluster
    from .sim.api.inputs import model as model
    from .sim.api.inputs import model as read_model
    from .sim.api.memory import memory as memory
    from .sim.api.plans import make_plan as make_plan
    from .sim.api.predict import metrics as metrics
    from .sim.api.predict import predict as predict
    from .sim.api.predict import simulate as simulate
    from .sim.api.schedules import schedule_names as schedule_names
    from .sim.api.schedules import schedules as schedules
    from .sim.api.search import plan as plan
    from .sim.api.search import plan as search
    from .sim.api.search import strategies as strategies
    from .sim.api.validate import validate as validate
    from .sim.errors import TraincastError as TraincastError
    from .sim.errors import UsageError as UsageError
    from .sim.files.writer import check_output as check_output
    from .sim.hardware.cluster import Accelerator as Accelerator
    from .sim.hardware.cluster import Cluster as Cluster
    from .sim.hardware.cluster import Link as Link
    from .sim.hardware.cluster_file import cluster_presets as cluster_presets
    from .sim.hardware.cluster_writer import write_accelerator as write_accelerator
    from .sim.hardware.cluster_writer import write_cluster as write_cluster
    from .sim.model.decoder import Decoder as Decoder
    from .sim.model.hf_config import model_presets as model_presets
    from .sim.model.model import Model as Model
    from .sim.model.model_file import write_model as write_model
    from .sim.plan.action import Action as Action
    from .sim.plan.job import Job as Job
    from .sim.plan.plan import Plan as Plan
    from .sim.plan.plan_file import read_plan as read_plan
    from .sim.plan.plan_file import write_plan as write_plan
    from .sim.plan.schedule_csv import write_schedule_csv as write_schedule_csv
    from .sim.plan.strategy import Strategy as Strategy
    from .sim.predict.prediction import Prediction as Prediction
    from .sim.trace.chrome_trace import write_trace as write_trace
    from .sim.trace.trace import Span as Span
    from .sim.trace.trace import Trace as Trace
    from .sim.trace.trace_reader import read_trace as read_trace
    from .sim.units import parse_quantity as parse_quantity

__version__ = "0.1.0"

_HOMES = {
    "Accelerator": "sim.hardware.cluster",
    "Action": "sim.plan.action",
    "CHOICES": "sim.api.choices",
    "Cluster": "sim.hardware.cluster",
    "Decoder": "sim.model.decoder",
    "Job": "sim.plan.job",
    "Link": "sim.hardware.cluster",
    "MEASURED_OPERATIONS": "sim.api.imports",
    "Model": "sim.model.model",
    "Plan": "sim.plan.plan",
    "Prediction": "sim.predict.prediction",
    "Span": "sim.trace.trace",
    "Strategy": "sim.plan.strategy",
    "Trace": "sim.trace.trace",
    "TraincastError": "sim.errors",
    "UsageError": "sim.errors",
    "accelerator": "sim.api.inputs",
    "calibrate": "lab.calibrate",
    "calibrate_from_runs": "lab.calibrate",
    "check": "sim.api.check",
    "check_output": "sim.files.writer",
    "cluster": "sim.api.inputs",
    "cluster_presets": "sim.hardware.cluster_file",
    "collective": "sim.api.collective",
    "compare": "reports.compare",
    "converge": "lab.converge",
    "demo": "lab.demo",
    "doctor": "lab.doctor",
    "execute": "lab.run",
    "goodput": "sim.api.goodput",
    "import_gemm_table": "sim.api.imports",
    "import_nccl_tests": "sim.api.imports",
    "make_plan": "sim.api.plans",
    "memory": "sim.api.memory",
    "metrics": "sim.api.predict",
    "model": "sim.api.inputs",
    "model_presets": "sim.model.hf_config",
    "parse_quantity": "sim.units",
    "plan": "sim.api.search",
    "plan_to_run": "lab.run",
    "predict": "sim.api.predict",
    "rank_range": "sim.api.collective",
    "read_cluster": "sim.api.inputs:cluster",
    "read_model": "sim.api.inputs:model",
    "read_plan": "sim.plan.plan_file",
    "read_trace": "sim.trace.trace_reader",
    "remedies": "lab.doctor",
    "report": "reports.report_files",
    "schedule_names": "sim.api.schedules",
    "schedules": "sim.api.schedules",
    "search": "sim.api.search:plan",
    "simulate": "sim.api.predict",
    "size_range": "sim.api.collective",
    "strategies": "sim.api.search",
    "trace_module": "lab.module",
    "user_model": "lab.module",
    "validate": "sim.api.validate",
    "write_accelerator": "sim.hardware.cluster_writer",
    "write_cluster": "sim.hardware.cluster_writer",
    "write_model": "sim.model.model_file",
    "write_plan": "sim.plan.plan_file",
    "write_report": "reports.report",
    "write_schedule_csv": "sim.plan.schedule_csv",
    "write_trace": "sim.trace.chrome_trace",
}
"""Where each public name is defined; `module:name` where it has another name there."""

__all__ = [
    "CHOICES",
    "MEASURED_OPERATIONS",
    "Accelerator",
    "Action",
    "Cluster",
    "Decoder",
    "Job",
    "Link",
    "Model",
    "Plan",
    "Prediction",
    "Span",
    "Strategy",
    "Trace",
    "TraincastError",
    "UsageError",
    "accelerator",
    "calibrate",
    "calibrate_from_runs",
    "check",
    "check_output",
    "cluster",
    "cluster_presets",
    "collective",
    "compare",
    "converge",
    "demo",
    "doctor",
    "execute",
    "goodput",
    "import_gemm_table",
    "import_nccl_tests",
    "make_plan",
    "memory",
    "metrics",
    "model",
    "model_presets",
    "parse_quantity",
    "plan",
    "plan_to_run",
    "predict",
    "rank_range",
    "read_cluster",
    "read_model",
    "read_plan",
    "read_trace",
    "remedies",
    "report",
    "schedule_names",
    "schedules",
    "search",
    "simulate",
    "size_range",
    "strategies",
    "trace_module",
    "user_model",
    "validate",
    "write_accelerator",
    "write_cluster",
    "write_model",
    "write_plan",
    "write_report",
    "write_schedule_csv",
    "write_trace",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, other = _HOMES[name].partition(":")
    found = getattr(import_module(f".{module}", __name__), other or name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])


def _drawing(name: str) -> Any:
    """What draws results, imported when the first one is shown."""
    return getattr(import_module(".reports.notebook", __name__), name)


display.set_drawing(_drawing)
