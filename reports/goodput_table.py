"""The table of `traincast goodput`."""

from __future__ import annotations

from ..sim.api.goodput import LongTraining
from .formats import duration, percent
from .table import Table

CAUSES = {
    "checkpoint": "standing still for checkpoints",
    "lost": "work done again",
    "detection": "detecting failures",
    "waiting": "waiting for a healthy node",
    "restart": "starting again",
}
"""What time goes to, in words."""


def goodput_table(whole: LongTraining) -> Table:
    """Failures, intervals, goodput and what the rest of the time goes to."""
    training, found, times = whole.training, whole.found, whole.time_to_train_s
    count = sum(found.failures.values())
    kinds = ", ".join(f"{kind} {number:,.3g}" for kind, number in found.failures.items() if number)
    days = duration(training.horizon_s)
    quantiles = [percent(found.quantile(q)) for q in (0.5, 0.05, 0.95)]
    rows = [
        ("mean time between failures", duration(found.mtbf_s)),
        (f"failures expected in {days}", f"{count:,.1f}" + (f" ({kinds})" if kinds else "")),
        ("best interval by Young", duration(found.young_s)),
        ("best interval by Daly", duration(found.daly_s)),
        ("best interval by simulation", duration(found.simulated_s)),
        ("interval used", duration(found.interval_s)),
        ("goodput", f"{quantiles[0]} ({quantiles[1]} to {quantiles[2]})"),
        *((CAUSES[cause], percent(share, 2)) for cause, share in found.runs.shares().items()),
    ]
    if times is not None:
        middle, low, high = (duration(times[name]) for name in ("p50", "p5", "p95"))
        rows.append(("time to train", f"{middle} ({low} to {high})"))
    title = f"{whole.accelerators:,} accelerators of {whole.cluster.name}"
    return Table(title=title, columns=("", "expected"), rows=tuple(rows))
