"""Schedules in PyTorch's CSV format: round trips, torch's own reader, and every fault by its place."""

from __future__ import annotations

import csv

import pytest

from traincast.sim.errors import InputError
from traincast.sim.plan.action import parse_actions
from traincast.sim.plan.schedule_csv import read_schedule_csv, write_schedule_csv
from traincast.sim.plan.schedules import generated_names, schedule

VIRTUAL = {"interleaved": 2, "loopedbfs": 2, "zbv": 2, "dualpipev": 2}


@pytest.mark.parametrize("name", generated_names())
def test_what_is_written_is_read_back(name, tmp_path):
    orders = schedule(name, 4, VIRTUAL.get(name, 1), 8)
    write_schedule_csv(orders, tmp_path / "orders.csv")
    assert read_schedule_csv(tmp_path / "orders.csv") == orders


@pytest.mark.parametrize("name", generated_names())
def test_torch_reads_it_and_writes_what_we_read(name, tmp_path):
    schedules = pytest.importorskip("torch.distributed.pipelining.schedules")
    orders = schedule(name, 4, VIRTUAL.get(name, 1), 8)
    ours, theirs = tmp_path / "ours.csv", tmp_path / "theirs.csv"
    write_schedule_csv(orders, ours)
    with ours.open(newline="") as file:
        actions = [[schedules._Action.from_str(cell) for cell in row] for row in csv.reader(file)]
    stages = 4 * VIRTUAL.get(name, 1)
    mapping = schedules._validate_schedule(dict(enumerate(actions)), 4, stages, 8)
    assert mapping.keys() == set(range(stages))
    with theirs.open("w", newline="") as file:
        csv.writer(file).writerows(actions)
    assert read_schedule_csv(theirs) == orders


def test_empty_cells_are_idle_slots(tmp_path):
    path = tmp_path / "gaps.csv"
    path.write_text("0F0,,,0B0\n,1F0,1B0,\n")
    assert read_schedule_csv(path) == (parse_actions("0F0 0B0"), parse_actions("1F0 1B0"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0F0,0X0\n", "bad.csv:1: cell 2: '0X0'"),
        ("0F0,0B0\n,1F0,1SEND_B0\n", "bad.csv:2: cell 3"),
        ("0B0,0F0\n", "bad.csv:1: cell 1: 0B0 -> expected 0F0 before it"),
        ("0F0,0W0,0I0\n", "cell 2: 0W0 -> expected 0I0 before it"),
        ("0F0,0F0,0B0\n", "cell 2: 0F0 -> expected every pass once"),
        ("0F0,0I0,0W0,0B0\n", "cell 4: 0B0 -> expected one backward"),
        ("0F0,0B0\n0F1,0B1\n", "bad.csv:2: cell 1: 0F1 -> expected stage 0 on one rank"),
        ("0F0,0B0\n2F0,2B0\n", "no stage 1"),
        ("0F0,0B0,0F1\n", "no 0I1"),
        ("0F0,0I0\n", "no 0W0"),
        ("0F0,0B0\n\n1F0,1B0\n", "bad.csv:2: no passes"),
        ("9999999999F0,9999999999B0\n", "no stage 0"),
        (",,\n,\n", "no rows"),
        ("9" * 6000 + "F0\n", "cell 1"),
    ],
)
def test_a_fault_names_file_line_and_cell(text, said, tmp_path):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        read_schedule_csv(path)
    assert said in str(caught.value)


def test_a_missing_file_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_schedule_csv(tmp_path / "none.csv")


def test_sends_are_refused(tmp_path):
    with pytest.raises(InputError, match="0SEND_F0 is no pass"):
        write_schedule_csv([parse_actions("0F0 0SEND_F0 0B0")], tmp_path / "x.csv")
    assert not (tmp_path / "x.csv").exists()
