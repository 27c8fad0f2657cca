"""Models that `gpu.py` trains, by name, and those whose layers calibration may look at."""

from __future__ import annotations

from dataclasses import replace

from traincast.sim.model.decoder import Decoder


def gpt2(layers: int, hidden: int, heads: int, vocab: int = 50304) -> Decoder:
    """GPT-2 (Radford et al. 2019), its vocabulary of 50,257 padded to whole tiles unless another is given."""
    return Decoder(
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=heads,
        head_dim=hidden // heads,
        ffn=4 * hidden,
        vocab=vocab,
        max_positions=1024,
        activation="gelu",
        norm="layernorm",
        positions="learned",
        attention_bias=True,
        output_bias=True,
        mlp_bias=True,
        tied_embeddings=True,
    )


def llama(
    layers: int, hidden: int, heads: int, kv_heads: int, ffn: int, vocab: int, *, tied: bool = False
) -> Decoder:
    """A Llama: RMSNorm, rotary positions, SwiGLU, grouped queries."""
    return Decoder(
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=hidden // heads,
        ffn=ffn,
        vocab=vocab,
        max_positions=16384,
        tied_embeddings=tied,
    )


FIRST_MODELS = {
    "gpt2-124m": gpt2(12, 768, 12),
    "gpt2-124m-unpadded": gpt2(12, 768, 12, vocab=50257),
    "gpt2-355m": gpt2(24, 1024, 16),
    "gpt2-1.6b": gpt2(48, 1600, 25),
    "llama-271m": llama(16, 1024, 16, 16, 2816, 32000),
    "llama-1.1b": llama(22, 2048, 32, 4, 5632, 32000),
    "llama-3.2b": llama(28, 3072, 24, 8, 8192, 128256, tied=True),
}
"""GPT-2 in three sizes; a small Llama, TinyLlama (Zhang et al. 2024) and Llama 3.2 3B's shape."""

SECOND_MODELS = {
    "gpt2-774m": gpt2(36, 1280, 20),
    "qwen2.5-0.5b": replace(llama(24, 896, 14, 2, 4864, 151936, tied=True), attention_bias=True),
    "llama-1.2b": llama(16, 2048, 32, 8, 8192, 128256, tied=True),
    "llama-mqa-0.7b": llama(12, 2048, 16, 1, 5632, 32000),
    "mistral-7b-8": llama(8, 4096, 32, 8, 14336, 32000),
    "llama2-70b-2": llama(2, 8192, 64, 8, 28672, 32000),
    "llama-deep-160m": llama(40, 512, 8, 8, 1408, 32000),
}
"""GPT-2 large; Qwen2.5 0.5B's and Llama 3.2 1B's shapes; one key a layer; the first blocks of Mistral 7B and
Llama 2 70B; a model so deep and narrow that the device waits for the host."""

THIRD_MODELS = {
    "gpt2-1.5b-wide": gpt2(16, 2560, 20),
    "llama-2b": llama(18, 2560, 20, 5, 6912, 64000),
    "llama3-8b-6": llama(6, 4096, 32, 8, 14336, 128256),
    "qwen2.5-1.5b": replace(llama(28, 1536, 12, 2, 8960, 151936, tied=True), attention_bias=True),
    "moe-8x160m": replace(
        llama(8, 1024, 16, 4, 2816, 32000), experts=8, experts_per_token=2, expert_ffn=2816
    ),
}
"""A wide GPT-2; Llamas with queries in groups of four; the first blocks of Llama 3 8B; Qwen2.5 1.5B's shape;
eight experts, of which a token visits two."""

MODELS = {**FIRST_MODELS, **SECOND_MODELS, **THIRD_MODELS}
"""All by name."""

PROFILED = {
    "gpt2-124m": 1024,
    "gpt2-355m": 1024,
    "gpt2-1.6b": 1024,
    "llama-271m": 2048,
    "llama-1.1b": 2048,
    "llama-3.2b": 2048,
}
"""Sequence at which layers of a model are profiled; those of other sets never are."""
