"""What backward computes again: attention's core, or whole blocks, of all blocks of a stage or of the first.

`selective` repeats attention between its projections (Korthikanti et al. 2022, section 5), `full` the block;
both by torch's non-reentrant checkpoint, which computes again under the autocast that forward ran under. A
policy may hold for the first blocks of every stage only (Megatron-LM's --recompute-method block). What the
simulator takes them to cost is in `sim/kernels/recompute.py`.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ...sim.plan.strategy import Strategy


def refusals(strategy: Strategy) -> list[str]:
    """What of the recomputation of ``strategy`` cannot be run, with the reason."""
    if strategy.recompute != "selective_op":
        return []
    return ["recompute selective_op (it tells queries, keys and values apart, which are one GEMM here)"]


def policy_of(place: int, policy: str, blocks: int) -> str:
    """The policy of a stage's block number ``place``, from 0, where the first ``blocks`` have ``policy``; 0
    is all of them."""
    return policy if not blocks or place < blocks else "none"


def maybe_again(again: bool, function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """Call ``function``; with ``again`` keep only its inputs and compute it a second time in backward."""
    return checkpoint(function, *inputs, use_reentrant=False) if again else function(*inputs)
