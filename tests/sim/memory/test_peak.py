"""Peak memory of stages and servers against the papers' formulas."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from machines import cpu_cluster, gpt, gpt3_175b, gpu, gpu_cluster, job, llama

from traincast.sim.memory.activations import block_activation_bytes
from traincast.sim.memory.assumptions import assumptions
from traincast.sim.memory.parameters import state_bytes
from traincast.sim.memory.pass_timeline import in_flight
from traincast.sim.memory.peak import memory, rank_peak, rank_walk
from traincast.sim.model.hf_config import read_model
from traincast.sim.plan.action import parse_actions
from traincast.sim.plan.job import Job
from traincast.sim.plan.make_plan import make_plan
from traincast.sim.plan.software_stacks import FRAGMENTATION, GATHERED_LOSS_FRAGMENTATION
from traincast.sim.plan.strategy import Strategy


def gpt_block_bytes(**how) -> float:
    """Of one 175B block, one sample, over sbh."""
    size = block_activation_bytes(gpt3_175b().decoder, micro_batch=1, seq_len=2048, **how)
    return size / (2048 * 12288)


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ({"flash": False, "dropout": True}, 34 + 5 * 96 * 2048 / 12288),
        ({"flash": False, "dropout": True, "tp": 8}, 10 + 24 / 8 + 5 * 96 * 2048 / (12288 * 8)),
        ({"flash": False, "dropout": True, "recompute": "selective"}, 34),
        ({"flash": False, "dropout": True, "recompute": "selective", "tp": 8}, 10 + 24 / 8),
        ({"recompute": "full"}, 2),
    ],
)
def test_a_gpt_block_keeps_what_korthikanti_says(how: dict, expected: float):
    """Equations 1, 2 and 6 (without sequence parallelism), and section 4.5 for full recompute."""
    assert gpt_block_bytes(**how) == pytest.approx(expected, rel=1e-12)


def test_flash_attention_keeps_no_scores():
    """34 without the two dropout masks, and 4 bytes for each query of each head."""
    assert gpt_block_bytes() == pytest.approx(32 + 4 * 96 / 12288)


@pytest.mark.parametrize(("precision", "total"), [("fp32", 16), ("bf16", 18), ("fp16", 20)])
def test_adamw_bytes_a_parameter_are_megatrons(precision: str, total: int):
    """Megatron Core user guide, "Distributed Optimizer", the column without it."""
    assert sum(state_bytes(job(precision=precision))) == total


@pytest.mark.parametrize(("optimizer", "total"), [("sgd", 8), ("momentum", 12), ("adamw", 16)])
def test_optimizers_keep_their_states(optimizer: str, total: int):
    """4 bytes for each state in fp32."""
    assert sum(state_bytes(job(optimizer=optimizer))) == total


@given(st.integers(1, 6), st.integers(1, 12))
def test_micro_batches_in_flight(pp: int, micro_batches: int):
    """1F1B keeps min(m, p - s), GPipe all of them."""
    model = llama(layers=6)
    own = job(model, global_batch=micro_batches)
    flights = {
        schedule: [in_flight(a) for a in make_plan(own, Strategy(pp=pp, schedule=schedule)).actions]
        for schedule in ("1f1b", "gpipe")
    }
    assert flights["1f1b"] == [min(micro_batches, pp - stage) for stage in range(pp)]
    assert flights["gpipe"] == [micro_batches] * pp


def test_weight_gradients_end_a_flight():
    """Where backward is split, activations stay until the weights' half is done."""
    assert in_flight(parse_actions("0F0 0I0 0F1 0W0 0F2 0I1 0W1")) == 2


