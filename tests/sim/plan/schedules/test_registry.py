"""Schedules are found by their files, or registered; one file more is all that a new one needs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import traincast
from traincast.__main__ import cli
from traincast.sim.errors import InputError
from traincast.sim.plan.action import parse_actions
from traincast.sim.plan.make_plan import make_plan
from traincast.sim.plan.schedules import (
    CARRIED,
    Orders,
    PipelineShape,
    Schedule,
    find_schedule,
    generated_names,
    is_registered,
    register,
    schedule,
    schedule_faults,
    schedule_names,
    schedules,
    unregister,
)
from traincast.sim.plan.strategy import Strategy

ROOT = Path(traincast.__file__).parent
NAME = "1f1b-half"
"""The schedule that the guide adds."""


def guide_example() -> str:
    """The descriptor of the guide, as it would stand in a file."""
    guide = (ROOT / "docs/guide.md").read_text()
    (block,) = (b for b in re.findall(r"```python\n(.*?)```", guide, re.DOTALL) if "SCHEDULE =" in b)
    return block.partition("\nregister(SCHEDULE)")[0] + "\n"


def linked_tree(folder: Path, more: dict[str, str]) -> None:
    """Put a package of links to this one into ``folder``, with ``more`` files in the folder of schedules."""
    place, real = folder / "traincast", ROOT
    for part in ("sim", "plan", "schedules", None):
        place.mkdir()
        for entry in real.iterdir():
            if entry.name not in (part, "__pycache__", ".git"):
                (place / entry.name).symlink_to(entry)
        if part:
            place, real = place / part, real / part
    for name, text in more.items():
        (place / name).write_text(text)


USE = f'''
import json
from click.testing import CliRunner
import traincast as tc
from traincast.__main__ import cli
from traincast.sim.plan.plan_file import plan_to_dict
from traincast.sim.plan.soundness import validate

def said(*words):
    done = CliRunner().invoke(cli, list(words))
    assert done.exit_code == 0, done.stderr
    return done.stdout

def said_json(*words):
    return json.loads(said(*words, "--json"))

job = tc.Job(model=tc.read_model("llama3-8b"), global_batch=32, seq_len=4096)
cluster = tc.read_cluster("hgx-h100").with_nodes(1)
plan = tc.make_plan(job, tc.Strategy(tp=2, pp=4, schedule="{NAME}"))
validate(plan)
tc.write_plan(plan, "plan.json")
read = tc.read_plan("plan.json")
asked = ["llama3-8b", "--cluster", "hgx-h100", "--nodes", "1", "--tp", "2", "--pp", "4",
         "--global-batch", "32", "--seq-len", "4096", "--schedule"]
few = CliRunner().invoke(cli, ["simulate", *asked, "{NAME}", "--global-batch", "2"])
pipelines = ["schedule", "all", "--ranks", "4", "--micro-batches", "8"]
print(json.dumps({{
    "help": [said(command, "--help") for command in ("simulate", "memory", "schedule")],
    "drawn": said_json(*pipelines)["schedules"],
    "simulated": {{name: said_json("simulate", *asked, name) for name in ("1f1b", "{NAME}")}},
    "memory": {{name: said_json("memory", *asked, name) for name in ("1f1b", "{NAME}")}},
    "round trip": read == plan and plan_to_dict(read) == plan_to_dict(plan),
    "from the file": said_json("simulate", "plan.json", "--cluster", "hgx-h100"),
    "checked": said("check", "plan.json"),
    "searched": sorted({{s.vp for s in tc.strategies(job, cluster) if s.schedule == "{NAME}"}}),
    "refused": str(few.exception),
}}))
'''


def of_linked_tree(folder: Path, code: str) -> Any:
    """What ``code`` prints as JSON, where the guide's example is a file more in the folder of schedules."""
    linked_tree(folder, {"half_ahead.py": guide_example()})
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_one_file_is_all_that_a_new_schedule_needs(tmp_path):
    """It is simulated, validated, estimated, listed and searched, and its plans are written and read."""
    found = of_linked_tree(tmp_path, USE)
    assert [f"|{NAME}" in text for text in found["help"]] == [True] * 3
    drawn = {row["name"]: row for row in found["drawn"]}
    assert list(drawn) == [*generated_names(), NAME]
    assert drawn[NAME]["in_flight"] == [2, 2, 1, 1]
    assert drawn[NAME]["step_time_s"] > drawn["1f1b"]["step_time_s"]
    steps = {name: one["step_time_s"]["p50"] for name, one in found["simulated"].items()}
    assert steps[NAME] > steps["1f1b"]
    assert found["from the file"]["step_time_s"]["p50"] == steps[NAME]
    peaks = {name: fullest(one) for name, one in found["memory"].items()}
    assert peaks[NAME] < peaks["1f1b"]
    assert found["round trip"]
    assert "plan.json" in found["checked"]
    assert found["searched"] == [1]
    assert "2 micro-batches" in found["refused"]
    assert "at least 4, one for each rank" in found["refused"]


def fullest(memory: dict) -> float:
    """Peak of the fullest rank (bytes)."""
    return max(place["total_bytes"] for place in memory["places"])


RUN = f"""
import json
import traincast as tc

job = tc.read_plan("plan.json").job
plan = tc.make_plan(job, tc.Strategy(pp=2, micro_batch=2, schedule="{NAME}"))
print(json.dumps(tc.execute(plan, steps=2, warmup=0).metadata["losses"]))
"""


