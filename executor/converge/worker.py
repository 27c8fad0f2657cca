"""One process of a convergence run: ``python -m traincast.executor.converge.worker DIRECTORY RANK``.

Ranks below the number of workers compute gradients of the network on the pictures in `problem.npz`; the last
rank is the server. `spec.json` lists the phases. An accelerator is emulated: a gradient is really computed,
then the worker sleeps until it has taken as long as its accelerator is said to take, so that two cores can
stand for four accelerators.
"""

from __future__ import annotations

import json
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import FileStore
from torch.nn import functional as F

from ...sim.files.writer import write_json_atomic
from ..run.process import die_with_parent
from .server import HEADER, PULL, PUSH, ConvergeServer, Noted

TIMEOUT = timedelta(seconds=120)
CLASSES = 10


class Network:
    """One hidden layer (tanh) on the pictures of a problem, its parameters in one vector."""

    def __init__(self, directory: Path, hidden: int):
        with np.load(directory / "problem.npz", allow_pickle=False) as arrays:
            self.pictures = torch.from_numpy(arrays["pictures"])
            self.classes = torch.from_numpy(arrays["classes"])
            self.initial = torch.from_numpy(arrays["initial"])
        inputs = self.pictures.shape[1]
        self.shapes = ((inputs, hidden), (hidden,), (hidden, CLASSES), (CLASSES,))

    def loss(self, parameters: Tensor, chosen: Tensor | None = None) -> Tensor:
        """Mean cross-entropy over the ``chosen`` pictures, or all."""
        pictures = self.pictures if chosen is None else self.pictures[chosen]
        classes = self.classes if chosen is None else self.classes[chosen]
        sizes = [int(np.prod(shape)) for shape in self.shapes]
        w1, b1, w2, b2 = (
            part.view(shape) for part, shape in zip(parameters.split(sizes), self.shapes, strict=True)
        )
        return F.cross_entropy(torch.tanh(pictures @ w1 + b1) @ w2 + b2, classes)

    def gradient(self, parameters: Tensor, chosen: Tensor) -> Tensor:
        """Of the mean loss over the ``chosen`` pictures."""
        parameters = parameters.detach().requires_grad_()
        return torch.autograd.grad(self.loss(parameters, chosen), parameters)[0]


def work(spec: dict[str, Any], phase: dict[str, Any], network: Network, rank: int) -> dict[str, list[float]]:
    """A worker's rounds until the server says stop; returns seconds of its gradients and of its pulls."""
    computed, pulled = [], []
    message = torch.empty(len(network.initial) + HEADER, dtype=torch.float64)
    joint = phase["protocol"][0] in ("sync", "backup", "local")
    rate = spec["rate"] if joint else spec["rate"] / spec["workers"]
    steps = phase["protocol"][1] if phase["protocol"][0] == "local" else 1
    turn = 0
    while True:
        dist.recv(message, spec["workers"], tag=PULL)
        version, stop, sent = (float(value) for value in message[-HEADER:])
        pulled.append(time.monotonic() - sent)
        if stop:
            return {"compute_s": computed, "pull_s": pulled}
        read = message[:-HEADER].clone()
        now = read
        for number in range(turn * steps, (turn + 1) * steps):
            begun = time.monotonic()
            gradient = network.gradient(now, batch_of(spec, phase["seed"], rank, number, network))
            now = now - rate * gradient
            rest = spec["pace_s"] * spec["factors"][rank] - (time.monotonic() - begun)
            time.sleep(max(0.0, rest))
            computed.append(time.monotonic() - begun)
        header = torch.tensor([version, float(turn), time.monotonic()], dtype=torch.float64)
        dist.send(torch.cat([now - read, header]), spec["workers"], tag=PUSH)
        turn += 1


def batch_of(spec: dict[str, Any], seed: int, worker: int, number: int, network: Network) -> Tensor:
    """Places of a batch, drawn with replacement by (seed, worker, number), as the prediction draws them."""
    random = np.random.default_rng([seed, worker, number])
    return torch.from_numpy(random.integers(0, len(network.classes), spec["batch"]))


def noted_to_dict(noted: Noted, network: Network) -> dict[str, Any]:
    """What a phase measured as plain values; losses are taken now that no clock runs."""
    with torch.no_grad():
        losses = [float(network.loss(parameters)) for _, parameters in noted.snapshots]
    return {
        "updates": noted.updates,
        "dropped": noted.dropped,
        "times_s": [moment for moment, _ in noted.snapshots],
        "losses": losses,
        "arrival_s": noted.arrivals_s,
        "apply_s": noted.apply_s,
        "send_s": noted.send_s,
    }


def main(directory: Path, rank: int) -> None:
    """Play all phases and write what this rank measured to `part.RANK.json`."""
    die_with_parent()
    torch.set_num_threads(1)
    spec = json.loads((directory / "spec.json").read_text())
    workers = spec["workers"]
    network = Network(directory, spec["hidden"])
    store = FileStore(str(directory / "store"), workers + 1)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=workers + 1, timeout=TIMEOUT)
    parts: list[Any] = []
    for phase in spec["phases"]:
        network.gradient(network.initial, torch.arange(spec["batch"]))  # the first one is slow
        dist.barrier()
        if rank < workers:
            parts.append(work(spec, phase, network, rank))
        else:
            protocol = (phase["protocol"][0], phase["protocol"][1])
            parts.append(ConvergeServer(network.initial, workers, protocol, phase["horizon_s"]).run())
    if rank == workers:
        parts = [noted_to_dict(noted, network) for noted in parts]
    write_json_atomic(directory / f"part.{rank}.json", {"phases": parts})
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
