"""DLRM (Naumov et al. 2019, arXiv:1906.00091), and a plain MLP."""

from __future__ import annotations

from collections.abc import Sequence

from .builder import Builder
from .network import Network

DLRM_TABLES = (
    7_912_889, 33_823, 17_139, 7_339, 20_046, 4, 7_105, 1_382, 63, 5_554_114, 582_469, 245_828, 11, 2_209,
    10_667, 104, 4, 968, 15, 8_165_896, 2_675_940, 7_156_453, 302_516, 12_022, 97, 35,
)  # fmt: skip
"""Rows of the 26 tables for Criteo Terabyte, words seen 15 times or more (NVIDIA/DeepLearningExamples
PyTorch/Recommendation/DLRM, "Dataset guidelines")."""
DLRM_WIDTH = 128
DLRM_BOTTOM = (512, 256, DLRM_WIDTH)
DLRM_TOP = (1024, 1024, 512, 256, 1)


def dlrm(
    b: Builder,
    *,
    tables: Sequence[int] = DLRM_TABLES,
    bottom: Sequence[int] = DLRM_BOTTOM,
    top: Sequence[int] = DLRM_TOP,
    sparse: bool = True,
) -> Network:
    """13 numbers and a category for each of ``tables`` of a click, by the sizes of MLPerf's benchmark;
    ``sparse`` gradients touch only the rows that were looked up."""
    x = b.features(13)
    for width in bottom:
        x = b.relu(b.linear(x, width))
    found = [b.lookup(rows, bottom[-1], sparse=sparse) for rows in tables]
    vectors = b.concat(x, *found)
    x = b.concat(x, b.interactions(vectors, 1 + len(tables)))
    for width in top[:-1]:
        x = b.relu(b.linear(x, width))
    b.loss(b.sigmoid(b.linear(x, top[-1])))
    return b.network()


def mlp(b: Builder, widths: Sequence[int] = (784, 4096, 4096, 4096, 10)) -> Network:
    """Products with ReLU between; from the first of ``widths`` values to the last."""
    x = b.features(widths[0])
    for width in widths[1:-1]:
        x = b.relu(b.linear(x, width))
    b.loss(b.linear(x, widths[-1]))
    return b.network(classes=widths[-1])
