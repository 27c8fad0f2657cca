"""Which profile is of which layer: what of a decoder and of a strategy decides what a layer takes."""

from __future__ import annotations

from dataclasses import fields

from ..hardware.layer_profile import SHAPE, LayerProfile, Shard
from ..model.decoder import Decoder
from ..model.layer import MOE_BLOCK, NETWORK_LAYER
from ..model.model import Model
from ..plan.strategy_fields import StrategyFields

_ELSEWHERE = ("layers", "max_positions", "tied_embeddings", "dense_layers", "head_dim", *SHAPE)
"""Fields that no `variant` names: of SHAPE, or none that decide what one layer takes."""
WHOLE: Shard = (1, False, 1, "", 1)
"""Of a layer that one rank has to itself."""


def shard_of(strategy: StrategyFields, kind: str) -> Shard:
    """How ``strategy`` divides a layer of ``kind``; experts' ranks divide nothing else."""
    return (
        strategy.tp,
        strategy.sequence_parallel and strategy.tp > 1,
        strategy.cp,
        strategy.cp_exchange if strategy.cp > 1 else "",
        strategy.ep if kind == MOE_BLOCK else 1,
    )


def variant_of(decoder: Decoder, kind: str) -> str:
    """The fields of ``decoder`` that decide what a layer of ``kind`` takes, besides `SHAPE`, where they are
    not the default; in order."""
    found = [] if decoder.head_dim * decoder.heads == decoder.hidden else [f"head_dim={decoder.head_dim}"]
    for one in fields(Decoder):
        value = getattr(decoder, one.name)
        of_experts = "expert" in one.name or "router" in one.name or "shared" in one.name
        if one.name in _ELSEWHERE or value == one.default or (of_experts and kind != MOE_BLOCK):
            continue
        found.append(f"{one.name}={value}")
    return " ".join(found)


def is_of_layer(profile: LayerProfile, model: Model, kind: str) -> bool:
    """Whether ``profile`` is of a layer like those of ``kind`` in ``model``."""
    if model.network is not None:
        return profile.kind == NETWORK_LAYER and profile.variant == model.network.by_kind[kind].digest
    return profile.kind == kind and is_of(profile, model.decoder)


def is_of(profile: LayerProfile, decoder: Decoder) -> bool:
    """Whether ``profile`` is of a layer of ``decoder``. Where it names no variant, as files from before it
    had one, it is of any decoder whose heads share out the hidden size and that has no latent attention."""
    if any(getattr(profile, name) != getattr(decoder, name) for name in SHAPE):
        return False
    if profile.variant:
        return profile.variant == variant_of(decoder, profile.kind)
    unusual = decoder.kv_rank or decoder.head_dim * decoder.heads != decoder.hidden
    return not unusual and profile.kind != MOE_BLOCK
