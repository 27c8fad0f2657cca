"""Which part of a single process' parameter a rank holds, and the whole from the parts of all ranks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """The rows (or what else lies along ``dim``) with these indices, in this order."""

    dim: int
    index: Tensor
    """Whole numbers, on the CPU."""
    inner: Piece | None = None
    """The piece of that piece, along another dimension, which the rank holds."""

    def cuts(self) -> list[tuple[int, Tensor]]:
        """Every dimension that is cut, with the indices."""
        return [(self.dim, self.index), *(self.inner.cuts() if self.inner else [])]


def cut(whole: Tensor, piece: Piece | None) -> Tensor:
    """A copy of the part of ``whole`` that is ``piece``; all of it without one."""
    part = whole
    for dim, index in piece.cuts() if piece else []:
        part = part.index_select(dim, index.to(whole.device))
    return part.clone() if part is whole else part


def assemble(held: Iterable[tuple[Mapping[str, Tensor], Mapping[str, Piece]]]) -> dict[str, Tensor]:
    """Whole tensors by name, from the (tensors, pieces) of all ranks; those without a piece are whole.

    Raises:
        ValueError: the pieces of a tensor leave some of it out.
    """
    found: dict[str, list[tuple[Tensor, Piece | None]]] = {}
    for tensors, pieces in held:
        for name, tensor in tensors.items():
            found.setdefault(name, []).append((tensor, pieces.get(name)))
    return {name: _whole(name, parts) for name, parts in found.items()}


def _whole(name: str, parts: list[tuple[Tensor, Piece | None]]) -> Tensor:
    first = parts[0][0]
    cut_parts = [(tensor, piece.cuts()) for tensor, piece in parts if piece is not None]
    if not cut_parts:
        return first
    shape = list(first.shape)
    for _, cuts in cut_parts:
        for dim, index in cuts:
            shape[dim] = max(shape[dim], int(index.max()) + 1)
    whole, seen = first.new_zeros(shape), torch.zeros(shape, dtype=torch.bool)
    for tensor, cuts in cut_parts:
        lines = [torch.arange(size) for size in tensor.shape]
        for dim, index in cuts:
            lines[dim] = index
        where = torch.meshgrid(*lines, indexing="ij")
        whole[where] = tensor
        seen[where] = True
    if not bool(seen.all()):
        raise ValueError(f"the pieces of {name} leave out {int((~seen).sum())} of {seen.numel()} values")
    return whole
