"""Context parallelism: the numbers of one process, and the traffic that the simulator predicts."""

from __future__ import annotations

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from divided_layers import GPT2, LATENT, LLAMA, check, plan_of  # noqa: E402

from traincast.executor.model.attention import attend  # noqa: E402
from traincast.executor.parallel import context  # noqa: E402
from traincast.executor.parallel.context import dealt, key_repeats  # noqa: E402
from traincast.executor.parallel.flash import attend_part, attend_part_backward, merge  # noqa: E402
from traincast.executor.parallel.surroundings import Surroundings  # noqa: E402
from traincast.sim.model.decoder import Decoder  # noqa: E402
from traincast.sim.plan.choices import CP_EXCHANGES  # noqa: E402

DECODERS = {"gpt2": GPT2, "llama": LLAMA, "latent": LATENT}


@pytest.mark.slow
@pytest.mark.parametrize("decoder", DECODERS.values(), ids=DECODERS)
@pytest.mark.parametrize("cp", [2, 4])
@pytest.mark.parametrize("exchange", CP_EXCHANGES)
def test_agrees_with_one_process_and_with_the_simulator(decoder: Decoder, cp: int, exchange: str):
    """Loss, gradients and parameters, and every collective of either pass."""
    check(plan_of(decoder, cp=cp, cp_exchange=exchange))


@pytest.mark.slow
@pytest.mark.parametrize("exchange", CP_EXCHANGES)
@pytest.mark.parametrize("decoder", DECODERS.values(), ids=DECODERS)
def test_works_with_tensor_and_sequence_parallelism(decoder: Decoder, exchange: str):
    check(plan_of(decoder, tp=2, cp=2, cp_exchange=exchange, sequence_parallel=True))


@pytest.mark.slow
@pytest.mark.parametrize("exchange", CP_EXCHANGES)
def test_backward_in_halves_sends_everything_once(exchange: str):
    check(plan_of(LLAMA, cp=2, cp_exchange=exchange), halves=True)


@pytest.mark.slow
@pytest.mark.parametrize("exchange", CP_EXCHANGES)
def test_half_precision_is_exchanged_as_it_is_computed_with(exchange: str):
    check(plan_of(LLAMA, cp=2, cp_exchange=exchange, precision="bf16"))


@pytest.mark.slow
def test_fewer_heads_of_keys_than_ranks_are_repeated():
    """One head of keys, which both ranks need in exchange for tokens."""
    assert [key_repeats(heads, 4) for heads in (1, 2, 4, 6, 8)] == [4, 2, 1, 2, 1]
    check(plan_of(replace(LLAMA, kv_heads=2), cp=4, cp_exchange="all_to_all"))


@pytest.mark.slow
@pytest.mark.parametrize("recompute", ["selective", "full"])
@pytest.mark.parametrize("exchange", CP_EXCHANGES)
def test_what_is_computed_again_is_sent_again(recompute: str, exchange: str):
    check(plan_of(LLAMA, cp=2, cp_exchange=exchange, recompute=recompute))


def test_tokens_are_dealt_from_both_ends():
    """Every rank has as many early as late ones, and every token is somebody's."""
    assert [dealt(16, 4, i).tolist() for i in range(4)] == [
        [0, 1, 14, 15],
        [2, 3, 12, 13],
        [4, 5, 10, 11],
        [6, 7, 8, 9],
    ]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("width", [16, 8])
def test_parts_of_keys_make_up_the_whole(device: str, dtype: torch.dtype, width: int):
    """The later half of the queries on the earlier keys and on their own, with grouped keys and values as
    wide as keys or narrower, forward and backward, against attention in one piece in fp32."""
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU")
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, 4, 32, 16), (2, 2, 32, 16), (2, 2, 32, width), (2, 4, 32, width)]
    made = [torch.randn(shape, generator=generator).to(device, dtype) for shape in shapes]
    q, k, v = (x.float().requires_grad_() for x in made[:3])
    whole = attend(q, k.repeat_interleave(2, 1), v.repeat_interleave(2, 1))
    (whole * made[3].float()).sum().backward()
    late, early = slice(16, 32), slice(0, 16)
    own = tuple(x[:, :, late] for x in made)
    before = tuple(x[:, :, early] for x in made[1:3])
    out, lse = attend_part(*own[:3], causal=True)
    out, lse = merge(out.float(), lse, *attend_part(own[0], *before, causal=False))
    error = {torch.float32: 2e-5, torch.bfloat16: 3e-2}[dtype]
    torch.testing.assert_close(out, whole[:, :, late].detach(), rtol=error, atol=error)
    out = out.to(dtype)
    one = attend_part_backward(own[3], *own[:3], out, lse, causal=True)
    other = attend_part_backward(own[3], own[0], *before, out, lse, causal=False)
    assert [x.shape for x in (*one, *other)] == [x.shape for x in (*own[:3], own[0], *before)]
    error *= 3
    torch.testing.assert_close((one[0] + other[0]).float(), q.grad[:, :, late], rtol=error, atol=error)
    torch.testing.assert_close(one[1].float(), k.grad[:, :, late], rtol=error, atol=error)
    torch.testing.assert_close(one[2].float(), v.grad[:, :, late], rtol=error, atol=error)


def test_nothing_is_refused():
    plan = plan_of(LLAMA, cp=4, cp_exchange="ring")
    assert [context.refusals(plan, Surroundings(kind=kind)) for kind in ("cpu", "gpu")] == [[], []]
