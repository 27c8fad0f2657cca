"""Who is slow: ranks, nodes and network adapters that lag behind, always or in single steps.

A cluster file says it in its section `stragglers`, a command line with `--slow-rank` and its like. Persistent
stragglers are named; transient ones are drawn for every rank and step, so a sample of a seed is one step
that can be drawn again by itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..errors import Fault, InputError

MAX_FACTOR = 1e6
"""A device that is slower by more stands still."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Straggler:
    """A rank or a whole node whose compute always takes longer (a hot, throttled or worn device)."""

    kind: str
    """`rank` or `node`."""
    place: int
    """The rank's or the node's number, from 0."""
    factor: float
    """Its compute takes so many times as long; above 0, below 1 is a faster one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Transient:
    """Stragglers of one step: each rank is one with the same probability, drawn afresh every step."""

    probability: float
    """Of one rank in one step, 0 to 1."""
    factors: tuple[tuple[float, float], ...]
    """(share of the slow steps, factor up to which they lie), both rising: measured quantiles of the factor.

    Between points the factor is linear in the share; below the first point it is the first factor. One point
    (1, f) is always f.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowLink:
    """A node whose network adapters run below their rate (a flapping link, a worn cable)."""

    node: int
    bandwidth: float
    """Fraction of the rate that is left, above 0 and at most 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stragglers:
    """All that is slow in a cluster."""

    persistent: tuple[Straggler, ...] = ()
    transient: Transient | None = None
    slow_links: tuple[SlowLink, ...] = ()


NO_STRAGGLERS = Stragglers()


def merged(first: Stragglers | None, second: Stragglers | None) -> Stragglers:
    """The stragglers and slow links of both; the second's transient ones where it has some."""
    a, b = first or NO_STRAGGLERS, second or NO_STRAGGLERS
    return Stragglers(
        persistent=a.persistent + b.persistent,
        transient=b.transient or a.transient,
        slow_links=a.slow_links + b.slow_links,
    )


_SLOW = re.compile(r"(?:rank|node)?(0|[1-9]\d{0,7})=([0-9.eE+-]{1,20})\Z", re.ASCII)


def parse_slow(
    slow_ranks: Sequence[str] = (),
    slow_nodes: Sequence[str] = (),
    slow_links: Sequence[str] = (),
    *,
    ranks: int | None = None,
    nodes: int | None = None,
) -> Stragglers:
    """The stragglers that options name: ``3=1.5``, ``node2=1.2``, ``node4=0.25``.

    A rank or node and the factor on its compute's time; for links the node and the fraction of bandwidth
    left. ``ranks`` and ``nodes`` bound the numbers where they are known.

    Raises:
        InputError: lists every text that cannot be read or names what is not there.
    """
    faults: list[Fault] = []
    read = [
        _pairs("--slow-rank", slow_ranks, ranks, _factor_fault, faults),
        _pairs("--slow-node", slow_nodes, nodes, _factor_fault, faults),
        _pairs("--slow-link", slow_links, nodes, _fraction_fault, faults),
    ]
    if faults:
        raise InputError(faults)
    stragglers = [
        Straggler(kind=kind, place=place, factor=factor)
        for kind, pairs in zip(("rank", "node"), read[:2], strict=True)
        for place, factor in pairs
    ]
    links = [SlowLink(node=node, bandwidth=fraction) for node, fraction in read[2]]
    return Stragglers(persistent=tuple(stragglers), slow_links=tuple(links))


def _pairs(
    option: str,
    texts: Sequence[str],
    count: int | None,
    wrong: Callable[[float], str],
    faults: list[Fault],
) -> list[tuple[int, float]]:
    """(place, number) of each text; what is wrong is added to ``faults``."""
    thing = "rank" if option == "--slow-rank" else "node"
    found: list[tuple[int, float]] = []
    for text in texts:
        pair = _pair(text, thing)
        if pair is None:
            example = "node4=0.25" if option == "--slow-link" else "3=1.5"
            faults.append(Fault(path=option, found=repr(text[:80]), expected=f"{thing}=number, as {example}"))
            continue
        place, number = pair
        if count is not None and place >= count:
            expected = f"{thing} 0 to {count - 1}"
            faults.append(Fault(path=option, found=f"{thing} {place}", expected=expected))
        elif any(place == other for other, _ in found):
            faults.append(Fault(path=option, found=f"{thing} {place} for the second time"))
        elif wrong(number):
            faults.append(Fault(path=option, found=repr(text), expected=wrong(number)))
        else:
            found.append(pair)
    return found


def _pair(text: str, thing: str) -> tuple[int, float] | None:
    match = _SLOW.match(text)
    if match is None or not (text[0].isdigit() or text.startswith(thing)):
        return None
    try:
        return int(match[1]), float(match[2])
    except ValueError:
        return None


def _factor_fault(factor: float) -> str:
    return "" if 0.0 < factor <= MAX_FACTOR else f"a factor on time above 0 and at most {MAX_FACTOR:g}"


def _fraction_fault(fraction: float) -> str:
    return "" if 0.0 < fraction <= 1.0 else "a fraction of bandwidth above 0 and at most 1"
