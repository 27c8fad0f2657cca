"""The one interface of the update engines: `run_updates(model)` gives the record of every update."""

from __future__ import annotations

from importlib import import_module

import numpy as np

from ..errors import InputError
from .model import UpdateModel
from .record import UpdateRecord

ENGINES = {"compiled": ".engine_compiled", "simpy": ".engine_simpy"}


def run_updates(model: UpdateModel, *, engine: str = "compiled") -> UpdateRecord:
    """Play all rounds of ``model``. Both engines give the same record, to the last bit.

    Raises:
        InputError: the model has faults, or the engine is unknown.
    """
    model.refuse_faults()
    if engine not in ENGINES:
        raise InputError(f"engine {engine!r} is unknown; expected {' | '.join(ENGINES)}")
    if not model.servers:
        return _all_reduced(model)
    return import_module(ENGINES[engine], __package__).run(model)


def _all_reduced(model: UpdateModel) -> UpdateRecord:
    """Without servers nothing queues: each round waits for its slowest worker, then for the exchange."""
    n, rounds, steps = model.workers, model.rounds, model.local_steps
    begin, met, done = np.zeros(rounds), np.zeros(rounds), np.zeros(rounds)
    computed = np.zeros((n, rounds))
    now = 0.0
    for r in range(rounds):
        begin[r] = now
        ends = np.full(n, now)
        for step in range(r * steps, (r + 1) * steps):
            ends = ends + model.compute_s[:, step]
        computed[:, r] = ends
        met[r] = ends.max()
        now = done[r] = met[r] + model.exchange_s
    everyone = {name: np.tile(times, (n, 1)) for name, times in (("b", begin), ("m", met), ("d", done))}
    versions = np.tile(np.arange(rounds), (n, 1))[:, :, None]
    busy = model.compute_s[:, : rounds * steps].sum(axis=1)
    exchanged = np.full(n, model.exchange_s * rounds)
    return UpdateRecord(
        joint=True,
        read_s=everyone["b"][:, :, None],
        version=versions,
        pull_start_s=everyone["b"][:, :, None],
        pull_end_s=everyone["b"][:, :, None],
        compute_start_s=everyone["b"],
        compute_end_s=computed,
        push_start_s=everyone["m"][:, :, None],
        push_end_s=everyone["d"][:, :, None],
        apply_start_s=everyone["d"][:, :, None],
        applied_s=everyone["d"][:, :, None],
        place=versions,
        out_busy_s=exchanged,
        in_busy_s=exchanged,
        processor_busy_s=busy,
    )
