"""What lives in host memory: activations between their passes, and optimizer states.

Activations of a micro-batch leave the device behind its forward (OFFLOAD) and come back ahead of its backward
(FETCH), on a stream of their own; of what autograd saves, each storage once, and no parameter. Optimizer
states stream in and out while the step computes, some parameters at a time. The host's memory is pinned.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from ...sim.plan.action import Action, Kind
from ...sim.plan.plan import Plan
from ..measure.recorder import Recorder
from ..model.decoder import COMPILED, Layers
from .rank_context import RankContext
from .surroundings import Surroundings

HOST = "host"
"""The stream of the trace."""
CHUNK_BYTES = 64 * 2**20
"""Of optimizer states that are on the device at once, twice this: one being stepped, one on its way."""


def refusals(plan: Plan, surroundings: Surroundings) -> list[str]:
    """What of the offload of ``plan`` cannot be run, with the reason."""
    strategy = plan.strategy
    if strategy.offload == "none":
        return []
    if surroundings.kind == "gpu":
        if strategy.offloads_activations and strategy.stack == COMPILED:
            return [
                f"offload {strategy.offload} under {COMPILED} (what a compiled block saves is settled while "
                "it is traced, out of reach of the hooks that send it to the host)"
            ]
        return []
    return [
        f"offload {strategy.offload} (ranks compute on the CPU here, whose memory is the host's: there is "
        "nothing to offload to)"
    ]


def apply(stages: Mapping[int, Layers], here: RankContext) -> ActivationOffload | None:
    """Have the layers of the ``stages`` of a rank keep their activations in host memory; None where the plan
    does not."""
    if not here.plan.strategy.offloads_activations:
        return None
    return ActivationOffload(stages, here.device, here.recorder)


def on_host(plan: Plan, optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """``optimizer``, with its states in host memory where the plan has them there."""
    if plan.strategy.offload in ("optimizer", "both"):
        HostStates(optimizer)
    return optimizer


class _Copies:
    """Copies between a device and the host, in order, next to what the device computes."""

    def __init__(self, device: torch.device):
        self.device = device
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def at_work(self) -> AbstractContextManager[object]:
        """What is issued inside goes to the copies' stream, behind what the device was given so far."""
        if self.stream is None:
            return nullcontext()
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        return torch.cuda.stream(self.stream)

    def follow(self, other: _Copies) -> None:
        """What is issued from now on comes after the copies of ``other``."""
        if self.stream is not None and other.stream is not None:
            self.stream.wait_stream(other.stream)

    def to_host(self, x: Tensor, host: Tensor | None = None) -> Tensor:
        """A copy of ``x``, into ``host`` where there is one; called `at_work`."""
        if host is None:
            host = torch.empty(x.shape, dtype=x.dtype, pin_memory=self.stream is not None)
        host.copy_(x, non_blocking=True)
        if self.stream is not None:
            x.record_stream(self.stream)
        return host

    def to_device(self, host: Tensor) -> Tensor:
        """A copy of ``host`` on the device; called `at_work`."""
        x = torch.empty(host.shape, dtype=host.dtype, device=self.device)
        return x.copy_(host, non_blocking=True)

    def mark(self) -> torch.Event | None:
        """Stands for what has been issued so far; called `at_work`."""
        return self.stream.record_event() if self.stream is not None else None

    def wait(self, event: torch.Event | None, *copies: Tensor) -> None:
        """What the device computes next comes after ``event``, and uses ``copies``."""
        if event is None:
            return
        current = torch.cuda.current_stream(self.device)
        current.wait_event(event)
        for x in copies:
            x.record_stream(current)


class _Saved:
    """One storage that autograd saved tensors of: on the device, on the host, or on its way back."""

    def __init__(self, storage: torch.UntypedStorage):
        self.device: Tensor | None = torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)
        self.host: Tensor | None = None
        self.back: torch.Event | None = None


