"""Software stacks: what the kernels of a layer are made of, and what the host spends to launch them.

A stack is a set of facts about the code that trains: which operations it fuses, in what precision it keeps
what, how often it reads the logits. `Strategy.stack` names one, `Strategy.software` is it. What a device
reaches is in its own file (`cluster.Accelerator`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

NORMS = ("fused", "two_pass", "autocast", "eager", "eager_half")
LOSSES = ("fused", "torch", "vocab_parallel")
ACCUMULATIONS = ("fused", "same", "sharded")
OPTIMIZERS = ("fused", "foreach")

FRAGMENTATION = 0.05
"""Of what is allocated, the share that PyTorch's caching allocator holds beside it in blocks too small to be
used: max_memory_reserved over max_memory_allocated on the fullest rank of 43 runs of Megatron-LM on B200, in
the mean and the median (MooreThreads/SimuMax docs/b200/b200_release_v1.2_summary.json: 2 % to 9 %)."""

GATHERED_LOSS_FRAGMENTATION = 0.36
"""The same of logits and loss, where gathered logits and their fp32 copies take turns with layers: what the
allocator's algorithm holds beyond what is used when a last stage's allocations are played through it
(benchmarks/caching_allocator.py)."""

EXPANDABLE_FRAGMENTATION = 0.0
"""Where segments grow in place (PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True): nothing but
rounding to pages of 2 MiB (PyTorch, "CUDA semantics", Optimizing memory usage)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """One software stack. The defaults are Megatron Core with Transformer Engine."""

    name: str
    description: str
    source: str
    """Where the code says so."""
    norm: str = "fused"
    """`fused`: one kernel each way; `two_pass`: backward reads twice, once for the gain's gradient (Apex,
    torch's layer_norm); `autocast`: the same in fp32 between two casts; `eager`: RMSNorm operation by
    operation in fp32, as plain torch has it; `eager_half`: the same mostly in the layer's own precision."""
    fused_activation: bool = True
    """SwiGLU (or bias and GeLU) is one kernel; else silu and the product are two."""
    fused_rope: bool = True
    """Rotary positions are one kernel; else casts to fp32, a complex product, and back."""
    fused_bias_gradient: bool = True
    """Gradients of biases fall out of the GEMMs; else each is a sum over the tokens."""
    loss: str = "vocab_parallel"
    """`fused`: one kernel each way over the logits; `torch`: a cast to fp32, log-softmax, and back;
    `vocab_parallel`: Megatron-LM's, operation by operation on fp32 logits."""
    loss_metrics: int = 0
    """Cross-entropies that are computed again for each micro-batch, to be logged."""
    attention_copies: str = "none"
    """Flash attention's `output` is copied from heads to tokens; or `unpad`: inputs are gathered from the
    padded batch, and the output scattered back. Without flash attention its output is always copied."""
    fused_gate_up: bool = True
    """Gate and up of SwiGLU are one GEMM; else two, each of which sums the gradient of its input over the
    tensor-parallel ranks, unless their sequences are split."""
    accumulation: str = "fused"
    """Gradients of weights are added to the accumulated ones inside their GEMM (`fused`, in fp32), by a
    kernel of its own in their own precision (`same`), or are shared out at once (`sharded`)."""
    overlaps_input_gradients: bool = True
    """The gradient of a column-parallel GEMM's input is summed over the tensor-parallel ranks while that
    of its weight is computed."""
    half_gradients: bool = False
    """Gradients are accumulated and reduced in the weights' own precision also where GEMMs add them
    themselves."""
    fp8_inputs: bool = True
    """In fp8 the inputs of GEMMs are kept as they were cast (Transformer Engine); else before the cast."""
    optimizer: str = "fused"
    """`fused`: one kernel over all parameters; `foreach`: one for each operation of the update."""
    repeats_keys: bool = False
    """Grouped keys and values are repeated for every head before they are exchanged (context parallelism)."""
    recompute_stops_early: bool = False
    """A block that is computed again is not finished: what only its successor reads is left out (PyTorch's
    non-reentrant checkpoint, `set_checkpoint_early_stop`)."""
    clips_gradients: bool = True
    """The norm of all gradients is taken and they are scaled."""
    keeps_logits: bool = True
    """The logits stand beside what backward makes of the loss; else they are dropped before it."""
    norm_speed: float = 1.0
    """Of the norms of networks that are no decoders beside other kernels that are bound by memory."""
    convolution_speed: float = 1.0
    """Of convolutions beside those of cuDNN 7."""
    autocast: bool = False
    """Decoders run eagerly on fp32 weights under torch.autocast, operation by operation; the residual stream
    is fp32 (`kernels/torch_kernels.py`). What of the fields above a stack says of kernels does not count."""
    compiles_blocks: bool = False
    """With `autocast`: torch.compile has compiled each block, which fuses what is between its GEMMs."""
    autocasts: bool = False
    """Of networks that are no decoders, layer norms and attention's softmax are in fp32 between casts."""
    transposes_tf32: bool = False
    """Images lie channel by channel where jobs are in tf32, and are transposed before and after every
    convolution, whose tensor cores want all channels of a place together."""
    filters_lines: bool = True
    """Convolutions with windows of one row or column have fast algorithms too."""
    gathers_logits: bool = False
    """Every tensor-parallel rank gathers the logits of the whole vocabulary for its loss."""
    regathers_inputs: bool = True
    """With sequence parallelism the input of a GEMM is kept split, and gathered again for backward
    (Korthikanti et al. 2022, section 4.2.2); else every rank keeps it whole."""
    fragmentation: float = FRAGMENTATION
    """Of what is allocated, the share that the allocator holds beside it and cannot use."""
    loss_fragmentation: float = 0.0
    """The same of logits and loss, in addition."""
    vocab_multiple: int = 1
    """Each tensor-parallel rank's part of the vocabulary is padded to a multiple of it."""
    scatters_messages: bool = False
    """What all tensor-parallel ranks have alike is sent to the next stage in parts, one by each."""
    reduces_whole_gradients: bool = False
    """With sharded optimizer states gradients are still all-reduced, in fp32, of which each rank then takes
    its part."""
    gather_pieces: int = 1
    """All-gathers in which the sharded parameters of one block come together."""
    host_launch_s: float = 0.0
    """Seconds of the host for one launch: interpreter, dispatcher, autograd. A layer takes no less than its
    launches; 0 where they are recorded once (CUDA graphs)."""
    host_backward_launch_s: float = 0.0
    """The same in a backward, which autograd runs without an interpreter; 0 is as in a forward."""
    host_recompute_s: tuple[tuple[str, float], ...] = ()
    """(recompute policy, seconds of the host to manage one block's checkpoint), of eager frameworks."""


