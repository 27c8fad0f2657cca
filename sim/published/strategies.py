"""How a row says it was trained, as a Strategy; the words of the frameworks are translated here.

Degrees that came into use later (`vp`, `cp`, `ep`) are 1 where a row leaves them blank, unless it speaks of
an interleaved schedule. Tensor and pipeline degree, micro-batch and recompute have to be stated.
"""

from __future__ import annotations

import re

from ..plan.schedules import generated_names
from ..plan.strategy import Strategy
from . import derivations
from .left_out import LeftOutError
from .stacks import GRADIENTS_AFTER_BACKWARD, YES, attention_of, software_of
from .table import Row

SHARDINGS = {
    "": "ddp",
    "0": "ddp",
    "ddp": "ddp",
    "no_shard": "ddp",
    "full_shard": "fsdp",
    "shard_grad_op": "fsdp",
    "zero-1": "zero1",
    "zero-2": "zero2",
    "zero-3": "fsdp",
    "fsdp": "fsdp",
    "fsdp2": "fsdp",
}
"""First word of the cell, in small letters, to `Strategy.sharding`. A blank cell is plain replicas."""
KEEPS_GATHERED = "shard_grad_op"
"""FSDP's name for parameters that stay gathered between forward and backward (torch.distributed.fsdp)."""
PRECISIONS = {
    "bf16": "bf16",
    "amp_bf16": "bf16",
    "fp16": "fp16",
    "fp32": "fp32",
    "tf32": "tf32",
    "fp8": "fp8",
    "fp8-cs": "fp8",
    "amp_fp8": "fp8",
    "float8": "fp8",
}
"""First word of the cell, in small letters, to `Job.precision`."""
OTHER_FP8 = ("fp8-mx", "rowwise")
"""Words of fp8 with a scale for each block or row, whose products are other kernels."""
RECOMPUTES = {"none": "none", "full": "full", "selective": "selective"}
SOME_BLOCKS = re.compile(r"full (\d+)\b")
"""Megatron-LM's --recompute-num-layers: so many blocks of each stage, in full."""
EVERY_NTH = re.compile(r"selective layer (\d+)")
"""torchtitan's `selective_ac_option`: every so-manieth block, in full."""
PER_OPERATION = ("selective op", "selective (per-op)")
"""torchtitan's other policy. `selective` alone is attention alone (Korthikanti et al. 2022)."""
PER_NODE = ("deepep", "hybridep")
"""Dispatchers that send a token once to each node."""
SEQUENCE_PARALLEL = ("sequence parallelism", "+ sp")
NOT_OVERLAPPED = ("not overlapped", "no bucketed overlap")
"""Words of the notes where gradients are reduced after backward."""
SCHEDULES = {"": "1f1b", "1f1b-i": "interleaved", "interleaved 1f1b": "interleaved"}
"""What tables call a schedule that has another name here."""


def precision_of(row: Row) -> str:
    """`Job.precision` of a row. Raises LeftOutError for what is not modelled or blank."""
    text = row.get("precision").lower()
    name = PRECISIONS.get(text.split()[0] if text else "")
    if name is None or any(words in text for words in OTHER_FP8):
        raise LeftOutError(f"precision {text.split(' (')[0]} not modelled" if text else "precision blank")
    return name


def strategy_of(row: Row) -> Strategy:
    """The strategy of a row.

    Raises:
        LeftOutError: a needed cell is blank, or holds what is not modelled.
    """
    tp, pp = _stated(row, "tp"), _stated(row, "pp")
    cp, ep = (derivations.whole(row, name) or 1 for name in ("cp", "ep"))
    dp = derivations.replicas(row, tp * pp * cp)
    if dp is None:
        raise LeftOutError("dp blank")
    micro_batch = derivations.micro_batch(row, dp)
    if micro_batch is None:
        raise LeftOutError("micro_batch blank")
    vp = _virtual_stages(row, pp)
    recompute, blocks = _recompute(row, pp * vp)
    return Strategy(
        dp=dp,
        tp=tp,
        pp=pp,
        vp=vp,
        cp=cp,
        ep=ep,
        micro_batch=micro_batch,
        schedule=_schedule(row, vp),
        stage_layers=_stage_layers(row),
        recompute=recompute,
        recompute_blocks=blocks,
        attention=attention_of(row),
        stack=software_of(row),
        sharding=_sharding(row),
        reshard_after_forward=not _keeps_gathered(row, pp),
        sequence_parallel=tp > 1 and _is_sequence_parallel(row),
        cp_exchange="all_gather" if cp > 1 and _is_torchtitan(row) else "ring",
        overlap_gradients=_overlaps_gradients(row),
        overlap_tensor=tp > 1 and _says_yes(row, "tensor_overlap"),
        expert_dispatch="per_node" if row.get("dispatcher").lower() in PER_NODE else "all_to_all",
        overlap_experts=ep > 1 and _says_yes(row, "expert_overlap"),
    )


