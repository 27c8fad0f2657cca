"""Plans from strategies: whole action lists, partitions, buckets, shards."""

from __future__ import annotations

import pytest

from traincast.sim.errors import InputError
from traincast.sim.model.decoder import Decoder
from traincast.sim.model.model import Model
from traincast.sim.plan.job import Job
from traincast.sim.plan.make_plan import make_plan
from traincast.sim.plan.partition import shard
from traincast.sim.plan.schedules import schedule, schedule_names
from traincast.sim.plan.strategy import Strategy
from traincast.sim.plan.strategy_rules import strategy_faults


def text(actions) -> str:
    return " ".join(map(str, actions))


def test_1f1b_with_data_parallelism_is_lowered_whole(tiny_job):
    """Transfers surround every pass, buckets are reduced after the last backward, then the step."""
    plan = make_plan(tiny_job, Strategy(dp=2, pp=2, micro_batch=2))
    assert [text(stage) for stage in plan.actions] == [
        "0F0 0SEND_F0 0F1 0SEND_F1 0RECV_B0 0B0 0RECV_B1 0B1 0REDUCE_GRAD0 0STEP",
        "1RECV_F0 1F0 1B0 1SEND_B0 1RECV_F1 1F1 1B1 1SEND_B1 1REDUCE_GRAD0 1STEP",
    ]


def test_gpipe_does_all_forwards_first(tiny_job):
    plan = make_plan(tiny_job, Strategy(pp=2, micro_batch=4, schedule="gpipe"))
    assert text(plan.actions[1]) == "1RECV_F0 1F0 1RECV_F1 1F1 1B0 1SEND_B0 1B1 1SEND_B1 1STEP"


def test_parameter_server_plan_has_roles(tiny_job):
    """Workers pull, compute and push; a synchronous server waits for all pushes before its step."""
    servers = {"gradient_exchange": "parameter_server", "servers": 2, "overlap_gradients": False}
    plan = make_plan(tiny_job, Strategy(dp=2, micro_batch=4, **servers))
    assert text(plan.actions[0]) == "0PULL 0F0 0B0 0PUSH"
    assert text(plan.server_actions[0]) == "0PULL0 0PULL1 0PUSH0 0PUSH1 0APPLY"
    assert [plan.is_server(rank) for rank in range(plan.world_size)] == [False, False, True, True]
    assert sorted(i for layers in plan.shards for i in layers) == list(range(6))
    plan = make_plan(tiny_job, Strategy(dp=2, micro_batch=4, synchrony="async", **servers))
    assert text(plan.server_actions[1]) == "1PULL0 1PUSH0 1APPLY0 1PULL1 1PUSH1 1APPLY1"


def test_gradients_are_pushed_in_buckets_of_one_server(tiny_job):
    """In the order in which backward makes them whole; every layer is in one."""
    servers = {"dp": 2, "micro_batch": 2, "gradient_exchange": "parameter_server", "servers": 2}
    plan = make_plan(tiny_job, Strategy(bucket_bytes=1, **servers))
    assert text(plan.actions[0]).startswith("0PULL.0 0PULL.1 ")
    assert text(plan.actions[0]).endswith(" 0F0 0B0 0F1 0B1 " + " ".join(f"0PUSH.{i}" for i in range(6)))
    assert [portion.layers for portion in plan.portions] == [(5,), (4,), (3,), (2,), (1,), (0,)]
    assert all(set(portion.layers) <= set(plan.shards[portion.server]) for portion in plan.portions)
    assert sum(portion.size_bytes for portion in plan.portions) == sum(plan.sizes.shards)
    averaged = make_plan(tiny_job, Strategy(bucket_bytes=1, synchrony="local:2", **servers))
    assert text(averaged.actions[0]) == "0PULL 0F0 0B0 0F1 0B1 0STEP 0F2 0B2 0F3 0B3 0STEP 0PUSH"


def test_tied_embeddings_are_summed_over_the_ends(tiny_job):
    decoder = Decoder(
        layers=3, hidden=32, heads=4, kv_heads=4, head_dim=8, ffn=64, vocab=64, max_positions=64,
        tied_embeddings=True,
    )  # fmt: skip
    job = Job(model=Model(name="tied", decoder=decoder), global_batch=3, seq_len=8, precision="fp32")
    plan = make_plan(job, Strategy(pp=3))
    assert ["REDUCE_TIED" in text(stage) for stage in plan.actions] == [True, False, True]


