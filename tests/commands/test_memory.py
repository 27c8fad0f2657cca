"""`traincast memory` as people meet it."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner, Result

from traincast.commands.memory import command
from traincast.reports.memory_table import BAR_WIDTH, memory_bars

ONE_NODE = ["llama3-8b", "--cluster", "hgx-h100", "--nodes", "1", "--global-batch", "32", "--seq-len", "4096"]


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(command, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result


def test_parts_of_every_place_add_up():
    """The breakdown is the peak, and the largest peak is the one whose moment is told."""
    found = json.loads(run(*ONE_NODE, "--tp", 4, "--pp", 2, "--json").stdout)
    parts = ("weights", "gradients", "optimizer", "activations", "logits", "buffers", "workspace")
    for place in found["places"]:
        asked = sum(place[f"{part}_bytes"] for part in parts)
        assert place["allocated_bytes"] == pytest.approx(asked)
        rest = sum(place[f"{part}_bytes"] for part in ("fragmentation", "communicators", "reserved"))
        assert place["total_bytes"] == pytest.approx(asked + rest)
    totals = [place["total_bytes"] for place in found["places"]]
    fullest = found["peak"]["pipeline_rank"]
    assert totals[fullest] == max(totals)
    assert found["peak"]["activations_bytes"] == found["places"][fullest]["activations_bytes"]
    assert found["fits"]
    assert not found["hints"]
    assert found["largest_micro_batch"] >= 1


def test_what_does_not_fit_is_told_how():
    found = json.loads(run(*ONE_NODE, "--dp", 8, "--json").stdout)
    assert not found["fits"]
    assert found["largest_micro_batch"] is None
    assert found["hints"]
    assert any("sharding" in hint["changes"] for hint in found["hints"])
    text = run(*ONE_NODE, "--dp", 8).stdout
    assert "it fits with" in text
    assert "GiB short" in text
    assert "it fits with" not in run(*ONE_NODE, "--dp", 8, "--no-hints").stdout


def test_text_says_what_is_free_and_when_the_peak_is():
    text = run(*ONE_NODE, "--tp", 4, "--pp", 2).stdout
    assert "free on the fullest rank" in text
    assert "in the backward of stage 0" in text


def test_bars_end_where_the_sums_do():
    """As many letters as the peak's share of the longest, and the mark where the capacity is."""
    from traincast.sim.hardware.cluster_file import read_cluster
    from traincast.sim.memory.peak import memory
    from traincast.sim.model.hf_config import read_model
    from traincast.sim.plan.job import Job
    from traincast.sim.plan.make_plan import make_plan
    from traincast.sim.plan.strategy import Strategy

    own = Job(model=read_model("llama3-8b"), global_batch=8, seq_len=8192)
    for tp, fits in ((8, True), (1, False)):
        (place,) = memory(make_plan(own, Strategy(tp=tp)), read_cluster("hgx-h100"))
        bar, _ = memory_bars([place], ["one"])
        drawn = bar.removeprefix("one  ")
        longest = max(place.total_bytes, place.capacity_bytes)
        letters = drawn.replace("|", "").strip()
        assert place.fits is fits
        assert len(letters) == round(BAR_WIDTH * place.total_bytes / longest)
        assert drawn.index("|") == round(BAR_WIDTH * place.capacity_bytes / longest)


def test_the_picture_shows_ranks_and_passes(tmp_path):
    """It is a PNG, the same each time, and taller with more ranks."""
    paths = [tmp_path / name for name in ("a.png", "b.png", "c.png")]
    for path, pp in zip(paths, (2, 2, 8), strict=True):
        run(*ONE_NODE, "--pp", pp, "--png", path)
    first, again, more = (path.read_bytes() for path in paths)
    assert first.startswith(b"\x89PNG")
    assert first == again
    heights = [int.from_bytes(data[20:24], "big") for data in (first, more)]
    assert heights[1] > heights[0]


@pytest.mark.parametrize(
    "how",
    [
        ("--pp", 4, "--schedule", "zb-1p"),
        ("--pp", 2, "--vp", 2, "--dp", 2, "--schedule", "dualpipev", "--micro-batch", 2),
        ("--dp", 4, "--gradient-exchange", "parameter_server", "--servers", 2),
    ],
)
def test_every_kind_of_plan_has_its_picture(tmp_path, how: tuple):
    path = tmp_path / "a.png"
    run(*ONE_NODE, *how, "--no-hints", "--png", path)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_a_network_has_memory_too(tmp_path):
    """Layers that are no decoder's keep activations and have no logits."""
    how = ("--cluster", "dgx-1-p100", "--dp", 8, "--global-batch", 512, "--seq-len", 1, "--micro-batch", 64)
    text = run("resnet50", *how, "--precision", "fp32", "--png", tmp_path / "a.png").stdout
    assert "its micro-batch is all that a replica has" in text
    assert "logits" not in text
