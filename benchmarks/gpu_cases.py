"""What `gpu.py` trains to judge the simulator by, in sets: no constant had seen a set when it was made.

Micro-batches of the cases are never those of the profiled layers, so every judged step is of a shape that no
layer was timed in; kernels are timed on shapes of no model at all (`executor/calibrate/gpu.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from gpu_models import MODELS, gpt2, llama

from traincast.sim.model.model import Model
from traincast.sim.plan.job import Job
from traincast.sim.plan.strategy import Strategy

STACK, COMPILED_STACK = "torch-autocast", "torch-autocast-compile"
PROFILED_MICRO_BATCHES = (2, 8)
CUDNN_ATTENTION = (9, 10)
"""Compute capabilities where torch's attention is cuDNN's, as fast as FlashAttention-3."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One training run on one GPU."""

    model: str
    seq_len: int
    micro_batch: int
    micro_batches: int = 1
    recompute: str = "none"
    recompute_blocks: int = 0
    precision: str = "bf16"
    compiled: bool = False
    optimizer: str = "adamw"
    dropout: bool = False
    offload: str = "none"

    @classmethod
    def of(cls, step: Mapping[str, Any]) -> Case:
        """The case that was run as ``step`` of a record; what an older one does not say is as it was then."""
        return cls(**{field.name: step[field.name] for field in fields(cls) if field.name in step})

    @property
    def name(self) -> str:
        """`llama-1.1b bf16 4x2048 m1 full`: micro-batch by sequence, micro-batches, recomputation."""
        parts = [self.model, self.precision, f"{self.micro_batch}x{self.seq_len}", f"m{self.micro_batches}"]
        if self.recompute != "none":
            parts.append(self.recompute + (str(self.recompute_blocks) if self.recompute_blocks else ""))
        if self.optimizer != "adamw":
            parts.append(self.optimizer)
        if self.offload != "none":
            parts.append(f"offload-{self.offload}")
        words = {"compiled": self.compiled, "dropout": self.dropout}
        return " ".join([*parts, *(word for word, said in words.items() if said)])

    def job(self) -> Job:
        return Job(
            model=Model(name=self.model, decoder=MODELS[self.model]),
            global_batch=self.micro_batch * self.micro_batches,
            seq_len=self.seq_len,
            precision=self.precision,
            optimizer=self.optimizer,
            dropout=self.dropout,
        )

    def strategy(self, attention: str = "flash") -> Strategy:
        return Strategy(
            micro_batch=self.micro_batch,
            recompute=self.recompute,
            recompute_blocks=self.recompute_blocks,
            attention=attention,
            stack=COMPILED_STACK if self.compiled else STACK,
            offload=self.offload,
        )


def first() -> list[Case]:
    """Seen by whoever settled the constants of eager torch (2026-11-27 and 28)."""
    return [*_plain(), *_again(), *_accumulated(), *_long(), *_exact(), *_compiled()]


def _plain() -> Iterator[Case]:
    sizes = {
        "gpt2-124m": (1, 4, 16, 32),
        "gpt2-124m-unpadded": (16,),
        "gpt2-355m": (4, 16),
        "gpt2-1.6b": (1, 4),
        "llama-271m": (1, 4, 16),
        "llama-1.1b": (1, 4),
        "llama-3.2b": (1, 3),
    }
    for model, micro_batches in sizes.items():
        for micro_batch in micro_batches:
            yield Case(model=model, seq_len=1024 if "gpt2" in model else 2048, micro_batch=micro_batch)


def _again() -> Iterator[Case]:
    yield Case(model="gpt2-124m", seq_len=1024, micro_batch=16, recompute="full")
    yield Case(model="gpt2-124m", seq_len=1024, micro_batch=16, recompute="selective")
    yield Case(model="gpt2-355m", seq_len=1024, micro_batch=16, recompute="full", recompute_blocks=12)
    yield Case(model="gpt2-1.6b", seq_len=1024, micro_batch=16, recompute="full")
    yield Case(model="llama-271m", seq_len=2048, micro_batch=16, recompute="full")
    yield Case(model="llama-1.1b", seq_len=2048, micro_batch=4, recompute="selective")
    yield Case(model="llama-1.1b", seq_len=2048, micro_batch=4, recompute="full")
    yield Case(model="llama-1.1b", seq_len=2048, micro_batch=16, recompute="full")
    yield Case(model="llama-3.2b", seq_len=2048, micro_batch=4, recompute="full")


