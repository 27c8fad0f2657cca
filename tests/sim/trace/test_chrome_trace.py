"""Trace files: bits in are bits out, other tools can open them, and no file can do harm."""

from __future__ import annotations

import gzip
import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from traincast.sim.errors import InputError, UsageError
from traincast.sim.trace import chrome_trace, trace_reader
from traincast.sim.trace.chrome_trace import write_trace
from traincast.sim.trace.trace import Span, Trace
from traincast.sim.trace.trace_reader import read_trace

SECONDS = st.floats(min_value=0, max_value=1e5, allow_subnormal=False)
NAMES = st.text(min_size=1, max_size=8).filter(lambda text: text.isprintable())


@st.composite
def spans(draw: st.DrawFn) -> Span:
    start = draw(SECONDS)
    return Span(
        rank=draw(st.integers(0, 3)),
        stream=draw(st.sampled_from(["compute", "pp", "dp", "<b>"])),
        action=draw(NAMES),
        stage=draw(st.integers(-1, 8)),
        micro_batch=draw(st.integers(-1, 99)),
        start=start,
        end=start + draw(SECONDS),
        bytes=draw(st.floats(0, 1e15)),
        flops=draw(st.floats(0, 1e25)),
        step=draw(st.integers(0, 3)),
    )


def example() -> Trace:
    """Two ranks, two steps, times that microseconds cannot hold exactly."""
    return Trace.of(
        [
            Span(rank, stream, action, rank, 0, start, start + 1 / 3, 4096.0, 1e9, step)
            for step in (0, 1)
            for rank in (0, 1)
            for stream, action, start in (("compute", f"{rank}F0", 0.1), ("pp", f"{rank}SEND_F0", 0.7))
        ],
        source="measured",
        world_size=2,
        step_times_s=(1.1, 1.2),
        peak_memory_bytes={0: 1e9, 1: 2e9},
        metadata={"losses": [2.5, 2.25], "plan": "dp2", "staleness": None},
    )


