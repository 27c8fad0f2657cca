"""Where a step's time goes: parts that add up, and communication only where nothing hides it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from traincast.reports.breakdown import exposed_seconds
from traincast.sim.trace.trace import Span, Trace

ACTIONS = ("0F0", "0B0", "0SEND_F0", "0REDUCE_GRAD0", "0PUSH", "0STEP", "strange")


def span(rank: int, action: str, start: float, end: float, step: int = 0) -> Span:
    stream = "compute" if action in ("0F0", "0B0", "0STEP") else "dp"
    return Span(rank, stream, action, 0, 0, start, end, step=step)


def of(spans: list[Span], *times: float) -> Trace:
    return Trace.of(spans, source="predicted", world_size=4, step_times_s=times)


def test_hidden_communication_does_not_count() -> None:
    """Reduction from 2 to 6 behind backward until 5 costs one second; the rest is idle."""
    rows = [
        span(0, "0F0", 0, 2),
        span(0, "0B0", 2, 5),
        span(0, "0REDUCE_GRAD0", 2, 6),
        span(0, "0STEP", 7, 8),
    ]
    assert exposed_seconds(of(rows, 8.0)) == pytest.approx(
        {"forward": 2, "backward": 3, "gradient_reduction": 1, "optimizer_step": 1, "idle": 1}
    )


def test_servers_do_not_make_the_workers_look_idle() -> None:
    """A rank that never computes gradients waits by design and is left out."""
    rows = [span(0, "0F0", 0, 4), span(3, "0STEP", 0, 1)]
    assert exposed_seconds(of(rows, 4.0)) == {"forward": 4.0, "idle": 0.0}


def test_steps_are_averaged_and_scaled_to_the_median() -> None:
    """Two steps of different length count by their shares."""
    rows = [span(0, "0F0", 0, 1), span(0, "0B0", 1, 2), span(0, "0F0", 0, 3, 1), span(0, "0B0", 3, 4, 1)]
    assert exposed_seconds(of(rows, 2.0, 4.0)) == pytest.approx(
        {"forward": 3 * (0.5 + 0.75) / 2, "backward": 3 * (0.5 + 0.25) / 2, "idle": 0.0}
    )


@given(
    st.lists(
        st.builds(
            lambda rank, action, start, length, step: span(rank, action, start, start + length, step),
            st.integers(0, 3),
            st.sampled_from(ACTIONS),
            st.floats(0, 10),
            st.floats(0.001, 5),
            st.integers(0, 1),
        ),
        min_size=1,
        max_size=30,
    )
)
@settings(max_examples=80, deadline=None)
def test_parts_add_up_to_the_step_time(rows: list[Span]) -> None:
    """However spans overlap, no part is negative and all together are the step."""
    parts = exposed_seconds(of(rows, 7.0, 9.0))
    assert sum(parts.values()) == pytest.approx(8.0)
    assert min(parts.values()) >= 0
