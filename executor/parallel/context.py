"""Context parallelism: ranks of a `cp` group share every sequence, and exchange keys and values, or heads.

Tokens are dealt in 2 × cp chunks, of which the r-th rank takes the r-th and the r-th from the end: causal
attention is as much work for each (Megatron-LM). `ring` passes keys and values round while attention works on
what is there (Liu et al. 2023); `all_gather` gathers them; either merges parts by their log-sum-exp, and
passes gradients on to the owner. `all_to_all` trades tokens for heads and back (Jacobs et al. 2023, Ulysses).
"""

from __future__ import annotations

from collections.abc import Iterator
from math import gcd
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd import Function

from ...sim.plan.plan import Plan
from ..model.attention import attend
from ..model.decoder import Layers
from ..model.embedding import Embedding
from .flash import attend_part, attend_part_backward, merge
from .rank_context import RankContext
from .regions import in_working_dtype
from .surroundings import Surroundings
from .wire import Pending, Wire


def refusals(plan: Plan, surroundings: Surroundings) -> list[str]:
    """What of the context parallelism of ``plan`` cannot be run here, and why."""
    strategy = plan.strategy
    if strategy.cp == 1 or strategy.protocol[0] != "local":
        return []
    return [
        f"synchrony {strategy.synchrony} with cp {strategy.cp} (a step of its own needs the gradients of "
        "whole samples, and the plan does not sum those of the ranks that share one)"
    ]


def apply(layers: Layers, here: RankContext) -> None:
    """Let attention work on this rank's tokens, at their places in the sample."""
    strategy = here.plan.strategy
    if strategy.cp == 1:
        return
    places = own_positions(here.plan, here.rank).to(here.device)
    core = (
        HeadsForTokens(here.wire("cp"), here.plan.job.seq_len, here.device)
        if strategy.cp_exchange == "all_to_all"
        else PartsOfKeys(here.wire("cp"), gathers=strategy.cp_exchange == "all_gather")
    )
    for layer in layers.layers:
        if isinstance(layer, Embedding) and not strategy.sequence_parallel:
            layer.places = places
        attention: Any = getattr(layer, "attention", None)
        if attention is not None:
            attention.places, attention.core = places, core


def share_tokens(batch: Tensor, here: RankContext) -> Tensor:
    """This rank's columns of ``batch`` [samples, seq]: token ids, or targets."""
    if here.plan.strategy.cp == 1:
        return batch
    return batch[:, own_positions(here.plan, here.rank).to(batch.device)].contiguous()


def own_positions(plan: Plan, rank: int) -> Tensor:
    """Places in a sample of the tokens of ``rank``: [seq / cp], in the order in which it has them."""
    cp = plan.strategy.cp
    return (
        torch.arange(plan.job.seq_len) if cp == 1 else dealt(plan.job.seq_len, cp, plan.coordinates(rank)[2])
    )


def dealt(seq_len: int, cp: int, index: int) -> Tensor:
    """Places of the tokens of the ``index``-th of ``cp`` ranks."""
    chunks = torch.arange(seq_len).chunk(2 * cp)
    return torch.cat([chunks[index], chunks[2 * cp - 1 - index]])


