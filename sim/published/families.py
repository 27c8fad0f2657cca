"""What a model's name says of its architecture beyond its sizes: activation, norm, positions, biases."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """What all models of one name share."""

    pattern: str
    """Matches the start of the name."""
    activation: str
    norm: str
    positions: str
    biases: bool
    tied: bool
    has_grouped_queries: bool
    """Some of its models have fewer key-value heads than heads, so a row must say how many."""


FAMILIES = (
    # Touvron et al. 2023, section 2.2: RMSNorm, SwiGLU, rotary positions, no biases, a head of its own.
    Family(
        pattern=r"llama",
        activation="swiglu",
        norm="rmsnorm",
        positions="rope",
        biases=False,
        tied=False,
        has_grouped_queries=True,
    ),
    # Parmar et al. 2024 (Nemotron-4 15B), section 2: rotary positions, no biases, untied, LayerNorm, squared
    # ReLU, which reads and writes as much as GeLU.
    Family(
        pattern=r"nemotron(?!_3)",
        activation="gelu",
        norm="layernorm",
        positions="rope",
        biases=False,
        tied=False,
        has_grouped_queries=True,
    ),
    # Radford et al. 2019; Megatron-LM's GPT and MosaicML's MPT benchmarks (learned positions) follow it.
    Family(
        pattern=r"(gpt(?![ -_]?oss)|mpt|mosaic-gpt)",
        activation="gelu",
        norm="layernorm",
        positions="learned",
        biases=True,
        tied=True,
        has_grouped_queries=False,
    ),
)
PRESETS = (
    (r"qwen3_30b_a3b", "qwen3-30b-a3b"),
    (r"qwen3_235b_a22b", "qwen3-235b-a22b"),
    (r"deepseek-?v3", "deepseek-v3"),
)
"""Models whose architecture is a preset, by the start of their name."""
NOT_MODELLED = (
    (r"nemotron_3", "hybrid of Mamba and attention"),
    (r"gpt[ -_]?oss", "attention within a window in every other layer"),
    (r".*tokendrop", "tokens beyond an expert's capacity dropped"),
)
"""Models that no Decoder is, by the start of their name, and why."""
FFN_OF_GPT = 4
"""Inner width over hidden size of every GPT (Brown et al. 2020, section 2.1: d_ff = 4 d_model)."""


def family_of(name: str) -> Family | None:
    """The family of the model ``name``; None where it is not known."""
    return next((family for family in FAMILIES if re.match(family.pattern, name, re.IGNORECASE)), None)


def preset_of(name: str) -> str | None:
    """The preset of the model ``name``; None where it is none."""
    return next((preset for pattern, preset in PRESETS if re.match(pattern, name, re.IGNORECASE)), None)


def not_modelled(name: str) -> str | None:
    """What of the model ``name`` has no counterpart here; None where nothing is known of that kind."""
    return next((why for pattern, why in NOT_MODELLED if re.match(pattern, name, re.IGNORECASE)), None)
