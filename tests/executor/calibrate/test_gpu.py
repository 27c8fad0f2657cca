"""A GPU's calibration tasks run on any device; their families are those whose bytes the simulator counts."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from traincast.executor.calibrate import bench as benches  # noqa: E402
from traincast.executor.calibrate import gpu  # noqa: E402
from traincast.executor.calibrate.bench import Bench  # noqa: E402
from traincast.executor.calibrate.worker import tasks_of  # noqa: E402
from traincast.sim.calibration.fit import fit_cluster  # noqa: E402
from traincast.sim.kernels.torch_kernels import forward  # noqa: E402

TINY = {
    "GEMMS": ((16, 32, 64), (128, 8, 8)),
    "ODD_GEMMS": ((16, 33, 64),),
    "EXACT_GEMMS": ((16, 32, 64),),
    "MEMORY_BYTES": (3 * 2**10, 3 * 2**12),
    "CACHE_BYTES": 2**14,
    "ATTENTIONS": ((1, 4, 4, 32, 16), (1, 4, 2, 32, 16), (1, 4, 4, 32, 8)),
    "DROPPED_ATTENTIONS": ((1, 4, 4, 32, 16),),
    "EXACT_ATTENTIONS": ((1, 4, 4, 32, 16),),
    "ROWS": (32,),
    "WIDTH": 64,
    "HEAD_DIM": 16,
    "LOSS_ROWS": (32,),
    "LOSS_VOCAB": 128,
    "HOST_PASSES": 4,
    "HOST_BLOCKS": 2,
    "HOST_SEQ_LEN": 16,
    "HOST_WIDTHS": {"gelu": (64, 4, 128), "swiglu": (64, 4, 128)},
    "BATCHES": ((1, 64),),
}
"""The grids of `gpu.py`, made small."""


@pytest.fixture(scope="module")
def series():
    """All series of kernels, on the CPU in bf16 as a GPU would have them."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in TINY.items():
            patch.setattr(gpu, name, value)
        patch.setattr(benches, "SAMPLES", 2)
        patch.setattr(benches, "SAMPLE_S", 1e-5)
        bench = Bench(torch.device("cpu"), 0, {})
        bench.dtype, bench.precision = torch.bfloat16, "bf16"
        tasks = (gpu.launch, gpu.gemm, gpu.memory, gpu.attention, gpu.elementwise, gpu.host)
        found = [one for task in tasks for one in task(bench, full=False)]
        return [*found, gpu.float8_product(bench, (16, 32, 64), full=False)]  # a CPU computes them too


def test_every_series_has_samples_above_0(series):
    assert all(len(one["seconds"]) >= 2 and min(one["seconds"]) > 0 for one in series)


def test_products_are_measured_in_all_layouts_and_precisions(series):
    """Three layouts of three shapes in bf16, and of one in each exact precision."""
    products = [one["parameters"] for one in series if one["what"] == "gemm"]
    counts = {name: sum(p["precision"] == name for p in products) for name in ("bf16", "tf32", "fp32")}
    assert counts == {"bf16": 9, "tf32": 3, "fp32": 3}
    assert {p["layout"] for p in products} == {"nt", "nn", "tn"}


def test_families_are_all_that_a_block_is_made_of(series):
    """Nothing bound by memory in a Llama's or a GPT-2's layers is without a measured speed."""
    measured = {one["parameters"]["family"] for one in series if one["what"] == "elementwise"}
    known = {*measured, "add"}  # the curve of memory is one of additions
    for kind in ("embedding", "block", "head"):
        for changes in ({}, {"activation": "gelu", "norm": "layernorm", "positions": "learned"}):
            kernels = [*_kernels(kind, changes), *_kernels(kind, changes, dropout=True, fp8=True)]
            assert {k.family for k in kernels if k.kind == "memory"} <= known


def _kernels(kind: str, changes: dict, **job):
    from traincast.sim.kernels.decoder_kernels import backward_kernels
    from traincast.sim.kernels.layer_shape import Shape
    from traincast.sim.model.decoder import Decoder
    from traincast.sim.plan.software_stacks import EXECUTOR_STACK, STACKS

    decoder = Decoder(
        layers=2,
        hidden=64,
        heads=4,
        kv_heads=4,
        head_dim=16,
        ffn=128,
        vocab=128,
        max_positions=64,
        attention_bias=True,
        **changes,
    )
    shape = {"micro_batch": 1, "seq_len": 32, "tp": 1, "bytes_per_value": 2, "stack": STACKS[EXECUTOR_STACK]}
    shape |= job
    return *forward(Shape(decoder=decoder, **shape), kind), *backward_kernels(decoder, kind, **shape)


def test_a_gpu_is_fitted_to_them(series):
    """Rates, families, widths of heads and the host's part all have a place in the cluster file."""
    facts = {"kind": "gpu", "device": "a GPU", "devices": 1, "cores": 2, "memory_bytes": 16e9}
    facts |= {"multiprocessors": 4, "precision": "bf16", "torch": "2", "system": "Linux"}
    measurements = {"schema": "traincast.measurements/1", "machine": facts, "rounds": 1, "series": series}
    accelerator = fit_cluster(measurements, name="here", date="2026-11-27").accelerator
    assert set(accelerator.peak_flops) == {"bf16", "tf32", "fp32", "fp8"}
    speeds = set(accelerator.kernel_speeds)
    assert {"rope", "swiglu_backward", "loss", "unaligned", "head_8"} <= speeds
    assert {"attention_dropout", "attention_dropout_backward"} <= speeds
    assert set(accelerator.attention_backward_efficiency) == {"bf16", "tf32", "fp32"}
    assert accelerator.host_launch_s > 0
    assert accelerator.host_backward_launch_s > 0
    assert set(accelerator.host_recompute_s) == {"selective", "full"}


def test_a_cpu_keeps_its_own_tasks():
    """A GPU's grids would take a core minutes."""
    bench = Bench(torch.device("cpu"), 0, {})
    assert "host" not in tasks_of(bench)
    assert tasks_of(bench)["gemm"] is not gpu.gemm
    bench.on_cpu = False
    assert tasks_of(bench)["gemm"] is gpu.gemm