def _accumulated() -> Iterator[Case]:
    yield Case(model="gpt2-124m", seq_len=1024, micro_batch=4, micro_batches=4)
    yield Case(model="gpt2-355m", seq_len=1024, micro_batch=4, micro_batches=2)
    yield Case(model="llama-1.1b", seq_len=2048, micro_batch=1, micro_batches=4)
    yield Case(model="llama-3.2b", seq_len=2048, micro_batch=1, micro_batches=4)
    yield Case(model="gpt2-1.6b", seq_len=1024, micro_batch=4, micro_batches=3, recompute="full")


def _long() -> Iterator[Case]:
    """Sequences at which no layer is profiled."""
    yield Case(model="gpt2-124m", seq_len=256, micro_batch=32)
    yield Case(model="llama-271m", seq_len=512, micro_batch=16)
    yield Case(model="llama-271m", seq_len=8192, micro_batch=1)
    yield Case(model="llama-1.1b", seq_len=4096, micro_batch=1)
    yield Case(model="llama-1.1b", seq_len=16384, micro_batch=1, recompute="full")
    yield Case(model="llama-3.2b", seq_len=8192, micro_batch=1, recompute="full")


def _exact() -> Iterator[Case]:
    for precision in ("tf32", "fp32"):
        yield Case(model="gpt2-124m", seq_len=1024, micro_batch=4, precision=precision)
        yield Case(model="llama-271m", seq_len=2048, micro_batch=4, precision=precision)
    yield Case(model="llama-1.1b", seq_len=2048, micro_batch=1, precision="tf32")


def _compiled() -> Iterator[Case]:
    yield Case(model="gpt2-124m", seq_len=1024, micro_batch=16, compiled=True)
    yield Case(model="llama-1.1b", seq_len=2048, micro_batch=4, compiled=True)


def second() -> list[Case]:
    """Other sizes, sequences, ratios of keys to queries, precisions and optimizers, in dense models."""
    sizes: list[tuple[str, int, int, dict[str, Any]]] = [
        ("gpt2-774m", 1024, 4, {}),
        ("gpt2-774m", 1024, 12, {}),
        ("gpt2-774m", 512, 24, {"recompute": "selective"}),
        ("gpt2-774m", 768, 10, {"recompute": "full", "micro_batches": 2}),
        ("qwen2.5-0.5b", 2048, 3, {}),
        ("qwen2.5-0.5b", 1024, 12, {"optimizer": "momentum"}),
        ("qwen2.5-0.5b", 4096, 4, {"recompute": "full"}),
        ("llama-1.2b", 2048, 3, {}),
        ("llama-1.2b", 1024, 6, {"micro_batches": 2}),
        ("llama-1.2b", 6144, 1, {}),
        ("llama-1.2b", 1024, 3, {"precision": "tf32"}),
        ("llama-mqa-0.7b", 2048, 6, {}),
        ("llama-mqa-0.7b", 512, 5, {"micro_batches": 3}),
        ("llama-mqa-0.7b", 12288, 1, {"recompute": "full"}),
        ("mistral-7b-8", 2048, 1, {}),
        ("mistral-7b-8", 4096, 3, {"recompute": "full"}),
        ("mistral-7b-8", 1024, 5, {"optimizer": "sgd"}),
        ("llama2-70b-2", 2048, 3, {}),
        ("llama2-70b-2", 4096, 1, {"recompute": "selective", "micro_batches": 2}),
        ("llama-deep-160m", 1024, 4, {}),
        ("llama-deep-160m", 2048, 12, {"recompute": "full", "recompute_blocks": 20}),
        ("llama-271m", 3072, 5, {"precision": "tf32"}),
        ("gpt2-124m", 512, 12, {"precision": "fp32"}),
        ("gpt2-355m", 768, 6, {"precision": "tf32"}),
        ("gpt2-774m", 1024, 6, {"compiled": True}),
        ("llama-1.2b", 2048, 5, {"compiled": True}),
    ]
    return [Case(model=m, seq_len=seq, micro_batch=batch, **more) for m, seq, batch, more in sizes]


