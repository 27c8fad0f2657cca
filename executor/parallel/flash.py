"""Attention on a part of the keys, with the log-sum-exp that parts are merged by, and its backward.

By torch's own flash kernels, whose names and results differ by device; by GEMMs and a softmax where they take
no such tensors (fp32 on GPUs). Queries [batch, heads, n, head_dim], keys [batch, kv_heads, m, head_dim],
values [batch, kv_heads, m, v_dim]; grouped keys and values are repeated for their queries, and values as
narrow as they may be are padded. Causal masks compare places in the part, the first with the first.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

HALF = (torch.bfloat16, torch.float16)
aten = torch.ops.aten


def attend_part(q: Tensor, k: Tensor, v: Tensor, *, causal: bool) -> tuple[Tensor, Tensor]:
    """Outputs [batch, heads, n, v_dim], and for each query the logarithm of the sum of the exponentials of
    its scaled scores [batch, heads, n], fp32."""
    scale = q.shape[-1] ** -0.5
    if _by_gemms(q):
        return _attend_by_gemms(q, *_for_every_head(q, k, v), causal, scale)
    width = v.shape[-1]
    q, k, v = (_padded(x, max(width, q.shape[-1])) for x in (q, k, v))
    k, v = _for_every_head(q, k, v)
    if q.device.type == "cpu":
        out, lse = aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, causal, scale=scale)
    else:
        out, lse = aten._scaled_dot_product_flash_attention(q, k, v, 0.0, causal, False, scale=scale)[:2]
    return out[..., :width], lse


def merge(out: Tensor, lse: Tensor, more: Tensor, its: Tensor) -> tuple[Tensor, Tensor]:
    """The outputs and log-sum-exps of both parts together; sums are in fp32."""
    whole = torch.logaddexp(lse, its)
    old, new = (torch.exp(part - whole).unsqueeze(-1) for part in (lse, its))
    return out * old + more * new, whole


def attend_part_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, *, causal: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v from this part of the keys; ``out`` and ``lse`` are those of all parts."""
    scale, width, own = q.shape[-1] ** -0.5, v.shape[-1], q.shape[-1]
    if _by_gemms(q):
        found = _backward_by_gemms(grad, q, *_for_every_head(q, k, v), out, lse, causal, scale)
        return found[0], _for_each_group(found[1], k), _for_each_group(found[2], v)
    grad, out, q, k, v = (_padded(x, max(width, own)) for x in (grad, out, q, k, v))
    keys, values = _for_every_head(q, k, v)
    if q.device.type == "cpu":
        found = aten._scaled_dot_product_flash_attention_for_cpu_backward(
            grad, q, keys, values, out, lse, 0.0, causal, scale=scale
        )
    else:
        found = _backward_on_gpu(grad, q, keys, values, out, lse, causal, scale)
    of_keys, of_values = _for_each_group(found[1], k), _for_each_group(found[2], v)
    return found[0][..., :own], of_keys[..., :own], of_values[..., :width]


def _backward_on_gpu(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, causal: bool, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    # Seed and offset count with dropout alone.
    unused = torch.zeros(2, dtype=torch.uint64, device=q.device)
    return aten._scaled_dot_product_flash_attention_backward(
        grad.contiguous(),
        *(q, k, v, out, lse.contiguous()),
        *(None, None, q.shape[2], k.shape[2]),
        *(0.0, causal, unused, unused[:0]),
        scale=scale,
    )


def _by_gemms(q: Tensor) -> bool:
    return q.device.type != "cpu" and q.dtype not in HALF


def _padded(x: Tensor, width: int) -> Tensor:
    """torch's kernels want queries, keys and values to be as wide as each other."""
    return F.pad(x, (0, width - x.shape[-1])) if x.shape[-1] < width else x


def _for_every_head(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    group = q.shape[1] // k.shape[1]
    return (k, v) if group == 1 else (k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1))


def _for_each_group(gradient: Tensor, like: Tensor) -> Tensor:
    """Sums over the queries' heads that read the same keys."""
    group = gradient.shape[1] // like.shape[1]
    return gradient if group == 1 else gradient.unflatten(1, (like.shape[1], group)).sum(2)


def _scores(q: Tensor, k: Tensor, causal: bool, scale: float) -> Tensor:
    scores = (q @ k.transpose(-1, -2)) * scale
    if not causal:
        return scores
    mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
    return scores.masked_fill(mask, -math.inf)


def _attend_by_gemms(q: Tensor, k: Tensor, v: Tensor, causal: bool, scale: float) -> tuple[Tensor, Tensor]:
    scores = _scores(q, k, causal, scale)
    lse = torch.logsumexp(scores.float(), dim=-1)
    return torch.exp(scores - lse.unsqueeze(-1)).to(v.dtype) @ v, lse


def _backward_by_gemms(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, causal: bool, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Dao et al. 2022, FlashAttention, appendix B.2."""
    shares = torch.exp(_scores(q, k, causal, scale) - lse.unsqueeze(-1))
    of_scores = shares * (grad @ v.transpose(-1, -2) - (grad * out).sum(-1, keepdim=True)) * scale
    return of_scores @ k, of_scores.transpose(-1, -2) @ q, shares.transpose(-1, -2) @ grad
