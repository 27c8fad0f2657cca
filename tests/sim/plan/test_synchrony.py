"""Which strategies make the same progress in a step."""

import pytest

from traincast.sim.plan.strategy import Strategy
from traincast.sim.plan.synchrony import is_synchronous

SERVER = {"gradient_exchange": "parameter_server", "servers": 1}


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        (Strategy(), True),
        (Strategy(dp=4, sharding="fsdp"), True),
        (Strategy(pp=2, schedule="zb-h1"), True),
        (Strategy(dp=2, synchrony="sync", **SERVER), True),
        (Strategy(dp=2, synchrony="async", **SERVER), False),
        (Strategy(dp=2, synchrony="stale:1", **SERVER), False),
        (Strategy(dp=3, synchrony="backup:1", **SERVER), False),
        (Strategy(dp=2, synchrony="local:4"), False),
        (Strategy(pp=2, schedule="pipedream"), False),
        (Strategy(pp=1, schedule="pipedream"), True),
    ],
)
def test_a_synchronous_step_updates_with_the_whole_batch_at_the_newest_parameters(strategy, expected):
    assert is_synchronous(strategy) == expected