class HeadsForTokens:
    """Attention of all tokens for some heads of each rank. Where there are fewer heads of keys than ranks
    they are repeated first."""

    def __init__(self, wire: Wire, seq_len: int, device: torch.device):
        self.wire = wire
        self.places = torch.cat([dealt(seq_len, wire.size, i) for i in range(wire.size)]).to(device)
        """Of the tokens as they arrive: rank by rank."""
        self.order = self.places.argsort()

    @torch.compiler.disable
    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        repeats = key_repeats(k.shape[1], self.wire.size)
        if repeats > 1:
            k, v = (x.repeat_interleave(repeats, dim=1) for x in (k, v))
        out = attend(*(self._to_heads(in_working_dtype(x)) for x in (q, k, v)))
        return self._to_tokens(out)

    def _to_heads(self, x: Tensor) -> Tensor:
        """[batch, heads, own tokens, size] to [batch, heads / cp, tokens, size]."""
        ranks = self.wire.size
        parts = x.unflatten(1, (ranks, x.shape[1] // ranks)).movedim(1, 0)
        return _exchanged(parts, self.wire).movedim(0, 2).flatten(2, 3)[:, :, self.order]

    def _to_tokens(self, x: Tensor) -> Tensor:
        ranks = self.wire.size
        parts = x[:, :, self.places].unflatten(2, (ranks, x.shape[2] // ranks)).movedim(2, 0)
        return _exchanged(parts, self.wire).movedim(0, 1).flatten(1, 2)


def key_repeats(kv_heads: int, cp: int) -> int:
    """How often each head of keys is there, so that ``cp`` ranks have whole ones."""
    return cp // gcd(kv_heads, cp)


def _exchanged(parts: Tensor, wire: Wire) -> Tensor:
    """The i-th part [ranks, ...] to the i-th rank, and the i-th part from it."""
    return cast(Tensor, _Exchanged.apply(parts, wire))


class _Exchanged(Function):
    @staticmethod
    def forward(ctx: Any, parts: Tensor, wire: Wire) -> Tensor:
        ctx.wire = wire
        return wire.all_to_all(parts).wait()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return ctx.wire.all_to_all(grads[0]).wait(), None


class PartsOfKeys:
    """Attention of a rank's queries on the keys and values of one rank after the other."""

    def __init__(self, wire: Wire, *, gathers: bool):
        """``gathers``: all come at once, else round the ring."""
        self.wire, self.gathers = wire, gathers

    @torch.compiler.disable
    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (in_working_dtype(x) for x in (q, k, v))
        return cast(Tensor, _PartsOfKeys.apply(q, k, v, self))

    def parts(self, message: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Owner and message of every rank, the own first; the next is under way while one is worked on."""
        ranks, index = self.wire.size, self.wire.index
        if self.gathers:
            pending = self.wire.all_gather(message)
            yield index, message
            whole = pending.wait().view(ranks, -1)
            yield from ((owner, whole[owner]) for owner in self._owners()[1:])
            return
        for owner in self._owners():
            last = owner == (index + 1) % ranks
            pending = None if last else self.wire.shift(message)
            yield owner, message
            message = pending.wait() if pending else message

    def _owners(self) -> list[int]:
        return [(self.wire.index - step) % self.wire.size for step in range(self.wire.size)]

    def meeting(self, owner: int, half: int) -> tuple[slice, slice, bool]:
        """Of chunks of ``half`` tokens, the queries that read the keys of ``owner``, those keys, and whether
        causally: all of the own; the first chunk of ranks before this one, whose other chunk is later than
        all; of ranks behind it both, by the later queries alone."""
        everything = slice(0, 2 * half)
        if owner == self.wire.index:
            return everything, everything, True
        if owner < self.wire.index:
            return everything, slice(0, half), False
        return slice(half, 2 * half), everything, False


class _PartsOfKeys(Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, how: PartsOfKeys) -> Tensor:
        half = q.shape[2] // 2
        out = q.new_zeros((*q.shape[:3], v.shape[3]), dtype=torch.float32)
        lse = q.new_full(q.shape[:3], -torch.inf, dtype=torch.float32)
        for owner, message in how.parts(_flat(k, v)):
            rows, columns, causal = how.meeting(owner, half)
            keys, values = _shaped(message, k, v)
            more, its = attend_part(q[:, :, rows], keys[:, :, columns], values[:, :, columns], causal=causal)
            if owner == how.wire.index:
                out, lse = more.float(), its
            else:
                out[:, :, rows], lse[:, :, rows] = merge(out[:, :, rows], lse[:, :, rows], more, its)
        out = out.to(q.dtype)
        ctx.save_for_backward(q, k, v, out, lse)
        ctx.how = how
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        """Gradients of keys and values travel behind them, from the rank after their owner round to it; each
        rank adds its part."""
        how: PartsOfKeys = ctx.how
        q, k, v, out, lse = ctx.saved_tensors
        grad, half = grads[0].to(q.dtype), q.shape[2] // 2
        of_queries = torch.zeros_like(q, dtype=torch.float32)
        home, travelling = k, None
        for owner, message in how.parts(_flat(k, v)):
            rows, columns, causal = how.meeting(owner, half)
            keys, values = (x[:, :, columns] for x in _shaped(message, k, v))
            more, *others = attend_part_backward(
                grad[:, :, rows],
                q[:, :, rows],
                keys,
                values,
                out[:, :, rows],
                lse[:, :, rows],
                causal=causal,
            )
            of_queries[:, :, rows] += more
            part = _flat(*(_placed(x, columns, 2 * half) for x in others))
            if owner == how.wire.index:
                home = part
            else:
                travelling = how.wire.shift(part if travelling is None else _with(travelling, part))
        whole = home if travelling is None else _with(travelling, home)
        return (of_queries.to(q.dtype), *_shaped(whole, k, v), None)


def _with(travelling: Pending, part: Tensor) -> Tensor:
    """What arrives, and this rank's part."""
    return travelling.wait().add_(part)


def _placed(x: Tensor, columns: slice, tokens: int) -> Tensor:
    """``x`` at ``columns`` of so many tokens, 0 elsewhere."""
    if x.shape[2] == tokens:
        return x
    whole = x.new_zeros((*x.shape[:2], tokens, x.shape[3]))
    whole[:, :, columns] = x
    return whole


def _flat(k: Tensor, v: Tensor) -> Tensor:
    """Keys and values as one message."""
    return torch.cat([k.flatten(), v.flatten()])


def _shaped(message: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    keys, values = message.split([k.numel(), v.numel()])
    return keys.view(k.shape), values.view(v.shape)
