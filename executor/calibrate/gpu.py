"""Calibration tasks of a rank on a GPU: kernels by shape, families of memory-bound kernels, the host's part.

The GPU's grids are larger than a core's (`kernels.py`): its caches hold tens of megabytes and its
GEMMs reach their rate above 100 GFLOP. Buffers take turns so that what is read is not in the cache. Bytes
of a family are counted as `sim` counts them, each operand read or written once.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from itertools import cycle

import torch
from torch import Tensor
from torch.nn import functional as F

from ...sim.model.decoder import Decoder
from ...sim.model.model import Model
from ...sim.plan.job import Job
from ..model import float8
from ..model.data.text import Text
from ..model.decoder import build_layers
from ..model.decoder import loss as token_loss
from ..model.dropout import PROBABILITY
from ..model.dtypes import DTYPES
from ..model.rope import rotate
from ..train.stage import precision, use_products_of
from .bench import SAMPLES, Bench, LaidOut, Moment, series

GEMMS = tuple(
    (m, n, k)
    for m in (1024, 4096, 16384)
    for n, k in (
        *((1024, 1024), (4096, 1024), (1024, 4096), (2048, 2048), (2048, 8192)),
        *((8192, 2048), (4096, 4096), (16384, 4096), (4096, 16384), (32768, 1024)),
    )
)
"""(m, n, k): tokens by widths of layers, up to a head over a vocabulary."""
ODD_GEMMS = ((4096, 30001, 1024), (8192, 40001, 2048))
"""Widths that are no multiple of anything, as an unpadded vocabulary's."""
LAYOUTS = {
    "nt": lambda a, b: a @ b.t(),
    "nn": lambda a, b: a @ b,
    "tn": lambda a, b: a.t() @ b,
}
"""A linear layer's GEMM, the gradient of its input, the gradient of its weight."""
EXACT_GEMMS = tuple((m, n, k) for m, n, k in GEMMS if m == 4096 and n * k <= 2**25)
"""Those measured in fp32 and tf32 too."""
MEMORY_BYTES = tuple(3 * 2**k for k in range(17, 30, 2))
ATTENTIONS = tuple(
    (max(1, 16384 // seq), heads, kv_heads, seq, head_dim)
    for seq in (512, 1024, 2048, 4096, 8192)
    for heads, kv_heads, head_dim in ((16, 16, 64), (16, 16, 128), (32, 8, 128))
)
"""(batch, heads, key-value heads, sequence, head dimension)"""
DROPPED_ATTENTIONS = tuple(shape for shape in ATTENTIONS if shape[3] in (1024, 4096))
"""Those measured with dropout too."""
EXACT_ATTENTIONS = tuple(shape for shape in ATTENTIONS if shape[3] in (512, 2048) and shape[1] == 16)
ROWS = (2048, 8192, 32768)
WIDTH = 2048
"""Tokens and width of what families of memory-bound kernels are measured on."""
HEAD_DIM = 128
LOSS_ROWS, LOSS_VOCAB = (1024, 4096), 32768
CACHE_BYTES = 2**28
"""Buffers take turns over so much, several times what a cache holds."""
HOST_BLOCKS, HOST_PASSES = 8, 16
HOST_SEQ_LEN = 128
HOST_WIDTHS = {"gelu": (768, 12, 3072), "swiglu": (1024, 8, 2816)}
"""By activation: (hidden, heads, inner width) of models that the device still waits for the host with, though
their kernels are chosen and their memory is found as in larger ones."""
BATCHES = ((1, 1024), (16, 2048))
"""(samples, sequence)"""
FP32 = 4
TEXT_BYTES = 256
"""Different tokens of a text of bytes (`model/data/text.py`), whose gradients meet in as many rows."""


def gemm(bench: Bench, *, full: bool) -> list[LaidOut]:
    """Products in the three layouts of a linear layer's passes, and in the precisions that a job may have."""
    found = []
    for shape in (*GEMMS, *ODD_GEMMS):
        found += [_product(bench, shape, layout, bench.precision, full) for layout in LAYOUTS]
    for name in ("tf32", "fp32"):
        found += [_product(bench, shape, layout, name, full) for shape in EXACT_GEMMS for layout in LAYOUTS]
    if not bench.on_cpu and torch.cuda.get_device_capability(bench.device) >= float8.CAPABLE:
        found += [float8_product(bench, shape, full) for shape in GEMMS]
    return found


def float8_product(bench: Bench, shape: tuple[int, int, int], full: bool) -> LaidOut:
    """In fp8, scaled by tensor, bf16 out: the one layout that such GEMMs have."""
    m, n, k = shape
    a, b = (torch.randn(size, device=bench.device).to(float8.E4M3) for size in ((m, k), (n, k)))
    one = torch.ones((), device=bench.device)

    def product() -> Tensor:
        return float8.scaled_mm(a, b.t(), scale_a=one, scale_b=one, out_dtype=torch.bfloat16)

    sizes = {"m": m, "n": n, "k": k, "layout": "nt", "precision": float8.FP8}
    return series("gemm", sizes, bench.samples(product, full))


def _product(bench: Bench, shape: tuple[int, int, int], layout: str, name: str, full: bool) -> LaidOut:
    m, n, k = shape
    operands = {"nt": ((m, k), (n, k)), "nn": ((m, k), (k, n)), "tn": ((k, m), (k, n))}[layout]
    dtype = DTYPES[name]
    with _products_in(name):
        a, b = (torch.randn(size, device=bench.device).to(dtype) for size in operands)
        samples = bench.samples(lambda: LAYOUTS[layout](a, b), full)
    return series("gemm", {"m": m, "n": n, "k": k, "layout": layout, "precision": name}, samples)


class _products_in:  # noqa: N801 - used as a context
    """Multiply fp32 matrices in a precision for a while."""

    def __init__(self, name: str):
        self.name = name

    def __enter__(self) -> None:
        self.before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("high" if self.name == "tf32" else "highest")

    def __exit__(self, *_: object) -> None:
        torch.set_float32_matmul_precision(self.before)


def memory(bench: Bench, *, full: bool) -> list[LaidOut]:
    """An addition of two arrays into a third; ``bytes`` is what is read and written."""
    found = []
    for size in MEMORY_BYTES:
        values = size // 3 // bench.dtype.itemsize
        sets = [tuple(bench.random(values) for _ in range(3)) for _ in range(_turns(size))]
        samples = bench.samples(_in_turns(sets, lambda x, y, out: torch.add(x, y, out=out)), full)
        found.append(series("memory", {"bytes": 3 * values * bench.dtype.itemsize}, samples))
    return found


def _turns(size_bytes: float) -> int:
    return max(1, min(64, math.ceil(CACHE_BYTES / size_bytes)))


def _in_turns(sets: list[tuple[Tensor, ...]], call: Callable[..., object]) -> Callable[[], object]:
    """``call`` of one set of buffers after the other."""
    turns: Iterator[tuple[Tensor, ...]] = cycle(sets)
    return lambda: call(*next(turns))


def attention(bench: Bench, *, full: bool) -> list[LaidOut]:
    """Causal attention forward and backward, with the shapes it has."""
    shapes = [(shape, bench.precision) for shape in ATTENTIONS]
    shapes += [(shape, name) for name in ("tf32", "fp32") for shape in EXACT_ATTENTIONS]
    found: list[LaidOut] = []
    for shape, name in shapes:
        with _products_in(name):
            found += _attention(bench, *shape, name, full)
    for shape in DROPPED_ATTENTIONS:
        found += _attention(bench, *shape, bench.precision, full, dropout=PROBABILITY)
    return found


def _attention(
    bench: Bench,
    batch: int,
    heads: int,
    kv_heads: int,
    seq: int,
    head_dim: int,
    name: str,
    full: bool,
    dropout: float = 0.0,
) -> list[LaidOut]:
    dtype = DTYPES[name]

    def projected(count: int) -> Tensor:
        """As a block has it: heads of one token side by side."""
        rows = torch.randn(batch, seq, count, head_dim, device=bench.device).to(dtype)
        return rows.transpose(1, 2).requires_grad_()

    q, k, v = projected(heads), projected(kv_heads), projected(kv_heads)
    grouped = heads != kv_heads
    sizes = {"batch": batch, "heads": heads, "kv_heads": kv_heads, "seq_len": seq, "head_dim": head_dim}
    parameters = {**sizes, "precision": name, **({"dropout": dropout} if dropout else {})}

    def attend() -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True, enable_gqa=grouped)

    with torch.no_grad():
        forward = bench.samples(attend, full)
    out = attend()
    gradient = torch.randn_like(out)
    backward = bench.samples(lambda: torch.autograd.grad(out, (q, k, v), gradient, retain_graph=True), full)
    return [series("attention", parameters, forward), series("attention_backward", parameters, backward)]


Call = Callable[[], object]


def elementwise(bench: Bench, *, full: bool) -> list[LaidOut]:
    """Families of memory-bound kernels as the layers of `model` call them, by bytes."""
    found = []
    for rows in ROWS:
        for family, size, make in _families(bench, rows):
            calls = cycle([make() for _ in range(min(8, _turns(size)))])
            samples = bench.samples(lambda calls=calls: next(calls)(), full)
            found.append(series("elementwise", {"family": family, "rows": rows, "bytes": size}, samples))
    for rows in LOSS_ROWS:
        found += _losses(bench, rows, full)
    return found


def _families(bench: Bench, rows: int) -> Iterator[tuple[str, float, Callable[[], Call]]]:
    """Name, bytes of a call, and what makes such a call on operands of its own."""
    b, values = bench.dtype.itemsize, rows * WIDTH
    gain = torch.ones(WIDTH, device=bench.device, requires_grad=True)

    def wide() -> Tensor:
        return torch.randn(rows, WIDTH, device=bench.device)

    def half(times: int = 1) -> Tensor:
        return bench.random(rows, times * WIDTH)

    def heads() -> Tensor:
        return half().view(1, rows, WIDTH // HEAD_DIM, HEAD_DIM).transpose(1, 2)

    def rms(x: Tensor) -> Tensor:
        return F.rms_norm(x, (WIDTH,), gain)

    def layer(x: Tensor) -> Tensor:
        return F.layer_norm(x, (WIDTH,), gain, gain)

    def gelu(x: Tensor) -> Tensor:
        return F.gelu(x, approximate="tanh")

    def dropped(x: Tensor) -> Tensor:
        return F.dropout(x, PROBABILITY)

    yield "cast", (FP32 + b) * values, _forward(lambda x: x.to(bench.dtype), wide)
    yield "residual", (2 * FP32 + b) * values, _forward(torch.add, wide, half)
    yield "rms_norm", 2 * FP32 * values, _forward(rms, wide)
    yield "rms_norm_backward", 5 * FP32 * values, _backward(rms, wide, gain)
    yield "layer_norm", 2 * FP32 * values, _forward(layer, wide)
    yield "layer_norm_backward", 5 * FP32 * values, _backward(layer, wide, gain)
    yield "gelu", 2 * b * values, _forward(gelu, half)
    yield "gelu_backward", 3 * b * values, _backward(gelu, half)
    yield "swiglu", 5 * b * values, _forward(_swiglu, lambda: half(2))
    yield "swiglu_backward", 13 * b * values, _backward(_swiglu, lambda: half(2))
    scale = torch.ones((), device=bench.device)
    yield "largest", b * values, _forward(lambda x: torch.linalg.vector_norm(x, float("inf")), half)
    yield "scale", 2 * b * values, _forward(lambda x: x * scale, half)
    yield "dropout", (2 * b + 1) * values, _forward(dropped, half)
    yield "dropout_backward", (2 * b + 1) * values, _backward(dropped, half)
    yield "transpose", 2 * b * values, _forward(lambda x: x.contiguous(), heads)
    yield "sum", b * values, _forward(lambda x: x.sum(0), half)
    yield "rope", 9 * b * values, _forward(rotate, heads)
    yield "rope_backward", 10 * b * values, _backward(rotate, heads)
    tokens = torch.randint(0, TEXT_BYTES, (rows,), device=bench.device)
    table = (LOSS_VOCAB + 3 * rows) * WIDTH * FP32
    yield "embedding_backward", table, _forward(lambda x: _embedding_backward(x, tokens), wide)


def _forward(call: Callable[..., object], *operands: Callable[[], Tensor]) -> Callable[[], Call]:
    """What makes ``call`` on fresh ``operands``, without a graph."""

    def make() -> Call:
        own = [operand() for operand in operands]

        def run() -> object:
            with torch.no_grad():
                return call(*own)

        return run

    return make


def _backward(
    call: Callable[[Tensor], Tensor], operand: Callable[[], Tensor], *weights: Tensor
) -> Callable[[], Call]:
    """What makes the backward of ``call`` by a fresh operand and by ``weights``; forward is not in it."""

    def make() -> Call:
        x = operand().requires_grad_()
        out = call(x)
        gradient = torch.randn_like(out)
        return lambda: torch.autograd.grad(out, (x, *weights), gradient, retain_graph=True)

    return make


def _swiglu(x: Tensor) -> Tensor:
    gate, up = x.chunk(2, dim=-1)
    return F.silu(gate) * up


def _embedding_backward(gradient: Tensor, tokens: Tensor) -> Tensor:
    return torch.ops.aten.embedding_dense_backward(gradient, tokens, LOSS_VOCAB, -1, False)


def _losses(bench: Bench, rows: int, full: bool) -> list[LaidOut]:
    """Cross-entropy of logits of the layers' precision: a cast to fp32, log-softmax, and back."""
    b, values = bench.dtype.itemsize, rows * LOSS_VOCAB
    cast = 0 if b == FP32 else b + FP32
    logits = bench.random(1, rows, LOSS_VOCAB).requires_grad_()
    targets = torch.randint(0, LOSS_VOCAB, (1, rows), device=bench.device)
    with torch.no_grad():
        forward = bench.samples(lambda: token_loss(logits, targets), full)
    value = token_loss(logits, targets)
    backward = bench.samples(lambda: torch.autograd.grad(value, logits, retain_graph=True), full)
    sizes = {"loss": cast + 2 * FP32, "loss_backward": 4 * FP32 + cast}
    return [
        series("elementwise", {"family": family, "rows": rows, "bytes": each * values}, samples)
        for (family, each), samples in zip(sizes.items(), (forward, backward), strict=True)
    ]


def launch(bench: Bench, *, full: bool) -> list[LaidOut]:
    """What the device needs between the smallest kernels, which wait in its queue already."""
    x = bench.random(1)
    return [series("launch", {}, bench.samples(lambda: torch.add(x, x, out=x), full))]


def host(bench: Bench, *, full: bool) -> list[LaidOut]:
    """What the host takes to launch a pass through a model so small that the device waits for it."""
    found = []
    for activation, norm, positions, bias in (
        ("gelu", "layernorm", "learned", True),
        ("swiglu", "rmsnorm", "rope", False),
    ):
        hidden, heads, ffn = HOST_WIDTHS[activation]
        decoder = Decoder(
            layers=HOST_BLOCKS,
            hidden=hidden,
            heads=heads,
            kv_heads=heads,
            head_dim=hidden // heads,
            ffn=ffn,
            vocab=256,
            max_positions=HOST_SEQ_LEN,
            activation=activation,
            norm=norm,
            positions=positions,
            attention_bias=bias,
            output_bias=bias,
            mlp_bias=bias,
        )
        for policy in ("none", "selective", "full"):
            found += _host_passes(bench, decoder, policy, HOST_PASSES * (2 if full else 1))
    return [*found, *(_batches(bench, decoder, *size) for size in BATCHES)]


def _batches(bench: Bench, decoder: Decoder, micro_batch: int, seq_len: int) -> LaidOut:
    """Drawing one micro-batch and bringing it to the device, which waits meanwhile."""
    whole = replace(decoder, positions="rope")
    text = Text(Job(model=Model(name="host", decoder=whole), global_batch=micro_batch, seq_len=seq_len), 0)
    samples = []
    for step in range(SAMPLES + 1):
        start = bench.now()
        for part in text.micro_batches(step, 0, 1, micro_batch)[0]:
            part.to(bench.device)
        samples.append(bench.now().since(start))
    return series("batch", {"tokens": micro_batch * seq_len}, [Moment(s.wall, 0.0) for s in samples[1:]])


def _host_passes(bench: Bench, decoder: Decoder, policy: str, passes: int) -> list[LaidOut]:
    job = Job(
        model=Model(name="host", decoder=decoder),
        global_batch=1,
        seq_len=HOST_SEQ_LEN,
        precision=bench.precision,
    )
    use_products_of(job)
    layers = range(decoder.layers + 2)
    net = build_layers(decoder, layers, seed=0, recompute=policy, device=bench.device)
    inputs, targets = (part.to(bench.device) for part in Text(job, 0).micro_batches(0, 0, 1, 1)[0])
    forward, backward = [], []
    for _ in range(passes):
        bench.clock.settle()
        start = time.perf_counter()
        with precision(job, bench.device):
            scalar = token_loss(net(inputs), targets)
        forward.append(Moment(time.perf_counter() - start, 0.0))
        bench.clock.settle()
        start = time.perf_counter()
        scalar.backward()
        backward.append(Moment(time.perf_counter() - start, 0.0))
        net.zero_grad(set_to_none=True)
    shape = {**asdict(decoder), "precision": bench.precision, "seq_len": job.seq_len, "micro_batch": 1}
    shape["recompute"] = policy
    return [
        series("host", {"part": part, **shape}, samples[passes // 4 :])
        for part, samples in (("forward", forward), ("backward", backward))
    ]