@given(rows=st.lists(spans(), max_size=20), times=st.lists(SECONDS, min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_what_is_written_is_read_to_the_bit(
    rows: list[Span], times: list[float], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Spans, times, memory and metadata come back equal."""
    path = tmp_path_factory.mktemp("trace") / "x.trace.json.gz"
    trace = Trace.of(
        rows,
        source="predicted",
        world_size=4,
        step_times_s=tuple(times),
        peak_memory_bytes={0: 0.1, 3: 7e10},
        metadata={"a": [1, None, "</script>"]},
    )
    write_trace(trace, path)
    assert read_trace(path) == trace


def test_same_trace_same_bytes(tmp_path: Path) -> None:
    """No date, name or order of a dictionary gets into the file."""
    trace = example()
    swapped = Trace(
        spans=trace.spans,
        source=trace.source,
        world_size=2,
        step_times_s=trace.step_times_s,
        peak_memory_bytes={1: 2e9, 0: 1e9},
        metadata=dict(reversed(trace.metadata.items())),
    )
    write_trace(trace, tmp_path / "a.json.gz")
    write_trace(swapped, tmp_path / "b.json.gz")
    assert (tmp_path / "a.json.gz").read_bytes() == (tmp_path / "b.json.gz").read_bytes()


def test_the_form_is_that_of_kineto(tmp_path: Path) -> None:
    """Complete events in microseconds, a process a rank, a thread a stream, steps one after another."""
    write_trace(example(), tmp_path / "x.json.gz")
    document = json.loads(gzip.decompress((tmp_path / "x.json.gz").read_bytes()))
    assert document["schemaVersion"] == 1
    assert document["distributedInfo"] == {"backend": "measured", "rank": 0, "world_size": 2}
    labels = {(e["name"], e["pid"], e["tid"]): e["args"] for e in document["traceEvents"] if e["ph"] == "M"}
    assert labels["process_name", 1, 0] == {"name": "rank 1 (measured)"}
    assert labels["thread_name", 0, 0] == {"name": "compute"}
    assert labels["thread_name", 0, 1] == {"name": "pp"}
    events = [e for e in document["traceEvents"] if e["ph"] == "X"]
    assert [(e["name"], e["pid"], e["tid"]) for e in events[:2]] == [("0F0", 0, 0), ("1F0", 1, 0)]
    assert events[0]["ts"] == pytest.approx(1e5)
    assert events[0]["dur"] == pytest.approx(1e6 / 3)
    assert events[4]["ts"] == pytest.approx(1.2e6), "the second step begins when the first is over, at 1.1 s"
    assert {k: events[0]["args"][k] for k in ("stage", "micro_batch", "bytes", "flops", "step")} == {
        "stage": 0,
        "micro_batch": 0,
        "bytes": 4096.0,
        "flops": 1e9,
        "step": 0,
    }


def test_an_unpacked_file_is_read_too(tmp_path: Path) -> None:
    """Whoever looked into the file with gunzip can still compare it."""
    write_trace(example(), tmp_path / "x.json.gz")
    (tmp_path / "x.json").write_bytes(gzip.decompress((tmp_path / "x.json.gz").read_bytes()))
    assert read_trace(tmp_path / "x.json") == example()


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    """NaN is refused, what stood there still stands, and no part is left behind."""
    path = tmp_path / "x.json.gz"
    write_trace(example(), path)
    before = path.read_bytes()
    broken = Trace.of(
        [Span(0, "compute", "0F0", 0, 0, 0.0, math.nan)],
        source="predicted",
        world_size=1,
        step_times_s=(1.0,),
    )
    with pytest.raises(InputError, match="cannot be written as JSON"):
        write_trace(broken, path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["x.json.gz"]


def test_a_place_that_cannot_be_written_is_a_usage_error(tmp_path: Path) -> None:
    """A missing directory is the command line's fault, not a crash."""
    with pytest.raises(UsageError, match="cannot be written"):
        write_trace(example(), tmp_path / "absent" / "x.json.gz")


def document() -> dict[str, Any]:
    return json.loads("".join(chrome_trace._lines(example(), [])))


def event(doc: dict[str, Any]) -> dict[str, Any]:
    return next(e for e in doc["traceEvents"] if e["ph"] == "X")


HOSTILE = {
    "a list": (lambda doc: [doc], "expected an object with traceEvents"),
    "foreign": (lambda doc: {"traceEvents": []}, "traincast: missing"),
    "newer schema": (lambda doc: doc["traincast"].update(schema="traincast.trace/9"), "traincast.trace/1"),
    "no rank": (lambda doc: doc["distributedInfo"].pop("rank"), "distributedInfo.rank: missing"),
    "rank of nobody": (
        lambda doc: event(doc).update(pid=7),
        r"pid: 7 -> expected a whole number from 0 to 1",
    ),
    "true is no rank": (lambda doc: event(doc).update(pid=True), "pid: true"),
    "negative ts": (lambda doc: event(doc).update(ts=-1), r"ts: -1 -> expected a number, not negative"),
    "NaN": (lambda doc: event(doc).update(ts=math.nan), "NaN is not a number of JSON"),
    "infinite": (lambda doc: event(doc).update(dur="1e999"), "dur"),
    "no dur": (lambda doc: event(doc).pop("dur"), "dur: missing"),
    "ts past 2^53": (lambda doc: event(doc).update(ts=2**54), "at most 9"),
    "end before start": (lambda doc: event(doc)["args"].update(start_s=5, end_s=4), "at least its start"),
    "unknown thread": (lambda doc: event(doc).update(tid=9), "tid: 9"),
    "no steps": (lambda doc: doc["traincast"].update(step_times_s=[]), "at least one"),
    "memory of nobody": (
        lambda doc: doc["traincast"].update(peak_memory_bytes={"x": 1}),
        "peak_memory_bytes.x",
    ),
    "events no list": (lambda doc: doc.update(traceEvents={}), "traceEvents"),
    "event no object": (lambda doc: doc["traceEvents"].append(3), "expected an object"),
    "source": (lambda doc: doc["traincast"].update(source="guessed"), "predicted | measured"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_documents_are_refused_with_their_place(name: str, tmp_path: Path) -> None:
    """Each fault is an InputError, exit code 3, that names file and place."""
    change, message = HOSTILE[name]
    doc = document()
    changed = change(doc)
    path = tmp_path / "x.json"
    path.write_text(json.dumps(changed if name in ("a list", "foreign") else doc))
    with pytest.raises(InputError) as caught:
        read_trace(path)
    assert message.replace("\\", "") in str(caught.value)
    assert str(path) in str(caught.value)
    assert caught.value.exit_code == 3


def test_all_faults_come_at_once_up_to_a_limit(tmp_path: Path) -> None:
    """A thousand bad events give twenty lines."""
    doc = document()
    doc["traceEvents"] = [event(doc) | {"ts": -1} for _ in range(1000)]
    (tmp_path / "x.json").write_text(json.dumps(doc))
    with pytest.raises(InputError) as caught:
        read_trace(tmp_path / "x.json")
    assert len(caught.value.faults) == trace_reader.MAX_FAULTS


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not JSON"),
        (b"not a trace", "not JSON"),
        (b"\xff\xfe\x00{", "not JSON"),
        (b"\x1f\x8b\x08\x00garbage", "cannot be read|truncated"),
        (b"[" * 10**6, "nested too deeply|not JSON"),
        (b'{"a":' + b"1" * 5000 + b"}", "not JSON"),
        (gzip.compress(b'{"traceEvents":[', mtime=0)[:-9], "truncated"),
        (gzip.compress(b'{"traceEvents":[', mtime=0), "not JSON"),
    ],
)
def test_files_that_are_no_traces(content: bytes, message: str, tmp_path: Path) -> None:
    """Cut off, random, deep or huge-numbered content is an InputError, never a crash."""
    path = tmp_path / "x.json.gz"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_trace(path)


def test_a_gzip_bomb_is_stopped_early(tmp_path: Path) -> None:
    """64 MiB of blanks in 64 kB are refused by their ratio."""
    path = tmp_path / "bomb.json.gz"
    path.write_bytes(gzip.compress(b" " * 2**26))
    with pytest.raises(InputError, match="expands as a gzip bomb does -> expected at most 200:1"):
        read_trace(path)


def test_the_expanded_size_is_capped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Past the limit reading stops, whatever the ratio."""
    write_trace(example(), tmp_path / "x.json.gz")
    monkeypatch.setattr(trace_reader, "MAX_EXPANDED_BYTES", 100)
    with pytest.raises(InputError, match="too large when expanded"):
        read_trace(tmp_path / "x.json.gz")


@pytest.mark.parametrize("kind", ["absent", "directory", "fifo"])
def test_only_regular_files_are_opened(kind: str, tmp_path: Path) -> None:
    """A pipe would block for ever; a directory cannot be read."""
    path = tmp_path / "x"
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    with pytest.raises(InputError, match="not a regular one"):
        read_trace(path)


def test_like_ranks_are_written_out_as_far_as_slices_reach(tmp_path):
    """Two lanes: rank 1 is like rank 0; with too few slices it stays out, and the writer says so."""
    span = Span(rank=0, stream="compute", action="0F0", stage=0, micro_batch=0, start=0.0, end=1.0)
    trace = Trace.of([span], source="predicted", world_size=2, step_times_s=(1.0,), metadata={"lanes": 2})
    path = tmp_path / "t.trace.json.gz"
    assert write_trace(trace, path) == 1
    assert write_trace(trace, path, unfold=True, max_slices=1) == 1
    assert write_trace(trace, path, unfold=True) == 0
    assert read_trace(path).spans == (span, span._replace(rank=1))
