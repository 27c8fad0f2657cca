"""`traincast converge`: loss against seconds of update protocols, predicted and, if asked, run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click

from ..sim.convergence.digits import Digits
from ..sim.convergence.forecast import Timing
from ..sim.convergence.virtual_training import Curve
from ..sim.errors import UsageError
from .options import json_option, png_option, seed_option
from .output import echo_json, note

CALIBRATION_S = 2.0
"""Seconds of the run that tells what gradients and messages take; it is asynchronous, with another seed."""

HIDDEN, BATCH = 32, 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What is compared, and how."""

    digits: Digits
    protocols: tuple[str, ...]
    factors: tuple[float, ...]
    """By worker: its gradients take so many times as long."""
    pace_s: float
    seconds: float
    rate: float
    seed: int


@click.command("converge", short_help="Loss against seconds of update protocols: predicted, and run.")
@click.option("--workers", type=click.IntRange(1, 64), default=4, show_default=True)
@click.option("--slow", multiple=True, metavar="W=FACTOR", help="A worker that is slower; 1=3.0, may repeat.")
@click.option(
    "--protocols",
    default="sync,async,stale:2,backup:1,local:8",
    show_default=True,
    help="Separated by commas.",
)
@click.option("--target-loss", type=click.FloatRange(min=0, min_open=True), default=0.5, show_default=True)
@click.option(
    "--seconds", type=click.FloatRange(0.1, 600), default=4.0, show_default=True, help="Of each protocol."
)
@click.option(
    "--pace",
    "pace_ms",
    type=click.FloatRange(0.1, 10_000),
    default=20.0,
    show_default=True,
    help="Milliseconds that a worker's accelerator is said to take for a gradient.",
)
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), default=0.5, show_default=True)
@click.option("--run", "really", is_flag=True, help="Also train for real: processes on this machine.")
@png_option("Draw the curves.")
@seed_option
@json_option
def command(
    workers: int,
    slow: tuple[str, ...],
    protocols: str,
    target_loss: float,
    seconds: float,
    pace_ms: float,
    rate: float,
    really: bool,
    png: Path | None,
    seed: int,
    as_json: bool,
) -> None:
    """Train a small network on handwritten digits under each protocol, in virtual time.

    With --run it is trained for real too. The times of the prediction then come from a short run before,
    with other batches; never from the runs that it is compared with.

    \b
    Example:
      traincast converge --slow 1=3.0 --run --png curves.png
    """
    from ..sim.convergence.digits import read_digits

    setting = Setting(
        digits=read_digits(hidden=HIDDEN, batch=BATCH, seed=seed),
        protocols=protocols_of(protocols, workers),
        factors=factors_of(slow, workers),
        pace_s=pace_ms / 1e3,
        seconds=seconds,
        rate=rate,
        seed=seed,
    )
    predicted, measured = compare(setting, really)
    rows = rows_of(predicted, measured, target_loss)
    if png:
        draw(predicted, measured, target_loss, png)
    agrees = order(rows) if really else None
    if as_json:
        echo_json(
            {
                "schema": "traincast.convergence/1",
                "target_loss": target_loss,
                "order_agrees": agrees,
                "protocols": rows,
            }
        )
        return
    show_rows(rows, target_loss, agrees)


def protocols_of(text: str, workers: int) -> tuple[str, ...]:
    """The protocols of a list with commas. Raises UsageError for what is none."""
    from ..sim.plan.choices import parse_synchrony

    names = tuple(name.strip() for name in text.split(",") if name.strip())
    for name in names:
        protocol = parse_synchrony(name)
        if protocol is None:
            raise UsageError(f"{name!r} is no protocol; expected sync | async | stale:K | backup:B | local:H")
        if protocol[0] == "backup" and protocol[1] >= workers:
            raise UsageError(f"{name}: expected fewer backup workers than the {workers} workers")
        if protocol[0] == "local" and protocol[1] < 1:
            raise UsageError(f"{name}: expected at least one local step")
    if not names:
        raise UsageError("--protocols names none")
    return names


