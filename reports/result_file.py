"""`result.json` and the files beside it, validated as untrusted input.

The document is checked field by field and every fault is reported; files it names must lie inside its
directory. Fields that a newer version adds are ignored.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..sim.errors import Fault, InputError
from ..sim.trace.trace import Trace
from ..sim.trace.trace_reader import read_trace

SCHEMA = "traincast.result/1"
MAX_BYTES = 64 * 2**20
MAX_FAULTS = 20


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, allow_inf_nan=False, protected_namespaces=())


class Quantiles(_Part):
    """Seconds below which 5, 50 and 95 % of the steps lie."""

    p5: float = Field(ge=0)
    p50: float = Field(gt=0)
    p95: float = Field(ge=0)


class Predicted(_Part):
    """A plan's predicted numbers; `traincast.sim.predict.metrics.Metrics` says what they mean."""

    step_time_s: Quantiles
    samples_per_s: float
    tokens_per_s: float
    mfu: float
    hfu: float
    bubble_fraction: float
    exposed_comm_s: dict[str, float] = {}
    peak_memory_bytes: list[float] = []
    memory: list[dict[str, Any]] = []
    fits: bool

    @property
    def peak_bytes(self) -> float | None:
        """Of the fullest rank."""
        return max(self.peak_memory_bytes, default=None)


class Measured(_Part):
    """What a run of the plan showed."""

    step_time_s: Quantiles
    losses: list[float] = []
    peak_memory_bytes: dict[str, float] = {}
    staleness: list[float] | None = None

    @property
    def peak_bytes(self) -> float | None:
        """Of the fullest rank."""
        return max(self.peak_memory_bytes.values(), default=None)


class PlanEntry(_Part):
    """One ranked plan."""

    id: int
    label: str
    strategy: dict[str, Any] = {}
    synchronous: bool = True
    """Its steps are compared with those of the others that are; results from before this are all together."""
    predicted: Predicted
    why_not: str = ""
    plan: str | None = None
    predicted_trace: str | None = None
    measured: Measured | None = None
    measured_trace: str | None = None
    error_pct: float | None = None
    memory_error_pct: float | None = None


class ModelPart(_Part):
    """What was trained."""

    name: str
    parameters: int
    source: str = ""
    decoder: dict[str, Any] = {}


class JobPart(_Part):
    """How much of it in one step."""

    global_batch: int
    seq_len: int
    optimizer: str
    precision: str


class ClusterPart(_Part):
    """On what."""

    name: str
    accelerator: str
    kind: str = ""
    accelerators: int
    memory_bytes: float = Field(ge=0)
    residuals: dict[str, float] = {}
    file: str | None = None


class AccuracyPart(_Part):
    """How far the predictions were off."""

    median_abs_pct: float
    max_abs_pct: float
    runs: int
    compared: int = 0
    fastest_place: int = 0
    """0 in results from before this was stated."""
    fastest_regret_pct: float
    memory_median_abs_pct: float | None = None
    memory_max_abs_pct: float | None = None


class Result(_Part):
    """The document."""

    schema_: str = Field(alias="schema", pattern=rf"^{SCHEMA}$")
    command: str
    created: str
    seed: int
    versions: dict[str, str] = {}
    verdict: str
    model: ModelPart
    job: JobPart
    cluster: ClusterPart
    counts: dict[str, int] = {}
    refusals: dict[str, int] = {}
    plans: list[PlanEntry] = Field(min_length=1)
    failed: dict[str, str] = {}
    """By label of a plan that was to be run and did not: why."""
    measurements: str | None = None
    accuracy: AccuracyPart | None = None
    files: list[str] = []
    """Of the directory, those that belong to the result; none in results of before this was listed."""


def read_result(directory: Path) -> Result:
    """Read ``directory/result.json``.

    Raises:
        InputError: it is absent, too large, not JSON, or not of this form; lists every fault.
    """
    path = directory / "result.json"
    document = read_json(path)
    try:
        return Result.model_validate(document)
    except ValidationError as error:
        faults = [
            Fault(file=str(path), path=place_of(fault["loc"]), found=fault["msg"])
            for fault in error.errors(include_url=False)[:MAX_FAULTS]
        ]
        raise InputError(faults) from error


def place_of(location: tuple[int | str, ...]) -> str:
    """Where in a document, as `plans[2].label`."""
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in location]
    return "".join(parts).lstrip(".")


def read_json(path: Path) -> object:
    """The JSON of a regular file of at most 64 MiB. Raises InputError."""

    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is not a number of JSON")

    try:
        if not path.is_file():
            raise InputError(Fault(file=str(path), path="", found="no such file, or not a regular one"))
        if path.stat().st_size > MAX_BYTES:
            raise InputError(Fault(file=str(path), path="", found="too large", expected="at most 64 MiB"))
        return json.loads(path.read_bytes(), parse_constant=refuse)
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(Fault(file=str(path), path="", found=f"cannot be read: {error}")) from error


def inside(directory: Path, name: str | None) -> Path | None:
    """The file ``name`` in ``directory``; None where there is none. Raises InputError if it lies outside."""
    if not name:
        return None
    path = (directory / name).resolve()
    if not path.is_relative_to(directory.resolve()):
        found = f"{name!r} lies outside the directory"
        raise InputError(Fault(file=str(directory / "result.json"), path="", found=found))
    return path if path.is_file() else None


def read_traces(directory: Path, entry: PlanEntry) -> tuple[Trace | None, Trace | None]:
    """A plan's predicted and measured trace, None where the file is not there."""
    predicted, measured = (inside(directory, name) for name in (entry.predicted_trace, entry.measured_trace))
    return (read_trace(predicted) if predicted else None, read_trace(measured) if measured else None)
