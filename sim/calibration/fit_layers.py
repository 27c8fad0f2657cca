"""Layers as they were profiled: their seconds and what they keep, by shape and by how they were divided."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from ..hardware.layer_profile import SHAPE, LayerProfile
from ..kernels.profile_keys import variant_of
from ..model.decoder import Decoder
from ..model.layer import NETWORK_LAYER
from .samples import Point, Samples

DIVISION: dict[str, Any] = {"tp": 1, "sequence_parallel": False, "cp": 1, "cp_exchange": "", "ep": 1}
"""How a layer may be divided, and what it is where nobody says so."""
DIRECTIONS = ("forward", "backward")
_DECODER = {one.name for one in fields(Decoder)} - {"layers"}


def measured_profiles(samples: Samples) -> tuple[LayerProfile, ...]:
    """Each measured kind of layer with its forward and backward, and where they were looked at the halves of
    the latter and the bytes it keeps; layers of one shape once."""
    backward, inputs, weights = (
        {_key(p): p.own_s for p in samples.of(what)}
        for what in ("backward", "input_gradient", "weight_gradient")
    )
    kept = {_key(p): p.median_bytes for p in samples.of("kept")}
    exchanging = {
        (direction, _key(p)): p for direction in DIRECTIONS for p in samples.of(f"{direction}_exchanging")
    }
    profiles: dict[str, LayerProfile] = {}
    for point in samples.of("forward"):
        p, key = point.parameters, _key(point)
        if key in backward:
            profiles[key] = LayerProfile(
                kind=p["kind"],
                **_what_it_is(p),
                seq_len=p["seq_len"],
                micro_batch=p["micro_batch"],
                precision=p["precision"],
                forward_s=point.own_s,
                backward_s=backward[key],
                input_gradient_s=inputs.get(key, 0.0),
                weight_gradient_s=weights.get(key, 0.0),
                kept_bytes=kept.get(key, 0.0),
                **_exchanged(samples, key, exchanging, {"forward": point.own_s, "backward": backward[key]}),
                **{name: p.get(name, usual) for name, usual in DIVISION.items()},
            )
    return tuple(profiles.values())


def _exchanged(
    samples: Samples, key: str, exchanging: Mapping[tuple[str, str], Point], alone: Mapping[str, float]
) -> dict[str, float]:
    """What exchanges add to a layer's passes, by the fields of a profile: of the time with them what is
    neither what a rank takes ``alone``, by direction, nor others' turns on its core."""
    found = {}
    for direction in DIRECTIONS:
        point = exchanging.get((direction, key))
        if point is None:
            continue
        ranks = math.prod(point.parameters[name] for name in ("tp", "cp", "ep"))
        crowd = max(1.0, ranks / samples.machine["cores"])
        at_work = max(0.0, point.own_s - alone[direction] * samples.concurrency.get(ranks, 1.0))
        waiting = max(0.0, point.median_s - point.own_s * crowd)
        found[f"{direction}_exchange_s"] = waiting + at_work
        found[f"{direction}_exchange_cpu_s"] = at_work
    return found


def _what_it_is(p: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a profile that tell which layer it is of."""
    if p["kind"] == NETWORK_LAYER:
        return {"variant": p["variant"]}
    decoder = decoder_of(p)
    return {**{name: getattr(decoder, name) for name in SHAPE}, "variant": variant_of(decoder, p["kind"])}


def decoder_of(p: Mapping[str, Any]) -> Decoder:
    """The decoder whose layers were measured; of one block."""
    return Decoder(layers=1, **{name: value for name, value in p.items() if name in _DECODER})


def is_whole(point: Point) -> bool:
    """Whether one rank had the layer to itself."""
    return all(point.parameters.get(name, usual) == usual for name, usual in DIVISION.items())


def _key(point: Point) -> str:
    return json.dumps(dict(point.parameters), sort_keys=True)
