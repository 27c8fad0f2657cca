"""Every strategy that runs agrees with a single process on the same global batch."""

from __future__ import annotations

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from agreement import assert_agrees  # noqa: E402
from agreement import run as run_plan  # noqa: E402
from machines import cpu_cluster  # noqa: E402

from traincast.executor.model.reference import Outcome, single_process  # noqa: E402
from traincast.executor.servers.replay import Order, replay  # noqa: E402
from traincast.sim.model.model import Model  # noqa: E402
from traincast.sim.plan.job import Job  # noqa: E402
from traincast.sim.plan.make_plan import make_plan  # noqa: E402
from traincast.sim.plan.strategy import Strategy  # noqa: E402
from traincast.sim.predict.simulate import simulate  # noqa: E402
from traincast.sim.trace.trace import Trace  # noqa: E402

pytestmark = pytest.mark.slow
WARMUP, STEPS = 1, 3
SERVER = {"gradient_exchange": "parameter_server"}

SYNCHRONOUS = {
    "ddp": Strategy(dp=2, micro_batch=2),
    "ddp in small buckets": Strategy(dp=2, micro_batch=4, bucket_bytes=4096),
    "gpipe": Strategy(pp=2, micro_batch=2, schedule="gpipe"),
    "1f1b": Strategy(pp=4, micro_batch=2),
    "one message at a time": Strategy(pp=2, micro_batch=2, overlap_transfers=False),
    "dp × pp": Strategy(dp=2, pp=2, micro_batch=2),
    "reduced after backward": Strategy(dp=2, micro_batch=2, overlap_gradients=False),
    "interleaved": Strategy(pp=2, vp=2, schedule="interleaved"),
    "loopedbfs": Strategy(pp=2, vp=2, schedule="loopedbfs"),
    "zb-h1": Strategy(pp=2, schedule="zb-h1"),
    "zb-h1 × dp": Strategy(pp=2, dp=2, schedule="zb-h1"),
    "zb-h2": Strategy(pp=4, schedule="zb-h2"),
    "zbv": Strategy(pp=2, vp=2, schedule="zbv"),
    "dualpipev": Strategy(pp=2, vp=2, schedule="dualpipev"),
    "tp": Strategy(tp=2, micro_batch=2),
    "sequence parallel": Strategy(tp=2, micro_batch=2, sequence_parallel=True),
    "tp × dp": Strategy(tp=2, dp=2, micro_batch=2),
    "tp × pp": Strategy(tp=2, pp=2, micro_batch=2, sequence_parallel=True),
    "tp × zero bubble": Strategy(tp=2, pp=2, micro_batch=2, schedule="zb-h1"),
    "cp ring": Strategy(cp=2, micro_batch=2),
    "cp all-gather": Strategy(cp=2, micro_batch=2, cp_exchange="all_gather"),
    "cp all-to-all": Strategy(cp=2, micro_batch=2, cp_exchange="all_to_all"),
    "cp × dp": Strategy(cp=2, dp=2, micro_batch=2),
    "cp × pp": Strategy(cp=2, pp=2, micro_batch=2, schedule="zb-h1"),
    "cp × tp": Strategy(cp=2, tp=2, micro_batch=2, sequence_parallel=True),
    "recompute": Strategy(dp=2, micro_batch=2, recompute="full"),
    "recompute × zero bubble": Strategy(pp=2, micro_batch=2, recompute="selective", schedule="zb-h1"),
    "uneven stages": Strategy(pp=2, stage_layers=(3, 1), micro_batch=2),
    "ends alone": Strategy(pp=2, vp=2, stage_layers=(0, 2, 2, 0), schedule="zbv"),
    "zero1": Strategy(dp=2, micro_batch=2, sharding="zero1", bucket_bytes=9000),
    "zero2": Strategy(dp=2, micro_batch=2, sharding="zero2", bucket_bytes=9000),
    "fsdp": Strategy(dp=2, micro_batch=2, sharding="fsdp"),
    "fsdp, kept and not fetched ahead": Strategy(
        dp=2, micro_batch=2, sharding="fsdp", reshard_after_forward=False, prefetch=0
    ),
    "zb-1p": Strategy(pp=2, schedule="zb-1p"),
    "zb-2p": Strategy(pp=2, schedule="zb-2p"),
    "one server": Strategy(dp=2, servers=1, micro_batch=2, **SERVER),
    "two servers": Strategy(dp=2, servers=2, micro_batch=4, **SERVER),
}


@pytest.fixture(scope="module")
def sgd_job(tiny_job):
    """Plain SGD, whose updates are gradients: adaptive steps make much of the rounding of small ones."""
    return replace(tiny_job, optimizer="sgd", learning_rate=0.1)


