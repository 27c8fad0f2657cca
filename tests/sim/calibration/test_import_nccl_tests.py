"""Outputs of nccl-tests become curves; what is wrong in them is refused with its line."""

# ruff: noqa: E501 - tables as the program prints them

from __future__ import annotations

import json

import pytest
from machines import gpu_cluster
from measured_texts import FOOTER, NCCL_TESTS, RANKS, ROWS

from traincast.sim.calibration.import_nccl_tests import bus_bandwidth, import_tables, read_table
from traincast.sim.errors import InputError
from traincast.sim.network.transport import MEASURED, choose, transport

POINTS = ((1048576.0, pytest.approx(50e-6)), (1073741824.0, pytest.approx(8e-3)))


def write(tmp_path, text: str, name: str = "output.txt"):
    path = tmp_path / name
    path.write_text(text)
    return path


def as_json(**changes) -> dict:
    """The same table as -J writes it (src/util.cu)."""
    halves = [
        {"time": 50.0, "alg_bw": 20.97, "bus_bw": 36.70, "nwrong": 0.0},
        {"time": 8000.0, "alg_bw": 134.22, "bus_bw": 234.88, "nwrong": 0.0},
    ]
    results = [
        {
            "size": size,
            "count": size // 4,
            "type": "float",
            "redop": "sum",
            "root": "    -1",
            "out_of_place": half,
            "in_place": half,
            "actual_iterations": 20,
            "experiment_name": "AllReduce",
        }
        for size, half in zip((1048576, 1073741824), halves, strict=True)
    ]
    config = {
        "nthreads": 1,
        "ngpus": 8,
        "devices": [{"rank": 0, "hostname": "node0", "device": 0}],
    }
    return {"version": 1, "args": ["./build/all_reduce_perf"], "config": config, "results": results} | changes


def message(tmp_path, text: str, **how) -> str:
    with pytest.raises(InputError) as refused:
        import_tables(gpu_cluster(), [write(tmp_path, text)], **how)
    return str(refused.value).replace(f"{tmp_path}/", "")


def test_text_becomes_a_curve(tmp_path):
    """Out-of-place times; rows of nothing are left out."""
    table = read_table(write(tmp_path, NCCL_TESTS))
    assert (table.operation, table.ranks, table.hosts, table.faults) == ("all_reduce", 8, 1, [])
    curve = import_tables(gpu_cluster(), [write(tmp_path, NCCL_TESTS)]).transports[0]
    assert (curve.operation, curve.ranks, curve.source) == ("all_reduce", 8, "nccl-tests, output.txt")
    assert curve.times_s == POINTS


def test_json_becomes_the_same_curve(tmp_path):
    text, written = write(tmp_path, NCCL_TESTS), write(tmp_path, json.dumps(as_json()), "output.json")
    of_text, of_json = (
        import_tables(gpu_cluster(), [path]).transports[0].times_s for path in (text, written)
    )
    assert of_text == of_json


def test_older_tables_have_no_root_and_an_error(tmp_path):
    """As version 2.0.0 printed; the file's name says the collective."""
    old = (
        "# Using devices\n#   Rank  0 Pid 1 on a device 0 [0x00] V100\n#   Rank  1 Pid 2 on a device 1 [0x00] V100\n"
        "#       size         count      type   redop     time   algbw   busbw  error     time   algbw   busbw  error\n"
        "  1310720000     327680000     float     sum  100000.0   13.11   13.11  4e-07   99000.0   13.24   13.24  4e-07\n"
    )
    path = write(tmp_path, old, "all_reduce.log")
    curve = import_tables(gpu_cluster(), [path]).transports[0]
    assert (curve.operation, curve.ranks, curve.times_s) == ("all_reduce", 2, ((1310720000.0, 0.1),))


def test_what_is_measured_is_used_before_any_closed_form(tmp_path):
    """To the digit at the measured sizes, for ranks that lie so."""
    cluster = import_tables(gpu_cluster(), [write(tmp_path, NCCL_TESTS)])
    choice = choose(cluster, "all_reduce", range(8), 2**30)
    assert (choice.seconds, choice.algorithm) == (pytest.approx(8e-3), MEASURED)
    assert transport(cluster, "all_gather", range(8), 2**30) == transport(
        gpu_cluster(), "all_gather", range(8), 2**30
    )
    assert bus_bandwidth("all_reduce", 8, 2**30, choice.seconds) == pytest.approx(234.88e9, rel=1e-4)


