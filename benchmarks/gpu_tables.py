"""Raw tables of `gpu.py`: rates of kernels by shape, launches, transfers, the clock under load.

Each is a list of rows with a unit in every column's name, written as a CSV file whose comment lines name the
device, the day and the versions.
"""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from traincast.executor.calibrate.bench import Bench
from traincast.executor.calibrate.gpu import float8_product
from traincast.executor.model.float8 import CAPABLE, FP8

Row = dict[str, Any]
SQUARES = (512, 1024, 2048, 4096, 8192, 16384)
TRANSFER_BYTES = tuple(2**k for k in (12, 16, 20, 24, 28))
LOADED_N = 8192
"""Side of the products that keep the device busy."""
WIDTHS = ((8192, 2048), (8192, 8192))
"""(rows, width) of norms."""
ADAM_PARAMETERS = (10**7, 10**8, 10**9)
ADAM_TENSORS = 100


def as_csv(rows: Iterable[Mapping[str, Any]], header: Iterable[str]) -> str:
    """``rows`` with comment lines ``header`` above them."""
    rows = list(rows)
    out = io.StringIO()
    for line in header:
        out.write(f"# {line}\n")
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(out, names, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: _short(value) for name, value in row.items()})
    return out.getvalue()


def _short(value: Any) -> Any:
    return f"{value:.5g}" if isinstance(value, float) else value


def gemms(bench: Bench, series: Iterable[Mapping[str, Any]]) -> list[Row]:
    """Products that calibration measured, square ones, and fp8 by `torch._scaled_mm` where there is any."""
    rows = [
        _gemm_row(s["parameters"]["precision"], s["parameters"], _median(s["seconds"]))
        for s in series
        if s["what"] == "gemm"
    ]
    for n in SQUARES[: 1 if bench.on_cpu else None]:
        a, b = bench.random(n, n), bench.random(n, n)
        seconds = _seconds(bench, lambda a=a, b=b: a @ b.t())
        rows.append(_gemm_row(bench.precision, {"m": n, "n": n, "k": n, "layout": "nt"}, seconds))
    if not bench.on_cpu and torch.cuda.get_device_capability(bench.device) >= CAPABLE:
        for n in SQUARES:
            one = float8_product(bench, (n, n, n), full=False)
            rows.append(_gemm_row(FP8, one["parameters"], _median(one["seconds"])))
    return rows


def _gemm_row(precision: str, p: Mapping[str, Any], seconds: float) -> Row:
    flops = 2.0 * p["m"] * p["n"] * p["k"]
    sizes = {name: p[name] for name in "mnk"}
    layout = p.get("layout", "nt")
    return {
        "precision": precision,
        **sizes,
        "layout": layout,
        "time_us": seconds * 1e6,
        "tflops_per_s": flops / seconds / 1e12,
    }


def attentions(series: Iterable[Mapping[str, Any]]) -> list[Row]:
    """What calibration measured; FLOPs are causal ones, of two products forward and five backward."""
    rows = []
    for s in series:
        if s["what"] not in ("attention", "attention_backward"):
            continue
        p, seconds = {"dropout": 0.0, **s["parameters"]}, _median(s["seconds"])
        backward = s["what"] == "attention_backward"
        flops = 0.5 * 4.0 * p["batch"] * p["heads"] * p["seq_len"] ** 2 * p["head_dim"]
        rate = flops * (2.5 if backward else 1.0) / seconds / 1e12
        part = "backward" if backward else "forward"
        rows.append({**p, "part": part, "time_us": seconds * 1e6, "tflops_per_s": rate})
    return rows


def memory_kernels(bench: Bench, series: Iterable[Mapping[str, Any]]) -> list[Row]:
    """Additions and families of kernels by bytes, as calibration measured them; norms compiled; Adam."""
    rows = [
        _moved(s["parameters"].get("family", "add"), s["parameters"]["bytes"], _median(s["seconds"]))
        for s in series
        if s["what"] in ("memory", "elementwise")
    ]
    rows += _copies(bench)
    if not bench.on_cpu:
        rows += _adam(bench)
    return rows


def _moved(name: str, size: float, seconds: float) -> Row:
    return {"kernel": name, "bytes": int(size), "time_us": seconds * 1e6, "tb_per_s": size / seconds / 1e12}


