"""The record of results: equal to itself, and a change of one bit is found where it is."""

from __future__ import annotations

import gzip
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

import traincast

PROGRAM = Path(traincast.__file__).parent / "benchmarks" / "results_net.py"


def results_net(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(PROGRAM), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture(scope="module")
def before(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("net") / "before"
    done = results_net("record", directory, "--only", "schedules-csv/orders")
    assert done.returncode == 0, done.stderr
    return directory


def copy_of(before: Path, directory: Path, change) -> Path:
    """The record with one case changed by ``change``."""
    directory.mkdir()
    for path in before.iterdir():
        (directory / path.name).write_bytes(path.read_bytes())
    path = directory / "schedules-csv--orders.json.gz"
    case = json.loads(gzip.decompress(path.read_bytes()))
    change(case)
    path.write_bytes(gzip.compress(json.dumps(case).encode()))
    return directory


def test_a_record_is_equal_to_itself(before):
    done = results_net("compare", before, before)
    assert (done.returncode, done.stdout) == (0, "2 cases compared, 0 differ\n")


def test_a_record_holds_output_and_files(before):
    case = json.loads(gzip.decompress((before / "schedules-csv--orders.json.gz").read_bytes()))
    [said] = case["said"]
    assert said["exit"] == 0
    assert said["stdout"]["strategy"]["schedule"] == "csv"
    assert list(case["files"]) == ["trace.json.gz"]
    assert case["files"]["trace.json.gz"]["traceEvents"]


def test_one_bit_is_a_difference(before, tmp_path):
    def change(case):
        event = case["files"]["trace.json.gz"]["traceEvents"][-1]
        event["dur"] = math.nextafter(event["dur"], math.inf)

    done = results_net("compare", before, copy_of(before, tmp_path / "after", change))
    assert done.returncode == 1
    said, total = done.stdout.splitlines()
    assert said.startswith("schedules-csv/orders: $.files.trace.json.gz.traceEvents[")
    assert ".dur: " in said
    assert total == "2 cases compared, 1 differ"


def test_a_whole_number_is_no_fraction_and_a_lost_key_is_told(before, tmp_path):
    def change(case):
        case["said"][0]["exit"] = 0.0
        del case["said"][0]["stdout"]["label"]

    done = results_net("compare", before, copy_of(before, tmp_path / "after", change))
    assert done.returncode == 1
    assert "schedules-csv/orders: $.said[0].exit: 0 != 0.0\n" in done.stdout
    assert (
        "schedules-csv/orders: $.said[0].stdout.label: only in the first: 'dp2 pp2 csv mb1'\n" in done.stdout
    )


def test_a_case_not_recorded_is_no_difference_only_where_it_was_left_out(before, tmp_path):
    after = copy_of(before, tmp_path / "after", lambda case: None)
    (after / "schedules-csv--orders-simpy.json.gz").unlink()
    assert results_net("compare", before, after).returncode == 0
    (after / "record.json.gz").write_bytes(gzip.compress(b'{"only": "", "validate": false}'))
    done = results_net("compare", before, after)
    assert done.returncode == 1
    assert f"schedules-csv/orders-simpy: missing in {after}" in done.stdout