def _overlaps_gradients(row: Row) -> bool:
    if software_of(row) in GRADIENTS_AFTER_BACKWARD:
        return False
    return not any(words in row.get("notes").lower() for words in NOT_OVERLAPPED)


def _stated(row: Row, name: str) -> int:
    value = derivations.whole(row, name)
    if value is None:
        raise LeftOutError(f"{name} blank")
    return value


def _virtual_stages(row: Row, pp: int) -> int:
    stated = derivations.whole(row, "vp")
    if stated is not None or pp == 1:
        return stated or 1
    said = f"{row.get('schedule')} {row.get('notes')}".lower()
    if "interleave" in said and "pre-interleaving" not in said:
        raise LeftOutError("vp blank")
    return 1


def _schedule(row: Row, vp: int) -> str:
    said = row.get("schedule").lower()
    name = SCHEDULES.get(said, said)
    if name not in generated_names():
        raise LeftOutError(f"schedule {row.get('schedule')} not modelled")
    return "interleaved" if vp > 1 and name == "1f1b" else name


def _recompute(row: Row, stages: int) -> tuple[str, int]:
    """`Strategy.recompute` and `recompute_blocks`; 0 blocks are all."""
    text = row.get("recompute").lower()
    if not text:
        raise LeftOutError("recompute blank")
    if "not stated" in text or "assumed" in text:
        raise LeftOutError("recompute not stated")
    if text.startswith(PER_OPERATION):
        return "selective_op", 0
    if match := SOME_BLOCKS.match(text):
        return "full", int(match[1])
    if match := EVERY_NTH.match(text):
        return "full", _stated(row, "layers") // (stages * int(match[1]))
    name = RECOMPUTES.get(_first_word(text))
    if name is None or (name == "selective" and _is_torchtitan(row)):
        raise LeftOutError(f"recompute {row.get('recompute')} not modelled")
    return name, 0


def _stage_layers(row: Row) -> tuple[int, ...]:
    """Blocks of each stage, as `7-8-8-7`; empty where they are spread evenly."""
    try:
        return tuple(int(part) for part in row.get("stage_layers").split("-") if part)
    except ValueError:
        raise LeftOutError("stage_layers no whole numbers") from None


def _says_yes(row: Row, name: str) -> bool:
    return row.get(name).lower() in YES


def _is_torchtitan(row: Row) -> bool:
    return "torchtitan" in row.source.lower()


def _sharding(row: Row) -> str:
    text = row.get("sharding").lower()
    name = "fsdp" if text.isdigit() and int(text) > 1 else SHARDINGS.get(_first_word(text))
    if name is None:
        raise LeftOutError(f"sharding {row.get('sharding')} not modelled")
    return name


def _keeps_gathered(row: Row, pp: int) -> bool:
    """As its cell says, or as torchtitan does in a pipeline (parallelize_llama.py, `apply_fsdp`)."""
    return row.get("sharding").lower() == KEEPS_GATHERED or (pp > 1 and _is_torchtitan(row))


def _is_sequence_parallel(row: Row) -> bool:
    """By its own column, beside the recompute policy, or as torchtitan always pairs it with `tp`."""
    said = row.get("sequence_parallel").lower()
    if said:
        return said in YES
    return _is_torchtitan(row) or any(words in row.get("recompute").lower() for words in SEQUENCE_PARALLEL)


def _first_word(text: str) -> str:
    return text.split()[0] if text else ""