@pytest.fixture(scope="module")
def reference(sgd_job):
    return single_process(sgd_job, WARMUP + STEPS)


def run(job: Job, strategy: Strategy, directory):
    """Execute, and return the trace with the state that all ranks ended with."""
    return run_plan(make_plan(job, strategy), directory, steps=STEPS, warmup=WARMUP)


@pytest.mark.parametrize("name", SYNCHRONOUS)
def test_synchronous_strategies_give_a_single_process_loss(sgd_job, reference, tmp_path, name):
    """Losses of every step, parameters after the last and its gradients."""
    strategy = SYNCHRONOUS[name]
    trace, parts = run(sgd_job, strategy, tmp_path)
    assert_agrees(reference, trace, parts)
    assert len(trace.step_times_s) == STEPS
    assert min(trace.step_times_s) > 0
    assert trace.ranks == list(range(strategy.world_size))
    assert set(trace.peak_memory_bytes) == set(range(strategy.world_size))


@pytest.mark.parametrize("strategy", [Strategy(pp=2, micro_batch=4), Strategy(dp=2, micro_batch=4)])
def test_tied_embeddings_stay_one_matrix(sgd_job, tmp_path, strategy):
    """Each end of a pipeline has part of the gradient; both copies move alike."""
    tied = replace(sgd_job.model.decoder, tied_embeddings=True)
    job = replace(sgd_job, model=Model(name="tied", decoder=tied))
    trace, parts = run(job, strategy, tmp_path)
    assert_agrees(single_process(job, WARMUP + STEPS), trace, parts)


@pytest.mark.parametrize(
    "strategy",
    [
        Strategy(dp=2, pp=2, micro_batch=2),
        Strategy(dp=2, servers=2, micro_batch=4, **SERVER),
        Strategy(dp=2, servers=1, micro_batch=4, synchrony="async", bucket_bytes=1, **SERVER),
        Strategy(dp=2, servers=2, micro_batch=4, servers_colocated=True, bucket_bytes=1, **SERVER),
    ],
)
def test_measured_spans_are_the_plans_actions(sgd_job, tmp_path, strategy):
    """What was predicted and what was measured can be joined by action, on every rank and step."""
    plan = make_plan(sgd_job, strategy)
    trace, _ = run_plan(plan, tmp_path, steps=2, warmup=1)
    for step in range(2):
        for rank in range(plan.world_size):
            actions = {span.action for span in trace.of_step(step) if span.rank == rank}
            planned = {str(action) for action in plan.rank_actions(rank)}
            if strategy.servers_colocated:
                # What a worker and a server of one process exchange is a message of both.
                planned |= {str(action) for action in plan.server_actions[rank]}
            assert planned == actions
    messages = [span for span in trace.spans if span.kind in ("SEND_F", "RECV_F", "SEND_B", "RECV_B")]
    assert {span.bytes for span in messages} == set(plan.sizes.messages)
    exchanges = [span for span in trace.spans if span.stream == "ps"]
    assert {span.bytes for span in exchanges} == {portion.size_bytes for portion in plan.portions}
    assert all(0 <= span.start <= span.end for span in trace.spans)
    assert {span.step for span in trace.spans} == {0, 1}


@pytest.mark.parametrize(
    "strategy",
    [
        Strategy(dp=2, micro_batch=2, bucket_bytes=9000),
        Strategy(dp=2, pp=2, micro_batch=2, bucket_bytes=9000),
    ],
)
def test_buckets_are_the_plans(sgd_job, tmp_path, strategy):
    """DDP reduces the layers that the plan puts together, no more and no less, a message for each bucket."""
    plan = make_plan(sgd_job, strategy)
    trace, _ = run_plan(plan, tmp_path, steps=2, warmup=1)
    reduced = {
        (span.step, span.rank, span.action): span.bytes for span in trace.spans if span.kind == "REDUCE_GRAD"
    }
    planned = {
        (step, rank, f"{stage}REDUCE_GRAD{number}"): size
        for step in range(2)
        for rank in range(plan.world_size)
        for stage in [plan.coordinates(rank)[0]]
        for number, size in enumerate(plan.sizes.buckets[stage])
    }
    assert max(len(stage.buckets) for stage in plan.stages) > 1
    assert reduced == planned


