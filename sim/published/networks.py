"""Rows of models that are no decoders, each as a Job and a Strategy.

TensorFlow's benchmarks of 2017 exchange parameters in the process of one machine: `replicated` all-reduces
them, with NCCL or without, after backward; `parameter_server` keeps each variable on one of the GPUs, or on
the host, which is taken for the same: either way every GPU fetches all parameters and sends all gradients
over its PCIe once, in a step of the session that begins when all of the one before is done; its gradients are
taken to be sent after backward. NVIDIA's Deep Learning Examples are data-parallel with gradients reduced
during backward.
"""

from __future__ import annotations

from ..model.model import Model
from ..model.networks.presets import NETWORKS, network_preset
from ..plan.job import Job
from ..plan.strategy import Strategy
from . import derivations
from .left_out import LeftOutError
from .table import Row

MODELS = {
    # tf_cnn_benchmarks has ResNet with the stride first, and Inception without its auxiliary classifier.
    "inceptionv3": "inception-v3",
    "resnet-50": "resnet50-v1",
    "resnet-152": "resnet152-v1",
    "alexnet": "alexnet",
    "vgg16": "vgg16",
    "mxnet/classification/rn50v1.5": "resnet50",
    "paddlepaddle/classification/rn50v1.5": "resnet50",
    "pytorch/classification/convnets/resnet50v1.5": "resnet50",
    "tensorflow/classification/convnets/resnet50v1.5": "resnet50",
    "pytorch/classification/convnets/resnext101-32x4d": "resnext101-32x4d",
    "tensorflow/classification/convnets/resnext101-32x4d": "resnext101-32x4d",
    "paddlepaddle/languagemodeling/bert": "bert-large",
    "pytorch/languagemodeling/bert": "bert-large",
    "tensorflow2/languagemodeling/bert": "bert-large",
}
"""What the tables call a model, in small letters."""
TENSORFLOW_2017 = "tensorflow-2017"
EXAMPLES = {"paddlepaddle": "nvidia-examples"}
EXAMPLES_ELSE = "nvidia-examples-autocast"
"""The stacks they ran on, of NVIDIA's examples by framework."""
PRECISIONS = ("fp32", "tf32", "fp16")
BINNED, BINNED_ABOVE = ("paddlepaddle/languagemodeling/bert", "pytorch/languagemodeling/bert"), 128
"""In the second phase samples of up to 512 tokens come in bins of 64, each as long as its longest
(run_pretraining.sh, `phase2_bin_size`)."""
OPTIMIZERS = {"sgd": "sgd", "momentum": "momentum", "lamb": "adamw"}
"""LAMB keeps what AdamW keeps."""


def is_network(row: Row) -> bool:
    """Whether ``row`` is one of these."""
    return row.get("model").lower() in MODELS


def network_job(row: Row) -> Job:
    """What was trained. Raises LeftOutError where the row does not say with how many samples."""
    name = MODELS[row.get("model").lower()]
    model = Model(name=name, network=network_preset(name), source=NETWORKS[name][1])
    optimizer, precision = OPTIMIZERS.get(row.get("optimizer")), row.get("precision")
    if optimizer is None or precision not in PRECISIONS:
        raise LeftOutError(f"precision {precision or 'blank'} or optimizer not modelled")
    length = 1
    if network_preset(name).max_tokens > 1:
        length = _whole(row, "seq_len")
        if length > BINNED_ABOVE and row.get("model").lower() in BINNED:
            raise LeftOutError("lengths of binned sequences not stated")
    return Job(
        model=model,
        global_batch=_whole(row, "global_batch"),
        seq_len=length,
        optimizer=optimizer,
        precision=precision,
        dropout=False,
    )


def network_strategy(row: Row) -> Strategy:
    """How it was trained: by its `variable_update` (2017), else as NVIDIA's examples are."""
    gpus, batch = _whole(row, "gpus"), _whole(row, "micro_batch")
    update = row.get("variable_update")
    if not update:
        stack = EXAMPLES.get(row.get("model").lower().partition("/")[0], EXAMPLES_ELSE)
        return Strategy(dp=gpus, micro_batch=batch, stack=stack, attention="unfused")
    if update.startswith("replicated") or (update == "parameter_server" and gpus == 1):
        return Strategy(dp=gpus, micro_batch=batch, stack=TENSORFLOW_2017, overlap_gradients=False)
    if update != "parameter_server" or row.get("sync") not in ("", "sync"):
        raise LeftOutError(f"variable update {update} not modelled")
    return Strategy(
        dp=gpus,
        micro_batch=batch,
        stack=TENSORFLOW_2017,
        gradient_exchange="parameter_server",
        servers=gpus,
        servers_colocated=True,
        overlap_gradients=False,
    )


def _whole(row: Row, name: str) -> int:
    value = derivations.whole(row, name)
    if value is None:
        raise LeftOutError(f"{name} blank")
    return value
