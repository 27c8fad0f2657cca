"""An UpdateModel as tables that both engines fill: interfaces, processors, shards, slots, rounds, updates.

A slot is a pair of a worker and a shard; its number also says who goes first where several come at one
moment. A worker sends to the servers in turn, beginning with another one than its neighbour does, so that
workers in step do not all queue at the first server.

A table is a structured array where it is compiled, and a list of objects with the same fields where it is
interpreted: CPython reads those three times as fast.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, NamedTuple, cast

import numpy as np

from .events import KINDS
from .model import UpdateModel, server_interfaces, worker_interfaces
from .record import UpdateRecord


@dataclass(slots=True)
class Interface:
    """What a place sends and receives by."""

    out_free: float = 0.0
    """When the last message taken in hand has left."""
    in_free: float = 0.0
    out_busy: float = 0.0
    """Seconds so far."""
    in_busy: float = 0.0


@dataclass(slots=True)
class Processor:
    """What computes gradients, or applies updates, or both."""

    free: float = 0.0
    busy: float = 0.0
    head: int = -1
    """With slices: the job that it works on; -1 is none."""
    tail: int = -1
    """The last that waits for its turn."""


@dataclass(slots=True)
class Job:
    """What takes turns on a processor; its number is the key of the event that happens when it is done."""

    share: float = 0.0
    """Seconds of one turn."""
    left: int = 0
    """Turns to come."""
    next: int = -1
    begun: float = float("nan")


@dataclass(slots=True)
class Place:
    """Where a worker or a server is."""

    interface: int
    processor: int
    missing: int
    """Shards that a worker waits for."""
    row: int = 0
    """Of a worker: the round that it computes."""
    segment: int = 0
    """Of a worker: the part of the round's computing under way."""
    made_for: int = -1
    """Of a worker: the joint step that its gradients are made for, the lowest version that it read."""


@dataclass(slots=True)
class Shard:
    """A part of the parameters."""

    apply_s: float
    at_slowest: int
    """Workers whose clock is `slowest`."""
    applied: int = 0
    """Updates."""
    closed: int = 0
    """Joint steps whose gradients are all there."""
    gathered: int = 0
    """Gradients of the joint step under way."""
    slowest: int = 0
    """The smallest clock of a worker; of joint steps, those that every holder has."""


@dataclass(slots=True)
class Slot:
    """A worker's dealings with a shard."""

    worker: int
    shard: int
    at_home: bool
    """Worker and server are at one place."""
    pulls: int = 0
    """Rounds begun."""
    row: int = 0
    """The update under way."""
    waiting: bool = False
    """The worker waits for the shard."""
    clock: int = 0
    """Updates of the worker that every holder has."""
    unconfirmed: int = 0
    """Holders that have yet to apply the update."""


@dataclass(slots=True)
class Round:
    """One worker's computing; worker * rounds + round is its place."""

    start: float = float("nan")
    end: float = float("nan")


@dataclass(slots=True)
class Update:
    """One worker's gradient of one shard; (worker * rounds + round) * shards + shard is its place."""

    read_s: float = float("nan")
    pull_start: float = float("nan")
    pull_end: float = float("nan")
    push_start: float = float("nan")
    push_end: float = float("nan")
    apply_start: float = float("nan")
    applied_s: float = float("nan")
    version: int = -1
    place: int = -1


class Tables(NamedTuple):
    """Everything the engines know and fill."""

    workers: int
    servers: int
    shards: int
    slots: int
    rounds: int
    local_steps: int
    joint: bool
    needed: int
    bound: int
    holders: int
    chain: bool
    items: int
    """What events can be about, for each kind."""
    sliced: bool
    """Whether processors are cores that many take turns on."""
    slice_s: float
    latency_s: float
    handling_s: Any
    """float64[shard]: processor seconds of a message at either end"""
    compute_s: Any
    """float64[n * T], worker by worker"""
    segments: int
    """Parts of a round's computing, after each of which shards are pushed."""
    segment_share: Any
    """float64[segments]: its share of the computing"""
    segment_first: Any
    """int64[segments + 1]: turns in which the shards go out that are whole after it, up to the next's"""
    server_of: Any
    """int64[shard]: the server that holds it first"""
    transfer_s: Any
    """float64[shard * interfaces]: a message's seconds on an interface"""
    slot_of: Any
    """int64[shard * n]: the slot of each worker"""
    queue: Any
    """int64[shard * n]: the same slots in the order in which they go first"""
    tail: Any
    """float64[items]: when a message's last byte is at the receiver's interface"""
    interface: Any
    processor: Any
    job: Any
    place: Any
    """The workers', then the servers'."""
    shard: Any
    slot: Any
    round: Any
    update: Any


TABLES = {
    "interface": Interface,
    "processor": Processor,
    "job": Job,
    "place": Place,
    "shard": Shard,
    "slot": Slot,
    "round": Round,
    "update": Update,
}
_KINDS = {"int": np.int64, "float": np.float64, "bool": np.bool_}


