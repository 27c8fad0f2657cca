"""The decoder families that are understood, one row each: how their keys are called and what is implied."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
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


_REQUIRED = ("layers", "hidden", "heads", "ffn", "vocab", "max_positions")


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
    only: Mapping[str, Any] = field(default_factory=dict)
    """Keys that would make it another architecture, and what they have to be where they are given."""
    required: tuple[str, ...] = _REQUIRED
    """What has no default."""
    derive: Callable[[dict[str, int]], dict[str, int]] = dict
    """From the sizes as the file names them to those of Decoder, where they differ."""

    @property
    def has_experts(self) -> bool:
        """Whether its blocks are mixtures of experts."""
        return "experts" in self.aliases


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
_EXPERT_ALIASES = {
    **_ALIASES,
    "experts": ("num_experts", "num_local_experts", "n_routed_experts"),
    "experts_per_token": ("num_experts_per_tok",),
    "expert_ffn": ("moe_intermediate_size",),
}
_EXPERTS_IN_EVERY_BLOCK = {"decoder_sparse_step": 1, "mlp_only_layers": []}
_WITH_EXPERTS = (*_REQUIRED, "experts", "experts_per_token", "expert_ffn")
_DEEPSEEK_ALIASES = {
    **_EXPERT_ALIASES,
    "experts": ("n_routed_experts",),
    "head_dim": (),
    "shared_count": ("n_shared_experts",),
    "dense_layers": ("first_k_dense_replace",),
    "q_rank": ("q_lora_rank",),
    "kv_rank": ("kv_lora_rank",),
    "rope_dim": ("qk_rope_head_dim",),
    "nope_dim": ("qk_nope_head_dim",),
    "v_head_dim": ("v_head_dim",),
}
_DEEPSEEK_ONLY = {"moe_layer_freq": 1, "attention_bias": False}
_DEEPSEEK_REQUIRED = (*_WITH_EXPERTS, "kv_rank", "rope_dim", "nope_dim", "v_head_dim")


def _experts_as_wide_as_ffn(sizes: dict[str, int]) -> dict[str, int]:
    """Mixtral's experts have the MLP's width."""
    return {**sizes, "expert_ffn": sizes["ffn"]}


def _deepseek(sizes: dict[str, int]) -> dict[str, int]:
    """Heads have a part with positions and one without; shared experts are as wide as the others."""
    own = dict(sizes)
    own["head_dim"] = own.pop("nope_dim") + own["rope_dim"]
    own["kv_heads"] = own["heads"]
    own["shared_ffn"] = own.pop("shared_count", 0) * own["expert_ffn"]
    return own


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
    "mixtral": Family(
        architecture="MixtralForCausalLM",
        aliases={
            **_ALIASES,
            "experts": ("num_local_experts",),
            "experts_per_token": ("num_experts_per_tok",),
        },
        fixed=_ROPE,
        required=(*_REQUIRED, "experts", "experts_per_token"),
        derive=_experts_as_wide_as_ffn,
    ),
    "qwen2_moe": Family(
        architecture="Qwen2MoeForCausalLM",
        aliases={**_EXPERT_ALIASES, "shared_ffn": ("shared_expert_intermediate_size",)},
        fixed={**_ROPE, "attention_bias": True, "shared_gate": True},
        only={**_EXPERTS_IN_EVERY_BLOCK, "qkv_bias": True},
        required=_WITH_EXPERTS,
    ),
    "qwen3_moe": Family(
        architecture="Qwen3MoeForCausalLM",
        aliases=_EXPERT_ALIASES,
        fixed={**_ROPE, "qk_norm": True},
        head_dim_default=128,
        bias_key="attention_bias",
        only=_EXPERTS_IN_EVERY_BLOCK,
        required=_WITH_EXPERTS,
    ),
    "deepseek_v2": Family(
        architecture="DeepseekV2ForCausalLM",
        aliases=_DEEPSEEK_ALIASES,
        fixed=_ROPE,
        only=_DEEPSEEK_ONLY,
        required=_DEEPSEEK_REQUIRED,
        derive=_deepseek,
    ),
    "deepseek_v3": Family(
        architecture="DeepseekV3ForCausalLM",
        aliases=_DEEPSEEK_ALIASES,
        fixed={**_ROPE, "router_bias": True},
        only=_DEEPSEEK_ONLY,
        required=_DEEPSEEK_REQUIRED,
        derive=_deepseek,
    ),
}
"""By `model_type`, as in transformers' configuration classes of these names."""
