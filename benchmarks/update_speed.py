"""Processor seconds of update protocols: ``python benchmarks/update_speed.py [WORKERS UPDATES]``.

One parameter server, every worker's gradients with 10 % of jitter. The compiled kernel is warm: loaded, and
run once before. simpy is given a small share of the updates, since it is slow, and its time per update shown.
"""

from __future__ import annotations

import sys
import time

import numpy as np

from traincast.sim.updates import engine_compiled, engine_simpy
from traincast.sim.updates.model import UpdateModel

PROTOCOLS = ("async", "stale:4", "sync", "backup:8", "local:10")
SIMPY_UPDATES = 20
"""Of each worker."""


def model(synchrony: str, workers: int, updates: int) -> UpdateModel:
    """Messages of 1 MB at 1 GB/s, 10 µs of latency, updates of 0.1 ms."""
    compute = np.random.default_rng(0).lognormal(0.0, 0.1, (workers, updates))
    return UpdateModel(
        synchrony=synchrony,
        compute_s=compute,
        shard_bytes=[1e6],
        apply_s=[1e-4],
        bandwidth=[1e9] * (workers + 1),
        latency_s=1e-5,
    )


def seconds(run, *arguments, **options) -> float:
    """Processor seconds of one call."""
    begun = time.process_time()
    run(*arguments, **options)
    return time.process_time() - begun


def main(workers: int, updates: int) -> None:
    """Print one row a protocol."""
    engine_compiled.run(model("async", 2, 2), compiled=True)
    print(f"{workers} workers x {updates} gradients: processor seconds")
    print(f"{'protocol':<12}{'compiled':>10}{'interpreted':>13}{'simpy, µs a gradient':>22}")
    for synchrony in PROTOCOLS:
        whole = model(synchrony, workers, updates)
        fast = seconds(engine_compiled.run, whole, compiled=True)
        plain = seconds(engine_compiled.run, whole, compiled=False)
        share = model(synchrony, workers, SIMPY_UPDATES)
        slow = seconds(engine_simpy.run, share) / (workers * SIMPY_UPDATES)
        print(f"{synchrony:<12}{fast:>10.3f}{plain:>13.3f}{slow * 1e6:>22.1f}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3] if len(sys.argv) > 2 else ("256", "1000")))
