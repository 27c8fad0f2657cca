"""Expert parallelism: each rank holds some experts of every layer, and tokens travel to them and back.

Rows sorted by expert go to their experts' ranks by one uneven all-to-all and come back by another (Lepikhin
et al. 2020, GShard); backward the same in reverse. With tensor parallelism each rank sends its own part of
the tokens, as sequence parallelism has shared them out, and the ranks that hold parts of the same experts
gather what arrived at any of them, padded to what the one with most has, and scatter the sums.

How many rows come from whom follows from the job where routing is imposed; where it is learned the ranks tell
each other first.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...sim.plan.choices import IMPOSED
from ...sim.plan.plan import Plan
from ...sim.plan.strategy import Strategy
from ..model.decoder import Layers
from ..model.experts import Exchange, ExpertMatrices, ExpertMlp, Experts
from ..model.pieces import Piece, cut
from ..model.routing import Routing, Sharers, imposed_counts
from .context import dealt
from .rank_context import RankContext
from .regions import copied, gathered, in_working_dtype, scattered, summed
from .surroundings import Surroundings
from .wire import Wire


def refusals(plan: Plan, surroundings: Surroundings) -> list[str]:
    """What of the plan's expert parallelism cannot be run here. Dispatch `per_node` can: all ranks are on one
    node, where a token travels to each of its experts as with `all_to_all`."""
    del surroundings
    strategy, found = plan.strategy, []
    if strategy.overlap_experts:
        found.append(
            "overlap_experts: passes of two micro-batches do not run next to each other here; run it without"
        )
    if strategy.ep > 1 and strategy.protocol[0] == "local":
        found.append(
            f"synchrony {strategy.synchrony} with ep {strategy.ep} (replicas that share experts cannot each "
            "make steps of their own)"
        )
    return found


def apply(layers: Layers, here: RankContext) -> None:
    """Keep this rank's experts of each layer and its part of them, have tokens travel to the others, and tell
    the routers which ranks share a sequence. Tensor parallelism has divided all but the experts before."""
    strategy = here.plan.strategy
    if strategy.replicas * strategy.tp == 1:
        return
    ep, tp, cp = (here.wire(name) for name in ("ep", "tp", "cp"))
    for name, module in layers.named_modules():
        if not isinstance(module, ExpertMlp):
            continue
        _keep_own(layers, f"{name}.experts.", module.experts, ep, tp)
        module.router.sharers = _sharers(here.plan, tp, cp)
        if strategy.ep > 1:
            module.exchange = Across(ep, tp, _arrivals(here.plan, here.rank, ep, tp))
        elif strategy.tp > 1:
            _open_region(module, tp, split_tokens=strategy.sequence_parallel)
            whole = [f"{name}.router.weight"] + [f"{name}.shared_gate.weight"] * (
                module.shared_gate is not None
            )
            layers.partial_gradients |= set(whole)


def _keep_own(layers: Layers, prefix: str, matrices: ExpertMatrices, ep: Wire, tp: Wire) -> None:
    """The experts of this rank are neighbours, and of each it has some columns, the same of gate and up."""
    experts, inner, _ = matrices.inner.shape
    ffn = matrices.output.shape[2]
    columns = torch.arange(ffn).chunk(tp.size)[tp.index]
    rows = torch.cat([columns + offset for offset in range(0, inner, ffn)])
    own = torch.arange(experts).chunk(ep.size)[ep.index]
    for name, dim, index in (("inner", 1, rows), ("output", 2, columns)):
        piece = Piece(0, own, Piece(dim, index))
        kept = cut(getattr(matrices, name).detach(), piece)
        setattr(matrices, name, nn.Parameter(kept))
        layers.pieces[prefix + name] = piece
        layers.partial_gradients.discard(prefix + name)


def _open_region(module: ExpertMlp, tp: Wire, *, split_tokens: bool) -> None:
    """Make router, experts and shared experts one tensor-parallel region, as a dense MLP is: what goes in is
    gathered, and what all of them make of it is summed, once."""
    module.enter = partial(_enter, wire=tp, split_tokens=split_tokens)
    module.leave = partial(scattered if split_tokens else summed, wire=tp)
    if module.shared is not None:
        module.shared.inner, module.shared.output = map(_inside, (module.shared.inner, module.shared.output))


def _enter(x: Tensor, *, wire: Wire, split_tokens: bool) -> Tensor:
    x = in_working_dtype(x)
    return gathered(x, wire) if split_tokens else copied(x, wire)


def _inside(divided: nn.Linear) -> nn.Linear:
    """A divided linear layer without exchanges of its own."""
    plain = nn.Linear(divided.weight.shape[1], divided.weight.shape[0], bias=False, device="meta")
    plain.weight = divided.weight
    return plain


def _shares_tokens(strategy: Strategy) -> bool:
    """Whether each tensor-parallel rank routes tokens of its own: it sends them to other ranks' experts."""
    return strategy.ep > 1 and strategy.tp > 1


def _positions(plan: Plan, cp: int, tp: int) -> Tensor:
    """Where in its sample the tokens are that a rank with these places routes."""
    strategy, seq_len = plan.strategy, plan.job.seq_len
    own = torch.arange(seq_len) if strategy.cp == 1 else dealt(seq_len, strategy.cp, cp)
    return own.chunk(strategy.tp)[tp] if _shares_tokens(strategy) else own


