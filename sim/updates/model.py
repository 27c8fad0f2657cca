"""What decides who updates what, when: workers, servers, their interfaces, and the protocol of
`protocols.py`.

Every worker repeats: pull the parameters, compute a gradient, push it, each shard as soon as its part of the
gradient is whole. A shard's server applies what arrives and answers with the parameters. Messages take the
sender's interface, then the receiver's, each first come, first served; a message's head reaches the receiver
one latency after it begins (LogGP, Alexandrov et al. 1995, with its gap at both ends). Many that send to one
server so queue at its interface.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import Fault, InputError
from .protocols import Protocol, protocol_faults, read_protocol

REPLICATIONS = ("chain", "all")
"""A shard's holders pass an update on one to the next, or the first one sends it to all the others."""


@dataclass(frozen=True, kw_only=True, eq=False)
class UpdateModel:
    """n workers of T gradients each, and the servers or the all-reduce that put them together."""

    synchrony: str
    """`sync`, `async`, `stale:K`, `backup:B` or `local:H`."""
    compute_s: np.ndarray
    """float64[n, T]: seconds of each worker's gradients, jitter and stragglers included."""
    shard_bytes: Sequence[float] = ()
    """By shard: bytes of its gradients, and of its parameters."""
    shard_server: Sequence[int] = ()
    """By shard: the server that holds it first; empty is server j modulo `servers` for shard j."""
    ready: Sequence[float] = ()
    """By shard, rising to 1: the share of a round's computing after which its gradient is whole, and is
    pushed; empty is all of it. Shards then go out in their order, from every worker."""
    apply_s: Sequence[float] = ()
    """By shard: processor seconds of one update on a server."""
    servers: int = 1
    """0 exchanges by all-reduce."""
    replicas: int = 1
    """Servers that hold each shard: its own and those that follow it."""
    replication: str = "chain"
    colocated: bool = False
    """Server j is at worker j's place: it shares its interface, and they exchange in no time."""
    shared_processor: bool = False
    """Colocated servers also share their worker's processor: whoever came first is done first."""
    cores: Sequence[int] = ()
    """By worker, then by server: the core that it computes on; empty is one each, but for `shared_processor`.
    There workers take turns of `slice_s`, behind whoever waits; servers run through once it is their turn."""
    slice_s: float = math.inf
    handling_s: Sequence[float] = ()
    """With cores, by shard: processor seconds that a message costs its sender, next to the transfer, and its
    receiver after it (the overhead o of LogP, Culler et al. 1993); empty is none."""
    message_s: Sequence[float] = ()
    """By shard: seconds of a message on a server's interface, where they are measured; on interfaces that are
    one worker's alone it then takes none. Empty is bytes over bandwidth at both ends."""
    worker_interface: Sequence[int] = ()
    """By worker: its interface; empty is one each."""
    server_interface: Sequence[int] = ()
    """By server: its interface; empty is one each, or the worker's where colocated."""
    bandwidth: Sequence[float] = ()
    """By interface: bytes/s, each direction."""
    latency_s: float = 0.0
    """One way."""
    exchange_s: float = 0.0
    """Seconds of one all-reduce and the update after it, where there are no servers."""

    @property
    def workers(self) -> int:
        return self.compute_s.shape[0]

    @property
    def shards(self) -> int:
        """Shards; an all-reduce counts as one."""
        return len(self.shard_bytes) if self.servers else 1

    @property
    def protocol(self) -> Protocol:
        """What `synchrony` names."""
        return read_protocol(self.synchrony)

    @property
    def joint(self) -> bool:
        """Whether gradients are put together before they are applied."""
        return self.protocol.joint

    @property
    def local_steps(self) -> int:
        """Gradients that a worker applies to its own parameters before it exchanges."""
        return self.protocol.local_steps

    @property
    def rounds(self) -> int:
        """Exchanges that each worker makes at most."""
        return self.compute_s.shape[1] // self.local_steps

    @property
    def needed(self) -> int:
        """Gradients that close a joint step."""
        return self.protocol.needed(self.workers)

    @property
    def bound(self) -> int:
        """Rounds that a worker may be ahead of the slowest; as many as there are where nothing bounds it."""
        return self.protocol.bound(self.rounds)

    def refuse_faults(self) -> None:
        """Raise InputError with everything that is wrong with this model."""
        workers, gradients = (*self.compute_s.shape, 0, 0)[:2]
        faults = [*_array_faults(self), *protocol_faults(self.synchrony, workers, gradients)]
        if not faults:
            faults = _server_faults(self) if self.servers else _exchange_faults(self)
        if faults:
            raise InputError(faults)


