"""Networks by name. Parameters are those of the published models; images are of their usual size."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Any

from .alexnet_vgg import VGG, alexnet, vgg
from .builder import Builder
from .inception import inception_v3
from .network import Network
from .recommenders import dlrm, mlp
from .resnet import RESNET, resnet
from .sequences import BERT, bert, gnmt, transformer


def _vgg(depth: int) -> Callable[[Builder], Network]:
    return partial(vgg, counts=VGG[depth])


def _resnet(depth: int, **other: Any) -> Callable[[Builder], Network]:
    return partial(resnet, counts=RESNET[depth], **other)


def _bert(size: str) -> Callable[[Builder], Network]:
    layers, hidden, heads = BERT[size]
    return partial(bert, layers=layers, hidden=hidden, heads=heads)


PUBLISHED: Mapping[str, tuple[Callable[[Builder], Network], str]] = {
    "alexnet": (alexnet, "torchvision alexnet; Krizhevsky 2014, arXiv:1404.5997"),
    "vgg16": (_vgg(16), "torchvision vgg16; Simonyan & Zisserman 2014, arXiv:1409.1556"),
    "vgg19": (_vgg(19), "torchvision vgg19; Simonyan & Zisserman 2014, arXiv:1409.1556"),
    "resnet50": (_resnet(50), "torchvision resnet50; He et al. 2015, arXiv:1512.03385"),
    "resnet101": (_resnet(101), "torchvision resnet101; He et al. 2015, arXiv:1512.03385"),
    "resnet152": (_resnet(152), "torchvision resnet152; He et al. 2015, arXiv:1512.03385"),
    "resnet50-v1": (_resnet(50, stride_first=True), "He et al. 2015, arXiv:1512.03385, table 1"),
    "resnet152-v1": (_resnet(152, stride_first=True), "He et al. 2015, arXiv:1512.03385, table 1"),
    "inception-v3": (inception_v3, "torchvision inception_v3 without auxiliary; arXiv:1512.00567"),
    "inception-v3-aux": (partial(inception_v3, auxiliary=True), "torchvision inception_v3; arXiv:1512.00567"),
    "resnext101-32x4d": (
        _resnet(101, groups=32, width=128),
        "Xie et al. 2016, arXiv:1611.05431; NVIDIA/DeepLearningExamples resnext101-32x4d",
    ),
    "bert-base": (_bert("base"), "Devlin et al. 2018, arXiv:1810.04805"),
    "bert-large": (_bert("large"), "Devlin et al. 2018, arXiv:1810.04805"),
    "transformer-big": (transformer, "Vaswani et al. 2017, arXiv:1706.03762"),
    "gnmt": (gnmt, "NVIDIA/DeepLearningExamples PyTorch/Translation/GNMT; Wu et al. 2016, arXiv:1609.08144"),
    "dlrm": (dlrm, "NVIDIA/DeepLearningExamples PyTorch/Recommendation/DLRM; arXiv:1906.00091"),
    "mlp": (mlp, "784, 4096, 4096, 4096 and 10 values, ReLU between"),
}
"""By name: what builds it, and where the architecture is told."""

_SMALL: Mapping[str, Callable[[Builder], Network]] = {
    "resnet-digits": partial(
        resnet, counts=(1, 1, 1), image=(1, 8, 8), classes=10, width=16, stem=16, small=True
    ),
    "vgg-tiny": partial(vgg, counts=(1, 1, 2), image=(1, 32, 32), classes=10, width=8, pooled=4, hidden=64),
    "alexnet-tiny": partial(alexnet, image=(1, 96, 96), classes=10, width=8, hidden=64),
    "inception-small": partial(inception_v3, side=75, classes=10),
    "mlp-digits": partial(mlp, widths=(64, 128, 128, 10)),
    "bert-tiny": partial(bert, layers=2, hidden=64, heads=2, vocabulary=512, positions=128),
    "transformer-tiny": partial(transformer, layers=2, hidden=64, heads=4, vocabulary=512, tokens=64),
    "gnmt-tiny": partial(gnmt, hidden=32, vocabulary=512, tokens=32),
    "dlrm-tiny": partial(dlrm, tables=(100, 50, 10, 4), bottom=(32, 16), top=(32, 16, 1), sparse=False),
}

NETWORKS: Mapping[str, tuple[Callable[[Builder], Network], str]] = {
    **PUBLISHED,
    **{name: (build, "small enough to be trained on a processor") for name, build in _SMALL.items()},
}
"""The published ones, and small ones of their kinds."""


@lru_cache(maxsize=32)
def network_preset(name: str) -> Network:
    """The network of a preset in `NETWORKS`."""
    return NETWORKS[name][0](Builder())
