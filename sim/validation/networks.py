"""Rows of models that are no decoders, each as a Job and a Strategy: TensorFlow's benchmarks of 2017.

Their parameters are exchanged in the process of one machine: `replicated` all-reduces them, with NCCL or
without, after backward; `parameter_server` keeps each variable on one of the GPUs, or on the host, which is
taken for the same: either way every GPU fetches all parameters and sends all gradients over its PCIe once.
"""

from __future__ import annotations

from ..job import Job
from ..model import Model
from ..networks.presets import NETWORKS, network_preset
from ..strategy import Strategy
from . import derivations
from .left_out import LeftOutError
from .table import Row

MODELS = {
    "inceptionv3": "inception-v3",
    "resnet-50": "resnet50-v1",
    "resnet-152": "resnet152-v1",
    "alexnet": "alexnet",
    "vgg16": "vgg16",
}
"""What TensorFlow's benchmarks call a model (tf_cnn_benchmarks has ResNet with the stride first, Inception
without its auxiliary classifier), in small letters."""
STACK = "tensorflow-2017"


def is_network(row: Row) -> bool:
    """Whether ``row`` is one of these."""
    return bool(row.get("variable_update")) and row.get("model").lower() in MODELS


def network_job(row: Row) -> Job:
    """What was trained, in fp32 with plain gradient descent."""
    name = MODELS[row.get("model").lower()]
    batch = derivations.whole(row, "global_batch")
    if batch is None:
        raise LeftOutError("global_batch blank")
    model = Model(name=name, network=network_preset(name), source=NETWORKS[name][1])
    return Job(model=model, global_batch=batch, seq_len=1, optimizer="sgd", precision="fp32")


def network_strategy(row: Row) -> Strategy:
    """How its variables are updated."""
    gpus, batch = derivations.whole(row, "gpus"), derivations.whole(row, "micro_batch")
    if gpus is None or batch is None:
        raise LeftOutError("micro_batch blank")
    update = row.get("variable_update")
    if update.startswith("replicated") or (update == "parameter_server" and gpus == 1):
        return Strategy(dp=gpus, micro_batch=batch, stack=STACK, overlap_gradients=False)
    if update != "parameter_server" or row.get("sync") not in ("", "sync"):
        raise LeftOutError(f"variable update {update} not modelled")
    return Strategy(
        dp=gpus,
        micro_batch=batch,
        stack=STACK,
        gradient_exchange="parameter_server",
        servers=gpus,
        servers_colocated=True,
    )
