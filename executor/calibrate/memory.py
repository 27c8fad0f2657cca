"""How much a process holds that trains: itself, started as ``python -m traincast.executor.calibrate.memory``.

Its one argument is a `MemoryNeed` as JSON; it prints two series. What it held before it built the model is
taken after a small model was trained, since libraries take memory when they are first used.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from typing import Any

import torch

from ...sim.model.decoder import Decoder
from ..measure.memory import memory_bytes, peak_memory_bytes, reset_peak_memory
from ..run.process import die_with_parent
from .alone import Division
from .bench import Bench, LaidOut, sizes
from .layers import NORMED
from .stack import Stack, shape_of

STEPS = 5
"""Steps after which the heap has found its size."""


def held(
    bench: Bench,
    *,
    decoder: dict[str, Any],
    seq_len: int,
    micro_batch: int,
    micro_batches: int,
    trained: str = "",
) -> list[LaidOut]:
    """Bytes of the process before it had the model, and the most beyond them while it trained."""
    whole = Decoder(**decoder)
    small = replace(whole, layers=1, dense_layers=0, vocab=min(whole.vocab, 64))
    least = NORMED if trained else 1
    first = Stack(bench, small, min(seq_len, 16), least, count=2, trained=trained)
    first.plain(0)
    del first
    reset_peak_memory(bench.device)
    before = memory_bytes(bench.device)
    stack = Stack(
        bench, whole, seq_len, micro_batch, count=micro_batches, blocks=whole.layers, trained=trained
    )
    parameters = sum(p.nbytes for p in stack.net.parameters())
    reset_peak_memory(bench.device)
    for number in range(STEPS):
        stack.plain(number)
    peak = peak_memory_bytes(bench.device)
    kept = stack.kept_bytes()
    counted = {kind: stack.kinds.count(kind) * size for kind, size in kept.items()}
    facts = {
        **shape_of(stack, Division()),
        "micro_batch": micro_batch,
        "micro_batches": micro_batches,
        "states_bytes": 4 * parameters,
        "kept_bytes": sum(counted.values()),
    }
    return [sizes("reserved", {}, [before]), sizes("peak", facts, [peak - before])]


def main(argument: str) -> None:
    """Measure one `MemoryNeed` and print what was found."""
    die_with_parent()
    torch.set_num_threads(1)
    print(json.dumps(held(Bench(torch.device("cpu"), 0, {}), **json.loads(argument))))


if __name__ == "__main__":
    main(sys.argv[1])
