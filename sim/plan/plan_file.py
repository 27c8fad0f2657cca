"""Plans as JSON files, which people read, diff, change by hand and mail.

A plan carries all it needs: model, job, strategy, stages and every list of actions in text form. Reading
believes nothing: the structure is checked first, then the rules of job and strategy, then the plan itself
(`validate.py`), so a file that was cut off or tampered with is refused before anything runs.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from ..errors import Fault, InputError
from ..files.document import Document, faults_from_pydantic, raise_faults, shown
from ..files.reader import load_document
from ..files.writer import write_json_atomic
from ..model.decoder import Decoder
from ..model.model import Model
from ..model.model_file import network_faults
from ..model.networks.network import Network
from . import earlier_versions
from .action import Action, Actions, Kind
from .job import Job
from .passes.servers import server_actions
from .plan import Plan, Sizes
from .soundness import validate
from .step_counts import steps_played
from .strategy import Strategy
from .strategy_rules import strategy_faults

if TYPE_CHECKING:
    from .plan_schema import PlanForm

SCHEMA = "traincast.plan/1"
MAX_BYTES = 256 * 2**20
"""A program wrote it: 512 stages of 4096 micro-batches are about 100 MB."""
MAX_RANKS = 10**7

_CHOICES = {
    "activation": ("swiglu", "gelu"),
    "norm": ("rmsnorm", "layernorm"),
    "positions": ("rope", "learned"),
}
_MAY_BE_ABSENT = {field.name for field in fields(Decoder) if field.default == 0}
"""Sizes of a decoder that 0 says it does not have."""


def write_plan(plan: Plan, path: str | os.PathLike[str]) -> None:
    """Write ``plan`` as JSON, whole or not at all. Raises UsageError if the file cannot be written.

    >>> import traincast as tc
    >>> plan = tc.make_plan(tc.Job("gpt2", global_batch=8, seq_len=512), pp=2)
    >>> tc.write_plan(plan, "plan.json")
    >>> tc.read_plan("plan.json") == plan
    True
    """
    write_json_atomic(path, plan_to_dict(plan))


def read_plan(path: str | os.PathLike[str]) -> Plan:
    """The plan that `write_plan` wrote.

    >>> import traincast as tc
    >>> plan = tc.make_plan(tc.Job("gpt2", global_batch=8, seq_len=512), pp=2)
    >>> tc.write_plan(plan, "plan.json")
    >>> tc.read_plan("plan.json")
    Plan(gpt2: pp2 1f1b mb1, 2 ranks, 2 stages, 8 micro-batches)

    Raises:
        InputError: lists every fault; a plan that is read can be simulated and executed.
    """
    return _plan(load_document(path, max_bytes=MAX_BYTES))


def plan_to_dict(plan: Plan) -> dict[str, Any]:
    """The JSON form as plain values; each list of actions is one text."""
    job = plan.job
    return {
        "schema": SCHEMA,
        "cluster": dict(plan.cluster),
        "strategy": plan.strategy.to_dict(),
        "job": {
            "global_batch": job.global_batch,
            "seq_len": job.seq_len,
            "optimizer": job.optimizer,
            "precision": job.precision,
            "learning_rate": job.learning_rate,
            "dropout": job.dropout,
            "expert_imbalance": job.expert_imbalance,
            "routing": job.routing,
            **{name: getattr(job, name) for name in ("data", "loss") if getattr(job, name)},
        },
        "model": job.model.to_dict(),
        "stages": [
            {
                "first_layer": stage.first_layer,
                "end_layer": stage.end_layer,
                "buckets": [list(bucket) for bucket in stage.buckets],
            }
            for stage in plan.stages
        ],
        "actions": [" ".join(map(str, actions)) for actions in plan.actions],
        "server_actions": [" ".join(map(str, actions)) for actions in plan.server_actions],
        "shards": [list(shard) for shard in plan.shards],
        "sizes": _plain(plan.sizes),
    }


def _plain(sizes: Sizes) -> dict[str, Any]:
    return {
        "messages": list(sizes.messages),
        "buckets": [list(own) for own in sizes.buckets],
        "shards": list(sizes.shards),
    }


def plan_from_dict(data: object) -> Plan:
    """The plan of `plan_to_dict`. Raises InputError as `read_plan` does."""
    return _plan(Document(file="", data=data, lines={}))


def check_plan(document: Document) -> list[Fault]:
    """Everything wrong with a plan file."""
    try:
        _plan(document)
    except InputError as error:
        return error.faults
    return []


def _plan(document: Document) -> Plan:
    from pydantic import ValidationError

    from .plan_schema import PlanForm

    if not isinstance(document.data, dict):
        raise_faults([document.fault((), shown(document.data), "an object that describes a plan")])
    raise_faults(_version_faults(document))
    try:
        form = PlanForm.model_validate(document.data)
    except ValidationError as error:
        faults = faults_from_pydantic(document, error, PlanForm)
        raise_faults(faults)
        raise AssertionError("pydantic refused without an error") from error
    raise_faults(_decoder_faults(document, form))
    plan = _read(form)
    raise_faults([_located(document, fault) for fault in _rule_faults(plan)])
    raise_faults(_part_faults(document, plan) or _size_faults(document, plan, form))
    try:
        validate(plan)
    except InputError as error:
        raise_faults([_located(document, fault) for fault in error.faults])
    return plan


def _version_faults(document: Document) -> list[Fault]:
    """Another version says so, instead of failing at every key that changed."""
    schema = document.data.get("schema")
    if schema == SCHEMA:
        return []
    kind, _, version = schema.rpartition("/") if isinstance(schema, str) else ("", "", "")
    newer = kind == "traincast.plan" and version.isdecimal() and len(version) < 9 and int(version) > 1
    hint = "it was written by a newer traincast; update this one" if newer else ""
    found = "missing" if schema is None else shown(schema)
    return [document.fault(("schema",), found, SCHEMA, hint)]


def _decoder_faults(document: Document, form: PlanForm) -> list[Fault]:
    """Sizes and choices that no architecture has."""
    faults: list[Fault] = []
    if form.model.decoder is None:
        return network_faults(document, form.model.network, ("model", "network"))
    if form.model.network is not None or form.model.module:
        return [document.fault(("model", "network"), "beside decoder", "one of the two")]
    for name, value in form.model.decoder:
        place = ("model", "decoder", name)
        least = 0 if name in _MAY_BE_ABSENT else 1
        if isinstance(value, int) and not isinstance(value, bool) and value < least:
            faults.append(document.fault(place, shown(value), f"at least {least}"))
        if name in _CHOICES and value not in _CHOICES[name]:
            faults.append(document.fault(place, shown(value), " | ".join(_CHOICES[name])))
    layers = form.model.decoder.layers
    if layers > 10_000:
        faults.append(document.fault(("model", "decoder", "layers"), shown(layers), "at most 10000"))
    return faults


def _read(form: PlanForm) -> Plan:
    named = {"name": form.model.name, "source": form.model.source, "module": form.model.module}
    model = Model(**named, **_architecture(form))
    strategy = Strategy(**dict(form.strategy))
    return Plan(
        job=Job(model=model, **dict(form.job)),
        strategy=strategy,
        stages=tuple(stage.read(index) for index, stage in enumerate(form.stages)),
        actions=earlier_versions.worker_actions(form.actions, strategy),
        server_actions=earlier_versions.server_actions(form.server_actions),
        shards=form.shards,
        cluster=dict(form.cluster),
    )


def _architecture(form: PlanForm) -> dict[str, Any]:
    if form.model.decoder is None:
        return {"network": Network.from_dict(form.model.network or {})}
    return {"decoder": Decoder(**dict(form.model.decoder))}


def _rule_faults(plan: Plan) -> list[Fault]:
    """The rules of job and strategy, and sizes that a checker could not walk through."""
    faults = [*plan.job.faults(), *strategy_faults(plan.strategy, plan.job)]
    if faults:
        return faults
    if plan.world_size > MAX_RANKS:
        faults.append(
            Fault(path="strategy", found=f"{plan.world_size} ranks", expected=f"at most {MAX_RANKS}")
        )
    layers = len(plan.job.model.layers)
    for number, stage in enumerate(plan.stages):
        if not stage.buckets and not 0 <= stage.first_layer <= stage.end_layer <= layers:
            found = f"layers {stage.first_layer} to {stage.end_layer - 1}"
            faults.append(Fault(path=f"stages[{number}]", found=found, expected=f"some of 0 to {layers - 1}"))
    micro_batches = plan.micro_batches * steps_played(plan.strategy, plan.job)
    for rank, actions in enumerate(plan.actions):
        if micro_batches > len(actions):
            found = f"{len(actions)} actions for {micro_batches} micro-batches"
            faults.append(Fault(path=f"actions[{rank}]", found=found, expected="two or more for each"))
    return faults


def _located(document: Document, fault: Fault) -> Fault:
    """A fault from inside the program, with the file and line it came from."""
    place: list[str | int] = []
    for part in fault.path.replace("[", ".").replace("]", "").split("."):
        place.append(int(part) if part.isdecimal() else part)
    return Fault(**{**asdict(fault), "file": document.file, "line": document.line(tuple(place))})


def _part_faults(document: Document, plan: Plan) -> list[Fault]:
    """Buckets within their stages, and every layer on exactly one server."""
    return [*_bucket_faults(document, plan), *_shard_faults(document, plan)]


def _bucket_faults(document: Document, plan: Plan) -> list[Fault]:
    faults = []
    for stage in plan.stages:
        held = sorted(layer for bucket in stage.buckets for layer in bucket)
        if stage.buckets and (len(held) != len(stage.layer_indices) or held != list(stage.layer_indices)):
            found = f"buckets of {len(held)} layers"
            expected = f"layers {stage.first_layer} to {stage.end_layer - 1}, each once"
            faults.append(document.fault(("stages", stage.index, "buckets"), found, expected))
    for rank, actions in enumerate(plan.actions):
        reduced = {(a.stage, a.bucket) for a in actions if a.kind is Kind.REDUCE_GRAD}
        held = {part.stage for action in actions for part in action.passes} & set(range(len(plan.stages)))
        wanted = {(stage, b) for stage in held for b in range(len(plan.stages[stage].buckets))}
        if plan.strategy.protocol[0] == "local":
            wanted = set()
        if plan.strategy.servers:
            faults += _exchange_faults(document, plan, rank)
            wanted = set()
        if reduced != wanted:
            found = f"REDUCE_GRAD of (stage, bucket) {sorted(reduced)}"
            expected = f"each bucket of the rank's stages: {sorted(wanted)}"
            faults.append(document.fault(("actions", rank), found, expected))
    return faults


def _exchange_faults(document: Document, plan: Plan, rank: int) -> list[Fault]:
    """A worker pulls and pushes each bucket of its stage once; or once all of it, where there are none."""
    buckets = [*range(len(plan.stages[0].buckets))] or [-1]
    faults = []
    for kind in (Kind.PULL, Kind.PUSH):
        given = sorted(action.bucket for action in plan.actions[rank] if action.kind is kind)
        if given != buckets:
            found = " ".join(str(a) for a in plan.actions[rank] if a.kind is kind) or f"no {kind}"
            wanted = " ".join(str(Action.of(kind, stage=0, bucket=bucket)) for bucket in buckets)
            faults.append(document.fault(("actions", rank), found, f"{wanted}, in any order"))
    return faults


def _size_faults(document: Document, plan: Plan, form: PlanForm) -> list[Fault]:
    """Sizes are written for readers; they follow from job and strategy, and plans of earlier versions have
    none."""
    if form.sizes is None:
        return []
    expected = _plain(plan.sizes)
    return [
        document.fault(
            ("sizes", name), shown(given), shown(expected[name]), "leave out sizes, or write these"
        )
        for name, given in form.sizes
        if given != expected[name]
    ]


def _shard_faults(document: Document, plan: Plan) -> list[Fault]:
    servers = plan.strategy.servers
    faults = []
    for key, lists in (("shards", plan.shards), ("server_actions", plan.server_actions)):
        if len(lists) != servers:
            faults.append(document.fault((key,), f"{len(lists)} lists", f"{servers}, one for each server"))
    held = sorted(layer for shard in plan.shards for layer in shard)
    layers = len(plan.job.model.layers)
    if servers and not faults and held != list(range(layers)):
        found = f"shards of {len(held)} layers"
        faults.append(document.fault(("shards",), found, f"layers 0 to {layers - 1}, each once"))
    if faults or not servers:
        return faults
    for number, bucket in enumerate(plan.stages[0].buckets):
        if not any(set(bucket) <= set(shard) for shard in plan.shards):
            place = ("stages", 0, "buckets", number)
            faults.append(document.fault(place, f"layers {list(bucket)}", "layers of one server's shard"))
    if not faults:
        wanted = server_actions(plan.strategy, plan.portions)
        for server, actions in enumerate(plan.server_actions):
            faults += _served_faults(document, server, actions, wanted[server])
    return faults


def _served_faults(document: Document, server: int, actions: Actions, wanted: Actions) -> list[Fault]:
    """A server does what its strategy asks, each worker's share of a bucket in this order; workers and
    buckets in any."""
    place = ("server_actions", server)
    strange, missing = Counter(actions) - Counter(wanted), Counter(wanted) - Counter(actions)
    if strange or missing:
        given, instead = (", ".join(map(str, some)) or "nothing" for some in (strange, missing))
        found = f"{given} instead of {instead}"
        return [document.fault(place, found, " ".join(map(str, wanted)))]
    order = (Kind.PULL, Kind.PUSH, Kind.APPLY)
    shares: dict[tuple[int, int], list[int]] = {}
    for action in actions:
        of_bucket = [kinds for (bucket, _), kinds in shares.items() if bucket == action.bucket]
        joint = shares.get((action.bucket, -1), [])
        own = shares.setdefault((action.bucket, action.worker), list(joint))
        # An APPLY of all workers comes after whatever any of them has.
        for kinds in [*of_bucket, own] if action.worker < 0 else [own]:
            kinds.append(order.index(action.kind))
    if any(kinds != sorted(kinds) for kinds in shares.values()):
        return [document.fault(place, "another order", "of every worker PULL, PUSH, then APPLY")]
    return []
