"""Networks over sequences: BERT, the big Transformer of translation, and GNMT; all count by the token.

In translation a token is one of the source with one of the target: both are taken to be equally long.
"""

from __future__ import annotations

from .builder import Builder
from .graph import Tensor
from .network import Network

BERT_VOCABULARY, BERT_POSITIONS = 30_522, 512
BERT = {"base": (12, 768, 12), "large": (24, 1024, 16)}
"""Layers, hidden size, heads (Devlin et al. 2018, section 3)."""
MASKED = 20 / 128
"""Share of tokens that is predicted: 20 of 128 (google-research/bert, README, max_predictions_per_seq)."""

TRANSLATION_VOCABULARY, TRANSLATION_TOKENS = 33_708, 256
"""Entries of the joint table of NVIDIA/DeepLearningExamples PyTorch/Translation/Transformer (WMT 2014
English-German by fairseq), and the longest sentence."""
GNMT_VOCABULARY, GNMT_TOKENS = 32_320, 50
"""Of NVIDIA/DeepLearningExamples PyTorch/Translation/GNMT: the table, padded to a multiple of 32, and the
longest sentence."""


def bert(
    b: Builder,
    layers: int,
    hidden: int,
    heads: int,
    *,
    vocabulary: int = BERT_VOCABULARY,
    positions: int = BERT_POSITIONS,
) -> Network:
    """BERT in pre-training with both heads (`BertForPreTraining`); only masked tokens are predicted."""
    x = b.lookup(vocabulary, hidden)
    for rows in (positions, 2):
        x = b.add(x, b.lookup(rows, hidden))
    x = b.dropout(b.layer_norm(x))
    for _ in range(layers):
        x = _attention(b, x, x, heads, attention_dropout=True)
        x = _feed_forward(b, x, 4 * hidden, gelu=True)
    b.next_sentence(x)
    b.predict_some(x, vocabulary, MASKED)
    return b.network(max_tokens=positions)


def _attention(
    b: Builder, x: Tensor, memory: Tensor, heads: int, *, attention_dropout: bool, bias: bool = True
) -> Tensor:
    """Of ``x`` on ``memory``, with norms behind the residuals."""
    width = x.values
    q = b.linear(x, width, bias=bias)
    k, v = b.linear(memory, width, bias=bias), b.linear(memory, width, bias=bias)
    y = b.linear(b.attention(q, k, v, heads, dropout=attention_dropout), width, bias=bias)
    return b.layer_norm(b.add(b.dropout(y), x))


def _feed_forward(b: Builder, x: Tensor, inner: int, *, gelu: bool) -> Tensor:
    y = b.linear(x, inner)
    y = b.linear(b.gelu(y) if gelu else b.relu(y), x.values)
    return b.layer_norm(b.add(b.dropout(y), x))


def transformer(
    b: Builder,
    layers: int = 6,
    hidden: int = 1024,
    heads: int = 16,
    *,
    vocabulary: int = TRANSLATION_VOCABULARY,
    tokens: int = TRANSLATION_TOKENS,
) -> Network:
    """Vaswani et al. 2017, table 3, "big": six layers each way, one table for source, target and output."""
    inner = 4 * hidden
    x = b.dropout(b.lookup(vocabulary, hidden))
    for _ in range(layers):
        x = _attention(b, x, x, heads, attention_dropout=True, bias=False)
        x = _feed_forward(b, x, inner, gelu=False)
    memory = x
    y = b.dropout(b.shared_lookup(hidden))
    for _ in range(layers):
        y = _attention(b, y, y, heads, attention_dropout=True, bias=False)
        y = _attention(b, y, memory, heads, attention_dropout=True, bias=False)
        y = _feed_forward(b, y, inner, gelu=False)
    b.loss(b.shared_linear(y, vocabulary))
    return b.network(max_tokens=tokens)


def gnmt(
    b: Builder, hidden: int = 1024, *, vocabulary: int = GNMT_VOCABULARY, tokens: int = GNMT_TOKENS
) -> Network:
    """Wu et al. 2016 with four layers each way, as NVIDIA's GNMT v2.

    The encoder's first goes in both directions; the decoder's first attends, and all others read its context
    too; residuals from the third layer on.
    """
    x = b.dropout(b.lookup(vocabulary, hidden))
    x = b.concat(b.lstm(x, hidden), b.lstm(x, hidden, backwards=True), copies=False)
    x = b.lstm(b.dropout(x), hidden)
    for _ in range(2):
        x = b.add(b.lstm(b.dropout(x), hidden), x)
    y = b.dropout(b.shared_lookup(hidden))
    y = b.lstm(y, hidden)
    keys = b.linear(x, hidden, bias=False)
    context = b.scored_attention(b.linear(y, hidden, bias=False), keys, x)
    y = b.lstm(b.dropout(b.concat(y, context)), hidden)
    for _ in range(2):
        y = b.add(b.lstm(b.dropout(b.concat(y, context)), hidden), y)
    b.loss(b.linear(y, vocabulary))
    return b.network(max_tokens=tokens)