def test_one_rank_adds_up():
    """Weights, gradients and states of all parameters; activations and logits of the micro-batch."""
    own = job(llama(layers=2), global_batch=2)
    (rank,) = memory(make_plan(own, Strategy(micro_batch=2)), gpu_cluster())
    parameters = own.model.parameters
    assert (rank.weights_bytes, rank.gradients_bytes) == (4 * parameters, 4 * parameters)
    assert rank.optimizer_bytes == 8 * parameters
    block = block_activation_bytes(own.model.decoder, micro_batch=2, seq_len=128, bytes_per_value=4)
    tokens = 256
    assert rank.activations_bytes == 2 * block + tokens * (8 + 2 * 256 * 4 + 8)
    assert rank.logits_bytes == tokens * 1024 * 12
    assert rank.buffers_bytes == 0
    assert rank.fits
    assert rank.short_bytes == 0


def test_tensor_parallel_ranks_share_parameters():
    """A rank of two has half of the states, but its norms whole, and more than half of the activations."""
    own = job(global_batch=2)
    (one,), (two,) = (memory(make_plan(own, Strategy(tp=tp)), gpu_cluster()) for tp in (1, 2))
    norms = 4 * (2 * own.model.decoder.layers + 1) * own.model.decoder.hidden
    assert two.weights_bytes - norms == (one.weights_bytes - norms) / 2
    assert one.activations_bytes / 2 < two.activations_bytes < one.activations_bytes


def test_stages_hold_their_own_layers():
    """Parameters add up to the model's; the last stage alone has logits; tied tables are held twice."""
    own = job(gpt(4, 256, 8, 1024, positions=128))
    places = memory(make_plan(own, Strategy(pp=4)), gpu_cluster())
    assert sum(place.parameters for place in places) == own.model.parameters + 1024 * 256
    assert [place.logits_bytes > 0 for place in places] == [False, False, False, True]
    assert all(place.buffers_bytes > 0 for place in places)


@pytest.mark.parametrize("schedule", ["1f1b", "gpipe"])
def test_recompute_trades_memory(schedule: str):
    """Full keeps least; with many in flight it is far less, though one block stands whole."""
    own = job(llama(layers=8), global_batch=8)
    sizes = [
        memory(make_plan(own, Strategy(pp=2, schedule=schedule, recompute=r)), gpu_cluster())[
            0
        ].activations_bytes
        for r in ("none", "selective", "full")
    ]
    assert sizes[0] >= sizes[1] > 3 * sizes[2] / 2


def test_servers_hold_states_and_workers_do_not():
    """A server also has a buffer for each worker's gradients."""
    strategy = Strategy(dp=3, gradient_exchange="parameter_server", servers=2)
    plan = make_plan(job(global_batch=12), strategy)
    worker, *servers = memory(plan, cpu_cluster())
    assert (worker.role, worker.optimizer_bytes) == ("worker", 0.0)
    assert [place.role for place in servers] == ["server", "server"]
    assert sum(place.parameters for place in servers) == worker.parameters
    for place in servers:
        assert place.optimizer_bytes == 8 * place.parameters
        assert place.buffers_bytes == 3 * 4 * place.parameters


def test_what_the_allocator_cannot_use_is_a_share_of_what_is_allocated():
    """And, where logits are gathered, of logits and loss once more; nothing on a CPU."""
    own = job(llama(layers=2), global_batch=2)
    gathered = GATHERED_LOSS_FRAGMENTATION
    for stack, tp, of_logits in (("megatron", 2, 0.0), ("scaling", 1, 0.0), ("scaling", 2, gathered)):
        (rank,) = memory(make_plan(own, Strategy(micro_batch=2, tp=tp, stack=stack)), gpu_cluster())
        expected = FRAGMENTATION * rank.allocated_bytes + of_logits * rank.logits_bytes
        assert rank.fragmentation_bytes == pytest.approx(expected)
        assert rank.total_bytes == pytest.approx(rank.allocator_bytes + rank.communicators_bytes)
    (slow,) = memory(make_plan(own, Strategy(micro_batch=2)), cpu_cluster())
    assert slow.total_bytes == pytest.approx(slow.allocated_bytes)


