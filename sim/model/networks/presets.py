"""Networks by name. Parameters are those of the published models; images are of their usual size."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache, partial

from .alexnet_vgg import alexnet, vgg
from .inception import inception_v3
from .network import Network
from .recommenders import dlrm, mlp
from .resnet import resnet
from .sequences import bert, gnmt, transformer_big

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
    "resnext101-32x4d": (
        partial(resnet, 101, groups=32, width=128),
        "Xie et al. 2016, arXiv:1611.05431; NVIDIA/DeepLearningExamples resnext101-32x4d",
    ),
    "bert-base": (partial(bert, "base"), "Devlin et al. 2018, arXiv:1810.04805"),
    "bert-large": (partial(bert, "large"), "Devlin et al. 2018, arXiv:1810.04805"),
    "transformer-big": (transformer_big, "Vaswani et al. 2017, arXiv:1706.03762"),
    "gnmt": (gnmt, "NVIDIA/DeepLearningExamples PyTorch/Translation/GNMT; Wu et al. 2016, arXiv:1609.08144"),
    "dlrm": (dlrm, "NVIDIA/DeepLearningExamples PyTorch/Recommendation/DLRM; arXiv:1906.00091"),
    "mlp": (mlp, "784, 4096, 4096, 4096 and 10 values, ReLU between"),
}
"""By name: the builder, and where the architecture is told."""


@lru_cache(maxsize=32)
def network_preset(name: str) -> Network:
    """The network of a preset in `NETWORKS`."""
    return NETWORKS[name][0]()
