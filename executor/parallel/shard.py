"""Some parameters as one flat buffer, of which every rank of a group holds a part.

The parameters stay the modules' own, views of a buffer that is whole while passes need it: gathering fills
it, dropping frees its storage, and what autograd saved of the parameters is the same storage, filled again.
The optimizer steps this rank's part, fp32, as one tensor. Gradients are summed over the group, each rank
keeping its part, or with hybrid sharding over those groups too (Zhao et al. 2023, "PyTorch FSDP").

It is what torch's `fully_shard` does, which the tests compare it with, by hand for what that cannot do: on
gloo its reduce-scatters are synchronous; it gathers by hooks of its own, not when a plan says; it has no way
with a matrix that two layers share, nor with weights that are dropped between the halves of a backward.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn

from ...sim.plan.action import Action
from .wire import Pending, Wire


class Shard:
    """Parameters that are gathered and reduced together."""

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        wire: Wire,
        *,
        dtype: torch.dtype,
        reduced: torch.dtype = torch.float32,
        stays: bool = False,
        replicas: Wire | None = None,
    ):
        """``wire`` joins the ranks that share ``parameters`` out, ``replicas`` those that hold the same part.
        They compute in ``dtype``, sum gradients in ``reduced``, and ``stays`` keeps them whole."""
        self.parameters, self.wire, self.replicas = list(parameters), wire, replicas
        self.sizes = [p.numel() for p in self.parameters]
        self.shapes = [p.shape for p in self.parameters]
        self.length = -(-sum(self.sizes) // wire.size)
        """Values of one part; the last may end in padding."""
        self.dtype, self.reduced, self.stays = dtype, reduced, stays or wire.size == 1
        device = self.parameters[0].device
        self.whole = torch.zeros(self.length * wire.size, dtype=dtype, device=device)
        self.part = nn.Parameter(self._cut())
        self.present = True
        """Whether the buffer has a storage."""
        self.due = 0
        """Passes that it was gathered for, and that are not over."""
        self._gathering: Pending | None = None
        self._again: list[tuple[Pending, Tensor]] = []
        self._reductions: list[_Reduction] = []
        self._summed: Tensor | None = None
        self._kept: list[Tensor | None] = [None] * len(self.parameters)
        self._side = torch.cuda.Stream(device) if device.type == "cuda" and replicas is not None else None
        if not self.stays:
            self.drop()

    @torch.no_grad()
    def _cut(self) -> Tensor:
        """Move the parameters into the buffer; this rank's part of them in fp32."""
        flat = self.whole.new_zeros(self.whole.numel(), dtype=torch.float32)
        for parameter, view in zip(self.parameters, self._views(flat), strict=True):
            view.copy_(parameter)
        self.whole.copy_(flat)
        for parameter, view in zip(self.parameters, self._views(self.whole), strict=True):
            parameter.data = view
        aliases = self.stays and self.dtype is torch.float32
        return self.whole[self._slice] if aliases else flat[self._slice].clone()

    @property
    def _slice(self) -> slice:
        return slice(self.wire.index * self.length, (self.wire.index + 1) * self.length)

    def _views(self, flat: Tensor) -> list[Tensor]:
        parts = flat[: sum(self.sizes)].split(self.sizes)
        return [part.view(shape) for part, shape in zip(parts, self.shapes, strict=True)]

    # Parameters

    def place(self, whole: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """This rank's part where it belongs in ``whole``, the buffer unless given: both."""
        whole = self.whole if whole is None else whole
        own = whole[self._slice]
        if own.data_ptr() != self.part.data_ptr():
            own.copy_(self.part.detach())
        return whole, own

    def gather(self, action: Action) -> None:
        """Begin to gather the parameters for one more pass.

        Where they are there, or on their way, what the plan sends is sent nevertheless; what arrives is what
        is there, which then is not dropped in between.
        """
        self.due += 1
        if self.wire.size == 1:
            self.place()
        elif self.present:
            whole = torch.empty_like(self.whole)
            self._again.append((self.wire.gather_into([self.place(whole)], action), whole))
        else:
            self._take_storage()
            self._gathering = self.wire.gather_into([self.place()], action)

    def ready(self) -> None:
        """Wait until the parameters are whole."""
        assert self.present, "computed with before they were gathered"
        if self._gathering is not None:
            self._gathering.wait()
            self._gathering = None

    def release(self) -> None:
        """One pass is over; what was gathered for no other is dropped."""
        self.due -= 1
        if self._again:
            self.ready()
            self._gathering, _ = self._again.pop(0)
        if self.due <= 0:
            self.drop()

    def drop(self) -> None:
        """Free the buffer, whatever it was gathered for."""
        for pending, _ in self._again:
            pending.wait()
        self._again.clear()
        if self._gathering is not None:
            self.ready()
        self.due = 0
        if not self.stays and self.present:
            self.whole.untyped_storage().resize_(0)
            self.present = False

    def _take_storage(self) -> None:
        self.whole.untyped_storage().resize_(self.whole.numel() * self.whole.element_size())
        self.present = True

    # Gradients

    def keep_gradients(self) -> None:
        """Add up what a backward left in half precision in the precision that gradients are summed in."""
        if self.dtype is self.reduced:
            return
        for place, parameter in enumerate(self.parameters):
            if parameter.grad is None:
                continue
            kept = self._kept[place]
            new = parameter.grad.to(self.reduced)
            self._kept[place] = new if kept is None else kept.add_(new)
            parameter.grad = None

    @torch.no_grad()
    def reduce(self, action: Action) -> None:
        """Begin to sum the gradients that are there over the ranks."""
        self.wait()
        self.keep_gradients()
        flat = torch.empty(self.whole.numel(), dtype=self.reduced, device=self.part.device)
        flat[sum(self.sizes) :].zero_()
        there = [
            kept if kept is not None else p.grad for p, kept in zip(self.parameters, self._kept, strict=True)
        ]
        views = self._views(flat)
        made = [(view, g) for view, g in zip(views, there, strict=True) if g is not None]
        if made:
            torch._foreach_copy_([view for view, _ in made], [g for _, g in made])  # type: ignore[reportPrivateImportUsage]
        for view, gradient in zip(views, there, strict=True):
            if gradient is None:
                view.zero_()
        self._kept = [None] * len(self.parameters)
        for parameter in self.parameters:
            parameter.grad = None
        self._reductions.append(_Reduction(flat, self.wire, self.replicas, action))
        if self._side is not None:
            with torch.cuda.stream(self._side):
                self._reductions[-1].go_on()

    def go_on(self) -> None:
        """Sum over the groups what was summed inside them."""
        for reduction in self._reductions:
            reduction.go_on()

    @torch.no_grad()
    def finish(self) -> None:
        """Wait for the sums, and add them to the gradient of this rank's part."""
        self.wait()
        if self._summed is not None:
            gradient = self._summed.to(self.part.dtype)
            self.part.grad = gradient if self.part.grad is None else self.part.grad.add_(gradient)
        self._summed = None

    def gradients_of(self, wanted: Collection[nn.Parameter]) -> list[Tensor]:
        """What this rank's part has of the summed gradients of ``wanted``, as views, in order."""
        begin, offset, found = self.wire.index * self.length, 0, []
        for parameter, size in zip(self.parameters, self.sizes, strict=True):
            low, high = max(offset - begin, 0), min(offset + size - begin, self.length)
            if self.part.grad is not None and low < high and any(parameter is one for one in wanted):
                found.append(self.part.grad[low:high])
            offset += size
        return found

    def wait(self) -> None:
        """Wait for the sums under way, and add them up."""
        for reduction in self._reductions:
            out = reduction.wait()
            if self._summed is None:
                # A part of one is the whole buffer, which the next backward makes anew.
                self._summed = out
            else:
                self._summed.add_(out)
        self._reductions.clear()

    # For who looks at them whole

    @torch.no_grad()
    def values(self) -> dict[nn.Parameter, Tensor]:
        """The parameters in fp32, whole. All ranks of the group call it alike, outside of a step."""
        return self._gathered(self.part.detach())

    @torch.no_grad()
    def gradients(self) -> dict[nn.Parameter, Tensor]:
        """The summed gradients, whole, once they are finished; none where backward made none."""
        return {} if self.part.grad is None else self._gathered(self.part.grad)

    def _gathered(self, part: Tensor) -> dict[nn.Parameter, Tensor]:
        whole = part.new_empty(self.length * self.wire.size)
        if self.wire.size == 1:
            whole.copy_(part)
        else:
            torch.distributed.all_gather_into_tensor(whole, part.contiguous(), group=self.wire.group)
        return dict(zip(self.parameters, self._views(whole), strict=True))


class _Reduction:
    """The sum of one buffer over a group, then over the groups."""

    def __init__(self, flat: Tensor, wire: Wire, replicas: Wire | None, action: Action):
        self._out, self._replicas, self._action = flat, replicas, action
        self._inside = wire.scatter_sum(flat, action) if wire.size > 1 else None
        self._across: Pending | None = None

    def go_on(self) -> None:
        """Once the sum inside the group is there, begin that over the groups."""
        if self._inside is not None:
            own = self._inside.wait()
            # Where it is a view of the buffer, that need not be kept.
            self._out = own.clone() if own.untyped_storage().nbytes() > own.nbytes else own
            self._inside = None
        if self._replicas is not None and self._replicas.size > 1:
            self._across = self._replicas.all_reduce(self._out, action=self._action, watched=True)
            self._replicas = None

    def wait(self) -> Tensor:
        """The sum."""
        self.go_on()
        if self._across is not None:
            self._across.wait()
        return self._out
