"""Networks by name. Parameters are those of the published models; images are of their usual size."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache, partial

from .convnets import alexnet, resnet, vgg
from .inception import inception_v3
from .network import Network

NETWORKS: Mapping[str, tuple[Callable[[], Network], str]] = {
    "alexnet": (alexnet, "torchvision alexnet; Krizhevsky 2014, arXiv:1404.5997"),
    "vgg16": (partial(vgg, 16), "torchvision vgg16; Simonyan & Zisserman 2014, arXiv:1409.1556"),
    "vgg19": (partial(vgg, 19), "torchvision vgg19; Simonyan & Zisserman 2014, arXiv:1409.1556"),
    "resnet50": (partial(resnet, 50), "torchvision resnet50; He et al. 2015, arXiv:1512.03385"),
    "resnet101": (partial(resnet, 101), "torchvision resnet101; He et al. 2015, arXiv:1512.03385"),
    "resnet152": (partial(resnet, 152), "torchvision resnet152; He et al. 2015, arXiv:1512.03385"),
    "resnet50-v1": (partial(resnet, 50, stride_first=True), "He et al. 2015, arXiv:1512.03385, table 1"),
    "resnet152-v1": (partial(resnet, 152, stride_first=True), "He et al. 2015, arXiv:1512.03385, table 1"),
    "inception-v3": (inception_v3, "torchvision inception_v3 without auxiliary; arXiv:1512.00567"),
    "inception-v3-aux": (partial(inception_v3, auxiliary=True), "torchvision inception_v3; arXiv:1512.00567"),
}
"""By name: the builder, and where the architecture is told."""


@lru_cache(maxsize=32)
def network_preset(name: str) -> Network:
    """The network of a preset in `NETWORKS`."""
    return NETWORKS[name][0]()