@pytest.mark.parametrize(
    ("strategy", "mebibytes"),
    [({}, 0), ({"dp": 2}, 544), ({"dp": 4}, 688), ({"dp": 2, "tp": 2, "pp": 4}, 544 + 544 + 688)],
)
def test_each_dimension_has_a_communicator(strategy: dict, mebibytes: int):
    """544 MiB of two ranks, 688 MiB of more, as measured on A100."""
    own = job(llama(layers=4), global_batch=4)
    (place, *_) = memory(make_plan(own, Strategy(**strategy)), gpu_cluster())
    assert place.communicators_bytes == mebibytes * 2**20


@pytest.mark.parametrize(
    ("stack", "a_gradient"), [("megatron", 4), ("megatron-2021", 2), ("megatron-bridge", 2)]
)
def test_gradients_are_as_the_software_accumulates_them(stack: str, a_gradient: int):
    """Of bf16 weights in fp32, or in their own precision."""
    own = job(precision="bf16")
    (place,) = memory(make_plan(own, Strategy(stack=stack)), gpu_cluster())
    assert place.gradients_bytes == a_gradient * own.model.parameters


def test_fp32_copies_of_fp16_gradients_stand_only_while_the_optimizer_is_at_work():
    """16 bytes for a parameter beside the passes; with few tokens the peak is at the step, with 20."""
    own = job(precision="fp16", global_batch=1, seq_len=8)
    plan = make_plan(own, Strategy())
    (place,) = memory(plan, gpu_cluster())
    count = own.model.parameters
    assert place.weights_bytes + place.gradients_bytes + place.optimizer_bytes == 16 * count
    assert place.workspace_bytes == 4 * count
    assert rank_peak(plan, 0).at == "optimizer step"


def test_fsdp_keeps_its_shards_in_fp32_alone():
    """16 bytes for each parameter of a shard (torchtitan), where others keep a bf16 copy beside."""
    own = job(precision="bf16", global_batch=8)
    stacks = ("torchtitan", "megatron")
    one, other = (
        memory(make_plan(own, Strategy(dp=8, sharding="fsdp", stack=stack)), gpu_cluster())[0]
        for stack in stacks
    )
    shard = own.model.parameters / 8
    assert one.optimizer_bytes + one.gradients_bytes == 16 * shard
    assert other.weights_bytes - one.weights_bytes == pytest.approx(2 * shard)


def test_the_last_stage_has_most_while_its_loss_is_at_work():
    """With few blocks and a large vocabulary the peak is at a pass of the stage with the head."""
    own = job(llama(layers=4, vocab=100_000), global_batch=4)
    plan = make_plan(own, Strategy(pp=2))
    first, last = memory(plan, gpu_cluster())
    assert last.activations_bytes + last.logits_bytes > first.activations_bytes
    assert (first.logits_bytes, last.in_flight) == (0.0, 1)
    assert rank_walk(plan, 1).peak.stage == 1


def test_what_does_not_fit_says_by_how_much():
    """175B with AdamW on one A100."""
    own = Job(model=gpt3_175b(), global_batch=1, seq_len=2048)
    (rank,) = memory(make_plan(own, Strategy()), gpu_cluster(accelerator=gpu(reserved_bytes=1e9)))
    assert not rank.fits
    assert rank.short_bytes == rank.total_bytes - 80e9 > 0
    assert rank.total_bytes > 18 * own.model.parameters + 1e9


def test_175b_on_64_accelerators_is_near_korthikantis_measurement():
    """Weights and optimizer states of a rank: 18 bytes for each of 175B/64 parameters, 46 GiB."""
    own = Job(model=gpt3_175b(), global_batch=64, seq_len=2048)
    places = memory(make_plan(own, Strategy(tp=8, pp=8)), gpu_cluster(nodes=8))
    middle = places[3]
    states = middle.weights_bytes + middle.gradients_bytes + middle.optimizer_bytes
    assert states == pytest.approx(18 * 175e9 / 64, rel=0.02)