_MEGATRON = Stack(
    name="megatron",
    description="Megatron Core with Transformer Engine",
    source="NVIDIA/Megatron-LM core/extensions/transformer_engine.py, core/tensor_parallel/cross_entropy.py",
    vocab_multiple=128,
    host_launch_s=80e-6,
    scatters_messages=True,
)

_MEGATRON_2022 = replace(
    _MEGATRON,
    name="megatron-2022",
    description="Megatron-LM before Transformer Engine: Apex norms, kernels fused by torch.jit",
    source="NVIDIA/Megatron-LM v3.0 megatron/mpu/layers.py, fused_kernels, model/transformer.py",
    norm="two_pass",
    fused_bias_gradient=False,
    accumulation="same",
    host_launch_s=53e-6,
)

_MEGATRON_2021 = replace(
    _MEGATRON_2022,
    name="megatron-2021",
    description="the same before gradients of inputs were summed while GEMMs run",
    source="NVIDIA/Megatron-LM v2.5: fused_kernels/layer_norm_cuda_kernel.cu, fused_bias_gelu.py, "
    "transformer.py bias_dropout_add, mpu/cross_entropy.py",
    overlaps_input_gradients=False,
)

_DEEPSPEED = replace(
    _MEGATRON_2021,
    name="megatron-deepspeed",
    description="Megatron-DeepSpeed: Megatron-LM of 2021 under DeepSpeed's engine",
    source=f"microsoft/Megatron-DeepSpeed, forked from {_MEGATRON_2021.source}",
    scatters_messages=False,
)

