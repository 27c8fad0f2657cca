"""One rank of a divided layer without the others: it computes its part, and exchanges cost it nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from traincast.executor.calibrate.alone import Division, LoneWire  # noqa: E402
from traincast.executor.calibrate.bench import Bench  # noqa: E402
from traincast.executor.calibrate.halves import halves  # noqa: E402
from traincast.executor.calibrate.layers import layers  # noqa: E402
from traincast.executor.calibrate.stack import Stack, shape_of  # noqa: E402
from traincast.sim.model.decoder import Decoder  # noqa: E402

DECODER = Decoder(layers=2, hidden=32, heads=4, kv_heads=2, head_dim=8, ffn=64, vocab=256, max_positions=64)
DIVISIONS = [
    Division(tp=2),
    Division(tp=2, sequence_parallel=True),
    Division(cp=2, cp_exchange="ring"),
    Division(cp=2, cp_exchange="all_gather"),
    Division(cp=2, cp_exchange="all_to_all"),
    Division(tp=2, sequence_parallel=True, cp=2, cp_exchange="ring"),
]
EXPERTS = replace(DECODER, experts=4, experts_per_token=2, expert_ffn=32)


@pytest.fixture
def bench() -> Bench:
    return Bench(torch.device("cpu"), 0, {})


@pytest.mark.parametrize("division", DIVISIONS, ids=str)
def test_a_rank_trains_its_part_alone(bench, division):
    """Its tokens, its parameters, all passes; what it would have exchanged is counted apart."""
    stack = Stack(bench, DECODER, 16, 2, division=division)
    x, y = stack.batches(0)[0]
    assert x.shape == y.shape == (2, 16 // division.cp)
    assert stack.plain(0).wall > 0
    times = {**stack.stamped(1), **halves(stack, 2)}
    passes = ("forward", "backward", "weight_gradient")
    assert set(times) >= {(name, kind) for name in passes for kind in ("embedding", "block", "head")}
    assert stack.part.exchanged.wall > 0
    whole = Stack(bench, DECODER, 16, 2)
    own, all_ = (sum(p.numel() for p in one.net.parameters()) for one in (stack, whole))
    assert (own < 0.6 * all_) if division.tp > 1 else (own == all_)
    assert whole.part.exchanged.wall == 0.0
    kept, of_whole = stack.kept_bytes(), whole.kept_bytes()
    assert 0 < kept["block"] < of_whole["block"]
    assert shape_of(stack, division)["tp"] == division.tp


@pytest.mark.parametrize(
    "division", [Division(), Division(ep=2), Division(ep=2, tp=2, sequence_parallel=True)]
)
def test_experts_of_other_ranks_are_left_out(bench, division):
    """A rank holds its experts; as many tokens come as go."""
    stack = Stack(bench, EXPERTS, 16, 2, division=division)
    times = stack.stamped(0)
    assert ("backward", "moe_block") in times
    held = sum(p.shape[0] for name, p in stack.net.named_parameters() if name.endswith("experts.inner"))
    assert held == 2 * 4 // division.ep


def test_what_is_kept_is_each_storage_once(bench):
    """Twice the samples keep twice as much, parameters not counted."""
    one, two = (Stack(bench, DECODER, 16, size).kept_bytes() for size in (1, 2))
    assert two["block"] == pytest.approx(2 * one["block"], rel=0.1)
    parameters = sum(p.nbytes for p in Stack(bench, DECODER, 16, 1).net.layers[1].parameters())
    assert one["block"] != pytest.approx(parameters, rel=0.01)


@pytest.mark.parametrize(("rows", "out"), [(4, 8), (8, 4), (4, 4)])
def test_a_wire_that_leads_nowhere_answers_in_shape(rows, out):
    """As much as is asked for, of what was given, over and over."""
    wire, x = LoneWire("tp", 2, [0.0, 0.0]), torch.arange(float(rows))
    got = wire._start(lambda: None, torch.empty(out), x).wait()
    assert got.tolist() == [float(place % rows) for place in range(out)]
    assert (wire.size, wire.index) == (2, 1)


def test_the_task_names_how_layers_were_divided(bench):
    """Halves of backward where they are asked for, whole steps of whole layers only."""
    from dataclasses import asdict

    asked = {"decoder": asdict(DECODER), "seq_len": 16, "micro_batch": 2, "seconds": 0.0}
    divided = layers(bench, **asked, tp=2, splits_backward=True)
    whole = layers(bench, **asked)
    names = {series["what"] for series in divided}
    assert names == {"forward", "backward", "input_gradient", "weight_gradient", "kept"}
    assert {series["what"] for series in whole} == {"forward", "backward", "kept", "step"}
    assert {series["parameters"]["tp"] for series in divided} == {2}


def test_a_rank_by_itself_gathers_what_it_has():
    """Nothing of what memory held before, which may be numbers so small that they take a hundredfold."""
    wire = LoneWire("tp", 3, [0.0, 0.0])
    x = torch.arange(4.0).reshape(2, 2)
    assert torch.equal(wire.all_gather(x).wait(), torch.cat([x, x, x]))
