"""The table of `traincast goodput`."""

from __future__ import annotations

from ..reports.formats import duration, percent
from ..reports.table import Table
from ..sim.reliability.goodput import Goodput, Training
from ..sim.reliability.long_run import Runs, time_quantiles_s

CAUSES = {
    "checkpoint": "standing still for checkpoints",
    "lost": "work done again",
    "detection": "detecting failures",
    "waiting": "waiting for a healthy node",
    "restart": "starting again",
}
"""What time goes to, in words."""


def goodput_table(training: Training, found: Goodput, ends: Runs | None, name: str) -> Table:
    """Failures, intervals, goodput and what the rest of the time goes to."""
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
    if ends is not None:
        rows.append(("time to train", _times(ends)))
    accelerators = training.nodes * training.accelerators_per_node
    return Table(title=f"{accelerators:,} accelerators of {name}", columns=("", "expected"), rows=tuple(rows))


def _times(ends: Runs) -> str:
    times = time_quantiles_s(ends)
    return f"{duration(times['p50'])} ({duration(times['p5'])} to {duration(times['p95'])})"
