"""A run that goes wrong ends soon, says who and why, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from traincast.executor.run import launcher  # noqa: E402
from traincast.executor.run.environment import check_environment  # noqa: E402
from traincast.executor.run.launcher import execute  # noqa: E402
from traincast.sim.errors import EnvironmentMismatchError, HangError, RunError  # noqa: E402
from traincast.sim.plan.make_plan import make_plan  # noqa: E402
from traincast.sim.plan.plan_file import write_plan  # noqa: E402
from traincast.sim.plan.strategy import Strategy  # noqa: E402

SERVER = {"gradient_exchange": "parameter_server", "servers": 1}

MANY = 100_000
"""Steps that no test waits for."""


def workers(launcher_pid: int | None = None) -> list[int]:
    """Processes that run a rank, started by us or by ``launcher_pid``."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
            parent = (path.parent / "stat").read_text().rpartition(")")[2].split()[1]
        except OSError:
            continue
        if launcher.WORKER.encode() in words and int(parent) == (launcher_pid or os.getpid()):
            found.append(int(path.parent.name))
    return found


class Meddler:
    """Does something to a rank once the run has made a few steps."""

    def __init__(self, rank: int, what: int):
        self.rank, self.what, self.at = rank, what, 0.0

    def __call__(self, text: str, fraction: float) -> None:
        if not self.at and int(text.split()[1]) >= 2:
            os.kill(sorted(workers())[self.rank], self.what)
            self.at = time.monotonic()


@pytest.mark.slow
def test_a_killed_worker_ends_the_run_with_its_name(tiny_job, tmp_path):
    """Within ten seconds: rank, host and cause are named, and no process is left."""
    meddler = Meddler(1, signal.SIGKILL)
    plan = make_plan(tiny_job, Strategy(dp=2, micro_batch=4))
    with pytest.raises(
        RunError, match=r"worker rank 1 on .* failed at step \d+: killed by SIGKILL"
    ) as caught:
        execute(plan, steps=MANY, out_dir=tmp_path, on_progress=meddler)
    assert time.monotonic() - meddler.at < 10
    assert workers() == []
    assert caught.value.rank == 1
    assert caught.value.host == os.uname().nodename


@pytest.mark.slow
def test_a_stopped_worker_is_a_hang_with_its_name(tiny_job, tmp_path):
    meddler = Meddler(0, signal.SIGSTOP)
    plan = make_plan(tiny_job, Strategy(pp=2, micro_batch=4))
    with pytest.raises(HangError, match=r"rank 0 on .* stopped by a signal after step \d+"):
        execute(plan, steps=MANY, out_dir=tmp_path, timeout_s=5.0, on_progress=meddler)
    assert workers() == []


LATE = """
import sys, time
from pathlib import Path
from traincast.executor.model.data.text import Text
from traincast.executor.run import worker

rank, batch = int(sys.argv[2]), Text.batch

def late(text, step):
    if rank == 1 and step == 2:
        time.sleep(3600)
    return batch(text, step)

Text.batch = late
sys.exit(worker.main(Path(sys.argv[1]), rank))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "strategy",
    [Strategy(dp=2, micro_batch=4), Strategy(pp=2, micro_batch=4), Strategy(dp=2, micro_batch=4, **SERVER)],
    ids=["ddp", "pipeline", "server"],
)
def test_a_late_worker_is_told_from_those_that_wait_for_it(tiny_job, tmp_path, monkeypatch, strategy):
    """All ranks are alive and at the same step, but only one of them waits for nobody."""
    (tmp_path / "late_worker.py").write_text(LATE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(launcher, "WORKER", "late_worker")
    with pytest.raises(HangError, match=r"rank 1 on .* made no step after step 1") as caught:
        execute(make_plan(tiny_job, strategy), steps=5, out_dir=tmp_path, timeout_s=6.0)
    assert caught.value.rank == 1
    assert workers() == []


LAUNCHER = """
import sys
from pathlib import Path
from traincast.executor.run.launcher import execute
from traincast.sim.plan.plan_file import read_plan

execute(
    read_plan(Path(sys.argv[1])), steps=100_000, on_progress=lambda text, fraction: print(text, flush=True)
)
"""


@pytest.mark.slow
def test_workers_die_with_a_killed_launcher(tiny_job, tmp_path):
    """A launcher that is killed cannot clean up, so the kernel does."""
    write_plan(make_plan(tiny_job, Strategy(dp=2, micro_batch=4)), tmp_path / "plan.json")
    command = [sys.executable, "-c", LAUNCHER, str(tmp_path / "plan.json")]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as started:
        assert started.stdout is not None
        assert b"step" in started.stdout.readline()
        ranks = workers(started.pid)
        started.kill()
    assert len(ranks) == 2
    deadline = time.monotonic() + 10
    while any(_alive(pid) for pid in ranks) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(_alive(pid) for pid in ranks)


def _alive(pid: int) -> bool:
    """Whether a process runs; one that is dead but not reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
