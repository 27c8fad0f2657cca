"""What `gpu.py` trains to judge the simulator by, and the layers that calibration may look at.

Micro-batches of the cases are never those of the profiled layers, so every judged step is of a shape that no
layer was timed in; kernels are timed on shapes of no model at all (`executor/calibrate/gpu.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from traincast.sim.model.decoder import Decoder
from traincast.sim.model.model import Model
from traincast.sim.plan.job import Job
from traincast.sim.plan.strategy import Strategy

STACK, COMPILED_STACK = "torch-autocast", "torch-autocast-compile"
PROFILED_MICRO_BATCHES = (2, 8)
CUDNN_ATTENTION = (9, 10)
"""Compute capabilities where torch's attention is cuDNN's, as fast as FlashAttention-3."""


def gpt2(layers: int, hidden: int, heads: int, vocab: int = 50304) -> Decoder:
    """GPT-2 (Radford et al. 2019), its vocabulary of 50,257 padded to whole tiles unless another is given."""
    return Decoder(
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=heads,
        head_dim=hidden // heads,
        ffn=4 * hidden,
        vocab=vocab,
        max_positions=1024,
        activation="gelu",
        norm="layernorm",
        positions="learned",
        attention_bias=True,
        output_bias=True,
        mlp_bias=True,
        tied_embeddings=True,
    )


def llama(
    layers: int, hidden: int, heads: int, kv_heads: int, ffn: int, vocab: int, *, tied: bool = False
) -> Decoder:
    """A Llama: RMSNorm, rotary positions, SwiGLU, grouped queries."""
    return Decoder(
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=hidden // heads,
        ffn=ffn,
        vocab=vocab,
        max_positions=16384,
        tied_embeddings=tied,
    )


MODELS = {
    "gpt2-124m": gpt2(12, 768, 12),
    "gpt2-124m-unpadded": gpt2(12, 768, 12, vocab=50257),
    "gpt2-355m": gpt2(24, 1024, 16),
    "gpt2-1.6b": gpt2(48, 1600, 25),
    "llama-271m": llama(16, 1024, 16, 16, 2816, 32000),
    "llama-1.1b": llama(22, 2048, 32, 4, 5632, 32000),
    "llama-3.2b": llama(28, 3072, 24, 8, 8192, 128256, tied=True),
}
"""GPT-2 in three sizes; a small Llama, TinyLlama (Zhang et al. 2024) and Llama 3.2 3B's shape."""

PROFILED = {
    "gpt2-124m": 1024,
    "gpt2-355m": 1024,
    "gpt2-1.6b": 1024,
    "llama-271m": 2048,
    "llama-1.1b": 2048,
    "llama-3.2b": 2048,
}
"""Sequence at which layers of a model are profiled."""


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

    @property
    def name(self) -> str:
        """`llama-1.1b bf16 4x2048 m1 full`: micro-batch by sequence, micro-batches, recomputation."""
        parts = [self.model, self.precision, f"{self.micro_batch}x{self.seq_len}", f"m{self.micro_batches}"]
        if self.recompute != "none":
            parts.append(self.recompute + (str(self.recompute_blocks) if self.recompute_blocks else ""))
        return " ".join([*parts, *(["compiled"] if self.compiled else [])])

    def job(self) -> Job:
        return Job(
            model=Model(name=self.model, decoder=MODELS[self.model]),
            global_batch=self.micro_batch * self.micro_batches,
            seq_len=self.seq_len,
            precision=self.precision,
        )

    def strategy(self, attention: str = "flash") -> Strategy:
        return Strategy(
            micro_batch=self.micro_batch,
            recompute=self.recompute,
            recompute_blocks=self.recompute_blocks,
            attention=attention,
            stack=COMPILED_STACK if self.compiled else STACK,
        )


def cases() -> list[Case]:
    """All of them, those of most importance first: a run that is short of time stops early."""
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
    ]
