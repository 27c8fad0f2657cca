"""What stands at each pass of a rank."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from traincast.sim.memory.pass_timeline import StageBytes, in_flight, walk
from traincast.sim.plan.action import parse_actions


def test_a_walk_by_hand():
    """1F1B of two micro-batches on the last of two stages: kept, computed again, gradients, logits."""
    size = StageBytes(kept=10.0, recomputed=5.0, gradients=3.0, loss_kept=4.0, loss_work=2.0)
    found = walk(parse_actions("1F0 1B0 1F1 1B1"), {1: size})
    assert found.activations.tolist() == [10, 15, 10, 15]
    assert found.logits.tolist() == [6, 6, 6, 6]
    assert found.workspace.tolist() == [0, 3, 0, 3]
    assert (found.peak.number, found.peak.at, found.peak.total_bytes) == (1, "backward", 24)


def test_stages_of_a_rank_keep_their_own():
    """Interleaved, what two stages keep adds up; the largest sum is at the last forward."""
    sizes = {0: StageBytes(kept=7.0), 2: StageBytes(kept=1.0)}
    found = walk(parse_actions("0F0 0F1 2F0 2F1 2B0 0B0"), sizes)
    assert found.activations.tolist() == [7, 14, 15, 16, 16, 15]
    assert found.peak.number == 3


def test_halves_of_a_backward_free_one_after_the_other():
    """The first leaves what gradients of weights need, the second frees that; logits go with the first."""
    size = StageBytes(kept=10.0, for_weights=8.0, gradients=1.0, loss_kept=4.0, loss_work=2.0)
    found = walk(parse_actions("0F0 0I0 0F1 0W0 0I1 0W1"), {0: size})
    assert found.activations.tolist() == [10, 10, 18, 18, 10, 8]
    assert found.logits.tolist() == [6, 6, 6, 4, 6, 0]
    assert found.workspace.tolist() == [0, 1, 0, 0, 1, 0]
    assert found.peak.at == "forward"


def test_offloaded_activations_are_bounded():
    found = walk(parse_actions("0F0 0F1 0F2 0B0 0B1 0B2"), {0: StageBytes(kept=5.0)}, 10.0)
    assert found.activations.max() == 10


def test_a_rank_without_passes_keeps_nothing():
    assert walk((), {0: StageBytes(kept=1.0)}).peak.total_bytes == 0
    assert in_flight(()) == 0


@settings(max_examples=50)
@given(st.integers(1, 6), st.floats(0, 1e9), st.floats(0, 1e9))
def test_the_peak_is_no_less_than_any_moment(count: int, kept: float, gradients: float):
    text = " ".join([*(f"0F{i}" for i in range(count)), *(f"0B{i}" for i in range(count))])
    found = walk(parse_actions(text), {0: StageBytes(kept=kept, gradients=gradients)})
    totals = [found.moment(i).total_bytes for i in range(2 * count)]
    assert found.peak.total_bytes == max(totals) == pytest.approx(count * kept + gradients)