class _View(NamedTuple):
    """A tensor that autograd saved."""

    saved: _Saved
    dtype: torch.dtype
    offset: int
    shape: torch.Size
    stride: tuple[int, ...]


class ActivationOffload:
    """Activations of a rank's stages.

    The trainer calls `begin_pass` and `end_pass` around its passes, and has `handlers` for OFFLOAD and FETCH
    in its table.
    """

    def __init__(self, stages: Mapping[int, Layers], device: torch.device, recorder: Recorder):
        self._recorder = recorder
        self._copies = _Copies(device)
        self._held: dict[tuple[int, int], dict[int, _Saved]] = {}
        """By stage and micro-batch: storages by their address."""
        self._at: tuple[int, int] | None = None
        self._open: list[saved_tensors_hooks] = []
        self._parameters = [p for layers in stages.values() for p in layers.parameters()]
        self._own: set[int] = set()
        """Addresses of parameters, in this pass."""
        for layers in stages.values():
            for layer in layers.layers:
                self._watch(layer)

    @property
    def handlers(self) -> dict[Kind, Callable[[Action], None]]:
        """By kind of action: what does it."""
        return {Kind.OFFLOAD: self._offload, Kind.FETCH: self._fetch}

    def begin_pass(self, part: Action) -> None:
        """``part`` is about to be computed."""
        if part.kind is Kind.FORWARD:
            self._at = (part.stage, part.micro_batch)
            self._held[self._at] = {}

    def end_pass(self, part: Action) -> None:
        """``part`` has been computed."""
        if part.kind is Kind.FORWARD:
            self._at = None
        elif part.kind in (Kind.BACKWARD, Kind.WEIGHT_GRADIENT):
            self._held.pop((part.stage, part.micro_batch), None)

    def bytes_on_device(self) -> int:
        """Of all that is saved, what is on the device."""
        every = (saved for held in self._held.values() for saved in held.values())
        return sum(saved.device.nbytes for saved in every if saved.device is not None)

    def _offload(self, action: Action) -> None:
        held = [s for s in self._held[action.stage, action.micro_batch].values() if s.device is not None]
        with self._copies.at_work():
            issued = self._recorder.clock.stamp()
            for saved in held:
                assert saved.device is not None
                saved.host, saved.device = self._copies.to_host(saved.device), None
            self._note(action, issued, held)

    def _fetch(self, action: Action) -> None:
        held = [s for s in self._held[action.stage, action.micro_batch].values() if s.device is None]
        with self._copies.at_work():
            issued = self._recorder.clock.stamp()
            for saved in held:
                self._bring(saved)
            self._note(action, issued, held)

    def _note(self, action: Action, issued: object, held: list[_Saved]) -> None:
        size = sum(saved.host.nbytes for saved in held if saved.host is not None)
        self._recorder.add(action, HOST, issued, self._recorder.clock.stamp(), size_bytes=float(size))

    def _bring(self, saved: _Saved) -> None:
        assert saved.host is not None
        saved.device = self._copies.to_device(saved.host)
        saved.back = self._copies.mark()

    def _watch(self, layer: nn.Module) -> None:
        """Have what ``layer`` saves pass through here; of what is outside of layers, as the loss, nothing."""

        def begin(module: nn.Module, inputs: tuple) -> None:
            if self._at is not None:
                self._own = {p.untyped_storage().data_ptr() for p in self._parameters}
                self._open.append(saved_tensors_hooks(self._pack, self._unpack))
                self._open[-1].__enter__()

        def end(module: nn.Module, inputs: tuple, out: Tensor | None) -> None:
            if self._open:
                self._open.pop().__exit__()

        layer.register_forward_pre_hook(begin)
        layer.register_forward_hook(end, always_call=True)

    def _pack(self, x: Tensor) -> Tensor | _View:
        storage = x.untyped_storage()
        is_there = self._at is not None and x.device == self._copies.device and storage.nbytes() > 0
        if not is_there or storage.data_ptr() in self._own:
            return x
        assert self._at is not None
        held = self._held[self._at]
        if storage.data_ptr() not in held:
            held[storage.data_ptr()] = _Saved(storage)
        return _View(held[storage.data_ptr()], x.dtype, int(x.storage_offset()), x.shape, x.stride())

    def _unpack(self, kept: Tensor | _View) -> Tensor:
        if isinstance(kept, Tensor):
            return kept
        saved = kept.saved
        if saved.device is None:
            with self._copies.at_work():
                self._bring(saved)
        assert saved.device is not None
        self._copies.wait(saved.back, saved.device)
        x = torch.empty(0, dtype=kept.dtype, device=saved.device.device)
        return x.set_(saved.device.untyped_storage(), kept.offset, kept.shape, kept.stride)