_SCALING = Stack(
    name="scaling",
    description="Aleph Alpha's scaling: plain torch but for attention, GEMMs and RMSNorm",
    source="Aleph-Alpha/scaling src/scaling/core; Hagemann et al. 2023, arXiv:2311.05610",
    norm="two_pass",
    fused_activation=False,
    fused_rope=False,
    fused_gate_up=False,
    attention_copies="output",
    accumulation="same",
    optimizer="foreach",
    loss="torch",
    gathers_logits=True,
    regathers_inputs=False,
    overlaps_input_gradients=False,
    loss_fragmentation=GATHERED_LOSS_FRAGMENTATION,
    reduces_whole_gradients=True,
)

_COMPOSER = Stack(
    name="composer",
    description="LLM Foundry on Composer and FSDP: low-precision LayerNorm, fused cross-entropy",
    source="mosaicml/llm-foundry llmfoundry/models/mpt/configuration_mpt.py, layers/norm.py",
    norm="two_pass",
    fused_activation=False,
    fused_bias_gradient=False,
    loss="fused",
    loss_metrics=2,
    attention_copies="unpad",
    accumulation="sharded",
    optimizer="foreach",
    overlaps_input_gradients=False,
)

_TORCHTITAN_COMPILED = Stack(
    name="torchtitan-compile",
    description="torchtitan with FSDP2, each block compiled by torch.compile",
    source="pytorch/torchtitan torchtitan/parallelisms/parallelize_llama.py, apply_compile",
    repeats_keys=True,
    loss="torch",
    accumulation="sharded",
    recompute_stops_early=True,
    keeps_logits=False,
    regathers_inputs=False,
    fragmentation=EXPANDABLE_FRAGMENTATION,
    overlaps_input_gradients=False,
    fp8_inputs=False,
)

EXECUTOR_STACK = "torch-autocast"
"""What `traincast run` is, and what it profiles on GPUs."""
EAGER_LAUNCH_S, EAGER_BACKWARD_LAUNCH_S = 45e-6, 27e-6
"""Seconds of the host for a kernel of an eager block. Forward: Python, dispatcher, autocast and autograd
together, 39 to 56 us in blocks of five models whose device waited; backward: autograd's C++ alone, 25 to
36 us (medians of profiled layers at micro-batch 2, torch 2.11 on a virtual machine with an H200,
benchmarks/results/gpu_nvidia-h200_2026-11-27.json)."""
EAGER_RECOMPUTE_S = (("selective", 0.4e-3), ("full", 1.9e-3))
"""Seconds of the host to manage a checkpoint: contexts, the generator's state, a hook in Python for every
tensor that is saved. Steps of GPT-2 of 124 million and 1.6 billion parameters that wait for the host took
1.9 ms a block longer in full than launches explain, 0.4 ms selectively (the same record)."""

_AUTOCAST = Stack(
    name=EXECUTOR_STACK,
    description="plain torch under autocast, as `traincast run` trains",
    source="executor/model, executor/train/stage.py; PyTorch, Automatic Mixed Precision package",
    autocast=True,
    accumulation="same",
    loss="torch",
    keeps_logits=False,
    clips_gradients=False,
    regathers_inputs=False,
    overlaps_input_gradients=False,
    recompute_stops_early=True,
    host_launch_s=EAGER_LAUNCH_S,
    host_backward_launch_s=EAGER_BACKWARD_LAUNCH_S,
    host_recompute_s=EAGER_RECOMPUTE_S,
)

_NVIDIA_EXAMPLES = Stack(
    name="nvidia-examples",
    description="NVIDIA's Deep Learning Examples of 2020 and later: cuDNN 7 and 8, Apex, AMP",
    source="NVIDIA/DeepLearningExamples@729963d, PyTorch/Classification/ConvNets/configs.yml",
    transposes_tf32=True,
    clips_gradients=False,
)

