"""`traincast collective` and `traincast import nccl-tests` as people type them."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from measured_texts import NCCL_TESTS

from traincast.__main__ import cli
from traincast.sim.errors import InputError, UsageError
from traincast.sim.hardware.cluster_file import read_cluster
from traincast.sim.network.transport import choose


def run(*arguments: object) -> str:
    done = CliRunner().invoke(cli, [str(a) for a in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_table_is_that_of_nccl_tests():
    """A row for every number of ranks and size, in bytes, microseconds and GB/s."""
    lines = run(
        "collective", "all_reduce", "--cluster", "hgx-h100", "--ranks", "8..32", "--size", "1MiB..4MiB"
    ).splitlines()
    assert lines[0] == "all_reduce on hgx-h100"
    assert lines[1].split("  ")[0] == "ranks"
    cells = [line.split() for line in lines[2:]]
    assert [(int(c[0]), int(c[1])) for c in cells] == [(r, s * 2**20) for r in (8, 16, 32) for s in (1, 2, 4)]
    for ranks, size, micros, algbw, busbw, *_ in cells:
        assert float(algbw) == pytest.approx(float(size) / float(micros) / 1e3, rel=1e-2)
        assert float(busbw) == pytest.approx(2 * (1 - 1 / int(ranks)) * float(algbw), rel=1e-2)


def test_json_is_what_the_network_says():
    result = json.loads(
        run(
            "collective",
            "all_gather",
            "--cluster",
            "rail-h100",
            "--ranks",
            64,
            "--algorithm",
            "ring",
            "--json",
        )
    )
    assert (result["schema"], result["cluster"], len(result["rows"])) == (
        "traincast.collective/1",
        "rail-h100",
        1,
    )
    row = result["rows"][0]
    choice = choose(read_cluster("rail-h100"), "all_gather", range(64), 2**30, algorithm="ring")
    assert (row["time_s"], row["algorithm"], row["protocol"]) == (choice.seconds, "ring", "")
    assert row["busbw"] == pytest.approx(63 / 64 * 2**30 / choice.seconds)


def test_flows_agree_with_the_formula_where_nothing_is_uneven():
    """A direct all-to-all of nodes' accelerators over adapters of their own."""
    arguments = ("collective", "all_to_all", "--cluster", "rail-h100", "--ranks", 32, "--json")
    formula, flow = (
        json.loads(run(*arguments, "--detail", detail))["rows"][0] for detail in ("formula", "flow")
    )
    assert (flow["algorithm"], flow["protocol"], flow["ranks"]) == ("direct", "", 32)
    assert flow["time_s"] == pytest.approx(formula["time_s"], rel=0.05)


def test_an_algorithm_without_steps_is_refused_at_flow_level():
    with pytest.raises(InputError, match="all_reduce by tree is not known as steps of flows"):
        run("collective", "all_reduce", "--cluster", "hgx-h100", "--algorithm", "tree", "--detail", "flow")


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (("--ranks", "1"), "expected 2 or more"),
        (("--ranks", "many"), "expected a number of ranks"),
        (("--size", "1 gb"), "'1 gb'"),
        (("--size", "2MiB..1MiB"), "in rising order"),
        (("--algorithm", "butterfly"), "butterfly"),
    ],
)
def test_what_cannot_be_asked_is_refused(arguments, found):
    done = CliRunner().invoke(cli, ["collective", "all_reduce", "--cluster", "hgx-h100", *arguments])
    assert done.exit_code == 2
    assert found in done.output


def test_more_ranks_than_there_are_are_refused():
    with pytest.raises(UsageError, match="hgx-h100 has 32 accelerators; raise --nodes"):
        run("collective", "all_reduce", "--cluster", "hgx-h100", "--ranks", 64)


def test_measured_curves_go_into_a_cluster_file(tmp_path):
    """And are what a collective of that many ranks then takes."""
    (tmp_path / "all_reduce.txt").write_text(NCCL_TESTS)
    into = ("--into", "hgx-h100", "-o", tmp_path / "mine.yaml")
    said = run("import", "nccl-tests", tmp_path / "all_reduce.txt", *into)
    assert said.splitlines()[-1] == "all_reduce on 8 ranks: 2 sizes"
    cluster = read_cluster(tmp_path / "mine.yaml")
    assert choose(cluster, "all_reduce", range(8), 2**30).seconds == pytest.approx(8e-3)
    result = json.loads(
        run("collective", "all_reduce", "--cluster", tmp_path / "mine.yaml", "--ranks", 8, "--json")
    )
    assert result["rows"][0]["algorithm"] == "measured"
    assert result["rows"][0]["busbw"] == pytest.approx(234.88e9, rel=1e-4)


def test_wrong_results_leave_no_file(tmp_path):
    (tmp_path / "all_reduce.txt").write_text(NCCL_TESTS.replace("36.70      0", "36.70      3"))
    with pytest.raises(InputError, match="3 wrong values"):
        run(
            "import",
            "nccl-tests",
            tmp_path / "all_reduce.txt",
            "--into",
            "hgx-h100",
            "-o",
            tmp_path / "mine.yaml",
        )
    assert not (tmp_path / "mine.yaml").exists()
