"""Seconds and bandwidth of collectives, by size and ranks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..calibration.import_nccl_tests import bus_bandwidth
from ..display import Shown
from ..errors import UsageError
from ..files.document import did_you_mean
from ..hardware.cluster import Cluster
from ..network.algorithms import COLLECTIVE_ALGORITHMS, OPERATIONS
from ..network.flows.collective import transport_by_flows
from ..network.transport import Choice, choose
from ..units import UnitError, parse_quantity
from . import inputs
from .inputs import ClusterLike, check_counts, check_numbers

if TYPE_CHECKING:
    from pandas import DataFrame

SEND_RECV = "send_recv"
DETAILS = ("formula", "flow")

SMALLEST, LARGEST = 8.0, 8 * 2.0**30
"""Bytes of a sweep whose ends are left open: what nccl-tests runs on large machines."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Collectives(Shown):
    """Times of one operation; a row for every number of ranks and size."""

    operation: str
    cluster: Cluster
    rows: tuple[dict[str, Any], ...]
    """`operation`, `ranks`, `size_bytes`, `time_s`, `algbw`, `busbw` (bytes/s), `algorithm`, `protocol`."""

    def __repr__(self) -> str:
        return f"Collectives({self.operation} on {self.cluster.name}: {len(self.rows)} rows)"

    def frame(self) -> DataFrame:
        """The rows as a table."""
        from pandas import DataFrame

        return DataFrame(list(self.rows))

    def to_dict(self) -> dict[str, Any]:
        """What `collective --json` prints."""
        return {
            "schema": "traincast.collective/1",
            "cluster": self.cluster.name,
            "rows": [dict(row) for row in self.rows],
        }


def size_range(text: str) -> list[float]:
    """Bytes of one size, or of a range whose sizes double.

    >>> import traincast as tc
    >>> tc.size_range("1MiB..4MiB")
    [1048576.0, 2097152.0, 4194304.0]

    Raises:
        UsageError: no sizes, or not in rising order.
    """
    first, dots, last = text.partition("..")
    try:
        low = parse_quantity(first, "bytes") if first else SMALLEST
        high = parse_quantity(last, "bytes") if last else LARGEST if dots else low
    except UnitError as error:
        raise UsageError(f"{error}") from error
    if not 0 < low <= high <= 2.0**60:
        raise UsageError(f"{text}: expected sizes above 0 in rising order")
    return doubling(low, high)


def rank_range(text: str) -> list[int]:
    """One number of ranks, or a range whose numbers double.

    >>> import traincast as tc
    >>> tc.rank_range("8..64")
    [8, 16, 32, 64]

    Raises:
        UsageError: no numbers of ranks, or not in rising order.
    """
    first, dots, last = text.partition("..")
    if not first.isdecimal() or (dots and not last.isdecimal()) or len(text) > 20:
        raise UsageError(f"{text!r}: expected a number of ranks, or a range as 8..4096")
    low, high = int(first), int(last or first)
    if not 2 <= low <= high:
        raise UsageError(f"{text}: expected 2 or more, in rising order")
    return [int(number) for number in doubling(low, high)]


def doubling(low: float, high: float) -> list[float]:
    """``low``, twice ``low``, and so on up to ``high``."""
    found = [low]
    while found[-1] * 2 <= high:
        found.append(found[-1] * 2)
    return found


def collective(
    operation: str,
    cluster: ClusterLike,
    *,
    ranks: int | str | Sequence[int] | None = None,
    sizes: float | str | Sequence[float] = "1GiB",
    algorithm: str = "auto",
    detail: str = DETAILS[0],
) -> Collectives:
    """Seconds, algbw and busbw of ``operation``, as nccl-tests prints them; ranks fill node after node.

    ``ranks`` and ``sizes`` (bytes of the whole buffer) are numbers, lists or ranges that double, as
    `8..4096` and `1MiB..1GiB`; all ranks of the cluster where none are given. ``detail`` is `formula`
    (closed forms and measured curves) or `flow` (every message with its max-min fair share of links).

    >>> import traincast as tc
    >>> found = tc.collective("all_reduce", "hgx-h100", ranks="8..32", sizes="1GiB")
    >>> [row["ranks"] for row in found.rows], found.rows[0]["time_s"] < found.rows[1]["time_s"]
    ([8, 16, 32], True)

    Raises:
        UsageError: what cannot be asked, or more ranks than the cluster has accelerators.
    """
    machine = inputs.cluster(cluster)
    _refuse_unknown("operation", operation, (*OPERATIONS, SEND_RECV))
    _refuse_unknown("algorithm", algorithm, COLLECTIVE_ALGORITHMS)
    _refuse_unknown("detail", detail, DETAILS)
    counts = _counts(ranks, machine)
    if operation == SEND_RECV:
        counts = [2]
    if max(counts) > machine.accelerators:
        raise UsageError(
            f"--ranks {max(counts)}: {machine.name} has {machine.accelerators} accelerators; raise --nodes"
        )
    rows = [
        _row(machine, operation, count, size, algorithm, detail) for count in counts for size in _sizes(sizes)
    ]
    return Collectives(operation=operation, cluster=machine, rows=tuple(rows))


def _refuse_unknown(what: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise UsageError(f"{what} {value!r}: {did_you_mean(str(value), known) or f'expected {known}'}")


def _counts(ranks: int | str | Sequence[int] | None, cluster: Cluster) -> list[int]:
    if isinstance(ranks, str):
        return rank_range(ranks)
    counts = (
        list(ranks) if isinstance(ranks, Iterable) else [cluster.accelerators if ranks is None else ranks]
    )
    for count in counts or [0]:
        check_counts(0, ranks=count)
    if min(counts, default=0) < 2:
        raise UsageError(f"{min(counts, default=0)} ranks: expected 2 or more")
    return counts


def _sizes(sizes: float | str | Sequence[float]) -> list[float]:
    if isinstance(sizes, str):
        return size_range(sizes)
    given = list(sizes) if isinstance(sizes, Iterable) else [sizes]
    for size in given:
        check_numbers(sizes=size)
    found = [float(size) for size in given if size is not None]
    if not found or not all(0 < size <= 2.0**60 for size in found):
        raise UsageError(f"sizes {found}: expected bytes above 0")
    return found


def _row(
    cluster: Cluster, operation: str, ranks: int, size: float, algorithm: str, detail: str
) -> dict[str, Any]:
    if detail == "flow":
        choice = _by_flows(cluster, operation, ranks, size, algorithm)
    else:
        choice = choose(cluster, operation, range(ranks), size, algorithm=algorithm)
    seconds = choice.seconds
    return {
        "operation": operation,
        "ranks": ranks,
        "size_bytes": size,
        "time_s": seconds,
        "algbw": size / seconds if seconds else None,
        "busbw": bus_bandwidth(operation, ranks, size, seconds) if seconds else None,
        "algorithm": choice.algorithm,
        "protocol": choice.protocol,
    }


def _by_flows(cluster: Cluster, operation: str, ranks: int, size: float, algorithm: str) -> Choice:
    (seconds,), name = transport_by_flows(cluster, operation, [range(ranks)], size, algorithm=algorithm)
    return Choice(algorithm=name, protocol="", seconds=float(seconds))
