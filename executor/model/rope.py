"""Rotary positions (Su et al. 2021, RoFormer, section 3.2.2)."""

from __future__ import annotations

import torch
from torch import Tensor

ROPE_THETA = 10_000.0
"""Base of the rotary frequencies."""


def rotate(x: Tensor, positions: Tensor | None = None) -> Tensor:
    """Rotary positions on ``x`` [batch, heads, seq, head_dim]: the two halves of a head are the pairs' parts.

    ``positions`` [seq] are those of the tokens in their sample, where they are not 0, 1, 2, ...
    """
    cos, sin = _angles(x.shape[-2], x.shape[-1], x.device, x.dtype, positions)
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


Known = dict[tuple[int, int, torch.device, torch.dtype, int], tuple[Tensor, Tensor, Tensor | None]]
_ANGLES: Known = {}


def _angles(
    seq: int, size: int, device: torch.device, dtype: torch.dtype, positions: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Cosines and sines [seq, size / 2] for every position and pair; kept, since every block needs them.

    Positions are known by their tensor, which is kept with them.
    """
    key = (seq, size, device, dtype, 0 if positions is None else id(positions))
    if key not in _ANGLES:
        places = torch.arange(seq, device=device) if positions is None else positions
        frequencies = ROPE_THETA ** (-torch.arange(0, size, 2, device=device, dtype=torch.float64) / size)
        angles = torch.outer(places.to(device, torch.float64), frequencies)
        _ANGLES[key] = (angles.cos().to(dtype), angles.sin().to(dtype), positions)
    return _ANGLES[key][:2]
