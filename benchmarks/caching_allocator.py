"""What PyTorch's caching allocator holds beyond what is used, on a last stage whose logits are gathered.

Plays the allocations of some steps of 1F1B's last stage (Llama blocks with flash attention and a RMSNorm
kernel, head, loss in fp32 on the whole vocabulary, as Aleph-Alpha/scaling computes it) through the algorithm
of c10/cuda/CUDACachingAllocator.cpp: best fit among free blocks, split where more than 1 MiB is left,
neighbours merged when freed; new segments in pages of 2 MiB; whole free segments given back before memory
runs out.

    python benchmarks/caching_allocator.py

prints for several shapes the bytes held beyond the peak of what is used, as a share of logits and loss. The
mean is `GATHERED_LOSS_FRAGMENTATION` in sim/plan/software_stacks.py.
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass, field
from itertools import product

MIB = 2**20
HIDDEN, INNER, VOCAB, LAYERS = 5120, 13824, 128_000, 40
"""Of Llama 13B with the vocabulary of Hagemann et al. 2023."""
BF16, FP32 = 2, 4


@dataclass(eq=False)
class Block:
    """Part of a segment; neighbours are the blocks beside it."""

    size: int
    number: int
    before: Block | None = None
    after: Block | None = None
    is_free: bool = False


@dataclass
class CachingAllocator:
    """Blocks of more than 1 MiB; smaller ones are neglected."""

    capacity: float
    held: float = 0.0
    used: float = 0.0
    most_held: float = 0.0
    most_used: float = 0.0
    _free: list[tuple[int, int, Block]] = field(default_factory=list)
    _count: int = 0

    def malloc(self, size: float) -> Block | None:
        wanted = int(-(-size // 512) * 512)
        if wanted <= MIB:
            return None
        place = bisect.bisect_left(self._free, (wanted, -1))
        block = self._free.pop(place)[2] if place < len(self._free) else self._segment(wanted)
        block.is_free = False
        if block.size - wanted > MIB:
            self._split(block, wanted)
        self.used += block.size
        self.most_used = max(self.most_used, self.used)
        return block

    def free(self, block: Block | None) -> None:
        if block is None:
            return
        self.used -= block.size
        if block.after and block.after.is_free:
            self._forget(block.after)
            self._join(block, block.after)
        if block.before and block.before.is_free:
            self._forget(block.before)
            block = self._join(block.before, block)
        self._remember(block)

    def _segment(self, wanted: int) -> Block:
        size = 20 * MIB if wanted < 10 * MIB else -(-wanted // (2 * MIB)) * 2 * MIB
        if self.held + size > self.capacity:
            whole = [item for item in self._free if not (item[2].before or item[2].after)]
            self._free = [item for item in self._free if item not in whole]
            self.held -= sum(item[0] for item in whole)
        if self.held + size > self.capacity:
            raise MemoryError
        self.held += size
        self.most_held = max(self.most_held, self.held)
        return self._new(size)

    def _new(self, size: int) -> Block:
        self._count += 1
        return Block(size=size, number=self._count)

    def _split(self, block: Block, wanted: int) -> None:
        rest = self._new(block.size - wanted)
        rest.before, rest.after = block, block.after
        if block.after:
            block.after.before = rest
        block.after, block.size = rest, wanted
        self._remember(rest)

    def _join(self, first: Block, second: Block) -> Block:
        first.size += second.size
        first.after = second.after
        if second.after:
            second.after.before = first
        return first

    def _remember(self, block: Block) -> None:
        block.is_free = True
        bisect.insort(self._free, (block.size, block.number, block))

    def _forget(self, block: Block) -> None:
        self._free.pop(bisect.bisect_left(self._free, (block.size, block.number)))


@dataclass(frozen=True)
class LastStage:
    """What decides the sizes of its tensors."""

    tp: int
    layers: int
    tokens: int
    """Of one micro-batch."""
    recompute: bool

    @property
    def parameters(self) -> float:
        block = 4 * HIDDEN**2 + 3 * HIDDEN * INNER
        return (self.layers * block + VOCAB * HIDDEN) / self.tp

    def layer(self, a: CachingAllocator) -> list[Block | None]:
        """Forward of a block; what it keeps, its output last."""
        wide, own, inner = (BF16 * self.tokens * n for n in (HIDDEN, HIDDEN / self.tp, INNER / self.tp))
        kept = [a.malloc(wide)]
        fused = a.malloc(3 * own)
        for _ in range(2):  # rotary positions of queries and keys
            passing = [a.malloc(own) for _ in range(3)]
            kept.append(a.malloc(own))
            for block in passing:
                a.free(block)
        kept += [a.malloc(own), a.malloc(own)]  # values, attention's output
        a.free(fused)
        product_out = a.malloc(wide)
        kept += [a.malloc(wide), a.malloc(wide)]  # residual, norm
        a.free(product_out)
        kept += [a.malloc(inner) for _ in range(4)]
        down = a.malloc(wide)
        kept.append(a.malloc(wide))
        a.free(down)
        return kept

    def layer_backward(self, a: CachingAllocator, kept: list[Block | None]) -> None:
        wide, own, inner = (BF16 * self.tokens * n for n in (HIDDEN, HIDDEN / self.tp, INNER / self.tp))
        gradients = [a.malloc(inner) for _ in range(3)]
        weight = a.malloc(BF16 * HIDDEN * INNER / self.tp)
        inputs = a.malloc(wide)
        for block in [weight, *gradients]:
            a.free(block)
        projections = a.malloc(3 * own)
        for block in [projections, inputs, *kept]:
            a.free(block)

    def gathered(self, a: CachingAllocator, keep: bool) -> Block | None:
        """The head's logits: its own part, those received, all of them."""
        part = BF16 * self.tokens * VOCAB / self.tp
        parts = [a.malloc(part) for _ in range(self.tp)]
        whole = a.malloc(BF16 * self.tokens * VOCAB)
        for block in parts:
            a.free(block)
        if not keep:
            a.free(whole)
        return whole

    def steps(self, a: CachingAllocator, count: int) -> None:
        """Forward and backward of ``count`` micro-batches; logits stay until the next ones are there."""
        logit = self.tokens * VOCAB
        a.malloc(4 * self.parameters)
        before: Block | None = None
        for _ in range(count):
            layers = []
            for _ in range(self.layers):
                kept = self.layer(a)
                if self.recompute:
                    for block in kept[:-1]:
                        a.free(block)
                    kept = kept[-1:]
                layers.append(kept)
            logits = self.gathered(a, keep=True)
            a.free(before)
            before = logits
            wide = a.malloc(FP32 * logit)
            log_softmax = a.malloc(FP32 * logit)
            a.free(wide)
            of_loss, of_logits = a.malloc(FP32 * logit), a.malloc(FP32 * logit)
            a.free(log_softmax)
            a.free(of_loss)
            gradient = a.malloc(BF16 * logit)
            a.free(of_logits)
            if self.recompute:
                self.gathered(a, keep=False)
            table = a.malloc(BF16 * VOCAB * HIDDEN / self.tp)
            a.free(table)
            a.free(gradient)
            for kept in reversed(layers):
                if self.recompute:
                    again = self.layer(a)
                    a.free(again.pop())
                    kept = [*again, *kept]
                self.layer_backward(a, kept)


def main() -> None:
    shares = []
    for tp, tokens, recompute in product((2, 4, 8), (2048, 8192, 16384), (False, True)):
        stage = LastStage(tp=tp, layers=LAYERS // 2, tokens=tokens, recompute=recompute)
        allocator = CachingAllocator(capacity=80 * 2**30)
        try:
            stage.steps(allocator, 4)
        except MemoryError:
            print(f"{stage}: out of memory")
            continue
        loss = tokens * VOCAB * (3 * FP32 + 3 * BF16)
        shares.append((allocator.most_held - allocator.most_used) / loss)
        print(f"{stage}: used {allocator.most_used:.3g}, held {allocator.most_held:.3g}: {shares[-1]:.2f}")
    print(f"mean {sum(shares) / len(shares):.2f}")


if __name__ == "__main__":
    main()
