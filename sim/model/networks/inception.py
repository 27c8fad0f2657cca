"""Inception-v3 as torchvision builds it (Szegedy et al. 2015, figure 5 to 7)."""

from __future__ import annotations

from .builder import Builder
from .graph import Tensor
from .network import Network

CLASSES = 1000

Pair = tuple[int, int]


def inception_v3(b: Builder, *, side: int = 299, classes: int = CLASSES, auxiliary: bool = False) -> Network:
    """Images of ``side`` × ``side``, at least 75; with the ``auxiliary`` classifier beside the end, or
    without."""
    x = _stem(b, b.image(3, side, side))
    for pooled in (32, 64, 64):
        x = _a(b, x, pooled)
    x = _b(b, x)
    for inner in (128, 160, 160, 192):
        x = _c(b, x, inner)
    if auxiliary:
        _classify_early(b, x, classes)
    x = _d(b, x)
    for _ in range(2):
        x = _e(b, x)
    b.loss(b.linear(b.dropout(b.global_pool(x)), classes))
    return b.network(classes=classes)


def _conv(
    b: Builder, x: Tensor, channels: int, window: int | Pair, stride: int = 1, padding: int | Pair = 0
) -> Tensor:
    return b.relu(b.batch_norm(b.conv(x, channels, window, stride=stride, padding=padding)))


def _stem(b: Builder, x: Tensor) -> Tensor:
    x = _conv(b, x, 32, 3, 2)
    x = _conv(b, x, 32, 3)
    x = _conv(b, x, 64, 3, padding=1)
    x = b.max_pool(x, 3, stride=2)
    x = _conv(b, x, 80, 1)
    x = _conv(b, x, 192, 3)
    return b.max_pool(x, 3, stride=2)


def _a(b: Builder, x: Tensor, pooled: int) -> Tensor:
    one = _conv(b, x, 64, 1)
    five = _conv(b, _conv(b, x, 48, 1), 64, 5, padding=2)
    three = _conv(b, _conv(b, x, 64, 1), 96, 3, padding=1)
    three = _conv(b, three, 96, 3, padding=1)
    pool = _conv(b, b.average_pool(x, 3, stride=1, padding=1), pooled, 1)
    return b.concat(one, five, three, pool)


def _b(b: Builder, x: Tensor) -> Tensor:
    three = _conv(b, x, 384, 3, 2)
    double = _conv(b, _conv(b, x, 64, 1), 96, 3, padding=1)
    double = _conv(b, double, 96, 3, 2)
    return b.concat(three, double, b.max_pool(x, 3, stride=2))


def _c(b: Builder, x: Tensor, inner: int) -> Tensor:
    one = _conv(b, x, 192, 1)
    seven = _lines(b, _conv(b, x, inner, 1), (inner, 192), across_first=True)
    double = _lines(b, _conv(b, x, inner, 1), (inner, inner, inner, 192), across_first=False)
    pool = _conv(b, b.average_pool(x, 3, stride=1, padding=1), 192, 1)
    return b.concat(one, seven, double, pool)


def _lines(b: Builder, x: Tensor, widths: tuple[int, ...], *, across_first: bool) -> Tensor:
    """Windows of 1 × 7 and 7 × 1 in turn."""
    across = across_first
    for channels in widths:
        x = _conv(b, x, channels, (1, 7) if across else (7, 1), padding=(0, 3) if across else (3, 0))
        across = not across
    return x


def _d(b: Builder, x: Tensor) -> Tensor:
    three = _conv(b, _conv(b, x, 192, 1), 320, 3, 2)
    seven = _lines(b, _conv(b, x, 192, 1), (192, 192), across_first=True)
    seven = _conv(b, seven, 192, 3, 2)
    return b.concat(three, seven, b.max_pool(x, 3, stride=2))


def _e(b: Builder, x: Tensor) -> Tensor:
    one = _conv(b, x, 320, 1)
    three = _fork(b, _conv(b, x, 384, 1))
    double = _fork(b, _conv(b, _conv(b, x, 448, 1), 384, 3, padding=1))
    pool = _conv(b, b.average_pool(x, 3, stride=1, padding=1), 192, 1)
    return b.concat(one, three, double, pool)


def _fork(b: Builder, x: Tensor) -> Tensor:
    across = _conv(b, x, 384, (1, 3), padding=(0, 1))
    return b.concat(across, _conv(b, x, 384, (3, 1), padding=(1, 0)))


def _classify_early(b: Builder, x: Tensor, classes: int) -> None:
    x = _conv(b, b.average_pool(x, 5, stride=3), 128, 1)
    x = _conv(b, x, 768, 5)
    b.loss(b.linear(b.global_pool(x), classes))