@pytest.mark.slow
def test_the_executor_runs_it_too(tmp_path, tiny_job):
    """One stage a rank and whole backwards are all it asks for; the losses are those of one process."""
    pytest.importorskip("torch")
    from traincast.executor.model.reference import single_process

    traincast.write_plan(make_plan(tiny_job, Strategy()), tmp_path / "plan.json")
    losses = of_linked_tree(tmp_path, RUN)
    assert losses == pytest.approx(single_process(tiny_job, 2)[0], rel=1e-5)


def test_listings_keep_their_order():
    """By place, not by file name; the plan's own order last."""
    loops, halves = ("gpipe", "1f1b", "interleaved", "loopedbfs"), ("zb-h1", "zb-h2", "zb-1p", "zb-2p")
    flushed = (*loops, *halves, "zbv", "dualpipev")
    assert generated_names() == flushed
    assert schedule_names() == (*flushed, "pipedream", "pipedream-2bw", CARRIED)


def in_turn(shape: PipelineShape) -> Orders:
    """One micro-batch after the other."""
    return tuple(
        parse_actions([f"{rank}{kind}{i}" for i in range(shape.micro_batches) for kind in "FB"])
        for rank in range(shape.ranks)
    )


def first_last(shape: PipelineShape) -> Orders:
    """The same, backwards in order of micro-batch."""
    return tuple(own[::2] + own[1::2] for own in in_turn(shape))


@pytest.fixture
def toy() -> Iterator[Schedule]:
    made = Schedule(name="in-turn", generate=in_turn, searched_with=(1,))
    register(made)
    yield made
    unregister(made.name)


def test_a_registered_schedule_is_known_until_it_is_unregistered(toy):
    assert find_schedule("in-turn") is toy
    assert schedule_names()[-2:] == ("in-turn", CARRIED)
    assert is_registered("in-turn")
    assert "in-turn" in CliRunner().invoke(cli, ["simulate", "--help"]).stdout
    unregister("in-turn")
    assert "in-turn" not in CliRunner().invoke(cli, ["simulate", "--help"]).stdout
    with pytest.raises(InputError, match="'in-turn' is unknown; expected gpipe"):
        find_schedule("in-turn")
    with pytest.raises(InputError, match="'in-turn' was not registered"):
        unregister("in-turn")
    register(toy)


def test_a_schedule_registered_anew_replaces_the_old_one(toy, tiny_job):
    """Nothing that was made of the old one is handed out again."""
    strategy = Strategy(pp=2, schedule="in-turn")
    before = make_plan(tiny_job, strategy)
    register(replace(toy, generate=first_last))
    after = make_plan(tiny_job, strategy)
    assert after.actions != before.actions
    assert schedule("in-turn", 2, 1, 2) == first_last(
        PipelineShape(ranks=2, virtual_stages=1, micro_batches=2)
    )


def test_names_of_files_are_taken():
    with pytest.raises(InputError, match="'gpipe' is there already"):
        register(Schedule(name="gpipe", generate=in_turn))


def test_what_may_have_any_number_of_stages_is_named():
    (fault,) = schedule_faults("1f1b", 2, 2, 4)
    assert fault.hint == "interleaved and loopedbfs take any number"
    register(Schedule(name="free", generate=loop_in_turn, virtual_stages=None))
    try:
        (fault,) = schedule_faults("1f1b", 2, 2, 4)
    finally:
        unregister("free")
    assert fault.hint == "interleaved, loopedbfs and free take any number"


def loop_in_turn(shape: PipelineShape) -> Orders:
    """One micro-batch after the other, through any number of stages."""

    def passes(rank: int) -> Iterator[str]:
        held = range(rank, shape.stages, shape.ranks)
        for i in range(shape.micro_batches):
            yield from (f"{stage}F{i}" for stage in held)
            yield from (f"{stage}B{i}" for stage in reversed(held))

    return tuple(parse_actions(list(passes(rank))) for rank in range(shape.ranks))


def test_a_plan_of_any_order_has_none_to_generate():
    with pytest.raises(InputError, match="csv has no order of its own"):
        schedule(CARRIED, 2, 1, 2)


def test_ranks_of_other_processes_do_not_know_a_registered_schedule(toy, tiny_job):
    pytest.importorskip("torch")
    from traincast.executor.run.environment import check_environment
    from traincast.sim.errors import EnvironmentMismatchError

    plan = make_plan(tiny_job, Strategy(pp=2, schedule="in-turn"))
    with pytest.raises(EnvironmentMismatchError, match="schedule in-turn, which the ranks' own processes"):
        check_environment(plan)


def test_what_runs_is_said_by_the_descriptors():
    assert [one.name for one in schedules() if one.is_plain] == ["gpipe", "1f1b"]


def test_the_search_tries_what_a_descriptor_says(toy, tiny_job, round_cluster, host_cluster):
    """On a host's processes only what they know, too."""

    def tried(cluster) -> set[str]:
        return {one.schedule for one in traincast.strategies(tiny_job, cluster) if one.pp > 1}

    assert tried(round_cluster) == {"gpipe", "1f1b", "interleaved", "zb-h1", "zbv", "in-turn"}
    assert tried(host_cluster) == {"gpipe", "1f1b"}
