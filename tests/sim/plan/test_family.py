"""A family is what shares the work out, whatever degrees and batches."""

from __future__ import annotations

from dataclasses import replace

import pytest

from traincast.sim.plan.family import family
from traincast.sim.plan.strategy import Strategy


@pytest.mark.parametrize(
    ("strategy", "name"),
    [
        (Strategy(), "one process"),
        (Strategy(tp=2, sequence_parallel=True, dp=2), "ddp × sequence parallel"),
        (Strategy(cp=2, cp_exchange="all_to_all"), "context parallel all_to_all"),
        (Strategy(pp=2, schedule="zb-h1", recompute="full"), "zb-h1 × recompute full"),
        (Strategy(dp=2, sharding="fsdp"), "fsdp"),
        (
            Strategy(dp=2, gradient_exchange="parameter_server", servers=1, synchrony="stale:2"),
            "parameter server stale",
        ),
        (Strategy(dp=2, synchrony="local:4"), "local SGD"),
        (Strategy(dp=2, ep=2), "expert parallel"),
    ],
)
def test_a_family_is_what_kinds_of_parallelism_there_are(strategy: Strategy, name: str):
    assert family(strategy) == name == family(replace(strategy, micro_batch=4))