@pytest.mark.parametrize("sharding", ["ddp", "zero1", "fsdp"])
@pytest.mark.parametrize(
    "degrees",
    [{"dp": 2, "pp": 2}, {"dp": 2, "tp": 2, "sequence_parallel": True}, {"dp": 2, "tp": 2}],
    ids=["tied ends of a pipeline", "sequence parallel", "tp"],
)
def test_what_ends_a_step_is_sent_as_predicted(sgd_job, tmp_path, sharding, degrees):
    """Sums over the ends of a pipeline and over tensor-parallel ranks: as often, and as many bytes, which
    ranks share out by where their shards begin."""
    decoder = replace(sgd_job.model.decoder, tied_embeddings=True, qk_norm=True)
    job = replace(sgd_job, model=Model(name="tied", decoder=decoder))
    plan = make_plan(job, Strategy(**degrees, sharding=sharding, micro_batch=2, stack="torch-autocast"))
    trace, _ = run_plan(plan, tmp_path, steps=1, warmup=1)
    measured, predicted = _sent_at_the_end(trace), _sent_at_the_end(simulate(plan, cpu_cluster()))
    assert predicted
    assert measured.keys() <= predicted.keys() if sharding != "ddp" else measured == predicted
    assert sum(measured.values()) == pytest.approx(sum(predicted.values()))


def _sent_at_the_end(trace: Trace) -> dict[tuple[str, int, str], float]:
    """Bytes of the last step by (stream, rank, action)."""
    last = max(span.step for span in trace.spans)
    return {
        (span.stream, span.rank, span.action): span.bytes
        for span in trace.spans
        if span.step == last and span.kind in ("STEP", "REDUCE_TIED") and span.stream != "compute"
    }


def test_mixed_precision_is_near_fp32_and_sends_half_the_bytes(sgd_job, reference, tmp_path):
    """bf16 has 8 bits of mantissa: losses to 1 %. Messages are what the simulator counts them as."""
    job = replace(sgd_job, precision="bf16")
    trace, _ = run(job, Strategy(pp=2, micro_batch=4), tmp_path)
    assert trace.metadata["losses"] == pytest.approx(reference[0], rel=1e-2)
    assert trace.metadata["losses"] != pytest.approx(reference[0], rel=1e-7)
    messages = {span.bytes for span in trace.spans if span.stream == "pp"}
    assert messages == {4.0 * job.seq_len * job.model.decoder.hidden * 2}


def test_transfers_begin_when_both_sides_are_there(sgd_job, tmp_path):
    """A message is the same span on both ranks, and computing follows receiving."""
    trace, _ = run_plan(make_plan(sgd_job, Strategy(pp=2, micro_batch=2)), tmp_path, steps=2, warmup=1)
    spans = {(span.step, span.action): span for span in trace.spans}
    for index in range(4):
        sent, received = spans[0, f"0SEND_F{index}"], spans[0, f"1RECV_F{index}"]
        assert (sent.start, sent.end) == (received.start, received.end)
        assert spans[0, f"0F{index}"].end <= sent.start


def test_asynchronous_updates_are_stale_and_still_learn(tiny_job, tmp_path):
    """Every worker goes on at its own pace; each update says how many came between."""
    job = replace(tiny_job, learning_rate=3e-3)
    strategy = Strategy(dp=2, servers=1, micro_batch=2, synchrony="async", **SERVER)
    plan = make_plan(job, strategy)
    trace, _ = run_plan(plan, tmp_path, steps=20, warmup=1)
    stale = trace.metadata["staleness"]
    assert isinstance(stale, list)
    assert len(stale) == 2 * 21
    assert stale[0] == 0
    assert max(stale) >= 1
    losses = trace.metadata["losses"]
    assert isinstance(losses, list)
    assert losses[-1] < losses[0] - 0.3
    assert 0 < len(trace.step_times_s) <= 20


@pytest.mark.parametrize("synchrony", ["stale:1", "backup:1", "local:2"])
def test_a_run_with_servers_is_replayed_from_its_trace(tiny_job, tmp_path, synchrony):
    """The trace says which gradients made every version, and what they were computed on."""
    strategy = Strategy(dp=2, servers=1, micro_batch=2, synchrony=synchrony, **SERVER)
    plan = make_plan(tiny_job, strategy)
    trace, parts = run(tiny_job, strategy, tmp_path)
    again = replay(plan, Order.of(trace.metadata["applied_order"]))
    assert_agrees(Outcome(again.mean_losses(), again.parameters, {}), trace, parts)
    assert 0 < len(trace.step_times_s) <= STEPS


def test_loss_falls_on_real_text(tiny_job, tmp_path):
    """Thirty steps on English text teach a small model more than the frequency of bytes at random."""
    job = replace(tiny_job, learning_rate=5e-3)
    trace, _ = run_plan(make_plan(job, Strategy(dp=2, micro_batch=4)), tmp_path, steps=30, warmup=2)
    losses = trace.metadata["losses"]
    assert isinstance(losses, list)
    assert sum(losses[-5:]) / 5 < losses[0] - 0.5
