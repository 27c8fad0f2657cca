"""Ranks forked for tests: what they return, how they fail, that nothing is left of a call."""

from __future__ import annotations

import os
import signal
import time

import pytest
from ranks import RankError, run_ranks

torch = pytest.importorskip("torch")
import torch.distributed as dist  # noqa: E402

pytestmark = pytest.mark.slow
LEFT: list[int] = []


def _sum(rank: int, x: torch.Tensor) -> torch.Tensor:
    LEFT.append(rank)
    mine = x * (rank + 1)
    dist.all_reduce(mine)
    mine.requires_grad_().sum().backward()
    return torch.stack([mine.detach(), torch.tensor(float(len(LEFT)))])


def _fail(rank: int, where: int) -> None:
    print(f"rank {rank} is here")
    if rank == where:
        raise ValueError(f"rank {rank} will not")
    dist.all_reduce(torch.zeros(1))


def _die(rank: int) -> None:
    if rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def _hang(rank: int) -> None:
    if rank == 1:
        time.sleep(60)


def test_every_rank_returns_and_nothing_is_left():
    for count in (2, 3):
        total = sum(range(1, count + 1))
        for found in run_ranks(count, _sum, torch.tensor(2.0)):
            assert found.tolist() == [2.0 * total, 1.0]
    assert LEFT == []


def test_functions_by_name_and_without_a_group():
    assert run_ranks(2, "operator:index", joined=False) == [0, 1]


def test_an_exception_comes_with_its_traceback_and_output():
    with pytest.raises(RankError, match=r"(?s)rank 1 of 2 failed.*in _fail.*will not.*rank 1 is here"):
        run_ranks(2, _fail, 1)


def test_a_rank_that_dies_is_told():
    with pytest.raises(RankError, match="rank 1 of 2 failed: it died without a word"):
        run_ranks(2, _die)


def test_a_rank_that_hangs_is_shown_and_the_next_call_works():
    with pytest.raises(RankError, match=r"(?s)are not done after 4 s.*in _hang"):
        run_ranks(2, _hang, timeout_s=4)
    assert run_ranks(1, _sum, torch.tensor(1.0))[0].tolist() == [1.0, 1.0]