def worker_interfaces(model: UpdateModel) -> list[int]:
    """By worker: its interface."""
    return list(model.worker_interface) or list(range(model.workers))


def server_interfaces(model: UpdateModel) -> list[int]:
    """By server: its interface."""
    if model.server_interface:
        return list(model.server_interface)
    own = worker_interfaces(model)
    if model.colocated:
        return own[: model.servers]
    first = max(own) + 1
    return list(range(first, first + model.servers))


def _fault(field: str, found: object, expected: str) -> Fault:
    return Fault(path=field, found=str(found), expected=expected)


def _array_faults(model: UpdateModel) -> list[Fault]:
    shape = model.compute_s.shape
    if len(shape) != 2 or not shape[0] or not shape[1]:
        return [_fault("compute_s", shape, "workers × gradients, at least one of each")]
    values = {
        "compute_s": model.compute_s,
        "shard_bytes": np.asarray(model.shard_bytes, dtype=np.float64),
        "apply_s": np.asarray(model.apply_s, dtype=np.float64),
        "handling_s": np.asarray(model.handling_s, dtype=np.float64),
        "message_s": np.asarray(model.message_s, dtype=np.float64),
        "latency_s": np.array([model.latency_s]),
        "exchange_s": np.array([model.exchange_s]),
    }
    return [
        _fault(name, "a number that is negative or not finite", "finite numbers, at least 0")
        for name, array in values.items()
        if not np.all(np.isfinite(array)) or np.any(array < 0)
    ]


def _exchange_faults(model: UpdateModel) -> list[Fault]:
    if model.protocol.name in ("sync", "local"):
        return []
    return [_fault("servers", model.servers, f"at least 1 with {model.synchrony}")]


def _server_faults(model: UpdateModel) -> list[Fault]:
    found = []
    if model.servers < 0 or not model.shard_bytes:
        found.append(_fault("shard_bytes", list(model.shard_bytes), "at least one shard"))
    shards, places = len(model.shard_bytes), model.workers + model.servers
    found += _shard_faults(model, shards)
    for field, optional in (("apply_s", False), ("handling_s", True), ("message_s", True)):
        count = len(getattr(model, field))
        if count != shards and not (optional and count == 0):
            found.append(_fault(field, count, f"{shards}, one for every shard"))
    if model.cores and (len(model.cores) != places or not 0 <= min(model.cores) <= max(model.cores) < places):
        found.append(_fault("cores", list(model.cores), f"{places} numbers, 0 to {places - 1}"))
    if not model.slice_s > 0:
        found.append(_fault("slice_s", model.slice_s, "above 0"))
    if model.handling_s and not model.cores:
        found.append(_fault("handling_s", list(model.handling_s), "cores that it takes time of"))
    if not 1 <= model.replicas <= max(1, model.servers):
        found.append(_fault("replicas", model.replicas, f"1 to {model.servers}, the servers"))
    if model.replication not in REPLICATIONS:
        found.append(_fault("replication", model.replication, " | ".join(REPLICATIONS)))
    if model.colocated and model.servers > model.workers:
        found.append(_fault("servers", model.servers, f"at most {model.workers}, the places of the workers"))
    return found or _interface_faults(model)


def _shard_faults(model: UpdateModel, shards: int) -> list[Fault]:
    found = []
    holders, ready = list(model.shard_server), list(model.ready)
    if holders and (len(holders) != shards or not 0 <= min(holders) <= max(holders) < model.servers):
        expected = f"{shards} numbers of servers, 0 to {model.servers - 1}"
        found.append(_fault("shard_server", holders, expected))
    rises = ready == sorted(ready) and all(0 < share <= 1 for share in ready)
    if ready and (len(ready) != shards or not rises or ready[-1] != 1):
        found.append(_fault("ready", ready, f"{shards} rising shares, above 0, of which the last is 1"))
    elif ready and model.local_steps > 1:
        found.append(_fault("ready", ready, "none with local steps: they end in one exchange"))
    return found


def _interface_faults(model: UpdateModel) -> list[Fault]:
    found = []
    for field, count in (("worker_interface", model.workers), ("server_interface", model.servers)):
        given = getattr(model, field)
        if given and (len(given) != count or min(given) < 0):
            found.append(_fault(field, list(given), f"{count} numbers, at least 0"))
    if found:
        return found
    if model.message_s:
        return []
    needed = max(*worker_interfaces(model), *server_interfaces(model)) + 1
    if len(model.bandwidth) < needed or not all(0 < rate < float("inf") for rate in model.bandwidth):
        found.append(_fault("bandwidth", list(model.bandwidth), f"{needed} finite numbers above 0"))
    return found
