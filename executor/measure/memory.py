"""Memory of a rank: what its process holds, and the most that it held while it trained."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from pathlib import Path

import torch


def memory_bytes(device: torch.device) -> float:
    """Bytes the process holds now: resident on the CPU, allocated by torch on a GPU."""
    if device.type == "cuda":
        return float(torch.cuda.memory_allocated(device))
    return _status_bytes("VmRSS")


def peak_memory_bytes(device: torch.device) -> float:
    """The most it ever held.

    VmHWM rather than getrusage's maxrss, which a process inherits from the one that started it.
    """
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    return _status_bytes("VmHWM")


def reset_peak_memory(device: torch.device) -> None:
    """Forget what building the layers took: the peak is that of training from now on."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    elif sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)
        file = os.open("/proc/self/clear_refs", os.O_WRONLY)
        try:
            os.write(file, b"5")  # the high-water mark (proc_pid_clear_refs, section 5)
        finally:
            os.close(file)


def _status_bytes(field: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return float(line.split()[1]) * 1024
    return 0.0
