"""ResNet and ResNeXt as torchvision builds them, and as TensorFlow's benchmarks do."""

from __future__ import annotations

from collections.abc import Sequence

from .alexnet_vgg import IMAGE, Image
from .builder import Builder
from .graph import Tensor
from .network import Network

CLASSES = 1000
RESNET = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
"""Bottlenecks of each of the four sizes (He et al. 2015, table 1)."""


def resnet(
    b: Builder,
    counts: Sequence[int],
    *,
    image: Image = IMAGE,
    classes: int = CLASSES,
    stride_first: bool = False,
    groups: int = 1,
    width: int = 64,
    stem: int = 64,
    small: bool = False,
) -> Network:
    """ResNet of ``counts`` bottlenecks of each size, or ResNeXt with ``groups`` of the 3x3 convolution and
    other ``width``.

    ``width`` is that of the 3x3 convolution at the first size, ``stem`` the channels of the first
    convolution; in ``small`` images it keeps their size (He et al. 2015, section 4.2).

    The stride is in the 3x3 convolution, as in torchvision ("v1.5"), or in the first 1x1 one, as in the paper
    ("v1") with ``stride_first``.
    """
    window, stride = (3, 1) if small else (7, 2)
    x = b.conv(b.image(*image), stem, window, stride=stride, padding=window // 2)
    x = b.relu(b.batch_norm(x))
    if not small:
        x = b.max_pool(x, 3, stride=2, padding=1)
    for size, count in enumerate(counts):
        for place in range(count):
            stride = 2 if size and not place else 1
            inner, out = width * 2**size, 4 * stem * 2**size
            x = _bottleneck(b, x, (inner, out), stride, stride_first, groups, widens=not place)
    b.loss(b.linear(b.global_pool(x), classes))
    return b.network(classes=classes)


def _bottleneck(
    b: Builder,
    x: Tensor,
    widths: tuple[int, int],
    stride: int,
    stride_first: bool,
    groups: int,
    *,
    widens: bool,
) -> Tensor:
    """1x1 down, 3x3, 1x1 up, and the way past them."""
    (inner, out), (first, second) = widths, (stride, 1) if stride_first else (1, stride)
    y = b.relu(b.batch_norm(b.conv(x, inner, 1, stride=first)))
    y = b.relu(b.batch_norm(b.conv(y, inner, 3, stride=second, padding=1, groups=groups)))
    y = b.batch_norm(b.conv(y, out, 1))
    past = b.batch_norm(b.conv(x, out, 1, stride=stride)) if widens else x
    return b.relu(b.add(y, past))
