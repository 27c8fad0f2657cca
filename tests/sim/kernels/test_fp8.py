"""fp8: which GEMMs run in it, what the casts cost, and that the rest stays as it is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from traincast.sim.costs.costs import Costs
from traincast.sim.errors import InputError
from traincast.sim.hardware.cluster_file import read_cluster
from traincast.sim.kernels.fp8 import BF16 as UNCHANGED
from traincast.sim.kernels.fp8 import CAST_BYTES, FP8
from traincast.sim.kernels.kernel import Kernel
from traincast.sim.kernels.layer_kernels import layer_kernels
from traincast.sim.model.hf_config import read_model
from traincast.sim.model.layer import BLOCK, HEAD, MOE_BLOCK
from traincast.sim.plan.job import Job
from traincast.sim.plan.strategy import Strategy

JOB = Job(model=read_model("llama-3-8b"), global_batch=8, seq_len=8192, precision="fp8")
BF16 = replace(JOB, precision="bf16")
ONE = Strategy()


def in_bf16(job: Job, kind: str, part: str) -> list[Kernel]:
    """The kernels of a bf16 job, with that said on each."""
    return [replace(kernel, precision=UNCHANGED) for kernel in layer_kernels(job, ONE, kind, part)]


def test_linear_layers_of_a_block_multiply_in_fp8_after_a_cast_of_their_input():
    """Llama's block has four: queries with keys and values, output, gate with up, down; attention is none."""
    kernels = layer_kernels(JOB, ONE, BLOCK, "forward")
    linear = [kernel for kernel in kernels if kernel.precision == FP8]
    decoder, tokens = JOB.model.decoder, JOB.seq_len
    assert [(k.m, k.n, k.k) for k in linear] == [
        (tokens, 6144, 4096),
        (tokens, 4096, 4096),
        (tokens, 2 * decoder.ffn, 4096),
        (tokens, 4096, decoder.ffn),
    ]
    for kernel in linear:
        cast = kernels[kernels.index(kernel) - 1]
        assert (cast.kind, cast.bytes) == ("memory", CAST_BYTES * kernel.m * kernel.k)
        assert kernel.bytes == kernel.m * kernel.k + kernel.k * kernel.n + 2 * kernel.m * kernel.n


def test_backward_casts_each_output_gradient_once():
    """Weights' gradients take factors that are cast already."""
    kernels = layer_kernels(JOB, ONE, BLOCK, "backward")
    more = len(kernels) - len(layer_kernels(BF16, ONE, BLOCK, "backward"))
    assert more == 4
    assert sum(kernel.precision == FP8 for kernel in kernels) == 8


@pytest.mark.parametrize("part", ["forward", "backward"])
def test_head_is_that_of_bf16(part: str):
    """The LM head stays in bf16."""
    assert list(layer_kernels(JOB, ONE, HEAD, part)) == in_bf16(BF16, HEAD, part)


def test_router_stays_in_bf16_and_experts_do_not():
    """A router is as wide as there are experts."""
    job = Job(model=read_model("mixtral-8x7b"), global_batch=8, seq_len=4096, precision="fp8")
    kernels = layer_kernels(job, ONE, MOE_BLOCK, "forward")
    experts = job.model.decoder.experts
    assert [k.precision for k in kernels if k.kind == "gemm" and k.n == experts] == [UNCHANGED]
    assert [k.precision for k in kernels if k.batch == experts] == [FP8, FP8]


@pytest.mark.parametrize("part", ["forward", "backward"])
def test_what_is_not_linear_is_that_of_bf16(part: str):
    """Norms, attention and the rest, in the same order, once casts are taken away."""
    others = [kernel for kernel in in_bf16(BF16, BLOCK, part) if kernel.kind != "gemm"]
    found = iter(layer_kernels(JOB, ONE, BLOCK, part))
    assert all(other in found for other in others)


def test_a_block_of_large_products_is_faster_in_fp8_and_the_head_is_not():
    """On an H100 by less than the factor 2 of the peaks."""
    cluster = read_cluster("hgx-h100")
    blocks = JOB.model.layers[1], JOB.model.layers[-1]
    block, head = (
        Costs(cluster, BF16, ONE).compute.forward_s(layer) / Costs(cluster, JOB, ONE).compute.forward_s(layer)
        for layer in blocks
    )
    assert 1.0 < block < 2.0
    assert head == 1.0


def test_the_optimizer_writes_the_fp8_weights_too():
    """Once a step, not once a micro-batch."""
    cluster = read_cluster("hgx-h100")
    fp8, bf16 = (Costs(cluster, job, ONE).optimizer for job in (JOB, BF16))
    assert fp8.update_s(1e9) > bf16.update_s(1e9)


def test_an_accelerator_without_fp8_is_refused():
    """An A100 has no fp8 units."""
    cluster = read_cluster("dgx-a100")
    with pytest.raises(InputError, match="fp8"):
        Costs(cluster, JOB, ONE).compute.forward_s(JOB.model.layers[1])