def test_a_new_measurement_replaces_an_old_one(tmp_path):
    cluster = import_tables(gpu_cluster(), [write(tmp_path, NCCL_TESTS)])
    again = import_tables(
        cluster, [write(tmp_path, NCCL_TESTS.replace("8000.0  134.22  234.88", "9000.0  119.30  208.78"))]
    )
    assert len(again.transports) == 1
    assert again.transports[0].times_s[-1][1] == pytest.approx(9e-3)


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ("36.70      0", "36.70      3", "3 wrong values of 1048576 bytes -> expected 0"),
        ("36.70      0", "36.70    N/A", "#wrong is 'N/A' -> expected 0, which says that results were checked"),
        ("float     sum      -1    50.00", "half     sum      -1    50.00", "rows of several kinds"),
        ("  1073741824     2", "  1048576     2", "1048576 bytes a second time -> expected each size once"),
        ("all_reduce_perf", "reduce_perf", "'reduce_perf' measures no collective that is modelled"),
        ("all_reduce_perf", "all_gather_perf", "busbw is 1.750 times algbw -> expected 0.875 for all_gather"),
        ("    time   algbw   busbw #wrong ", " cputime   algbw   busbw #wrong ", "cputime, the host's time"),
        (FOOTER, "# Collective test starting: all_gather_perf\n", "all_gather after all_reduce in one file"),
        (ROWS, "", "no row with a size and a time"),
        (RANKS, "", "no ranks -> expected 2 or more; give --ranks"),
        (" on node0 device 7", " on node1 device 7", "8 ranks on 2 hosts -> expected 1, 8 a node as in gpus"),
        ("   50.00   20.97", "   fifty   20.97", "no numbers in"),
    ],
)  # fmt: skip
def test_what_cannot_be_trusted_is_refused(tmp_path, old, new, found):
    assert NCCL_TESTS.count(old) >= 1
    assert found in message(tmp_path, NCCL_TESTS.replace(old, new, 1))


def test_all_faults_of_all_files_are_told_at_once(tmp_path):
    """Each with its line."""
    first = write(tmp_path, NCCL_TESTS.replace("36.70      0", "36.70      3"), "a.txt")
    second = write(tmp_path, NCCL_TESTS.replace("234.88      0", "234.88    N/A"), "b.txt")
    with pytest.raises(InputError) as refused:
        import_tables(gpu_cluster(), [first, second])
    lines = [(fault.file.rsplit("/", 1)[1], fault.line) for fault in refused.value.faults]
    number = NCCL_TESTS[: NCCL_TESTS.index("     1048576 ")].count("\n") + 1
    assert lines == [("a.txt", number), ("b.txt", number + 1)]


def test_the_same_table_twice_is_refused(tmp_path):
    paths = [write(tmp_path, NCCL_TESTS, name) for name in ("a.txt", "b.txt")]
    with pytest.raises(InputError, match="all_reduce on 8 ranks again, first in"):
        import_tables(gpu_cluster(), paths)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"results": None}, "no results and config"),
        ({"results": [{"size": 8, "out_of_place": {"cpu_time": 1.0}}]}, "cpu_time is the host's"),
        ({"results": [{"size": 8, "out_of_place": {"time": 1.0, "nwrong": None}}]}, "#wrong is 'N/A'"),
        ({"results": [3]}, "a result with a size"),
    ],
)
def test_json_that_says_too_little_is_refused(tmp_path, changes, found):
    assert found in message(tmp_path, json.dumps(as_json(**changes)))


def test_what_old_outputs_leave_out_can_be_given(tmp_path):
    bare = NCCL_TESTS.replace("# Collective test starting: all_reduce_perf\n", "").replace(RANKS, "")
    path = write(tmp_path, bare)
    assert import_tables(gpu_cluster(), [path], operation="all_reduce", ranks=8).transports[0].ranks == 8
    assert "no word of which collective" in message(tmp_path, bare, ranks=8)
