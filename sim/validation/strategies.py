"""How a row says it was trained, as a Strategy; the words of the frameworks are translated here.

Degrees that came into use later (`vp`, `cp`, `ep`) are 1 where a row leaves them blank, unless it speaks of
an interleaved schedule. Tensor and pipeline degree, micro-batch and recompute have to be stated.
"""

from __future__ import annotations

from ..strategy import Strategy
from . import derivations
from .left_out import LeftOutError
from .stacks import attention_of, software_of
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
PRECISIONS = {"bf16": "bf16", "amp_bf16": "bf16", "fp16": "fp16", "fp32": "fp32", "tf32": "tf32"}
"""First word of the cell, in small letters, to `Job.precision`."""
RECOMPUTES = {"none": "none", "full": "full", "selective": "selective"}
OTHER_SELECTIVE = ("selective op", "selective layer", "selective (per-op)", "selective (config default)")
"""torchtitan's policies: every other layer, or all operations but some. `selective` of the simulator is
attention alone (Korthikanti et al. 2022)."""
SEQUENCE_PARALLEL = ("sequence parallelism", "+ sp")
NOT_OVERLAPPED = ("not overlapped", "no bucketed overlap")
"""Words of the notes where gradients are reduced after backward."""
SCHEDULES = {"": "1f1b", "1f1b": "1f1b", "interleaved 1f1b": "interleaved", "gpipe": "gpipe"}


def precision_of(row: Row) -> str:
    """`Job.precision` of a row. Raises LeftOutError for what is not modelled (fp8) or blank."""
    text = row.get("precision").lower()
    name = PRECISIONS.get(text.split()[0] if text else "")
    if name is None or "fp8" in text or "float8" in text:
        raise LeftOutError(f"precision {_first_word(text)} not modelled" if text else "precision blank")
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
    return Strategy(
        dp=dp,
        tp=tp,
        pp=pp,
        vp=vp,
        cp=cp,
        ep=ep,
        micro_batch=micro_batch,
        schedule=_schedule(row, vp),
        recompute=_recompute(row),
        attention=attention_of(row),
        stack=software_of(row),
        sharding=_sharding(row),
        reshard_after_forward=row.get("sharding").lower() != KEEPS_GATHERED,
        sequence_parallel=tp > 1 and _is_sequence_parallel(row),
        overlap_gradients=not any(words in row.get("notes").lower() for words in NOT_OVERLAPPED),
    )


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
    name = SCHEDULES.get(row.get("schedule").lower())
    if name is None:
        raise LeftOutError(f"schedule {row.get('schedule')} not modelled")
    return "interleaved" if vp > 1 and name == "1f1b" else name


def _recompute(row: Row) -> str:
    text = row.get("recompute").lower()
    if not text:
        raise LeftOutError("recompute blank")
    if text.startswith(OTHER_SELECTIVE) or (text == "selective" and _is_torchtitan(row)):
        raise LeftOutError(f"recompute {row.get('recompute')} not modelled")
    if "not stated" in text or "assumed" in text:
        raise LeftOutError("recompute not stated")
    name = RECOMPUTES.get(_first_word(text))
    if name is None:
        raise LeftOutError(f"recompute {row.get('recompute')} not modelled")
    return name


def _is_torchtitan(row: Row) -> bool:
    return "torchtitan" in row.source.lower()


def _sharding(row: Row) -> str:
    text = row.get("sharding").lower()
    name = SHARDINGS.get(_first_word(text))
    if name is None:
        raise LeftOutError(f"sharding {row.get('sharding')} not modelled")
    return name


def _is_sequence_parallel(row: Row) -> bool:
    """By its own column, beside the recompute policy, or as torchtitan always pairs it with `tp`."""
    said = row.get("sequence_parallel").lower()
    if said:
        return said in ("true", "yes", "1")
    return _is_torchtitan(row) or any(words in row.get("recompute").lower() for words in SEQUENCE_PARALLEL)


def _first_word(text: str) -> str:
    return text.split()[0] if text else ""
