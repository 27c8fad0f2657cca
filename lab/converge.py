"""Update protocols compared by loss against seconds: predicted, and trained for real on this machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ..executor.converge.converge import Phase, run_phases
from ..sim.api.converge import (
    BATCH,
    HIDDEN,
    PROTOCOLS,
    Convergence,
    Setting,
    predicted_curves,
    setting_of,
)
from ..sim.convergence.forecast import Timing
from ..sim.convergence.virtual_training import Curve
from ..sim.plan.choices import parse_synchrony
from ..sim.units import parse_quantity

CALIBRATION_S = 2.0
"""Seconds of the run that tells what gradients and messages take; it is asynchronous, with another seed."""


def converge(
    *,
    workers: int = 4,
    slow: Mapping[int, float] | Sequence[str] = (),
    protocols: str | Sequence[str] = PROTOCOLS,
    target_loss: float = 0.5,
    seconds: float = 4.0,
    pace: float | str = "20 ms",
    rate: float = 0.5,
    run: bool = False,
    seed: int = 0,
    announce: Callable[[str], None] = lambda text: None,
) -> Convergence:
    """Train a small network on handwritten digits under each of ``protocols``, in virtual time.

    ``slow`` workers take so many times as long for a gradient, which takes ``pace`` (seconds, or a text with
    a unit) on the others. With ``run`` each protocol is also trained for real, for ``seconds``; the times of
    the prediction then come from a short run before, with other batches, never from those that it is
    compared with. ``announce`` is told what begins.

    >>> import traincast as tc
    >>> found = tc.converge(slow={1: 3.0}, protocols=["sync", "async"], seconds=1.0)
    >>> sync, free = (row["predicted"] for row in found.rows)
    >>> sync["mean_staleness"], free["final_loss"] < sync["final_loss"]
    (0.0, True)

    Raises:
        UsageError: what cannot be asked.
        RunError, HangError: a process failed, or did not end in its time.
    """
    setting = setting_of(
        workers=workers,
        slow=slow,
        protocols=protocols,
        seconds=seconds,
        pace_s=parse_quantity(pace, "time") if isinstance(pace, str) else pace,
        rate=rate,
        seed=seed,
    )
    timing, measured = _run(setting, announce) if run else (setting.nominal, ())
    return Convergence(
        target_loss=target_loss, predicted=predicted_curves(setting, timing), measured=measured
    )


def _run(setting: Setting, announce: Callable[[str], None]) -> tuple[Timing, tuple[Curve, ...]]:
    """Calibrate, then run every protocol."""
    digits, seed = setting.digits, setting.seed
    phases = [Phase(protocol=("async", 0), horizon_s=CALIBRATION_S, seed=seed + 1_000_000)]
    for name in setting.protocols:
        protocol = parse_synchrony(name) or (name, 0)
        phases.append(Phase(protocol=protocol, horizon_s=setting.seconds, seed=seed))
    seconds = CALIBRATION_S + setting.seconds * len(setting.protocols)
    announce(f"training for {seconds:.0f} s in {len(setting.factors)} worker processes and a server")
    first, *rest = run_phases(
        phases,
        {"pictures": digits.pictures, "classes": digits.classes, "initial": digits.initial()},
        hidden=HIDDEN,
        batch=BATCH,
        rate=setting.rate,
        factors=setting.factors,
        pace_s=setting.pace_s,
    )
    timing = Timing(
        compute_s=first.compute_s, message_s=first.message_s, send_s=first.send_s, apply_s=first.apply_s
    )
    curves = [
        Curve(synchrony=name, times_s=phase.times_s, losses=phase.losses, staleness=phase.staleness)
        for name, phase in zip(setting.protocols, rest, strict=True)
    ]
    return timing, tuple(curves)