def test_blocks_left_over_go_to_the_middle():
    """The ends also hold the embedding and the head."""
    decoder = Decoder(
        layers=6, hidden=32, heads=4, kv_heads=4, head_dim=8, ffn=64, vocab=64, max_positions=64
    )
    job = Job(model=Model(name="six", decoder=decoder), global_batch=4, seq_len=8, precision="fp32")
    plan = make_plan(job, Strategy(pp=4))
    assert [(s.first_layer, s.end_layer) for s in plan.stages] == [(0, 2), (2, 4), (4, 6), (6, 8)]


def test_buckets_hold_every_layer_once_and_begin_with_a_small_one(tiny_job):
    """Backward order; a bucket closes once it holds its limit; DDP's first limit is 1 MiB."""
    layer = tiny_job.model.layers[1].parameters * 4
    plan = make_plan(tiny_job, Strategy(dp=2, bucket_bytes=2 * layer))
    buckets = plan.stages[0].buckets
    assert [i for bucket in buckets for i in bucket] == [5, 4, 3, 2, 1, 0]
    assert len(buckets) > 1


def test_shards_balance_parameters(tiny_model):
    sizes = [sum(tiny_model.layers[i].parameters for i in layers) for layers in shard(tiny_model, 3)]
    assert max(sizes) - min(sizes) <= max(layer.parameters for layer in tiny_model.layers)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dp": 3}, "job.global_batch: 8 -> expected a multiple of dp 3 × micro_batch 1 = 3"),
        ({"pp": 5}, "strategy.pp: pp 5 × vp 1 -> expected at most 4 stages, the model's layers"),
        ({"tp": 8}, "strategy.tp: 8 -> expected a divisor of the 4 attention heads"),
        ({"schedule": "1f2b"}, f"strategy.schedule: 1f2b -> expected {' | '.join(schedule_names())}"),
        ({"servers": 1}, "strategy.servers: 1 -> expected 0 with gradient_exchange allreduce"),
        (
            {"synchrony": "async"},
            "strategy.synchrony: async -> expected sync or local:H with gradient_exchange allreduce;"
            " updates that do not wait for all go through gradient_exchange: parameter_server",
        ),
        (
            {"gradient_exchange": "parameter_server", "servers": 1, "pp": 2},
            "strategy.pp: 2 -> expected 1 with gradient_exchange parameter_server",
        ),
        ({"dp": 0}, "strategy.dp: 0 -> expected at least 1"),
    ],
)
def test_unlawful_strategies_are_refused(tiny_job, fields, message):
    """Every broken rule is named with the number found and what was expected."""
    with pytest.raises(InputError) as caught:
        make_plan(tiny_job, Strategy(**fields))
    assert message in str(caught.value).splitlines()


def test_world_size_is_checked_where_it_is_known(tiny_job):
    faults = strategy_faults(Strategy(dp=2, tp=2), tiny_job, world_size=8)
    assert [str(fault) for fault in faults] == [
        "strategy: dp 2 × tp 2 × pp 1 = 4 ranks -> expected 8 ranks;"
        " change a degree until the product is the world size"
    ]


def test_orders_of_a_file_must_be_of_the_strategys_size(tiny_job):
    """Four ranks' order is none for two; all that differs is named at once."""
    orders = schedule("zbv", 4, 2, 8)
    with pytest.raises(InputError) as caught:
        make_plan(tiny_job, Strategy(pp=2, schedule="csv"), orders=orders)
    assert str(caught.value).splitlines() == [
        "strategy.schedule: a csv of 4 ranks -> expected 2 (pp)",
        "strategy.schedule: a csv of 8 stages -> expected 2 (pp × vp)",
        "2 errors",
    ]
    own = schedule("1f1b", 2, 1, 8)
    assert make_plan(tiny_job, Strategy(pp=2, schedule="csv"), orders=own).actions == (
        make_plan(tiny_job, Strategy(pp=2)).actions
    )