def factors_of(slow: tuple[str, ...], workers: int) -> tuple[float, ...]:
    """By worker: how many times as long it takes. Raises UsageError for what cannot be read."""
    factors = [1.0] * workers
    for text in slow:
        worker, _, factor = text.partition("=")
        try:
            number, value = int(worker), float(factor)
        except ValueError:
            raise UsageError(f"--slow {text}: expected WORKER=FACTOR, as 1=3.0") from None
        if not 0 <= number < workers or not 0 < value < 1e3:
            raise UsageError(f"--slow {text}: expected a worker of 0 to {workers - 1}, a factor of 0 to 1000")
        factors[number] = value
    return tuple(factors)


def compare(setting: Setting, really: bool) -> tuple[list[Curve], list[Curve]]:
    """Predicted curves, and measured ones if ``really``."""
    from ..sim.convergence.forecast import forecast

    timing, measured = _run(setting) if really else (_nominal(setting), [])
    predicted = [
        forecast(
            setting.digits,
            name,
            timing,
            horizon_s=setting.seconds,
            rate=setting.rate,
            seed=setting.seed,
        )
        for name in setting.protocols
    ]
    return predicted, measured


def _nominal(setting: Setting) -> Timing:
    return Timing(compute_s=[[setting.pace_s * factor] for factor in setting.factors])


def _run(setting: Setting) -> tuple[Timing, list[Curve]]:
    """Calibrate, then run every protocol."""
    from ..executor.converge.converge import Phase, run_phases
    from ..sim.plan.choices import parse_synchrony

    digits, seed = setting.digits, setting.seed
    phases = [Phase(protocol=("async", 0), horizon_s=CALIBRATION_S, seed=seed + 1_000_000)]
    for name in setting.protocols:
        protocol = parse_synchrony(name) or (name, 0)
        phases.append(Phase(protocol=protocol, horizon_s=setting.seconds, seed=seed))
    seconds = CALIBRATION_S + setting.seconds * len(setting.protocols)
    note(f"training for {seconds:.0f} s in {len(setting.factors)} worker processes and a server")
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
    return timing, curves


def rows_of(predicted: list[Curve], measured: list[Curve], target: float) -> list[dict[str, object]]:
    """One row a protocol: time to the target, final loss and mean staleness, predicted and measured."""
    rows = []
    for place, curve in enumerate(predicted):
        row: dict[str, object] = {"protocol": curve.synchrony}
        row["predicted"] = _figures(curve, target)
        row["measured"] = _figures(measured[place], target) if measured else None
        rows.append(row)
    return rows


def _figures(curve: Curve, target: float) -> dict[str, float | None]:
    return {
        "time_to_target_s": curve.time_to(target),
        "mean_staleness": curve.mean_staleness,
        "final_loss": curve.losses[-1],
        "updates": float(len(curve.staleness)),
    }


def order(rows: list[dict]) -> bool:
    """Whether the protocols come to the target in the predicted order."""
    from ..sim.convergence.forecast import order_agrees

    times = [{row["protocol"]: row[side]["time_to_target_s"] for row in rows} for side in _SIDES]
    return order_agrees(*times)


_SIDES = ("predicted", "measured")


def draw(predicted: list[Curve], measured: list[Curve], target: float, path: Path) -> None:
    """Write the picture."""
    from ..reports.convergence_figure import LossLine, losses_png

    lines = [
        [LossLine(name=c.synchrony, times_s=c.times_s, losses=c.losses) for c in curves]
        for curves in (predicted, measured)
    ]
    losses_png(lines[0], lines[1], target, path)
    note(f"wrote {path}")


def show_rows(rows: list[dict], target: float, agrees: bool | None) -> None:
    """Print the table."""
    from ..reports.formats import DASH, seconds

    sides = [side for side in _SIDES if rows[0][side]]
    header = f"{'protocol':<12}" + "".join(f"{f'{s} to {target:g}':>20}{'staleness':>11}" for s in sides)
    click.echo(header)
    for row in rows:
        cells = ""
        for side in sides:
            at = row[side]["time_to_target_s"]
            text = DASH if at is None else seconds(at)
            cells += f"{text:>20}{row[side]['mean_staleness']:>11.2f}"
        click.echo(f"{row['protocol']:<12}{cells}")
    if agrees is not None:
        click.echo(f"order by time to the target {'agrees' if agrees else 'does NOT agree'} with the runs")
