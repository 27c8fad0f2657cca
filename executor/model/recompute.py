"""What backward computes again: attention's core, or whole blocks, of all blocks of a stage or of the first.

`selective` repeats attention between its projections (Korthikanti et al. 2022, section 5), by a function of
its own, since torch's checkpoint cannot be differentiated in halves: each group of weights would have the
block computed again. `full` repeats the block, `selective_op` all of it but attention and every second GEMM,
by torch's non-reentrant checkpoint; where backward comes in halves, their first does it all
(`sim/plan/joined_backward.py`). A policy may hold for the first blocks of every stage only (Megatron-LM's
--recompute-method block). What the simulator takes them to cost is in `sim/kernels/recompute.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

KEPT_GEMMS = (0, 2)
"""Of a block's four, in order, those whose results `selective_op` keeps: of queries, keys and values, and of
what leads into the MLP."""
_ATEN = torch.ops.aten
GEMMS = (_ATEN.mm.default, _ATEN.addmm.default)
ATTENTION = (
    _ATEN._scaled_dot_product_flash_attention_for_cpu.default,
    _ATEN._scaled_dot_product_flash_attention.default,
    _ATEN._scaled_dot_product_efficient_attention.default,
    _ATEN._scaled_dot_product_cudnn_attention.default,
)
"""Attention's fused kernels, one of which runs where there is one for the shapes."""


def policy_of(place: int, policy: str, blocks: int) -> str:
    """The policy of a stage's block number ``place``, from 0, where the first ``blocks`` have ``policy``; 0
    is all of them."""
    return policy if not blocks or place < blocks else "none"


def core_again(policy: str, core: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """Call attention's ``core``, which has no parameters; `selective` keeps only its ``inputs``, and computes
    it a second time in backward."""
    if policy != "selective":
        return core(*inputs)
    if torch.compiler.is_compiling():
        return checkpoint(core, *inputs, use_reentrant=False)
    return _CoreAgain.apply(core, *inputs)  # type: ignore[no-any-return]


def block_again(policy: str, block: Callable[[Any], Any], x: Any) -> Any:
    """Call ``block``; `full` keeps only ``x``, `selective_op` also attention and every second GEMM."""
    if policy == "full":
        return checkpoint(block, x, use_reentrant=False)
    if policy == "selective_op":
        return checkpoint(block, x, use_reentrant=False, context_fn=_keeping_some)
    return block(x)


class _CoreAgain(torch.autograd.Function):
    """A function of tensors alone, computed again under the autocast that forward ran under."""

    @staticmethod
    def forward(ctx: Any, core: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        ctx.core, ctx.autocast = core, _autocast_of(inputs[0].device.type)
        ctx.numbers = _numbers(inputs[0].device) if getattr(core, "draws", False) else None
        ctx.save_for_backward(*inputs)
        return core(*inputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        inputs = [x.detach().requires_grad_(x.requires_grad) for x in ctx.saved_tensors]
        with torch.enable_grad(), ctx.autocast(), _drawing(inputs[0].device, ctx.numbers):
            out = ctx.core(*inputs)
        wanted = [x for x in inputs if x.requires_grad]
        found = iter(torch.autograd.grad(out, wanted, gradients))
        return None, *(next(found) if x.requires_grad else None for x in inputs)


def _numbers(device: torch.device) -> Tensor:
    """The state of the generator that ``device`` draws from."""
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


@contextmanager
def _drawing(device: torch.device, numbers: Tensor | None) -> Iterator[None]:
    """Draw ``numbers`` for a while; None is whatever comes."""
    if numbers is None:
        yield
        return
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        if device.type == "cuda":
            torch.cuda.set_rng_state(numbers, device)
        else:
            torch.set_rng_state(numbers)
        yield


def _autocast_of(device: str) -> Callable[[], torch.autocast]:
    """The autocast of ``device`` as it is now."""
    return partial(
        torch.autocast,
        device,
        dtype=torch.get_autocast_dtype(device),
        enabled=torch.is_autocast_enabled(device),
        cache_enabled=torch.is_autocast_cache_enabled(),
    )


def _keeping_some() -> tuple[Any, Any]:
    """The contexts of forward and of what is computed again, for one block."""
    return create_selective_checkpoint_contexts(partial(_is_kept, Counter()))


def _is_kept(counts: Counter[bool], context: Any, operation: Any, *_: Any, **__: Any) -> CheckpointPolicy:
    """``counts`` are of the GEMMs so far, forward and again (torchtitan, `activation_checkpoint.py`)."""
    keeps = operation in ATTENTION
    if operation in GEMMS:
        keeps = counts[context.is_recompute] in KEPT_GEMMS
        counts[context.is_recompute] += 1
    return CheckpointPolicy.MUST_SAVE if keeps else CheckpointPolicy.PREFER_RECOMPUTE