class HostStates:
    """Keeps the states of an optimizer in host memory, and steps some parameters at a time.

    While some are stepped, the states of the next come in and those of the ones before go out. It replaces
    the optimizer's `step`; `state_dict` finds the states on the host.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, chunk_bytes: int = CHUNK_BYTES):
        self._optimizer, self._step = optimizer, optimizer.step
        self._groups = [list(group["params"]) for group in optimizer.param_groups]
        parameters = [p for group in self._groups for p in group]
        self._inward, self._outward = (_Copies(parameters[0].device) for _ in range(2))
        self._homes: dict[nn.Parameter, dict[str, Tensor]] = {p: {} for p in parameters}
        """Where the states live that are on the device now."""
        self._chunks = [_chunks(group, chunk_bytes) for group in self._groups]
        optimizer.step = self.step  # type: ignore[method-assign]

    def step(self, closure: None = None) -> None:
        """One step of all parameters."""
        turns = [(group, chunk) for group, chunks in enumerate(self._chunks) for chunk in chunks]
        there, came = self._bring(turns[0][1])
        for number, (group, chunk) in enumerate(turns):
            self._inward.wait(there, *came)
            there, came = self._bring(turns[number + 1][1]) if number + 1 < len(turns) else (None, [])
            self._step_only(group, chunk)
            self._send(chunk)
        for group, whole in zip(self._optimizer.param_groups, self._groups, strict=True):
            group["params"] = whole

    def _step_only(self, chosen: int, chunk: list[nn.Parameter]) -> None:
        for number, group in enumerate(self._optimizer.param_groups):
            group["params"] = chunk if number == chosen else []
        self._step()

    def _bring(self, chunk: list[nn.Parameter]) -> tuple[torch.Event | None, list[Tensor]]:
        """Begin to fetch the states of ``chunk``: what to wait for, and what came."""
        came: list[Tensor] = []
        with self._inward.at_work():
            self._inward.follow(self._outward)
            for parameter in chunk:
                state = self._optimizer.state.get(parameter, {})
                for name, host in _large(state).items():
                    state[name] = self._inward.to_device(host)
                    self._homes[parameter][name] = host
                    came.append(state[name])
            return self._inward.mark(), came

    def _send(self, chunk: list[nn.Parameter]) -> None:
        """Begin to put the states of ``chunk`` back where they live."""
        with self._outward.at_work():
            for parameter in chunk:
                state = self._optimizer.state.get(parameter, {})
                for name, x in _large(state).items():
                    state[name] = self._outward.to_host(x, self._homes[parameter].pop(name, None))


def _large(state: dict[str, Any]) -> dict[str, Tensor]:
    """The states that are as large as their parameter; counts of steps stay on the device."""
    return {name: x for name, x in state.items() if isinstance(x, Tensor) and x.dim() > 0}


def _chunks(parameters: list[nn.Parameter], chunk_bytes: int) -> list[list[nn.Parameter]]:
    """``parameters`` in order, as many together as have states of about ``chunk_bytes``."""
    found: list[list[nn.Parameter]] = []
    size = chunk_bytes
    for parameter in parameters:
        if size >= chunk_bytes:
            found.append([])
            size = 0
        found[-1].append(parameter)
        size += parameter.nbytes
    return found