def third() -> list[Case]:
    """fp16, fp8, dropout, offload and experts, and dense models that neither set before has."""
    sizes: list[tuple[str, int, int, dict[str, Any]]] = [
        ("gpt2-1.5b-wide", 1024, 6, {}),
        ("gpt2-1.5b-wide", 512, 12, {"recompute": "full", "micro_batches": 2}),
        ("llama-2b", 2048, 3, {}),
        ("llama-2b", 8192, 1, {"recompute": "selective"}),
        ("llama3-8b-6", 2048, 1, {"micro_batches": 3}),
        ("llama3-8b-6", 4096, 1, {"recompute": "full"}),
        ("qwen2.5-1.5b", 1024, 6, {"recompute": "full", "recompute_blocks": 14}),
        ("qwen2.5-1.5b", 2048, 1, {"optimizer": "momentum"}),
        ("gpt2-1.5b-wide", 1024, 4, {"precision": "fp16"}),
        ("llama-2b", 1024, 5, {"precision": "fp16"}),
        ("llama-2b", 2048, 4, {"precision": "fp8"}),
        ("llama3-8b-6", 2048, 3, {"precision": "fp8"}),
        ("llama3-8b-6", 2048, 3, {"precision": "fp8", "compiled": True}),
        ("gpt2-1.5b-wide", 1024, 5, {"dropout": True}),
        ("llama-2b", 2048, 3, {"dropout": True, "recompute": "full"}),
        ("llama3-8b-6", 2048, 1, {"offload": "optimizer"}),
        ("llama-2b", 4096, 3, {"offload": "activations"}),
        ("gpt2-1.5b-wide", 1024, 10, {"offload": "both", "micro_batches": 2}),
        ("moe-8x160m", 2048, 4, {}),
        ("moe-8x160m", 1024, 12, {"recompute": "full"}),
        ("qwen2.5-1.5b", 1024, 4, {"precision": "tf32"}),
        ("llama-2b", 2048, 4, {"compiled": True}),
    ]
    return [Case(model=m, seq_len=seq, micro_batch=batch, **more) for m, seq, batch, more in sizes]


SETS = {"third": third, "second": second, "first": first}
"""By name, the newest first: a run that is short of time leaves out what was seen before."""


def cases(*sets: str) -> list[Case]:
    """Those of ``sets``, or of all, each set's of most importance first."""
    return [case for name in sets or SETS for case in SETS[name]()]


def set_of(case: Case) -> str:
    """The set that ``case`` belongs to; empty for one of a quick run."""
    return next((name for name, own in SETS.items() if case in own()), "")


QUICK_MODELS = ("quick-gpt2", "quick-llama")


def quick_cases(precision: str) -> list[Case]:
    """A tiny run of each kind in ``precision``, on any device, to see that nothing breaks."""
    MODELS["quick-gpt2"] = replace(gpt2(2, 64, 2), vocab=512, max_positions=128)
    MODELS["quick-llama"] = llama(2, 64, 4, 2, 128, 512)
    gpt, llama_ = (Case(model=name, seq_len=64, micro_batch=2, precision=precision) for name in QUICK_MODELS)
    return [
        gpt,
        replace(llama_, micro_batch=1, micro_batches=2, recompute="full"),
        replace(llama_, recompute="selective"),
        replace(gpt, recompute="full", recompute_blocks=1),
        replace(llama_, precision="fp32"),
        replace(gpt, precision="fp16"),
        replace(gpt, dropout=True, optimizer="momentum"),
    ]
