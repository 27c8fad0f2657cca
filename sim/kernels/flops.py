"""FLOPs as papers count them: what MFU and HFU are made of. `decoder_kernels.py` has what is really done."""

from __future__ import annotations

from ..model.decoder import Decoder
from ..model.layer import BLOCK, BLOCKS, EMBEDDING, HEAD
from ..model.model import Model
from ..model.networks import network
from .attention_layer import projections
from .decoder_kernels import forward_kernels
from .layer_shape import Shape
from .recompute import repeated_parts


def layer_flops(decoder: Decoder, layer_kind: str, *, tokens: float, seq_len: int) -> float:
    """FLOPs of one layer's forward over ``tokens`` tokens, as papers count them.

    GEMMs only, of experts those a token visits, and the whole score matrix although half of it is masked
    (Narayanan et al. 2021, appendix; PaLM, appendix B). Backward is twice as much.
    """
    if layer_kind == EMBEDDING:
        return 0.0
    if layer_kind == HEAD:
        return 2.0 * tokens * decoder.hidden * decoder.vocab
    values = _attention_matrix_values(decoder) + _mlp_matrix_values(decoder, layer_kind)
    return tokens * (2.0 * values) + attention_flops(decoder, tokens=tokens, seq_len=seq_len)


def model_layer_flops(model: Model, layer_kind: str, *, tokens: float, seq_len: int) -> float:
    """`layer_flops` of any model: of a network's layers their GEMMs and attention."""
    if model.network is None:
        return layer_flops(model.decoder, layer_kind, tokens=tokens, seq_len=seq_len)
    return tokens * network.layer_flops(model.network.by_kind[layer_kind], seq_len)


def layer_attention_flops(model: Model, layer_kind: str, *, tokens: float, seq_len: int) -> float:
    """FLOPs of a layer's attention GEMMs forward: what selective recompute repeats."""
    if model.network is None:
        return attention_flops(model.decoder, tokens=tokens, seq_len=seq_len)
    operations = model.network.by_kind[layer_kind].operations
    return tokens * sum(operation.attention_flops(seq_len) for operation in operations)


def attention_flops(decoder: Decoder, *, tokens: float, seq_len: int) -> float:
    """FLOPs of one block's two attention GEMMs forward, the masked half included."""
    return 2.0 * tokens * seq_len * (decoder.q_size + decoder.o_size)


def _attention_matrix_values(decoder: Decoder) -> int:
    whole = Shape(decoder=decoder, micro_batch=1, seq_len=1, tp=1, bytes_per_value=1)
    return sum(n * k for n, k, _ in projections(whole)) + decoder.hidden * decoder.o_size


def _mlp_matrix_values(decoder: Decoder, layer_kind: str) -> int:
    """Values of the matrices that one token meets in a block's MLP or experts."""
    each = decoder.mlp_matrices * decoder.hidden
    if layer_kind == BLOCK:
        return each * decoder.ffn
    visited = decoder.experts_per_token * decoder.expert_ffn + decoder.shared_ffn
    gates = decoder.experts + (1 if decoder.shared_gate else 0)
    return decoder.hidden * gates + each * visited


def model_flops_per_token(model: Model, seq_len: int) -> float:
    """FLOPs that training one token needs, forward and backward: the numerator of MFU.

    Three forwards' worth: 6 for every value of a matrix, and 12 x layers x q_size x seq_len for attention
    (PaLM, Chowdhery et al. 2022, appendix B; the LM head counts, look-ups do not).
    """
    return 3.0 * sum(
        model_layer_flops(model, layer.kind, tokens=1, seq_len=seq_len) for layer in model.layers
    )


def hardware_flops_per_token(model: Model, seq_len: int, recompute: str, share: float = 1.0) -> float:
    """FLOPs that are done for one token with what ``recompute`` computes again in a ``share`` of the blocks:
    the numerator of HFU.

    `selective` repeats attention's two GEMMs, `selective_op` the GEMMs that are not saved, `full` a
    whole block. (Korthikanti et al. 2022 count three
    times as much for `selective`: their factor is 1 + s/3h where these GEMMs give 1 + 2s/9h.)
    """
    kinds = [layer.kind for layer in model.layers]
    blocks = kinds if model.network is not None else [kind for kind in kinds if kind in BLOCKS]
    again = 0.0
    if recompute == "selective":
        again = sum(layer_attention_flops(model, kind, tokens=1, seq_len=seq_len) for kind in blocks)
    elif recompute == "full":
        again = sum(model_layer_flops(model, kind, tokens=1, seq_len=seq_len) for kind in blocks)
    elif recompute == "selective_op":
        again = sum(selective_op_flops(model.decoder, kind) for kind in blocks)
    return model_flops_per_token(model, seq_len) + share * again


def selective_op_flops(decoder: Decoder, layer_kind: str) -> float:
    """FLOPs of a block's GEMMs whose results `selective_op` does not save, for one token."""
    kernels = forward_kernels(decoder, layer_kind, micro_batch=1, seq_len=1, tp=1, bytes_per_value=1)
    parts = repeated_parts(decoder, layer_kind, "selective_op", kernels)
    return sum(part * k.flops for part, k in zip(parts, kernels, strict=True) if k.kind == "gemm")
