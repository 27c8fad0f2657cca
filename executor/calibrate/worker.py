"""One rank of a calibration: reads tasks from standard input, answers on standard output.

Started as ``python -m traincast.executor.calibrate.worker RANK WORLD_SIZE DIRECTORY KIND``.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TextIO, cast

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import FileStore

from ..measure.memory import memory_bytes
from ..run.process import die_with_parent, pin
from . import gpu as gpu
from . import kernels as kernels
from . import layers as layers
from . import transport as transport
from .bench import Bench, probed

TIMEOUT = timedelta(minutes=10)

TASKS: dict[str, Callable[..., list[dict[str, Any]]]] = {
    "launch": kernels.launch,
    "gemm": kernels.gemm,
    "memory": kernels.memory,
    "attention": kernels.attention,
    "layers": layers.layers,
    "exchanges": layers.exchanges,
    "step": layers.step,
    "slices": kernels.slices,
    "optimizer": layers.optimizer,
    "copies": layers.copies,
    "transport": transport.transport,
    "traffic": transport.traffic,
}

GPU_TASKS: dict[str, Callable[..., list[dict[str, Any]]]] = {
    "launch": gpu.launch,
    "gemm": gpu.gemm,
    "memory": gpu.memory,
    "attention": gpu.attention,
    "elementwise": gpu.elementwise,
    "host": gpu.host,
}
"""What is measured otherwise on GPUs."""


def tasks_of(bench: Bench) -> dict[str, Callable[..., list[dict[str, Any]]]]:
    """The tasks of a rank by name, as its device wants them."""
    return TASKS if bench.on_cpu else {**TASKS, **GPU_TASKS}


def main(rank: int, world_size: int, directory: str, kind: str) -> None:
    """Join the others, then do what is asked until the input ends."""
    die_with_parent()
    answers = _own_output()
    device = _settle(rank, kind)
    groups = _join(rank, world_size, directory, kind)
    bench = Bench(device, rank, groups)
    tasks = tasks_of(bench)
    _say(answers, {"result": memory_bytes(device)})
    for line in sys.stdin:
        request = json.loads(line)
        try:
            bench.ranks = tuple(request["ranks"])
            before = bench.probe()
            found = tasks[request["task"]](bench, **request["arguments"])
            result = probed(found, before, bench.probe(), len(bench.ranks))
        except Exception as error:
            _say(answers, {"error": f"{request['task']}: {type(error).__name__}: {error}"})
        else:
            _say(answers, {"result": result})


def _own_output() -> TextIO:
    """Standard output for answers alone: whatever libraries print goes to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return answers


def _say(answers: TextIO, answer: object) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


def _settle(rank: int, kind: str) -> torch.device:
    """One thread on one core, ranks taking cores in turn; on GPUs one device a rank."""
    if kind == "gpu":
        device = torch.device("cuda", rank % torch.cuda.device_count())
        torch.cuda.set_device(device)
        return device
    pin(rank)
    torch.set_flush_denormal(True)  # values of a lone rank may end there, and take a hundredfold
    return torch.device("cpu")


def _join(rank: int, world_size: int, directory: str, kind: str) -> dict[int, dist.ProcessGroup]:
    """By number of ranks: a group of the first so many."""
    if world_size == 1:
        return {}
    store = FileStore(f"{directory}/store", world_size)
    backend = "gloo" if kind == "cpu" else "nccl"
    dist.init_process_group(backend, store=store, rank=rank, world_size=world_size, timeout=TIMEOUT)
    # A rank that is not in a group gets a mark instead of it, and is never asked.
    return {
        count: cast(dist.ProcessGroup, dist.new_group(list(range(count)), timeout=TIMEOUT))
        for count in range(2, world_size + 1)
    }


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4])
