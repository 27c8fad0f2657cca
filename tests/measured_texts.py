# ruff: noqa: E501
"""Outputs of other programs: one of nccl-tests, and timings of GEMMs."""

from __future__ import annotations

from traincast.sim.hardware.cluster import Accelerator

START = "# nThread 1 nGpus 8 minBytes 8 maxBytes 1073741824 step: 2(factor) warmup iters: 5 iters: 20\n"
RANKS = "".join(
    f"#  Rank {r:2} Group  0 Pid {100 + r} on node{r // 8} device {r % 8} [0x0{r % 8}] NVIDIA A100\n"
    for r in range(8)
)
HEADER = """\
#
#                                                              out-of-place                       in-place
#       size         count      type   redop    root     time   algbw   busbw #wrong     time   algbw   busbw #wrong
#        (B)    (elements)                               (us)  (GB/s)  (GB/s)            (us)  (GB/s)  (GB/s)
"""
ROWS = """\
           0             0     float     sum      -1     0.15    0.00    0.00      0     0.12    0.00    0.00      0
     1048576        262144     float     sum      -1    50.00   20.97   36.70      0    49.00   21.40   37.45      0
  1073741824     268435456     float     sum      -1   8000.0  134.22  234.88      0   8100.0  132.56  231.98      0
"""
FOOTER = "# Out of bounds values : 0 OK\n# Avg bus bandwidth    : 135.79\n#\n"
NCCL_TESTS = (
    f"# Collective test starting: all_reduce_perf\n{START}#\n# Using devices\n{RANKS}{HEADER}{ROWS}{FOOTER}"
)

A100 = Accelerator(
    name="NVIDIA A100-SXM4-80GB",
    kind="gpu",
    peak_flops={"bf16": 312e12},
    memory_bytes=80e9,
    memory_bandwidth=2.039e12,
    sm_count=108,
    source="its datasheet.",
)

# From GEMM timings of an A100-SXM4-80GB in ai-dynamo/aiconfigurator@095f58a51, a100_sxm/gemm/trtllm/1.0.0,
# https://github.com/ai-dynamo/aiconfigurator: columns of all rows with m = 4096 and k = 8192.
MICROSECONDS = {
    **{1024: 321.195, 1536: 397.926, 2048: 531.9, 2560: 605.628, 3072: 801.826, 3584: 1003.657},
    **{4096: 1023.522, 5120: 1249.792, 6144: 1626.146, 7168: 1879.689, 8192: 2115.891},
    **{10240: 2548.395, 12288: 3168.358, 16384: 4225.297, 65536: 16825.925},
}
GEMM_TABLE = "accelerator,dtype,m,n,k,time_us,framework\n" + "".join(
    f"{A100.name},bfloat16,4096,{n},8192,{time},trtllm\n" for n, time in MICROSECONDS.items()
)
