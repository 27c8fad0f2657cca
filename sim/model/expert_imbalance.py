"""Uneven experts: what the busiest rank works on when tokens prefer some experts to others."""

from __future__ import annotations

from .decoder import Decoder


def busiest_visits(decoder: Decoder, ep: int, expert_imbalance: float) -> float:
    """Experts of the busiest expert-parallel rank that a token visits, times ``ep``: what the rank works on
    for every token of its own.

    Balanced it is `experts_per_token`. A token visits an expert once, so it is at most ``ep`` times the
    experts of a rank, and without expert parallelism nothing is uneven.
    """
    most = ep * min(decoder.experts_per_token, max(1, decoder.experts // ep))
    return min(decoder.experts_per_token * expert_imbalance, float(most))
