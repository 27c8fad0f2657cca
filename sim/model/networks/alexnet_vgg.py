"""AlexNet and VGG as torchvision builds them, and as TensorFlow's benchmarks do."""

from __future__ import annotations

from .builder import Builder
from .network import Network

CLASSES = 1000
VGG = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
"""Convolutions of each of the five sizes (Simonyan & Zisserman 2014, table 1, D and E)."""


def alexnet() -> Network:
    """One tower (Krizhevsky 2014, "One weird trick"): torchvision's `alexnet`."""
    b = Builder()
    x = b.image(3, 224, 224)
    x = b.relu(b.conv(x, 64, 11, stride=4, padding=2, bias=True))
    x = b.max_pool(x, 3, stride=2)
    x = b.relu(b.conv(x, 192, 5, padding=2, bias=True))
    x = b.max_pool(x, 3, stride=2)
    for channels in (384, 256, 256):
        x = b.relu(b.conv(x, channels, 3, padding=1, bias=True))
    x = b.global_pool(b.max_pool(x, 3, stride=2), 6)
    for _ in range(2):
        x = b.relu(b.linear(b.dropout(x), 4096))
    b.loss(b.linear(x, CLASSES))
    return b.network(classes=CLASSES)


def vgg(depth: int) -> Network:
    """VGG without norms."""
    b = Builder()
    x = b.image(3, 224, 224)
    for size, count in enumerate(VGG[depth]):
        for _ in range(count):
            x = b.relu(b.conv(x, min(512, 64 * 2**size), 3, padding=1, bias=True))
        x = b.max_pool(x, 2, stride=2)
    x = b.global_pool(x, 7)
    for _ in range(2):
        x = b.dropout(b.relu(b.linear(x, 4096)))
    b.loss(b.linear(x, CLASSES))
    return b.network(classes=CLASSES)
