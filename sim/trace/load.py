"""What other programs took of a host's cores while a plan ran, and a prediction that knows it.

A measured trace says under `load` what was busy (`executor/measure/load.py`); a predicted one, for a host,
what of its cores' time the plan itself takes. With both, the least that a step can take next to the others
follows: the processor seconds of all ranks over the cores that the others left. And both say how long a fixed
piece of work took (`executor/measure/speed.py`), when the machine was calibrated and while the plan ran: a
shared machine's cores are a third slower or faster from one minute to the next.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from .trace import Trace

LOAD = "load"
"""Name in a measured trace's metadata."""
CORE_SECONDS, CORES = "core_seconds", "cores"
"""Names in a predicted trace's metadata."""
PROBE = "probe_s"
"""Name in both, of the seconds that the speed probe takes while all ranks do: in the load measured, and in a
predicted trace's metadata."""
LEAST_CORES = 0.05
"""Cores that are taken to be left, whatever others took: less would be no run."""
NOTICED = 0.1
"""Cores taken by others from which on a machine counts as busy."""
NOTICED_SPEED = 0.03
"""Part by which a processor must be slower or faster to be mentioned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Of a run, in cores: 1.5 is one and a half of them, all the time."""

    cores: float
    """That the ranks could use."""
    own: float
    """What the ranks took themselves."""
    others: float
    """What other programs took, and what the machine under this one did not give (steal)."""
    probe_s: float = 0.0
    """Seconds of the speed probe; 0 where nobody looked."""

    @property
    def is_busy(self) -> bool:
        """Whether others took enough to be mentioned."""
        return self.others >= NOTICED

    @property
    def left(self) -> float:
        """Cores that were left for the ranks."""
        return max(LEAST_CORES, self.cores - self.others)

    def __str__(self) -> str:
        return f"other programs took {self.others:.2g} of {self.cores:g} cores"


def load_of(measured: Trace) -> Load | None:
    """What a measured trace says of it; None where nobody looked."""
    stated = measured.metadata.get(LOAD)
    if not isinstance(stated, Mapping):
        return None
    numbers = {name: stated.get(name) for name in ("cores", "own", "others")}
    if not all(isinstance(number, int | float) for number in numbers.values()):
        return None
    probe = stated.get(PROBE)
    found = {**numbers, PROBE: probe if isinstance(probe, int | float) else 0.0}
    return Load(**{name: float(number) for name, number in found.items()})  # type: ignore[arg-type]


def slowdown(predicted: Trace, measured: Trace) -> float:
    """Factor on a predicted step for the machine as it was during the run: its speed, and its load.

    All that ranks do in a step takes at least its processor seconds over the cores that were left, however
    the kernel shares them out; while that is less than the step takes anyway, others use idle time.
    """
    load, seconds = load_of(measured), predicted.metadata.get(CORE_SECONDS)
    step = predicted.deterministic_step_time_s
    if load is None or not isinstance(seconds, int | float) or not step:
        return 1.0
    return probe_ratio(predicted, measured) * max(1.0, float(seconds) / (step * load.left))


def probe_ratio(predicted: Trace, measured: Trace) -> float:
    """Seconds of the speed probe during the run over those of the calibration; 1 where one side lacks it."""
    load, expected = load_of(measured), predicted.metadata.get(PROBE)
    if load is None or not load.probe_s or not isinstance(expected, int | float) or not expected:
        return 1.0
    return load.probe_s / expected


def beside(predicted: Trace, measured: Trace) -> Trace:
    """``predicted`` as it would be with the cores that ``measured`` was left, at their speed; itself where
    they were as calibrated."""
    factor = slowdown(predicted, measured)
    if factor == 1.0:
        return predicted
    spans = predicted.spans
    return replace(
        predicted,
        spans=replace(spans, start=spans.start * factor, end=spans.end * factor),
        step_times_s=tuple(step * factor for step in predicted.step_times_s),
        metadata={
            **predicted.metadata,
            "deterministic_step_time_s": predicted.deterministic_step_time_s * factor,
        },
    )
