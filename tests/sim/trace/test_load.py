"""A prediction next to other programs: the cores that they leave are what the ranks' work is shared over."""

from __future__ import annotations

from dataclasses import replace

import pytest

from traincast.sim.trace.load import Load, beside, load_of, slowdown
from traincast.sim.trace.trace import Span, Trace, merge_traces


def predicted(core_seconds: float | None, step: float = 1.0) -> Trace:
    """A step on two cores of which ranks take so much."""
    known = {} if core_seconds is None else {"core_seconds": core_seconds, "cores": 2}
    span = Span(0, "compute", "0F0", 0, 0, 0.25 * step, step, 0.0, 0.0, 0)
    return Trace.of(
        [span],
        source="predicted",
        world_size=1,
        step_times_s=(0.9 * step, step, 1.2 * step),
        metadata={**known, "deterministic_step_time_s": step},
    )


def measured(others: float | None, own: float = 1.0) -> Trace:
    load = {} if others is None else {"load": {"cores": 2.0, "own": own, "others": others}}
    return Trace.of([], source="measured", world_size=1, step_times_s=(1.5,), metadata=load)


@pytest.mark.parametrize(
    ("core_seconds", "others", "factor"),
    [
        (2.0, 0.0, 1.0),
        (2.0, 0.5, 2.0 / 1.5),
        (1.0, 1.0, 1.0),
        (1.5, 1.0, 1.5),
        (2.0, 2.0, 2.0 / 0.05),
        (None, 1.0, 1.0),
        (2.0, None, 1.0),
    ],
)
def test_others_slow_ranks_once_idle_time_is_used_up(core_seconds, others, factor):
    """Two core-seconds a second need both cores; one leaves one to others for nothing."""
    assert slowdown(predicted(core_seconds), measured(others)) == pytest.approx(factor)


@pytest.mark.parametrize(
    ("calibrated", "met", "factor"),
    [(0.03, 0.036, 1.2), (0.03, 0.024, 0.8), (0.0, 0.03, 1.0), (0.03, None, 1.0)],
)
def test_a_processor_that_was_slower_than_when_it_was_calibrated_is_known(calibrated, met, factor):
    """The probe took a fifth longer, and so does the step; who did not look knows nothing."""
    expected, run = predicted(2.0), measured(0.0)
    expected = replace(expected, metadata={**expected.metadata, "probe_s": calibrated})
    if met is not None:
        run = replace(run, metadata={"load": {**run.metadata["load"], "probe_s": met}})
    assert slowdown(expected, run) == pytest.approx(factor)
    assert beside(expected, run).step_time_s == pytest.approx(factor * expected.step_time_s)


def test_the_whole_prediction_is_slower():
    """Spans, samples and the step itself; bytes and work stay."""
    slow = beside(predicted(2.0), measured(0.5))
    (span,) = slow.spans
    assert (span.start, span.end) == (pytest.approx(0.25 / 0.75), pytest.approx(1 / 0.75))
    assert slow.step_time_s == pytest.approx(1 / 0.75)
    assert slow.deterministic_step_time_s == pytest.approx(1 / 0.75)
    assert slow.metadata["core_seconds"] == 2.0
    free = predicted(2.0)
    assert beside(free, measured(0.0)) is free


def test_a_load_is_read_or_there_is_none():
    """What is no number is nobody's load."""
    assert load_of(measured(0.5)) == Load(cores=2.0, own=1.0, others=0.5)
    assert load_of(measured(None)) is None
    odd = Trace.of([], source="measured", world_size=1, step_times_s=(), metadata={"load": {"cores": "2"}})
    assert load_of(odd) is None
    assert Load(cores=2.0, own=1.0, others=0.5).is_busy
    assert not Load(cores=2.0, own=1.9, others=0.02).is_busy
    assert str(Load(cores=2.0, own=1.0, others=0.66)) == "other programs took 0.66 of 2 cores"


def test_runs_that_become_one_have_the_mean_load():
    """Unless one of them does not say."""
    both = merge_traces([measured(0.25), measured(0.75, own=0.5)])
    assert load_of(both) == Load(cores=2.0, own=0.75, others=0.5)
    assert merge_traces([measured(0.25), measured(None)]).metadata["load"]["others"] == 0.25
