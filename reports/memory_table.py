"""What `traincast memory` prints: a table, bars, hints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict

from ..sim.api.memory import Memory
from ..sim.memory.peak import RankMemory
from ..sim.search.fit_hints import Hint
from .formats import seconds, size
from .palette import MEMORY_PARTS
from .table import Table

BAR_WIDTH = 60
"""Characters of the longer of the capacity and the fullest rank."""
LETTERS = {
    "weights_bytes": "W",
    "gradients_bytes": "G",
    "optimizer_bytes": "O",
    "activations_bytes": "a",
    "logits_bytes": "l",
    "workspace_bytes": "w",
    "buffers_bytes": "b",
    "fragmentation_bytes": "f",
    "communicators_bytes": "c",
    "reserved_bytes": "r",
}
"""What a part is drawn with in a bar: capitals for what is always there."""


def memory_table(places: Sequence[RankMemory], capacity: float, names: Sequence[str]) -> Table:
    """Memory of each pipeline rank and server, by what fills it; parts that are nowhere are left out."""
    fields = [field for field in LETTERS if any(getattr(place, field) for place in places)]
    rows = []
    for name, place in zip(names, places, strict=True):
        values = [size(getattr(place, field)) for field in fields]
        fits = "yes" if place.fits else f"no, {size(place.short_bytes)} short"
        rows.append((name, *values, size(place.total_bytes), f"{place.total_bytes / capacity:.0%}", fits))
    columns = ("ranks", *(MEMORY_PARTS[field][0] for field in fields), "peak", "share", "fits")
    return Table(title=f"peak memory, of {size(capacity)}", columns=columns, rows=tuple(rows))


def memory_bars(places: Sequence[RankMemory], names: Sequence[str]) -> Iterator[str]:
    """One bar for each place, a letter for each part, `|` at the capacity; then what the letters mean."""
    longest = max(max(place.total_bytes, place.capacity_bytes) for place in places)
    width = max(map(len, names))
    used: set[str] = set()
    for name, place in zip(names, places, strict=True):
        bar = _bar(place, longest)
        used |= set(bar)
        yield f"{name.ljust(width)}  {bar}"
    meanings = [f"{letter} {MEMORY_PARTS[field][0]}" for field, letter in LETTERS.items() if letter in used]
    yield f"{' ' * width}  {', '.join(meanings)}, | capacity"


def _bar(place: RankMemory, longest: float) -> str:
    """Ends of parts are rounded, so that the bar's end is where its sum is."""
    sizes, bar, total = asdict(place), "", 0.0
    for field, letter in LETTERS.items():
        total += sizes[field]
        bar += letter * (round(BAR_WIDTH * total / longest) - len(bar))
    limit = round(BAR_WIDTH * place.capacity_bytes / longest)
    return f"{bar[:limit]}|{bar[limit:]}" if len(bar) > limit else f"{bar.ljust(limit)}|"


def hint_table(found: Sequence[Hint]) -> Table:
    """Changes that make a plan fit, the fastest first."""
    rows = tuple(
        (
            hint.text,
            f"{hint.strategy.world_size:,}",
            size(hint.peak_bytes),
            size(hint.saved_bytes),
            seconds(hint.step_time_s),
            f"{hint.slower:+.1%}",
        )
        for hint in found
    )
    columns = ("change", "accelerators", "peak", "saved", "step", "beside now")
    return Table(title="it fits with", columns=columns, rows=rows)


def peak_text(found: Memory) -> str:
    """When most stands on the fullest pipeline rank."""
    rank, peak = found.fullest, found.peak
    where = f"{peak['at']} of stage {peak['stage']} (pass {peak['number'] + 1} of its step)"
    return (
        f"peak: {size(found[rank].total_bytes)} on pipeline rank {rank}, in the"
        f" {peak['at'] if peak['at'] == 'optimizer step' else where}; {found[rank].in_flight}"
        f" micro-batch{'es' if found[rank].in_flight != 1 else ''} in flight at most"
    )


def room_text(found: Memory) -> str:
    """What is free where it fits, and whether a larger micro-batch would too."""
    free = min(place.capacity_bytes - place.total_bytes for place in found)
    plan, largest = found.plan, found.largest_micro_batch or 0
    own, share = plan.strategy.micro_batch, plan.job.global_batch // plan.strategy.dp
    if own == share:
        more = "its micro-batch is all that a replica has"
    else:
        more = f"a micro-batch of {largest} still fits" if largest > own else "no larger micro-batch fits"
    return f"fits: {size(free)} free on the fullest rank; {more}"