def test_assumptions_follow_the_plan():
    """Only what applies is said."""
    plain = assumptions(job(), Strategy())
    assert plain[0].startswith("4 + 4 + 8 bytes per parameter: fp32")
    assert not any("server" in line or "computed again" in line for line in plain)
    strategy = Strategy(recompute="full", gradient_exchange="parameter_server", servers=1)
    said = " ".join(assumptions(job(precision="bf16"), strategy))
    assert "2 + 4 + 12 bytes" in said
    assert "a server has a buffer" in said
    assert "computed again" in said


def test_gradients_are_copied_into_buckets_only_where_parameters_are_sharded():
    """The largest block of FSDP; Megatron Core reduces contiguous gradients where they are."""
    own = job(precision="bf16", global_batch=8)
    for sharding, copied in (("ddp", False), ("zero1", False), ("fsdp", True)):
        (place,) = memory(make_plan(own, Strategy(dp=8, sharding=sharding)), gpu_cluster())
        largest = max(layer.parameters for layer in own.model.layers)
        assert place.buffers_bytes == (4 * largest if copied else 0)


def test_transformer_engine_keeps_a_placeholder_for_each_shape_of_a_weight():
    """A block's matrices in bf16, once; no such thing where gradients are summed by a kernel of their own."""
    own = job(precision="bf16", global_batch=1)
    stacks = ("megatron", "megatron-2021")
    one, other = (rank_walk(make_plan(own, Strategy(stack=stack)), 0).moment(1) for stack in stacks)
    decoder = own.model.decoder
    matrices = decoder.attention_parameters + decoder.mlp_matrices * decoder.hidden * decoder.ffn
    assert one.workspace_bytes - other.workspace_bytes == 2 * matrices


PEAKS = [
    ("llama3-70b", 12, {"dp": 4, "pp": 2, "sharding": "zero1"}, 4096, (66.55, 62.97)),
    ("llama3-70b", 12, {"dp": 4, "tp": 2, "sharding": "zero1"}, 4096, (60.68,)),
    ("llama3-70b", 12, {"tp": 8}, 4096, (28.29,)),
    ("llama3-70b", 12, {"tp": 2, "cp": 4, "sharding": "zero1", "cp_exchange": "all_to_all"}, 32768, (68.43,)),
    ("deepseek-v2", 4, {"dp": 8, "ep": 8, "sharding": "zero1"}, 4096, (45.63,)),
    ("deepseek-v2", 4, {"dp": 4, "ep": 4, "pp": 2, "sharding": "zero1"}, 4096, (31.59, 44.70)),
    ("deepseek-v3", 4, {"dp": 8, "ep": 8, "sharding": "zero1"}, 4096, (104.30,)),
]
"""Model, layers, strategy, sequence length and GiB allocated at most on a rank of each stage: Megatron-LM on
eight B200 with fused cross-entropy (MooreThreads/SimuMax docs/b200/b200_release_v1.2_summary.json)."""


@pytest.mark.parametrize(("name", "layers", "how", "seq_len", "measured"), PEAKS)
def test_measured_peaks_of_megatron(name: str, layers: int, how: dict, seq_len: int, measured: tuple):
    """Within 2 % on every stage."""
    model = read_model(name)
    dense = 1 if model.decoder.experts else 0
    cut = replace(model, decoder=replace(model.decoder, layers=layers, dense_layers=dense))
    strategy = Strategy(sequence_parallel=how.get("tp", 1) > 1, stack="megatron-fused-loss", **how)
    own = Job(model=cut, global_batch=4 * strategy.dp, seq_len=seq_len)
    peaks = [place.allocated_bytes / 2**30 for place in memory(make_plan(own, strategy), gpu_cluster())]
    assert peaks == pytest.approx(measured, rel=0.02)