def _copies(bench: Bench) -> list[Row]:
    rows = []
    for size in (2**20, 2**24, 2**28, 2**30) if not bench.on_cpu else (2**20,):
        x = torch.empty(size // 2 // 4, device=bench.device).normal_()
        y = torch.empty_like(x)
        rows.append(_moved("copy", size, _seconds(bench, lambda x=x, y=y: y.copy_(x))))
    return rows


def compiled_norms(bench: Bench) -> list[Row]:
    """Norms in fp32 with a cast behind them, compiled as one kernel."""
    rows = []
    for count, width in WIDTHS:
        x = torch.randn(count, width, device=bench.device)
        gain = torch.ones(width, device=bench.device)

        def rms(x: Tensor, gain: Tensor = gain, width: int = width) -> Tensor:
            return F.rms_norm(x, (width,), gain).to(torch.bfloat16)

        def layer(x: Tensor, gain: Tensor = gain, width: int = width) -> Tensor:
            return F.layer_norm(x, (width,), gain, gain).to(torch.bfloat16)

        for name, norm in (("rms_norm", rms), ("layer_norm", layer)):
            compiled = torch.compile(norm, dynamic=False)
            seconds = _seconds(bench, lambda x=x, compiled=compiled: compiled(x))
            rows.append(_moved(f"{name} and cast, compiled", 6.0 * x.numel(), seconds))
    return rows


def _adam(bench: Bench) -> list[Row]:
    """AdamW on fp32 parameters in so many tensors: 28 bytes a parameter are read and written at least."""
    rows = []
    for parameters in ADAM_PARAMETERS:
        for style in ("fused", "foreach"):
            each = parameters // ADAM_TENSORS
            own = [torch.zeros(each, device=bench.device, requires_grad=True) for _ in range(ADAM_TENSORS)]
            optimizer = torch.optim.AdamW(own, lr=1e-3, weight_decay=0.0, **{style: True})
            for p in own:
                p.grad = torch.randn_like(p)
            seconds = _seconds(bench, optimizer.step)
            rows.append(_moved(f"AdamW {style}", 28.0 * each * ADAM_TENSORS, seconds))
            del optimizer, own
            torch.cuda.empty_cache()
    return rows


def launches(bench: Bench) -> list[Row]:
    """Seconds of the host for one small operation, by kind, and of the device between two."""
    x, w = bench.random(16, 16), bench.random(16, 16)
    wide = torch.randn(16, 16, device=bench.device)
    rows = [{"operation": "add, device's part", "time_us": 1e6 * _seconds(bench, lambda: torch.add(x, x))}]
    operations: dict[str, Callable[[], object]] = {
        "add": lambda: torch.add(x, x),
        "add into": lambda: torch.add(x, x, out=w),
        "cast": lambda: wide.to(bench.dtype),
        "matmul": lambda: x @ x,
        "linear": lambda: F.linear(x, w),
        "layer_norm": lambda: F.layer_norm(wide, (16,)),
        "gelu": lambda: F.gelu(x),
    }
    for name, call in operations.items():
        rows.append({"operation": f"{name}, host's part", "time_us": 1e6 * _host_seconds(bench, call)})
    return rows


def _host_seconds(bench: Bench, call: Callable[[], object], count: int = 300) -> float:
    """Of one launch while the device waits for it or not: the queue never fills."""
    call()
    found = []
    for _ in range(5):
        bench.clock.settle()
        start = time.perf_counter()
        for _ in range(count):
            call()
        found.append((time.perf_counter() - start) / count)
    return _median(found)


def transfers(bench: Bench) -> list[Row]:
    """Host to device and back, pinned and not."""
    rows = []
    for size in TRANSFER_BYTES:
        there = torch.empty(size, dtype=torch.uint8, device=bench.device)
        for pinned in (True, False):
            here = torch.empty(size, dtype=torch.uint8, pin_memory=pinned)
            for name, into, source in (("host to device", there, here), ("device to host", here, there)):
                seconds = _wall(bench, lambda i=into, s=source, p=pinned: i.copy_(s, non_blocking=p))
                rows.append(
                    {
                        "transfer": name,
                        "pinned": pinned,
                        "bytes": size,
                        "time_us": seconds * 1e6,
                        "gb_per_s": size / seconds / 1e9,
                    }
                )
    return rows


def _wall(bench: Bench, call: Callable[[], object]) -> float:
    call()
    found = []
    for _ in range(7):
        start = bench.now()
        call()
        found.append(bench.now().since(start).wall)
    return _median(found)


def sustained(bench: Bench, seconds: float, clocks: Callable[[], Row]) -> list[Row]:
    """Products without a pause: the rate and the clocks twice a second."""
    side = SQUARES[0] if bench.on_cpu else LOADED_N
    a, b = bench.random(side, side), bench.random(side, side)
    out = torch.empty_like(a)
    rows: list[Row] = []
    start = time.perf_counter()
    while time.perf_counter() - start < seconds:
        begin, calls = time.perf_counter(), 0
        while time.perf_counter() - begin < 0.5:
            for _ in range(20):
                torch.mm(a, b, out=out)
            calls += 20
            bench.clock.settle()
        took = time.perf_counter() - begin
        rate = 2.0 * side**3 * calls / took / 1e12
        rows.append({"at_s": time.perf_counter() - start, "tflops_per_s": rate, **clocks()})
    return rows


def _seconds(bench: Bench, call: Callable[[], object]) -> float:
    return _median([sample.wall for sample in bench.samples(call, False)])


def _median(values: Iterable[float]) -> float:
    ordered = sorted(values)
    return ordered[len(ordered) // 2]