def test_an_exception_in_a_worker_is_the_cause(tiny_job, tmp_path):
    """Both ranks see a loss that is no number; the first to say so is named, with its step."""
    job = replace(tiny_job, learning_rate=1e38)
    with pytest.raises(RunError, match=r"rank \d on .* failed at step \d+: RunError: loss .* nan"):
        execute(make_plan(job, Strategy(dp=2, micro_batch=4)), steps=20, out_dir=tmp_path)
    assert list(tmp_path.glob("error.*.json"))


@pytest.mark.slow
def test_an_interrupt_leaves_nothing(tiny_job, tmp_path):
    def interrupt(text: str, fraction: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute(make_plan(tiny_job, Strategy(dp=2)), steps=MANY, out_dir=tmp_path, on_progress=interrupt)
    assert workers() == []


@pytest.mark.slow
def test_nothing_listens_beyond_loopback(tiny_job, tmp_path):
    """Every listening socket of the ranks is bound to 127.0.0.1 or ::1."""
    seen: list[str] = []

    def look(text: str, fraction: float) -> None:
        for pid in workers():
            seen.extend(_listening(pid))

    execute(make_plan(tiny_job, Strategy(dp=2, pp=2)), steps=20, out_dir=tmp_path, on_progress=look)
    loopback = {"0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F"}
    assert seen
    assert set(seen) <= loopback


def _listening(pid: int) -> list[str]:
    """Local addresses (hexadecimal, as the kernel prints them) on which a process listens."""
    try:
        inodes = {str(fd.readlink()) for fd in Path(f"/proc/{pid}/fd").iterdir()}
    except OSError:
        return []
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and f"socket:[{words[9]}]" in inodes:
                found.append(words[1].split(":")[0])
    return found


GPU = {"name": "hgx-h100", "accelerator": "h100-sxm", "kind": "gpu", "accelerators": 8}


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_plan_for_gpus_is_refused_before_anything_starts(tiny_job, tmp_path):
    plan = replace(make_plan(tiny_job, Strategy(dp=2)), cluster=GPU)
    with pytest.raises(
        EnvironmentMismatchError, match="made for 2 × h100-sxm on hgx-h100, but there is no GPU"
    ):
        execute(plan, out_dir=tmp_path / "logs")
    assert not (tmp_path / "logs").exists()
    check_environment(plan, force=True)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"attention": "triton"}, "attention triton"),
        ({"stack": "torchtitan"}, "stack torchtitan"),
    ],
)
def test_what_is_only_simulated_is_refused_with_the_reason(tiny_job, fields, named):
    plan = make_plan(tiny_job, Strategy(**fields))
    with pytest.raises(EnvironmentMismatchError) as caught:
        check_environment(plan)
    assert f"{named}: simulated but not run yet" in str(caught.value)


@pytest.mark.parametrize("stack", ["megatron", "torch-autocast", "torch-autocast-compile"])
def test_plans_of_the_executors_own_stacks_run(tiny_job, stack):
    """The default stands for none in particular; others would be something else than what trains."""
    check_environment(make_plan(tiny_job, Strategy(stack=stack)))
    with pytest.raises(EnvironmentMismatchError, match="stack torchtitan: simulated but not run yet"):
        check_environment(make_plan(tiny_job, Strategy(stack="torchtitan")))


@pytest.mark.parametrize(("capability", "runs"), [((8, 0), False), ((9, 0), True), ((10, 0), True)])
def test_flash3_is_run_where_torch_leaves_attention_to_cudnn(tiny_job, monkeypatch, capability, runs):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "a GPU")
    plan = make_plan(tiny_job, Strategy(attention="flash3"))
    if runs:
        check_environment(plan)
    else:
        with pytest.raises(EnvironmentMismatchError, match="attention flash3"):
            check_environment(plan)


@pytest.mark.parametrize(
    ("precision", "algorithm", "reason"),
    [
        ("tf32", "auto", "tf32 is a format of GPUs"),
        ("fp32", "tree", "gloo reduces around a ring only"),
    ],
)
@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_what_would_not_be_what_was_planned_is_refused(tiny_job, precision, algorithm, reason):
    """A run that quietly did something else would be compared with the wrong prediction."""
    job = replace(tiny_job, precision=precision)
    with pytest.raises(EnvironmentMismatchError, match=reason):
        check_environment(make_plan(job, Strategy(dp=2, collective_algorithm=algorithm)))
