"""What a training stack does in all its runs, and so its tables do not print: attention kernel, dropout.

A row's own `attention` column counts first. A stack that is not listed is taken to use flash attention and no
dropout, as those since 2023 do.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from .table import Row

YES = ("yes", "true", "1", "on")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """One stack, known by the title of the source that reports of it."""

    pattern: str
    """Found in the title."""
    attention: str
    """`Strategy.attention`."""
    name: str
    """`Strategy.stack`."""
    dropout: bool
    """Whether it drops activations, as Megatron-LM's defaults do (--attention-dropout and --hidden-dropout
    are 0.1 in megatron/training/arguments.py)."""


STACKS = (
    # Korthikanti et al. 2022, section 4: score matrices and dropout masks are among what a block keeps.
    Stack(pattern=r"Korthikanti", name="megatron-2022", attention="unfused", dropout=True),
    # Megatron-LM has flash attention since --use-flash-attn of 2023; all of these are older.
    Stack(
        pattern=r"Narayanan|Megatron-LM README, (Sep 2020|Jan 2021)",
        name="megatron-2021",
        attention="unfused",
        dropout=True,
    ),
    Stack(pattern=r"MegatronLM V1", name="megatron-2021", attention="unfused", dropout=True),
    # flash-attn 0.2.2 by llm/requirements.txt.
    Stack(pattern=r"FULL_TABLES \(Dec 2022\)", name="composer-2022", attention="flash1", dropout=False),
    # scripts/train/benchmarking/submit_benchmarks.py: attn_impl is triton unless told.
    Stack(pattern=r"LLM Foundry", name="composer", attention="triton", dropout=False),
    # Aleph-Alpha/scaling examples/transformer_example/config.yml: all dropout probabilities are 0.1.
    Stack(pattern=r"Hagemann", name="scaling", attention="flash", dropout=True),
    # Only what was compiled is published of 2025.
    Stack(pattern=r"torchtitan.*2025", name="torchtitan-2025", attention="flash", dropout=False),
    Stack(pattern=r"torchtitan", name="torchtitan", attention="flash", dropout=False),
    Stack(pattern=r"NeMo|Megatron-Bridge", name="megatron-bridge", attention="flash", dropout=False),
    Stack(pattern=r"SimuMax", name="megatron-fused-loss", attention="flash", dropout=False),
    # Memory in its Table 4 is that of kept score matrices.
    Stack(pattern=r"Zero Bubble", name="megatron-2021", attention="unfused", dropout=True),
    # Megatron-DeepSpeed as forked from Megatron-LM, with its kernels and defaults.
    Stack(pattern=r"BigScience", name="megatron-deepspeed", attention="unfused", dropout=True),
    Stack(pattern=r"vTrain", name="vtrain", attention="unfused", dropout=True),
)
GRADIENTS_AFTER_BACKWARD = (
    "megatron-2021",
    "megatron-2022",
    "megatron-deepspeed",
    "deepspeed-zero3",
    "vtrain",
    "scaling",
    "scaling-torch-norm",
)
"""Stacks that sum gradients over the replicas once backward is over (Megatron-LM's local
DistributedDataParallel before --overlap-grad-reduce of 2023; scaling's optimizer.py, `step`)."""

RECENT = Stack(pattern="", name="megatron", attention="flash", dropout=False)
"""Where none of the others is found."""


HOPPER = re.compile(r"H100|H200|H800")
"""Where Transformer Engine attends by cuDNN's kernel or FlashAttention-3."""


def stack_of(row: Row) -> Stack:
    """The stack that ran ``row``."""
    return next((stack for stack in STACKS if re.search(stack.pattern, row.source)), RECENT)


def attention_of(row: Row) -> str:
    """`Strategy.attention` of a row: by its own column, else by its stack.

    `fused` is Megatron-LM's fused scaling, mask and softmax.
    """
    kernel = row.get("attention").lower()
    if not kernel:
        stack = stack_of(row)
        hopper = HOPPER.search(row.get("accelerator"))
        by_engine = stack.name.startswith("megatron") and stack.attention == "flash"
        return "flash3" if by_engine and hopper else stack.attention
    if "flash" not in kernel:
        return "eager" if kernel == "torch" else "unfused"
    return "flash1" if "attentionv1" in kernel else "flash"


def drops(row: Row) -> bool:
    """`Job.dropout` of a row: by its own column, else by its stack."""
    said = row.get("dropout").lower()
    return said in YES if said else stack_of(row).dropout


def software_of(row: Row) -> str:
    """`Strategy.stack` of a row."""
    stack = stack_of(row).name
    if stack == "megatron-2021" and "zero-3" in f"{row.get('model')} {row.get('sharding')}".lower():
        return "deepspeed-zero3"
    if row.get("compiled").lower() in YES:
        return f"{stack}-compile"
    return "scaling-torch-norm" if stack == "scaling" and "rms" not in row.get("attention").lower() else stack
