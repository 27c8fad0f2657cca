"""The decoder families that are understood, one row each: how their keys are called and what is implied."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

ACTIVATIONS = {
    "silu": "swiglu",
    "swish": "swiglu",
    "gelu": "gelu",
    "gelu_new": "gelu",
    "gelu_fast": "gelu",
    "gelu_pytorch_tanh": "gelu",
}
"""`activation_function` or `hidden_act` to `Decoder.activation`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """How one family names its sizes, and what is always so in it."""

    architecture: str
    aliases: dict[str, tuple[str, ...]]
    """Field of Decoder to its keys, the usual one first."""
    fixed: dict[str, Any]
    """Fields of Decoder that the family decides."""
    activation_key: str = "hidden_act"
    activation: str = "swiglu"
    tied_default: bool = False
    head_dim_default: int = 0
    """0 is hidden / heads."""
    bias_key: str = ""
    """Key that gives query, key, value and output projections a bias."""
    mlp_bias_key: str = ""
    required: tuple[str, ...] = ("layers", "hidden", "heads", "ffn", "vocab", "max_positions")
    """What has no default."""


_ALIASES = {
    "layers": ("num_hidden_layers", "n_layer", "num_layers"),
    "hidden": ("hidden_size", "n_embd", "d_model"),
    "heads": ("num_attention_heads", "n_head"),
    "kv_heads": ("num_key_value_heads",),
    "head_dim": ("head_dim",),
    "ffn": ("intermediate_size", "n_inner"),
    "vocab": ("vocab_size",),
    "max_positions": ("max_position_embeddings", "n_positions", "n_ctx"),
}
_GPT2_ALIASES = {
    **_ALIASES,
    "layers": ("n_layer", "num_hidden_layers"),
    "hidden": ("n_embd", "hidden_size"),
    "heads": ("n_head", "num_attention_heads"),
    "kv_heads": (),
    "head_dim": (),
    "ffn": ("n_inner",),
    "max_positions": ("n_positions", "max_position_embeddings", "n_ctx"),
}
_ROPE = {"norm": "rmsnorm", "positions": "rope"}

FAMILIES = {
    "gpt2": Family(
        architecture="GPT2LMHeadModel",
        aliases=_GPT2_ALIASES,
        fixed={
            "norm": "layernorm",
            "positions": "learned",
            "attention_bias": True,
            "output_bias": True,
            "mlp_bias": True,
        },
        activation_key="activation_function",
        activation="gelu",
        tied_default=True,
        required=("layers", "hidden", "heads", "vocab", "max_positions"),
    ),
    "llama": Family(
        architecture="LlamaForCausalLM",
        aliases=_ALIASES,
        fixed=_ROPE,
        bias_key="attention_bias",
        mlp_bias_key="mlp_bias",
    ),
    "mistral": Family(architecture="MistralForCausalLM", aliases=_ALIASES, fixed=_ROPE),
    "qwen2": Family(
        architecture="Qwen2ForCausalLM", aliases=_ALIASES, fixed={**_ROPE, "attention_bias": True}
    ),
    "qwen3": Family(
        architecture="Qwen3ForCausalLM",
        aliases=_ALIASES,
        fixed={**_ROPE, "qk_norm": True},
        head_dim_default=128,
        bias_key="attention_bias",
    ),
}
"""By `model_type`, as in transformers' configuration classes of these names."""
