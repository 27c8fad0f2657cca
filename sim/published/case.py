"""A row made a case: Job, Strategy, hardware, and what was measured; or the reason why it is left out.

What a row leaves blank, or what the simulator has no model for, is never invented: `LeftOut` says what.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..model.decoder import Decoder
from ..model.hf_config import read_model
from ..model.model import Model
from ..plan.job import OPTIMIZER_STATES, Job
from ..plan.strategy import Strategy
from ..plan.strategy_rules import strategy_faults
from . import derivations
from .families import FFN_OF_GPT, Family, family_of, not_modelled, preset_of
from .hardware import Hardware, hardware_of
from .left_out import LeftOutError
from .networks import is_network, network_job, network_strategy
from .stacks import drops
from .strategies import precision_of, strategy_of
from .table import Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One published run, as the simulator understands it."""

    row: Row
    job: Job
    strategy: Strategy
    hardware: Hardware
    gpus: int
    gpus_per_node: int
    """0 where the row does not say."""
    step_s: float | None
    """Measured seconds of one step; None where the run failed."""
    memory_bytes: float | None
    """Measured peak of the fullest accelerator; None where the row does not say."""
    ran: bool | None
    """Whether the run had memory enough; None where the table does not tell of failures."""

    @property
    def sweep(self) -> tuple[object, ...]:
        """Cases with the same key differ only in strategy."""
        return (
            self.row.source,
            self.row.get("accelerator"),
            self.job.model.name,
            self.job.seq_len,
            self.job.global_batch,
            self.gpus,
            self.row.get("precision"),
            self.row.get("attention"),
        )


def case_of(row: Row) -> Case:
    """The case of ``row``.

    Raises:
        LeftOutError: with the first reason why it cannot be judged.
    """
    _refuse_other_work(row)
    hardware = _hardware(row)
    if is_network(row):
        return _case(row, hardware, network_job(row), network_strategy(row))
    job = Job(
        model=_model(row),
        global_batch=_whole(row, "global_batch"),
        seq_len=_whole(row, "seq_len"),
        optimizer=_optimizer(row),
        precision=precision_of(row),
        dropout=drops(row),
    )
    return _case(row, hardware, job, strategy_of(row))


def _case(row: Row, hardware: Hardware, job: Job, strategy: Strategy) -> Case:
    ran, seconds = _outcome(row), derivations.step_s(row)
    if ran is not False and seconds is None:
        raise LeftOutError("step time blank")
    gpus = _whole(row, "gpus")
    if strategy.world_size != gpus:
        raise LeftOutError("degrees do not multiply to the GPUs")
    faults = [*job.faults(), *strategy_faults(strategy, job)]
    if faults:
        raise LeftOutError(f"not simulated: {faults[0].path} {faults[0].found}")
    return Case(
        row=row,
        job=job,
        strategy=strategy,
        hardware=hardware,
        gpus=gpus,
        gpus_per_node=derivations.whole(row, "gpus_per_node") or 0,
        step_s=seconds if ran is not False else None,
        memory_bytes=derivations.memory_bytes(row),
        ran=ran,
    )


def _refuse_other_work(row: Row) -> None:
    """What is not training of all parameters as it is simulated; fine-tuning of all is, on packed samples."""
    task = row.get("task")
    if task and task.lower().replace("-", "") not in ("pretraining", "sft"):
        raise LeftOutError(f"task {task} not modelled")
    if row.get("act_offload").lower() == "true":
        raise LeftOutError("offloaded activations not stated in full")


def _hardware(row: Row) -> Hardware:
    name = row.get("accelerator")
    found = hardware_of(name)
    if found is None or not found.is_known:
        raise LeftOutError(f"no file for accelerator {name or 'blank'}")
    return found


def _outcome(row: Row) -> bool | None:
    """Whether the run had memory enough, by the table's `status`."""
    status = row.get("status").lower()
    if not status:
        return None
    if status == "ok":
        return True
    if "oom" in status or "memory" in status:
        return False
    raise LeftOutError(f"status {row.get('status')}")


def _optimizer(row: Row) -> str:
    """AdamW where the row names none: what the judged projects train with."""
    name = row.get("optimizer").lower() or "adamw"
    if name not in OPTIMIZER_STATES:
        raise LeftOutError(f"optimizer {name} not modelled")
    return name


def _model(row: Row) -> Model:
    name = row.get("model")
    reason, preset, family = not_modelled(name), preset_of(name), family_of(name)
    if reason:
        raise LeftOutError(f"not modelled: {reason}")
    if preset:
        return read_model(preset)
    if family is None:
        raise LeftOutError(f"architecture of {name or 'blank'} not known")
    layers, hidden, heads, vocab = (_whole(row, field) for field in ("layers", "hidden", "heads", "vocab"))
    if hidden % heads:
        raise LeftOutError("hidden not a multiple of heads")
    decoder = Decoder(
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=_kv_heads(row, family, heads),
        head_dim=hidden // heads,
        ffn=_ffn(row, family, hidden),
        vocab=vocab,
        max_positions=_whole(row, "seq_len"),
        activation=family.activation,
        norm=family.norm,
        positions=family.positions,
        attention_bias=family.biases,
        output_bias=family.biases,
        mlp_bias=family.biases,
        tied_embeddings=family.tied,
    )
    return Model(name=name, decoder=decoder, source=row.get("citation"))


def _kv_heads(row: Row, family: Family, heads: int) -> int:
    if family.has_grouped_queries:
        return _whole(row, "kv_heads")
    return derivations.whole(row, "kv_heads") or heads


def _ffn(row: Row, family: Family, hidden: int) -> int:
    if family.activation == "gelu" and not row.get("ffn"):
        return FFN_OF_GPT * hidden
    return _whole(row, "ffn")


def _whole(row: Row, name: str) -> int:
    value = derivations.whole(row, name)
    if value is None:
        raise LeftOutError(f"{name} {'blank' if not row.get(name) else 'no whole number'}")
    return value
