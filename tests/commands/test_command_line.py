"""The command line as people meet it: results, exit codes, one clear message for bad input."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import traincast
from traincast.__main__ import COMMANDS

ROOT = Path(traincast.__file__).parent
LLAMA = ("llama3-8b", "--cluster", "hgx-h100", "--nodes", "1", "--global-batch", "16", "--seq-len", "4096")


def run(*arguments: object, cwd: Path | None = None, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Start the program for real; it must end with ``code`` and never with a traceback."""
    command = [sys.executable, "-m", "traincast", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=120)
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == code, done.stderr
    return done


def test_plan_ranks_and_explains():
    result = json.loads(run("plan", *LLAMA, "--top", 4, "--json").stdout)
    assert result["schema"] == "traincast.plans/1"
    counts = result["counts"]
    assert counts["considered"] == counts["refused"] + counts["bounded"] + counts["simulated"]
    plans = result["plans"]
    assert len(plans) == 4
    steps = [plan["step_time_s"]["p50"] for plan in plans]
    assert steps == sorted(steps)
    expected = {
        "label", "strategy", "synchronous", "world_size", "step_time_s", "samples_per_s", "tokens_per_s",
        "mfu", "hfu", "compute_s", "bubble_fraction", "exposed_comm_s", "peak_memory_bytes", "memory", "fits",
        "why_not",
    }  # fmt: skip
    assert set(plans[0]) == expected
    assert all(0 < plan["mfu"] <= plan["hfu"] < 1 for plan in plans)
    assert all(plan["fits"] for plan in plans)


def test_plan_reads_a_config_json_by_path(tmp_path):
    """A file downloaded by hand does as well as a preset."""
    path = tmp_path / "config.json"
    path.write_text((ROOT / "models/llama3-8b.json").read_text())
    by_path = json.loads(run("plan", path, *LLAMA[1:], "--top", 1, "--json").stdout)
    by_name = json.loads(run("plan", *LLAMA, "--top", 1, "--json").stdout)
    assert by_path["plans"] == by_name["plans"]


def test_planning_works_without_torch(tmp_path):
    """A finder that refuses torch stands for a machine that has none."""
    code = (
        "import sys, runpy\n"
        "class NoTorch:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] == 'torch': raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, NoTorch())\n"
        f"sys.argv = ['traincast', 'plan', *{LLAMA!r}, '--top', '2', '-o', {str(tmp_path / 'out')!r}]\n"
        "runpy.run_module('traincast', run_name='__main__')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out/report.html").stat().st_size < 10 * 2**20
    assert json.loads((tmp_path / "out/result.json").read_text())["schema"] == "traincast.result/1"


def test_simulate_gives_the_same_with_both_engines():
    arguments = ("simulate", *LLAMA, "--tp", 4, "--pp", 2, "--json")
    compiled, simpy = (json.loads(run(*arguments, "--engine", e).stdout) for e in ("compiled", "simpy"))
    assert compiled == simpy
    assert compiled["schema"] == "traincast.prediction/1"


def test_a_written_plan_simulates_to_what_was_ranked(tmp_path):
    run("plan", *LLAMA, "--top", 1, "-o", tmp_path / "out")
    ranked = json.loads((tmp_path / "out/result.json").read_text())["plans"][0]["predicted"]
    again = run(
        "simulate", tmp_path / "out/plans/1.json", *LLAMA[1:5], "--json", "--trace", tmp_path / "t.json.gz"
    )
    assert json.loads(again.stdout)["step_time_s"] == ranked["step_time_s"]
    trace = traincast.read_trace(tmp_path / "t.json.gz")
    assert trace == traincast.read_trace(tmp_path / "out/predicted/1.trace.json.gz")
    compared = run(
        "compare", tmp_path / "t.json.gz", tmp_path / "t.json.gz", "--json", "--fail-if", "step_time>1%"
    )
    assert json.loads(compared.stdout)["total"]["error_pct"] == 0


def test_memory_by_stage():
    result = json.loads(run("memory", *LLAMA, "--tp", 4, "--pp", 2, "--json").stdout)
    assert [place["ranks"] for place in result["places"]] == [
        "stage 0 (rank 0 to 3)",
        "stage 1 (rank 4 to 7)",
    ]
    assert all(place["total_bytes"] > 0 for place in result["places"])
    assert "assumes: " in run("memory", *LLAMA, "--tp", 4, "--pp", 2).stdout


def test_every_preset_is_sound():
    files = [*ROOT.glob("topologies/**/*.yaml"), *ROOT.glob("models/*.json")]
    assert len(files) > 10
    assert run("check", *files).stdout.count(": ok") == len(files)


CLUSTER = """\
schema: traincast.cluster/1
name: mine
nodes: 2
accelerators_per_node: 8
accelerator: h100-sxm
links:
  nvlink: {joins: accelerators, bandwidth: 450 GB/s, latency: 2 us}
  ib: {joins: nodes, bandwidth: 400 Gb/s, latency: 5 us}
"""


