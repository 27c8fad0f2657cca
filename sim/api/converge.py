"""Update protocols compared by loss against seconds: what is asked, and the predicted side of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..convergence.digits import Digits, read_digits
from ..convergence.forecast import Timing, forecast, order_agrees
from ..convergence.virtual_training import Curve
from ..display import Shown
from ..errors import UsageError
from ..plan.choices import parse_synchrony
from .inputs import check_counts, check_numbers

if TYPE_CHECKING:
    from pandas import DataFrame

HIDDEN, BATCH = 32, 32
PROTOCOLS = ("sync", "async", "stale:2", "backup:1", "local:8")
MOST_WORKERS = 64
SIDES = ("predicted", "measured")


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

    @property
    def nominal(self) -> Timing:
        """What workers take where nothing was measured."""
        return Timing(compute_s=[[self.pace_s * factor] for factor in self.factors])


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Convergence(Shown):
    """Loss against seconds by protocol: predicted, and measured where it was trained for real."""

    target_loss: float
    predicted: tuple[Curve, ...]
    measured: tuple[Curve, ...] = ()

    def __repr__(self) -> str:
        names = ", ".join(curve.synchrony for curve in self.predicted)
        return f"Convergence({names}: predicted{' and measured' if self.measured else ''})"

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One a protocol: time to the target, mean staleness, final loss and updates, on either side."""
        rows = []
        for place, curve in enumerate(self.predicted):
            row: dict[str, Any] = {"protocol": curve.synchrony}
            row["predicted"] = self._figures(curve)
            row["measured"] = self._figures(self.measured[place]) if self.measured else None
            rows.append(row)
        return rows

    def _figures(self, curve: Curve) -> dict[str, float | None]:
        return {
            "time_to_target_s": curve.time_to(self.target_loss),
            "mean_staleness": curve.mean_staleness,
            "final_loss": curve.losses[-1],
            "updates": float(len(curve.staleness)),
        }

    @property
    def order_agrees(self) -> bool | None:
        """Whether the protocols come to the target in the predicted order; None where nothing was run."""
        if not self.measured:
            return None
        times = [{row["protocol"]: row[side]["time_to_target_s"] for row in self.rows} for side in SIDES]
        return order_agrees(*times)

    def frame(self) -> DataFrame:
        """A row for each protocol and side."""
        from pandas import DataFrame

        sides = SIDES if self.measured else SIDES[:1]
        rows = [
            {"protocol": row["protocol"], "side": side, **row[side]} for row in self.rows for side in sides
        ]
        return DataFrame(rows)

    def to_dict(self) -> dict[str, Any]:
        """What `converge --json` prints."""
        return {
            "schema": "traincast.convergence/1",
            "target_loss": self.target_loss,
            "order_agrees": self.order_agrees,
            "protocols": self.rows,
        }


def setting_of(
    *,
    workers: int,
    slow: Mapping[int, float] | Sequence[str],
    protocols: str | Sequence[str],
    seconds: float,
    pace_s: float,
    rate: float,
    seed: int,
) -> Setting:
    """What is asked, checked. Raises UsageError for what cannot be asked."""
    check_counts(0, workers=workers, seed=seed)
    check_numbers(seconds=seconds, pace_s=pace_s, rate=rate)
    if not 1 <= workers <= MOST_WORKERS:
        raise UsageError(f"{workers} workers: expected 1 to {MOST_WORKERS}")
    for name, value in {"seconds": seconds, "pace_s": pace_s, "rate": rate}.items():
        if not value > 0:
            raise UsageError(f"{name} {value}: expected more than 0")
    return Setting(
        digits=read_digits(hidden=HIDDEN, batch=BATCH, seed=seed),
        protocols=protocols_of(protocols, workers),
        factors=factors_of(slow, workers),
        pace_s=pace_s,
        seconds=seconds,
        rate=rate,
        seed=seed,
    )


def predicted_curves(setting: Setting, timing: Timing) -> tuple[Curve, ...]:
    """The loss of each protocol, by what workers and messages take."""
    return tuple(
        forecast(
            setting.digits,
            name,
            timing,
            horizon_s=setting.seconds,
            rate=setting.rate,
            seed=setting.seed,
        )
        for name in setting.protocols
    )


def protocols_of(names: str | Sequence[str], workers: int) -> tuple[str, ...]:
    """The protocols of a list, or of a text with commas. Raises UsageError for what is none."""
    listed = names.split(",") if isinstance(names, str) else names
    found = tuple(name.strip() for name in listed if name.strip())
    for name in found:
        protocol = parse_synchrony(name)
        if protocol is None:
            raise UsageError(f"{name!r} is no protocol; expected sync | async | stale:K | backup:B | local:H")
        if protocol[0] == "backup" and protocol[1] >= workers:
            raise UsageError(f"{name}: expected fewer backup workers than the {workers} workers")
        if protocol[0] == "local" and protocol[1] < 1:
            raise UsageError(f"{name}: expected at least one local step")
    if not found:
        raise UsageError("--protocols names none")
    return found


def factors_of(slow: Mapping[int, float] | Sequence[str], workers: int) -> tuple[float, ...]:
    """By worker: how many times as long it takes. Raises UsageError for what cannot be read."""
    factors = [1.0] * workers
    texts = [f"{worker}={factor}" for worker, factor in slow.items()] if isinstance(slow, Mapping) else slow
    for text in texts:
        worker, _, factor = text.partition("=")
        try:
            number, value = int(worker), float(factor)
        except ValueError:
            raise UsageError(f"--slow {text}: expected WORKER=FACTOR, as 1=3.0") from None
        if not 0 <= number < workers or not 0 < value < 1e3:
            raise UsageError(f"--slow {text}: expected a worker of 0 to {workers - 1}, a factor of 0 to 1000")
        factors[number] = value
    return tuple(factors)
