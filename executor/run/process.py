"""What every process of a rank is like: one thread on one core, loopback only, gone when its parent is."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

import torch

_PR_SET_PDEATHSIG = 1
_PARENT = "TRAINCAST_PARENT"
"""Environment variable with the process that started a worker."""


def worker_environment() -> dict[str, str]:
    """One thread a rank, loopback only, and memory kept by the process that freed it.

    By default glibc gives large blocks back to the kernel when they are freed, and every micro-batch pays
    for its pages again: 15 % of a step, now and then.
    """
    return {
        **os.environ,
        "MALLOC_MMAP_THRESHOLD_": str(2**30),
        "MALLOC_TRIM_THRESHOLD_": str(2**34),
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        _PARENT: str(os.getpid()),
        "GLOO_SOCKET_IFNAME": "lo",
        "NCCL_SOCKET_IFNAME": "lo",
    }


def pin(rank: int) -> None:
    """One thread on one core, ranks taking the cores in turn."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[rank % len(cores)]})
    torch.set_num_threads(1)


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent dies, however that happens (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != int(os.environ.get(_PARENT, os.getppid())):  # it died before we asked
            os.kill(os.getpid(), signal.SIGKILL)