@pytest.mark.parametrize(
    ("old", "new", "messages"),
    [
        (
            "accelerators_per_node",
            "accelerators_pernode",
            [":4: accelerators_pernode: ", "accelerators_per_node"],
        ),
        ("400 Gb/s", "400", [":8: links.ib.bandwidth: "]),
        ("400 Gb/s", "400 gb/s", [":8: links.ib.bandwidth: ", "Gb/s", "GB/s"]),
        ("5 us", "5 GB/s", [":8: links.ib.latency: "]),
        ("nodes: 2", "nodes: 0", [":3: nodes: "]),
        ("name: mine\n", "name: mine\nname: twice\n", [":3: ", "name"]),
        (
            "  ib: {",
            "wires:\n  - {a: node0, b: leaf, link: ib}\n  - {a: node1, b: node1, link: ib}\nx: {",
            ["wires[0].b: ", "wires[1]", "x: "],
        ),
    ],
)
def test_faults_of_a_cluster_file_are_named_with_their_line(tmp_path, old, new, messages):
    path = tmp_path / "mine.yaml"
    path.write_text(CLUSTER.replace(old, new, 1))
    done = run("plan", LLAMA[0], "--cluster", path, *LLAMA[5:], code=3)
    assert done.stdout == ""
    for message in messages:
        assert message in done.stderr


def test_bytes_where_bits_are_likely_are_doubted_by_every_command(tmp_path):
    """400 GB/s would be eight times the link that is sold as 400 Gb/s."""
    path = tmp_path / "mine.yaml"
    path.write_text(CLUSTER.replace("400 Gb/s", "400 GB/s"))
    options = ("--global-batch", 8, "--seq-len", 4096, "--tp", 8)
    for done in (run("check", path), run("simulate", LLAMA[0], "--cluster", path, *options)):
        assert ":8: links.ib.bandwidth: 400 GB/s is implausible" in done.stderr
        assert "400 Gb/s is 50 GB/s" in done.stderr


def test_disconnected_topology_is_refused(tmp_path):
    path = tmp_path / "mine.yaml"
    wires = "switches: [a, b]\nwires:\n  - {a: node0, b: a, link: ib}\n  - {a: node1, b: b, link: ib}\n"
    path.write_text(CLUSTER + wires)
    done = run("check", path, code=3)
    assert "connect" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("plann",), 2, "Did you mean 'plan'?"),
        (("plan", "llama3-8b"), 2, "Missing option '--cluster'"),
        (("plan", "llama3-8c", *LLAMA[1:]), 3, "llama3-8b"),
        (("plan", "llama3-8b", "--cluster", "hgx-h10", *LLAMA[3:]), 3, "hgx-h100"),
        (
            ("simulate", *LLAMA, "--tp", 3),
            3,
            "strategy.tp: 3 -> expected a divisor of the 32 attention heads",
        ),
        (("simulate", *LLAMA, "--dp", 5), 3, "job.global_batch: 16 -> expected a multiple of dp 5"),
        (("simulate", *LLAMA, "--dp", 16), 3, "dp 16 × tp 1 × pp 1 × cp 1 + 0 servers = 16 ranks, but"),
        (("simulate", "llama3-8b", "--cluster", "hgx-h100"), 2, "a model needs --global-batch"),
        (("plan", *LLAMA[:-1], 0), 3, "job.seq_len: 0 -> expected at least 1"),
        (("plan", "llama3.1-405b", *LLAMA[1:]), 4, "no plan fits"),
        (("compare", "nowhere.json.gz", "nowhere.json.gz"), 3, "nowhere.json.gz"),
        (("report", "."), 3, "result.json"),
    ],
)
def test_bad_input_is_one_clear_message(tmp_path, arguments, code, message):
    """The right exit code, nothing on stdout, nothing half-written, no traceback."""
    done = run(*arguments, cwd=tmp_path, code=code)
    assert message in done.stderr
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_truncated_plan_is_refused(tmp_path):
    run("plan", *LLAMA, "--top", 1, "-o", tmp_path / "out")
    plan = tmp_path / "out/plans/1.json"
    text = plan.read_text()
    plan.write_text(text[: len(text) // 2])
    done = run("run", plan, "--log-dir", tmp_path / "logs", code=3)
    assert str(plan) in done.stderr
    assert not (tmp_path / "logs").exists()


def test_plan_for_another_machine_is_refused_before_anything_starts(tmp_path):
    run("plan", *LLAMA, "--top", 1, "-o", tmp_path / "out")
    done = run("run", tmp_path / "out/plans/1.json", "--log-dir", tmp_path / "logs", code=8)
    assert "h100" in done.stderr
    assert not list(tmp_path.glob("logs/*"))


def test_world_size_must_be_the_plans(tmp_path):
    run("plan", *LLAMA, "--top", 1, "-o", tmp_path / "out")
    done = run("run", tmp_path / "out/plans/1.json", "--nproc-per-node", 3, code=8)
    assert "--nproc-per-node 3, but the plan has dp" in done.stderr
    assert "= 8 ranks" in done.stderr


def test_dry_run_shows_every_rank(tmp_path):
    run("plan", *LLAMA, "--top", 1, "-o", tmp_path / "out")
    shown = run("run", tmp_path / "out/plans/1.json", "--dry-run").stdout
    assert shown.count("rank ") >= 8
    assert "0F0" in shown


def test_earlier_results_are_kept(tmp_path):
    run("plan", *LLAMA, "--top", 1, "-o", tmp_path / "out")
    assert "--force" in run("plan", *LLAMA, "-o", tmp_path / "out", code=2).stderr
    run("plan", *LLAMA, "--top", 1, "-o", tmp_path / "out", "--force")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(command):
    assert f"traincast {command}" in run(command, "--help").stdout


def test_doctor_says_what_is_here():
    facts = json.loads(run("doctor", "--json").stdout)
    assert {"python", "cores", "memory", "backends"} <= set(facts)
