"""AlexNet and VGG as torchvision builds them, and as TensorFlow's benchmarks do."""

from __future__ import annotations

from collections.abc import Sequence

from .builder import Builder
from .network import Network

CLASSES = 1000
Image = tuple[int, int, int]
"""Channels, height and width."""
IMAGE: Image = (3, 224, 224)
VGG = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
"""Convolutions of each of the five sizes (Simonyan & Zisserman 2014, table 1, D and E)."""


def alexnet(
    b: Builder, *, image: Image = IMAGE, width: int = 64, hidden: int = 4096, classes: int = CLASSES
) -> Network:
    """One tower (Krizhevsky 2014, "One weird trick"): torchvision's `alexnet`.

    ``width`` is the channels of the first convolution, from which the others' follow.
    """
    x = b.image(*image)
    x = b.relu(b.conv(x, width, 11, stride=4, padding=2, bias=True))
    x = b.max_pool(x, 3, stride=2)
    x = b.relu(b.conv(x, 3 * width, 5, padding=2, bias=True))
    x = b.max_pool(x, 3, stride=2)
    for times in (6, 4, 4):
        x = b.relu(b.conv(x, times * width, 3, padding=1, bias=True))
    x = b.global_pool(b.max_pool(x, 3, stride=2), 6)
    for _ in range(2):
        x = b.relu(b.linear(b.dropout(x), hidden))
    b.loss(b.linear(x, classes))
    return b.network(classes=classes)


def vgg(
    b: Builder,
    counts: Sequence[int],
    *,
    image: Image = IMAGE,
    width: int = 64,
    pooled: int = 7,
    hidden: int = 4096,
    classes: int = CLASSES,
) -> Network:
    """VGG without norms: ``counts`` convolutions of each size, the first of ``width`` channels."""
    x = b.image(*image)
    for size, count in enumerate(counts):
        for _ in range(count):
            x = b.relu(b.conv(x, width * min(8, 2**size), 3, padding=1, bias=True))
        x = b.max_pool(x, 2, stride=2)
    x = b.global_pool(x, pooled)
    for _ in range(2):
        x = b.dropout(b.relu(b.linear(x, hidden)))
    b.loss(b.linear(x, classes))
    return b.network(classes=classes)