def make_tables(model: UpdateModel) -> Tables:
    """The tables of a checked model with servers before anything has happened, as arrays."""
    n, shards, servers, rounds = model.workers, model.shards, model.servers, model.rounds
    slots = [(worker, _shard_at(model, worker, turn)) for turn in range(shards) for worker in range(n)]
    ends, server_of = _segments(model), np.array(model.shard_server or np.arange(shards) % servers)
    worker_of, shard_of = (np.array(column) for column in zip(*slots, strict=True))
    slot_of = np.zeros((shards, n), dtype=np.int64)
    slot_of[shard_of, worker_of] = np.arange(len(slots))
    items = max(model.replicas * len(slots), n + servers)
    transfer_s = _transfer_s(model)
    gradients = np.ascontiguousarray(model.compute_s[:, : rounds * model.local_steps], float)
    return Tables(
        workers=n,
        servers=servers,
        shards=shards,
        slots=len(slots),
        rounds=rounds,
        local_steps=model.local_steps,
        joint=model.joint,
        needed=model.needed,
        bound=model.bound,
        holders=model.replicas,
        chain=model.replication == "chain",
        items=items,
        sliced=bool(model.cores),
        slice_s=float(model.slice_s),
        handling_s=np.asarray(model.handling_s or [0.0] * shards, float),
        latency_s=float(model.latency_s),
        compute_s=gradients.reshape(-1),
        segments=len(ends),
        segment_share=np.diff([0.0, *(share for share, _ in ends)]),
        segment_first=np.array([0, *(turn for _, turn in ends)]),
        server_of=server_of,
        transfer_s=transfer_s.reshape(-1),
        slot_of=slot_of.reshape(-1),
        queue=np.sort(slot_of, axis=1).reshape(-1),
        tail=np.zeros(items),
        interface=_table(Interface, transfer_s.shape[1]),
        processor=_table(Processor, n + servers),
        job=_table(Job, KINDS * items if model.cores else 1),
        place=_places(model),
        shard=_table(Shard, shards, apply_s=np.asarray(model.apply_s, float), at_slowest=n),
        slot=_table(
            Slot,
            len(slots),
            worker=worker_of,
            shard=shard_of,
            at_home=model.colocated & (worker_of == server_of[shard_of]),
        ),
        round=_table(Round, n * rounds),
        update=_table(Update, n * rounds * shards),
    )


def _table(kind: type, length: int, **columns: object) -> np.ndarray:
    """A structured array of ``length`` rows; what is not given has its default."""
    layout = [(field.name, _KINDS[cast(str, field.type)]) for field in fields(kind)]
    table = np.zeros(length, dtype=np.dtype(layout, align=True))
    for field in fields(kind):
        table[field.name] = columns.get(field.name, field.default)
    return table


def _transfer_s(model: UpdateModel) -> np.ndarray:
    """float64[shard, interface]: a message's seconds."""
    sizes = np.asarray(model.shard_bytes, float)
    if not model.message_s:
        return sizes[:, None] / np.asarray(model.bandwidth, float)[None, :]
    workers, servers = worker_interfaces(model), server_interfaces(model)
    takes_time = np.zeros(max(*workers, *servers) + 1)
    takes_time[servers] = 1.0
    takes_time[[number for number in workers if workers.count(number) > 1]] = 1.0
    return np.asarray(model.message_s, float)[:, None] * takes_time[None, :]


def _places(model: UpdateModel) -> np.ndarray:
    n, servers = model.workers, model.servers
    shared = model.colocated and model.shared_processor
    on = list(model.cores) or [*range(n), *(range(servers) if shared else range(n, n + servers))]
    at = [*worker_interfaces(model), *server_interfaces(model)]
    return _table(Place, n + servers, interface=np.array(at), processor=np.array(on), missing=model.shards)


def _segments(model: UpdateModel) -> list[tuple[float, int]]:
    """The parts of a round's computing: the share at which each ends, and how many shards are out by then."""
    last = {share: number + 1 for number, share in enumerate(model.ready)}
    return list(last.items()) or [(1.0, model.shards)]


def _shard_at(model: UpdateModel, worker: int, turn: int) -> int:
    """The shard that a worker sends in its ``turn``: chunk after chunk, servers in turn from its own; or as
    they become whole."""
    if model.ready:
        return turn
    chunk, place = divmod(turn, model.servers)
    width = min(model.servers, model.shards - chunk * model.servers)
    return chunk * model.servers + (place + worker) % width


def listed(tables: Tables) -> Tables:
    """The same tables as lists, for CPython."""
    lists = {
        name: getattr(tables, name).tolist()
        for name in (
            *("compute_s", "segment_share", "segment_first", "server_of"),
            *("transfer_s", "handling_s", "slot_of", "queue"),
        )
    }
    objects = {name: [kind(*row) for row in getattr(tables, name).tolist()] for name, kind in TABLES.items()}
    return tables._replace(**lists, **objects, tail=tables.tail.tolist())


def make_record(t: Tables) -> UpdateRecord:
    """What the tables hold when all is done."""
    by_round = (t.workers, t.rounds)
    by_shard = (*by_round, t.shards)
    updates = {field.name: _column(t.update, field.name).reshape(by_shard) for field in fields(Update)}
    return UpdateRecord(
        joint=t.joint,
        read_s=updates["read_s"],
        version=updates["version"],
        pull_start_s=updates["pull_start"],
        pull_end_s=updates["pull_end"],
        compute_start_s=_column(t.round, "start").reshape(by_round),
        compute_end_s=_column(t.round, "end").reshape(by_round),
        push_start_s=updates["push_start"],
        push_end_s=updates["push_end"],
        apply_start_s=updates["apply_start"],
        applied_s=updates["applied_s"],
        place=updates["place"],
        out_busy_s=_column(t.interface, "out_busy"),
        in_busy_s=_column(t.interface, "in_busy"),
        processor_busy_s=_column(t.processor, "busy"),
    )


def _column(table: Any, name: str) -> np.ndarray:
    if isinstance(table, np.ndarray):
        return np.ascontiguousarray(table[name])
    return np.array([getattr(row, name) for row in table])
