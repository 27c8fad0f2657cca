"""The rules of a Strategy: what each field may be, what goes together, what a job allows.

Every rule appends what it finds broken, so that one reading of a strategy tells all of it.
"""

from __future__ import annotations

from itertools import pairwise

from ..errors import Fault
from .choices import (
    ATTENTIONS,
    COLLECTIVE_ALGORITHMS,
    CP_EXCHANGES,
    EXPERT_DISPATCHES,
    GRADIENT_EXCHANGES,
    OFFLOADS,
    RECOMPUTES,
    SHARDINGS,
    parse_synchrony,
)
from .job import Job
from .schedules import find_schedule, schedule_names
from .software_stacks import STACKS
from .strategy import Strategy


def strategy_faults(strategy: Strategy, job: Job, world_size: int | None = None) -> list[Fault]:
    """Every rule that ``strategy`` breaks for ``job`` (on ``world_size`` ranks, where given)."""
    found = _choice_faults(strategy)
    if found:
        return found
    if strategy.gradient_exchange == "parameter_server":
        found += _server_faults(strategy)
    else:
        found += _all_reduce_faults(strategy)
    return [
        *found,
        *_pipeline_faults(strategy, job),
        *_sharding_faults(strategy),
        *_batch_faults(strategy, job, world_size),
        *_network_faults(strategy, job),
        *_tensor_faults(strategy, job),
        *_context_faults(strategy, job),
        *_expert_faults(strategy, job),
    ]


def _fault(field: str, found: object, expected: str, hint: str = "") -> Fault:
    return Fault(
        path=field if "." in field else f"strategy.{field}", found=str(found), expected=expected, hint=hint
    )


def _choice_faults(s: Strategy) -> list[Fault]:
    """Values no strategy has; the other rules calculate with them."""
    found = [
        _fault(field, getattr(s, field), "at least 1")
        for field in ("dp", "tp", "pp", "vp", "cp", "ep", "micro_batch", "bucket_bytes", "server_replicas")
        if getattr(s, field) < 1
    ]
    found += [
        _fault(field, getattr(s, field), "at least 0")
        for field in ("servers", "shard_degree", "prefetch", "recompute_blocks")
        if getattr(s, field) < 0
    ]
    choices = {
        "schedule": schedule_names(),
        "recompute": RECOMPUTES,
        "gradient_exchange": GRADIENT_EXCHANGES,
        "collective_algorithm": COLLECTIVE_ALGORITHMS,
        "sharding": SHARDINGS,
        "attention": ATTENTIONS,
        "stack": tuple(STACKS),
        "cp_exchange": CP_EXCHANGES,
        "expert_dispatch": EXPERT_DISPATCHES,
        "offload": OFFLOADS,
    }
    found += [
        _fault(field, getattr(s, field), " | ".join(allowed))
        for field, allowed in choices.items()
        if getattr(s, field) not in allowed
    ]
    if parse_synchrony(s.synchrony) is None:
        found.append(_fault("synchrony", s.synchrony, "sync | async | stale:K | backup:B | local:H"))
    return found


def _server_faults(s: Strategy) -> list[Fault]:
    found = []
    if s.servers < 1:
        found.append(_fault("servers", s.servers, "at least 1"))
    for field in ("tp", "pp", "vp", "cp", "ep"):
        if getattr(s, field) > 1:
            found.append(_fault(field, getattr(s, field), "1 with gradient_exchange parameter_server"))
    if s.sharding != "ddp":
        found.append(_fault("sharding", s.sharding, "ddp with gradient_exchange parameter_server"))
    name, count = s.protocol
    if name == "backup" and not 1 <= count < s.dp:
        found.append(_fault("synchrony", s.synchrony, f"fewer backup workers than dp = {s.dp}, at least 1"))
    if name == "local" and count < 1:
        found.append(_fault("synchrony", s.synchrony, "at least one local step"))
    if s.server_replicas > max(1, s.servers):
        found.append(_fault("server_replicas", s.server_replicas, f"at most {s.servers}, the servers"))
    if s.servers_colocated and s.servers > s.dp:
        found.append(
            _fault("servers", s.servers, f"at most dp = {s.dp} where they share the workers' places")
        )
    return found


def _all_reduce_faults(s: Strategy) -> list[Fault]:
    found = []
    if s.servers:
        found.append(_fault("servers", s.servers, "0 with gradient_exchange allreduce"))
    name, count = s.protocol
    if name in ("async", "stale", "backup"):
        hint = "updates that do not wait for all go through gradient_exchange: parameter_server"
        found.append(
            _fault("synchrony", s.synchrony, "sync or local:H with gradient_exchange allreduce", hint)
        )
    if name == "local":
        if count < 1:
            found.append(_fault("synchrony", s.synchrony, "at least one local step"))
        if s.sharding != "ddp":
            found.append(
                _fault("sharding", s.sharding, "ddp with local steps: each replica has its own weights")
            )
        if find_schedule(s.schedule).unflushed:
            found.append(_fault("synchrony", s.synchrony, f"sync with schedule {s.schedule}"))
    return found


def _pipeline_faults(s: Strategy, job: Job) -> list[Fault]:
    blocks = job.model.blocks
    found = []
    # Where blocks are dealt by hand, the first stage may hold the embedding alone, the last the head.
    limit = blocks + 2 if s.stage_layers and job.model.network is None else blocks
    if s.stages > limit:
        found.append(_fault("pp", f"pp {s.pp} × vp {s.vp}", f"at most {blocks} stages, the model's layers"))
    if s.recompute_blocks and s.recompute == "none":
        found.append(_fault("recompute_blocks", s.recompute_blocks, "0 where nothing is computed again"))
    given, is_decoder = s.stage_layers, job.model.network is None
    full = given[1:-1] if is_decoder else given
    if given and (len(given) != s.stages or sum(given) != blocks or min(given) < 0 or 0 in full):
        zeros = "0 at the ends alone" if is_decoder else "none of them 0"
        expected = f"{s.stages} numbers that add up to the model's {blocks} layers, {zeros}"
        found.append(_fault("stage_layers", list(given), expected))
    if find_schedule(s.schedule).unflushed:
        if s.vp > 1:
            found.append(_fault("vp", s.vp, f"1 with schedule {s.schedule}"))
        if s.sharding != "ddp":
            found.append(
                _fault("sharding", s.sharding, f"ddp with schedule {s.schedule}, which stashes weights")
            )
    return found