def _sharers(plan: Plan, tp: Wire, cp: Wire) -> Sharers:
    strategy, split = plan.strategy, _shares_tokens(plan.strategy)
    wires = [wire for wire, shares in ((tp, split), (cp, True)) if shares and wire.size > 1]

    def summed_over_ranks(counts: Tensor) -> Tensor:
        for wire in wires:
            counts = wire.all_reduce(counts).wait()
        return counts

    positions = _positions(plan, cp.index, tp.index)
    return Sharers(
        count=prod(wire.size for wire in wires),
        # The main loss is a mean over a rank's own tokens, one in cp of all. Tensor-parallel ranks that route
        # the same tokens add a part of the balance loss each.
        scale=strategy.cp if split else strategy.cp / strategy.tp,
        positions=lambda tokens: positions,
        summed=summed_over_ranks,
    )


def _arrivals(plan: Plan, rank: int, ep: Wire, tp: Wire) -> Arrivals:
    strategy, decoder = plan.strategy, plan.job.model.decoder
    routing, known = Routing.of(plan.job, strategy.ep), None
    held = decoder.experts // ep.size
    tokens = plan.job.seq_len // (strategy.cp * (strategy.tp if _shares_tokens(strategy) else 1))
    if routing.kind == IMPOSED:
        _, dp, cp, _ = plan.coordinates(rank)
        first = (dp * strategy.cp + cp) // ep.size * ep.size
        sent = [
            [
                imposed_counts(decoder, routing, _positions(plan, (first + peer) % strategy.cp, index))
                for peer in range(ep.size)
            ]
            for index in range(tp.size)
        ]
        known = torch.stack([torch.stack(own) for own in sent])[..., ep.index * held : (ep.index + 1) * held]
    return Arrivals(ep=ep, tp=tp, known=known, rows=tokens * decoder.experts_per_token)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrivals:
    """How many rows reach this rank's experts, known from the job or told by the ranks."""

    ep: Wire
    tp: Wire
    known: Tensor | None
    """Of one sample: rows [tp, ep, experts held] from each expert-parallel rank, by tensor-parallel one."""
    rows: int
    """Of one sample, what this rank sends."""

    def of(self, rows: Tensor, counts: Tensor) -> Tensor:
        """[tp, ep, experts held], on the CPU; this rank sends ``rows``, ``counts`` [experts] of them."""
        if self.known is not None:
            return self.known * (rows.shape[0] // self.rows)
        held = counts.shape[0] // self.ep.size
        found = self.ep.all_to_all(counts.int()).wait().view(1, self.ep.size, held)
        if self.tp.size > 1:
            found = self.tp.all_gather(found).wait()
        return found.long().cpu()


class Across:
    """An `Exchange` over expert-parallel ranks."""

    def __init__(self, ep: Wire, tp: Wire, arrivals: Arrivals):
        self.ep, self.tp, self.arrivals = ep, tp, arrivals
        self._uncompiled = cast(Exchange, torch.compiler.disable(self._there_and_back))

    def __call__(self, rows: Tensor, counts: Tensor, experts: Experts) -> Tensor:
        return self._uncompiled(rows, counts, experts)

    def _there_and_back(self, rows: Tensor, counts: Tensor, experts: Experts) -> Tensor:
        arrivals = self.arrivals.of(rows, counts)
        give = counts.view(self.ep.size, -1).sum(1).tolist()
        take = arrivals[self.tp.index].sum(1).tolist()
        arrived = _AllToAll.apply(rows, self.ep, give, take)
        y = self._at_experts(arrived, arrivals, experts)
        return _AllToAll.apply(y, self.ep, take, give)

    def _at_experts(self, rows: Tensor, arrivals: Tensor, experts: Experts) -> Tensor:
        """The experts' outputs for ``rows``, which lie by the rank that sent them, then by expert."""
        each = arrivals.sum(dim=(1, 2))
        widest = int(each.max())
        places = _sorted_by_expert(arrivals, widest).to(rows.device)
        by_expert = arrivals.sum(dim=(0, 1)).tolist()
        if self.tp.size == len(by_expert) == 1:
            return experts(rows, by_expert)
        if self.tp.size == 1:
            y = experts(rows.index_select(0, places), by_expert)
            return y.index_select(0, places.argsort())
        padded = F.pad(rows, (0, 0, 0, widest - rows.shape[0]))
        every = gathered(padded[None], self.tp)[0]
        y = experts(every.index_select(0, places), by_expert)
        whole = y.new_zeros((every.shape[0], y.shape[1])).index_copy(0, places, y)
        return scattered(whole[None], self.tp)[0, : rows.shape[0]]


def _sorted_by_expert(arrivals: Tensor, widest: int) -> Tensor:
    """Where rows are, ``arrivals`` [tp, ep, experts] of them, in the order of their experts; those of each
    tensor-parallel rank lie in ``widest`` places."""
    tp, ep, held = arrivals.shape
    experts = torch.arange(held).repeat(tp * ep).repeat_interleave(arrivals.flatten())
    each = arrivals.sum(dim=(1, 2))
    places = torch.cat([rank * widest + torch.arange(int(rows)) for rank, rows in enumerate(each)])
    return places[experts.argsort(stable=True)]


class _AllToAll(torch.autograd.Function):
    """Rows to the ranks of a group and rows from them; their gradients back."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, wire: Wire, give: list[int], take: list[int]) -> Tensor:
        ctx.wire, ctx.give, ctx.take = wire, give, take
        return wire.all_to_all(rows, give, take).wait()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        return ctx.wire.all_to_all(grads[0], ctx.take, ctx.give).wait(), None, None, None