_ALL = (
    _MEGATRON,
    replace(
        _MEGATRON,
        name="megatron-fused-loss",
        description="Megatron Core with Transformer Engine's fused cross-entropy",
        source="NVIDIA/Megatron-LM --cross-entropy-loss-fusion, --cross-entropy-fusion-impl te",
        loss="fused",
    ),
    replace(
        _MEGATRON,
        name="megatron-bridge",
        description="Megatron Core as Megatron-Bridge's performance recipes set it: bf16 gradients",
        source="NVIDIA-NeMo/Megatron-Bridge scripts/performance, grad_reduce_in_fp32 = False",
        half_gradients=True,
    ),
    _MEGATRON_2022,
    _MEGATRON_2021,
    _DEEPSPEED,
    replace(
        _DEEPSPEED,
        name="deepspeed-zero3",
        description="the same with ZeRO-3 of 2021, which gathers a block's twelve tensors one by one",
        source="microsoft/Megatron-DeepSpeed, microsoft/DeepSpeed v0.4 "
        "runtime/zero/partition_parameters.py, `_allgather_params`",
        gather_pieces=12,
    ),
    replace(
        _DEEPSPEED,
        name="vtrain",
        description="Megatron-DeepSpeed as vTrain profiles it: the vocabulary unpadded, torch's loss",
        source="VIA-Research/vTrain src/model/gpt_modeling.py, src/trainer.py",
        loss="torch",
        vocab_multiple=1,
    ),
    _SCALING,
    replace(
        _SCALING,
        name="scaling-torch-norm",
        description="the same without the fused RMSNorm",
        source="Aleph-Alpha/scaling src/scaling/core/nn: norm/rms_norm.py, mlp.py, rotary.py",
        norm="eager_half",
    ),
    _COMPOSER,
    replace(
        _COMPOSER,
        name="composer-2022",
        description="mosaic_gpt of 2022 on Composer and FSDP: autocast LayerNorm, torch's loss",
        source="mosaicml/examples llm/src/mosaic_gpt.py, December 2022",
        norm="autocast",
        loss="torch",
    ),
    replace(
        _TORCHTITAN_COMPILED,
        name="torchtitan",
        description="torchtitan with FSDP2, eager",
        source="pytorch/torchtitan torchtitan/models/llama/model.py",
        norm="eager",
        fused_activation=False,
        fused_rope=False,
        fused_gate_up=False,
        attention_copies="output",
    ),
    _TORCHTITAN_COMPILED,
    replace(
        _TORCHTITAN_COMPILED,
        name="torchtitan-2025-compile",
        description="torchtitan since 2025: the loss is compiled too, without fp32 copies of the logits",
        source="pytorch/torchtitan torchtitan/components/loss.py, build_cross_entropy_loss",
        loss="fused",
    ),
    _AUTOCAST,
    replace(
        _AUTOCAST,
        name="torch-autocast-compile",
        description="the same, each block compiled by torch.compile",
        compiles_blocks=True,
    ),
    _NVIDIA_EXAMPLES,
    replace(
        _NVIDIA_EXAMPLES,
        name="nvidia-examples-autocast",
        description="the same on PyTorch or TensorFlow, which keep norms and softmax in fp32",
        source="PyTorch, Automatic Mixed Precision package, CUDA Ops that can autocast to float32; "
        "tensorflow/models official/nlp, layer norms with dtype=tf.float32",
        autocasts=True,
    ),
    Stack(
        name="tensorflow-2017",
        description="TensorFlow 1.1 with cuDNN 5.1: norms of one kernel each way, all else one by one",
        source="tensorflow/benchmarks scripts/tf_cnn_benchmarks, May 2017; cuDNN 5.1 user guide, convolution "
        "algorithms; both speeds fitted on TensorFlow's published training of five networks on P100 and K80 "
        "(tensorflow.org/performance/benchmarks); each network left out in turn, it is met within 9.8 %",
        norm_speed=0.34,
        convolution_speed=0.78,
        filters_lines=False,
        clips_gradients=False,
    ),
)

STACKS: Mapping[str, Stack] = {stack.name: stack for stack in _ALL}
"""By name."""

DEFAULT_STACK = "megatron"