def _sharding_faults(s: Strategy) -> list[Fault]:
    found = []
    replicas = s.dp * s.cp
    if s.sharding == "hsdp":
        if s.shard_degree < 1 or replicas % s.shard_degree:
            found.append(_fault("shard_degree", s.shard_degree, f"a divisor of dp × cp = {replicas}"))
    elif s.shard_degree:
        found.append(_fault("shard_degree", s.shard_degree, f"0 with sharding {s.sharding}; hsdp has it"))
    cuts = sorted({s.cp, s.ep, s.shard_degree or 1, replicas})
    if any(large % small for small, large in pairwise(cuts)):
        found.append(
            _fault("ep", cuts, "cp, ep and shard_degree of which each divides the next, up to dp × cp")
        )
    return found


def _batch_faults(s: Strategy, job: Job, world_size: int | None) -> list[Fault]:
    found = []
    if world_size is not None and s.world_size != world_size:
        servers = f" + {s.servers} servers" if s.servers else ""
        cp = f" × cp {s.cp}" if s.cp > 1 else ""
        product = f"dp {s.dp} × tp {s.tp} × pp {s.pp}{cp}{servers} = {s.world_size} ranks"
        hint = "change a degree until the product is the world size"
        found.append(Fault(path="strategy", found=product, expected=f"{world_size} ranks", hint=hint))
    at_once = s.dp * s.micro_batch
    if job.global_batch % at_once:
        expected = f"a multiple of dp {s.dp} × micro_batch {s.micro_batch} = {at_once}"
        found.append(_fault("job.global_batch", job.global_batch, expected))
    layers = len(job.model.layers)
    if s.servers > layers:
        found.append(_fault("servers", s.servers, f"at most {layers}, one for every layer"))
    return found


def _network_faults(s: Strategy, job: Job) -> list[Fault]:
    """What divides a decoder's layers divides no other network's."""
    if job.model.network is None:
        return []
    found = [
        _fault(field, getattr(s, field), f"1: {job.model.name} is no decoder, whose layers can be divided")
        for field in ("tp", "cp")
        if getattr(s, field) > 1
    ]
    if s.sequence_parallel:
        found.append(_fault("sequence_parallel", "on", f"off: {job.model.name} is no decoder"))
    if s.recompute == "selective" and not job.model.network.has_attention:
        found.append(_fault("recompute", s.recompute, f"none | full: {job.model.name} has no attention"))
    return found


def _tensor_faults(s: Strategy, job: Job) -> list[Fault]:
    if job.model.network is not None:
        return []
    decoder = job.model.decoder
    shared = {"attention heads": decoder.heads, "key-value heads": decoder.kv_heads}
    if not decoder.experts or decoder.dense_layers:
        shared["ffn"] = decoder.ffn
    if decoder.experts:
        shared |= {"expert_ffn": decoder.expert_ffn, "shared_ffn": decoder.shared_ffn}
    found = [
        _fault("tp", s.tp, f"a divisor of the {size} {what}") for what, size in shared.items() if size % s.tp
    ]
    if s.overlap_tensor and not s.sequence_parallel:
        hint = "all-reduces do not divide among GEMMs"
        found.append(_fault("overlap_tensor", "on", "off without sequence_parallel", hint))
    if s.sequence_parallel and (s.tp == 1 or job.seq_len % (s.tp * s.cp)):
        expected = f"tp above 1 and seq_len {job.seq_len} divisible by tp × cp"
        found.append(_fault("sequence_parallel", f"tp {s.tp} cp {s.cp}", expected))
    return found


def _context_faults(s: Strategy, job: Job) -> list[Fault]:
    if s.cp == 1 or job.model.network is not None:
        return []
    found = []
    if job.seq_len % (2 * s.cp):
        # Each rank takes one early and one late chunk, which balances causal attention (Megatron-LM).
        found.append(_fault("cp", s.cp, f"2 × cp to divide the {job.seq_len} tokens of a sample"))
    heads = job.model.decoder.heads // s.tp
    if s.cp_exchange == "all_to_all" and heads % s.cp:
        found.append(_fault("cp", s.cp, f"a divisor of the {heads} attention heads of a rank (all_to_all)"))
    return found


def _expert_faults(s: Strategy, job: Job) -> list[Fault]:
    if s.ep == 1:
        expected = "off without expert parallelism"
        return [_fault("overlap_experts", "on", expected)] if s.overlap_experts else []
    experts = job.model.decoder.experts
    if not experts:
        return [_fault("ep", s.ep, f"1: {job.model.name} has no experts")]
    found = []
    if experts % s.ep:
        found.append(_fault("ep", s.ep, f"a divisor of the {experts} experts"))
    if s.tp > 1 and not s.sequence_parallel:
        hint = "the ranks of a tensor-parallel group then send their own tokens"
        found.append(_fault("sequence_parallel", "off", f"on with tp {s.tp} and ep {s.ep}", hint))
    if (s.dp * s.cp) % s.ep:
        found.append(_fault("ep", s.ep, f"a divisor of dp × cp = {s.dp * s.cp}"))
    return found
